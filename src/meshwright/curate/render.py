"""Drawing an object from many views: one signature, two renderers.

Both draw the true surface: depth and normal are those of the triangle that the pixel's centre sees, and the normal
looks towards the camera, whichever way the triangle was wound. Colours are means over the pixel.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from meshwright.cameras import Cameras
from meshwright.curate.normalize import normalization_of, normalized
from meshwright.curate.object_files import Normalization, RenderedObject
from meshwright.curate.options import DrawOptions, Lighting
from meshwright.errors import InputError
from meshwright.mesh import Mesh
from meshwright.mesh_files import load_mesh
from meshwright.raster import render
from meshwright.srgb import linear_from_srgb, srgb_from_linear

MESH_SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl")
_PLAIN = 0.906  # sRGB of 0.8, the reflectance that Blender gives to what has no material
_STUDIO_BELOW, _STUDIO_ABOVE = 0.5, 1.0


@dataclass(frozen=True, eq=False)
class Drawn:
    """An object's pictures, and what was found out on the way."""

    rendered: RenderedObject
    normalization: Normalization
    bounds: tuple[tuple[float, float, float], tuple[float, float, float]]
    faces: int
    renderer: str
    warnings: tuple[str, ...]


Renderer = Callable[[str, Path, Cameras, DrawOptions, int], Drawn]
"""(name, mesh file, cameras, options, seed) -> pictures. Raises InputError where the file cannot be drawn."""


def render_builtin(name: str, path: Path, cameras: Cameras, options: DrawOptions, seed: int) -> Drawn:
    """Draw a mesh file with the package's own rasteriser.

    Raises:
        InputError: the file cannot be read, has no size, or the lighting needs Blender.
    """
    if options.lighting == "varied":
        raise InputError("`lighting='varied'` needs Blender; use `renderer='blender'`, or unlit or studio light")
    mesh = load_mesh(path)
    normalization = normalization_of(mesh, options.fit)
    mesh = normalized(mesh, normalization)
    rendered = draw(name, mesh, cameras, options.size_px, options.lighting)
    used = mesh.vertices[torch.unique(mesh.faces)]
    warnings = () if mesh.has_colors else ("the mesh has no colours: it is drawn grey",)
    return Drawn(
        rendered,
        normalization,
        (_point(used.amin(0)), _point(used.amax(0))),
        len(mesh.faces),
        f"meshwright {metadata.version('meshwright')}",
        warnings + framing_warnings(rendered),
    )


def draw(name: str, mesh: Mesh, cameras: Cameras, size_px: int, lighting: Lighting = "unlit") -> RenderedObject:
    """Pictures of a mesh that lies in [-1, 1]^3; one without colours is light grey all over."""
    count = len(cameras)
    if not mesh.has_colors:
        mesh = mesh.replace(vertex_colors=torch.full_like(mesh.vertices, _PLAIN))
    mesh = _unwelded(mesh)
    rgba = torch.zeros(count, 4, size_px, size_px, dtype=torch.uint8)
    depth_z, normals = torch.zeros(count, 1, size_px, size_px), torch.zeros(count, 3, size_px, size_px)
    for i in range(count):
        # Only the rectangle around the object is drawn: half the time.
        left, top, right, bottom = _rectangle_px(mesh, cameras[[i]], size_px)
        width, height = right - left, bottom - top
        if width <= 0 or height <= 0:
            continue
        camera = cameras[[i]].cropped(left / size_px, top / size_px, width / size_px, height / size_px)
        pictures = render(mesh, camera, height, width, background=0.0)
        window = (slice(i, i + 1), slice(None), slice(top, bottom), slice(left, right))
        depth_z[window] = pictures.depth_z
        normals[window] = _towards_camera(pictures.normals, camera)
        rgb = pictures.rgb / pictures.alpha.clamp(min=1e-6)  # black stood behind, so this takes the alpha out again
        if lighting == "studio":
            rgb = _lit(rgb, normals[window])
        rgba[window] = (torch.cat([rgb, pictures.alpha], dim=1).clamp(0, 1) * 255).round().to(torch.uint8)
    return RenderedObject(name, rgba, depth_z, normals, cameras)


def _rectangle_px(mesh: Mesh, camera: Cameras, size_px: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the part of the picture in which the mesh lies, with a pixel to spare."""
    uv, depth_z = camera.project(mesh.vertices)
    if bool((depth_z < 0.01).any()):  # something is beside or behind the camera
        return 0, 0, size_px, size_px
    low = (uv[0].amin(0) * size_px - 1).floor().clamp(0, size_px)
    high = (uv[0].amax(0) * size_px + 1).ceil().clamp(0, size_px)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def framing_warnings(rendered: RenderedObject) -> tuple[str, ...]:
    """Views that cut the object off, or see nothing of it."""
    alpha = rendered.rgba[:, 3]
    edge = torch.cat([alpha[:, 0], alpha[:, -1], alpha[:, :, 0], alpha[:, :, -1]], dim=1)
    cut = int((edge > 0).any(1).sum())
    empty = int((alpha == 0).flatten(1).all(1).sum())
    lines = ((cut, "cut the object off at the picture's edge"), (empty, "see nothing of the object"))
    return tuple(f"{count} of {len(alpha)} views {what}" for count, what in lines if count)


def _unwelded(mesh: Mesh) -> Mesh:
    """Three vertices of its own for each face, so that vertex normals are the faces'."""
    corners = mesh.faces.reshape(-1)
    return mesh.replace(
        vertices=mesh.vertices[corners],
        faces=torch.arange(len(corners)).view(-1, 3),
        vertex_colors=None if mesh.vertex_colors is None else mesh.vertex_colors[corners],
    )


def _towards_camera(
    normals: Float[Tensor, "views 3 height width"], cameras: Cameras
) -> Float[Tensor, "views 3 height width"]:
    directions = cameras.rays(*normals.shape[2:]).directions.permute(0, 3, 1, 2)
    return torch.where((normals * directions).sum(1, keepdim=True) > 0, -normals, normals)


def _lit(
    rgb: Float[Tensor, "views 3 height width"], normals: Float[Tensor, "views 3 height width"]
) -> Float[Tensor, "views 3 height width"]:
    """A dome of light, twice as bright above as below, on a matt surface; nothing throws a shadow."""
    light = (_STUDIO_ABOVE + _STUDIO_BELOW) / 2 + (_STUDIO_ABOVE - _STUDIO_BELOW) / 2 * normals[:, 2:]
    return srgb_from_linear(linear_from_srgb(rgb) * light)


def _point(values: Float[Tensor, "3"]) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return x, y, z
