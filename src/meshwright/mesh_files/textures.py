"""Textures in files: as PNG, sampled at the vertices for formats without them, and those of several parts as one."""

import io

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image

from meshwright.mesh import Mesh
from meshwright.mesh_files.parts import MAX_TEXTURE_PX, Part

ATLAS_GUTTER_PX = 8


def png_bytes(texture: Float[torch.Tensor, "3 texture_height texture_width"]) -> bytes:
    pixels = (texture.permute(1, 2, 0).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=3)  # level 6 takes three times as long for 10 % less
    return stream.getvalue()


def colors_at_vertices(mesh: Mesh) -> Float[torch.Tensor, "vertices 3"] | None:
    """Vertex colours, or the texture seen at each vertex (at one of its uv where it lies on a seam)."""
    if mesh.texture is None:
        return mesh.vertex_colors
    assert mesh.uv is not None
    assert mesh.uv_faces is not None
    uv = mesh.vertices.new_zeros(len(mesh.vertices), 2)
    uv[mesh.faces.reshape(-1)] = mesh.uv[mesh.uv_faces.reshape(-1)]
    grid = (uv * 2 - 1) * uv.new_tensor([1.0, -1.0])  # grid_sample's rows run down
    sampled = torch.nn.functional.grid_sample(
        mesh.texture[None].to(uv), grid[None, :, None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return sampled[0, :, :, 0].T


def merge_textures(
    parts: list[Part],
) -> tuple[Float[np.ndarray, "uv_points 2"], Int[np.ndarray, "faces 3"], UInt8[np.ndarray, "height width 3"]]:
    """One texture and uv in [0, 1] for all parts: each distinct picture gets a cell of a grid, repeated where its
    texture coordinates run over its border (glTF's and OBJ's default is to repeat)."""
    cells: list[npt.NDArray[np.uint8]] = []
    cell_of_picture: dict[bytes, int] = {}
    uv_of_part, cell_of_part = [], []
    for part in parts:
        uv, picture = _one_turn(part)
        uv_of_part.append(uv)
        key = repr(picture.shape).encode() + picture.tobytes()
        if key not in cell_of_picture:
            cell_of_picture[key] = len(cells)
            cells.append(picture)
        cell_of_part.append(cell_of_picture[key])
    texture, corner, extent = _grid_of_pictures(cells)
    uv_all = np.concatenate(
        [corner[cell] + uv * extent[cell] for uv, cell in zip(uv_of_part, cell_of_part, strict=True)]
    )
    uv, uv_faces = np.unique(uv_all.astype(np.float32), axis=0, return_inverse=True)
    return uv, uv_faces.reshape(-1, 3), texture


def _one_turn(
    part: Part,
) -> tuple[Float[np.ndarray, "corners 2"], UInt8[np.ndarray, "texture_height texture_width 3"]]:
    """Texture coordinates of all face corners in [0, 1] and the picture they look into, repeated if need be."""
    if part.picture is None or part.uv is None:
        mean = np.ones(3) if part.colors is None else part.colors.mean(axis=0)
        return np.full((3 * len(part.faces), 2), 0.5), np.full((2, 2, 3), np.round(mean * 255), dtype=np.uint8)
    slack = 1e-4  # coordinates a rounding error outside do not ask for another copy of the picture
    uv = part.uv[part.faces].astype(np.float64)
    uv = (uv - np.floor(uv.min(axis=1, keepdims=True) + slack)).reshape(-1, 2)
    turns = np.ceil(uv.max(axis=0) - slack).clip(1, 1 << 20).astype(int)
    height, width = (
        max(1, min(side, MAX_TEXTURE_PX // turn))
        for side, turn in zip(part.picture.shape[:2], turns[::-1], strict=True)
    )
    repeats = np.minimum(turns, MAX_TEXTURE_PX)
    picture = np.tile(_resized(part.picture, height, width), (repeats[1], repeats[0], 1))
    return (uv / turns).clip(0, 1), picture


def _grid_of_pictures(
    pictures: list[npt.NDArray[np.uint8]],
) -> tuple[
    UInt8[np.ndarray, "texture_height texture_width 3"],
    Float[np.ndarray, "pictures 2"],
    Float[np.ndarray, "pictures 2"],
]:
    """All pictures in one, each with a gutter of its own border pixels; uv of their lower left corners and extents."""
    if len(pictures) == 1:
        return pictures[0], np.zeros((1, 2)), np.ones((1, 2))
    columns = int(np.ceil(np.sqrt(len(pictures))))
    rows = -(-len(pictures) // columns)
    gutter = ATLAS_GUTTER_PX
    room = MAX_TEXTURE_PX // columns - 2 * gutter
    shrink = min(1.0, room / max(max(picture.shape[:2]) for picture in pictures))
    pictures = [_resized(p, max(1, int(p.shape[0] * shrink)), max(1, int(p.shape[1] * shrink))) for p in pictures]
    cell_height, cell_width = (max(p.shape[axis] for p in pictures) + 2 * gutter for axis in (0, 1))
    canvas = np.zeros((rows * cell_height, columns * cell_width, 3), dtype=np.uint8)
    size = np.array([canvas.shape[1], canvas.shape[0]])
    corner, extent = np.empty((len(pictures), 2)), np.empty((len(pictures), 2))
    for number, picture in enumerate(pictures):
        top, left = number // columns * cell_height, number % columns * cell_width
        height, width = picture.shape[:2]
        padded = np.pad(picture, ((gutter, gutter), (gutter, gutter), (0, 0)), mode="edge")
        canvas[top : top + height + 2 * gutter, left : left + width + 2 * gutter] = padded
        corner[number] = (left + gutter) / size[0], 1 - (top + gutter + height) / size[1]
        extent[number] = np.array([width, height]) / size
    return canvas, corner, extent


def _resized(picture: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    if picture.shape[:2] == (height, width):
        return picture
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BOX))
