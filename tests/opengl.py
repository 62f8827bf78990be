"""Meshes drawn by OpenGL (Mesa's llvmpipe on EGL, no display needed): pictures that the package had no part in.

The projection matrix is written out here once more from the conventions, on purpose.
"""

import os
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from meshwright import Cameras, Mesh, Views

NEAR, FAR = 0.05, 50.0
SUBPIXEL_PX = 1 / 256
"""To which llvmpipe rounds vertices; OpenGL asks for 1/16 or finer."""

_VERTEX = """
#version 330
uniform mat4 clip_from_world;
in vec3 position; in vec3 color; in vec2 uv;
out vec3 vertex_color; out vec2 vertex_uv; out float depth_z;
void main() {
    gl_Position = clip_from_world * vec4(position, 1.0);
    vertex_color = color; vertex_uv = uv; depth_z = gl_Position.w;
}
"""
_FRAGMENT = """
#version 330
uniform sampler2D picture; uniform bool textured;
in vec3 vertex_color; in vec2 vertex_uv; in float depth_z;
layout(location = 0) out vec4 shown; layout(location = 1) out vec4 geometry;
void main() {
    shown = vec4(textured ? textureLod(picture, vertex_uv, 0.0).rgb : vertex_color, 1.0);
    geometry = vec4(depth_z, float(gl_PrimitiveID), 0.0, 1.0);
}
"""


@dataclass(frozen=True, eq=False)
class Drawn:
    """As `meshwright.raster.Rendered` and `Fragments`, one sample a pixel."""

    rgb: Tensor  # (views, height, width, 3), 0 where nothing is
    depth_z: Tensor  # (views, height, width), 0 where nothing is
    face_ids: Tensor  # (views, height, width), -1 where nothing is


def draw(mesh: Mesh, cameras: Cameras, height: int, width: int) -> Drawn:
    """Draw the texture, else the vertex colours, else white; skips the test where OpenGL is not to be had."""
    os.environ.setdefault("LP_NUM_THREADS", "1")
    moderngl = pytest.importorskip("moderngl", reason="needs moderngl: pip install -e '.[gl]'")
    try:
        context = moderngl.create_context(standalone=True, backend="egl")
    except Exception as error:  # whatever the loader raises
        pytest.skip(f"needs EGL: apt install libegl1 libgl1-mesa-dri ({error})")
    with context:
        program = context.program(_VERTEX, _FRAGMENT)
        corners = mesh.faces.flatten()
        colors = torch.ones_like(mesh.vertices) if mesh.vertex_colors is None else mesh.vertex_colors
        uv = torch.zeros(len(corners), 2) if mesh.uv is None else mesh.uv[mesh.uv_faces.flatten()]
        buffer = context.buffer(torch.cat([mesh.vertices[corners], colors[corners], uv], dim=1).numpy().tobytes())
        array = context.vertex_array(program, [(buffer, "3f 3f 2f", "position", "color", "uv")])
        program["textured"].value = mesh.texture is not None
        if mesh.texture is not None:
            # OpenGL's first row is the lowest.
            rows = mesh.texture.flip(1).permute(1, 2, 0).contiguous().numpy().astype(np.float32)
            texture = context.texture(rows.shape[1::-1], 3, rows.tobytes(), dtype="f4")
            texture.filter, texture.repeat_x, texture.repeat_y = (moderngl.LINEAR,) * 2, False, False
            texture.use(0)
        size = (width, height)
        frame = context.framebuffer(
            [context.texture(size, 4, dtype="f4") for _ in range(2)], context.depth_texture(size)
        )
        frame.use()
        context.enable(moderngl.DEPTH_TEST)
        context.disable(moderngl.CULL_FACE)
        shown, geometry = [], []
        for i in range(len(cameras)):
            matrix = _clip_from_camera(cameras.intrinsics[i]) @ np.linalg.inv(
                cameras.T_world_camera[i].double().numpy()
            )
            program["clip_from_world"].write(matrix.T.astype(np.float32).tobytes())
            frame.clear()
            array.render()
            for attachment, pictures in enumerate((shown, geometry)):
                raw = np.frombuffer(frame.read(components=4, attachment=attachment, dtype="f4"), np.float32)
                pictures.append(torch.from_numpy(raw.reshape(height, width, 4)[::-1].copy()))
    colors, places = torch.stack(shown), torch.stack(geometry)
    covered = places[..., 3] > 0
    return Drawn(colors[..., :3], places[..., 0], torch.where(covered, places[..., 1].long(), -1))


def photograph(mesh: Mesh, cameras: Cameras, size_px: int, samples: int = 4) -> Views:
    """Square pictures on white, every pixel the mean of ``samples`` squared points."""
    fine = draw(mesh, cameras, samples * size_px, samples * size_px)
    seen = (fine.face_ids >= 0)[..., None]
    layers = torch.cat([torch.where(seen, fine.rgb, 1.0), seen], dim=3).permute(0, 3, 1, 2)
    layers = torch.nn.functional.avg_pool2d(layers, samples)
    sizes_px = torch.full((len(cameras), 2), size_px)
    return Views(layers[:, :3], layers[:, 3:], cameras, sizes_px, tuple(str(i) for i in range(len(cameras))))


def _clip_from_camera(intrinsics: Tensor) -> np.ndarray:
    """From the conventions: u = cx + fx x / w and v = cy - fy y / w with w = -z; u and v in [0, 1], v downwards."""
    fx, fy, cx, cy = intrinsics.double().tolist()
    return np.array(
        [
            [2 * fx, 0, 1 - 2 * cx, 0],
            [0, 2 * fy, 2 * cy - 1, 0],
            [0, 0, -(FAR + NEAR) / (FAR - NEAR), -2 * FAR * NEAR / (FAR - NEAR)],
            [0, 0, -1, 0],
        ]
    )
