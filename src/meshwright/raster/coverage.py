"""Which face is seen in which pixel: coverage, barycentric coordinates and depth.

A pixel shows the nearest face that covers its centre. Vertices are rounded to 1/4096 pixel and coverage is decided in
integers with the top-left rule, so a centre on the edge between two faces belongs to exactly one of them. Faces that
reach behind the camera are clipped first. Both sides of a face are drawn.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from meshwright.cameras import Cameras
from meshwright.raster import kernels
from meshwright.raster.kernels import GUARD_PX, NEAR_Z, OUTSIDE, SUBPIXEL_BITS

_CANDIDATES_AT_ONCE = 1 << 21  # pixels of bounding boxes looked at together by the torch path: about 400 MB
_NOTHING = 2**63 - 1  # the packed (depth_z, face) of a pixel that no face covers


@dataclass(frozen=True, eq=False)
class Fragments:
    """What each pixel sees.

    ``face_ids``: the face, -1 where there is none. ``barycentrics``: perspective-correct weights of its corners, 0
    where there is none. ``depth_z``: world units along the viewing axis, 0 where there is none. ``projected``: the
    vertices as (x_px * depth_z, y_px * depth_z, depth_z), pixel coordinates counted from the top left corner.
    """

    face_ids: Int[Tensor, "views height width"]
    barycentrics: Float[Tensor, "views height width 3"]
    depth_z: Float[Tensor, "views height width"]
    projected: Float[Tensor, "views vertices 3"]


@dataclass(frozen=True, eq=False)
class _Triangles:
    """Pieces of faces in rounded picture coordinates."""

    view: Int[Tensor, " triangles"]
    face: Int[Tensor, " triangles"]
    corners: Int[Tensor, "triangles 3 2"]


def rasterize(
    vertices: Float[Tensor, "vertices 3"], faces: Int[Tensor, "faces 3"], cameras: Cameras, height: int, width: int
) -> Fragments:
    """The face nearest to the camera in every pixel of every view; of equally near ones the lowest.

    The result does not depend on the number of threads, and is the same on all devices but for rounding in the
    projection. Barycentrics, depth_z and projected carry gradients to vertices and cameras. Parts nearer to the
    camera plane than 1e-5 world units are not seen. Vertices that are not finite take their faces with them.

    Raises:
        IndexError: a face names a vertex that does not exist.
    """
    # Rounding to 1/4096 pixel asks for more than float32; MPS has nothing better.
    dtype = torch.float32 if vertices.device.type == "mps" else torch.float64
    size_px = torch.tensor([width, height, width, height], dtype=dtype, device=vertices.device)
    cameras = cameras.to(dtype=dtype)
    cameras_px = Cameras(cameras.T_world_camera, cameras.intrinsics * size_px)
    projected = cameras_px.project_homogeneous(vertices.to(dtype))
    rasterize_there = _rasterize_cpu if vertices.device.type == "cpu" else _rasterize_torch
    return rasterize_there(projected.contiguous(), faces, height, width)


def _snap(projected: Float[Tensor, "*points 3"]) -> tuple[Int[Tensor, "*points 2"], Tensor]:
    """Rounded picture coordinates, and for which points these cannot be had."""
    xy = projected[..., :2] / projected[..., 2:]
    seen = (projected[..., 2] >= NEAR_Z) & (xy.abs() <= GUARD_PX).all(-1)
    rounded = (xy * (1 << SUBPIXEL_BITS)).round()
    return torch.where(seen[..., None], rounded, 0).long(), ~seen


def _clip(projected: Float[Tensor, "views vertices 3"], outside: Tensor, faces: Int[Tensor, "faces 3"]) -> _Triangles:
    """Cut faces with outside vertices to what lies before the near plane and within the guard band.

    Sutherland and Hodgman 1974, all faces at once. A cut runs from the inner to the outer vertex, so that two faces
    with a common edge cut it at the very same point.
    """
    if not bool(outside.any()):
        none = faces.new_zeros(0, dtype=torch.long)
        return _Triangles(none, none, none.view(0, 1, 1).expand(0, 3, 2))
    view, face = outside[:, faces].any(2).nonzero(as_tuple=True)
    polygon = projected[view[:, None], faces[face]]
    usable = polygon.isfinite().all(2).all(1) & (polygon[:, :, 2] >= NEAR_Z).any(1)
    view, face, polygon = view[usable], face[usable], polygon[usable]
    count = torch.full_like(face, 3)
    polygon, count = _cut(polygon, count, polygon[:, :, 2] - NEAR_Z)
    for nx, ny in ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0)):
        x, y, z = polygon.unbind(2)
        polygon, count = _cut(polygon, count, z * GUARD_PX + nx * x + ny * y)
    # Where coordinates are so large that a cut is lost in rounding, it may lie anywhere: integers must not overflow.
    xy = (polygon[:, :, :2] / polygon[:, :, 2:]).nan_to_num(0.0).clamp(-GUARD_PX, GUARD_PX)
    corners = (xy * (1 << SUBPIXEL_BITS)).round().long()
    fan = torch.stack([corners[:, [0, i, i + 1]] for i in range(1, corners.shape[1] - 1)], dim=1)
    real = torch.arange(2, corners.shape[1], device=count.device) < count[:, None]
    piece, _ = real.nonzero(as_tuple=True)
    return _Triangles(view[piece], face[piece], fan[real])


def _cut(
    polygon: Float[Tensor, "polygons corners 3"], count: Int[Tensor, " polygons"], distance: Tensor
) -> tuple[Tensor, Int[Tensor, " polygons"]]:
    """The part of each polygon (its first ``count`` corners) where ``distance`` >= 0."""
    slots = torch.arange(polygon.shape[1], device=polygon.device).expand(polygon.shape[:2])
    following = torch.where(slots + 1 < count[:, None], slots + 1, 0)
    polygon_next = polygon.gather(1, following[:, :, None].expand(-1, -1, 3))
    distance_next = distance.gather(1, following)
    real, inside, inside_next = slots < count[:, None], distance >= 0, distance_next >= 0
    inner = torch.where(inside[:, :, None], polygon, polygon_next)
    outer = torch.where(inside[:, :, None], polygon_next, polygon)
    d_inner, d_outer = torch.where(inside, distance, distance_next), torch.where(inside, distance_next, distance)
    crossing = inner + (d_inner / (d_inner - d_outer))[:, :, None] * (outer - inner)
    candidates = torch.stack([polygon, crossing], dim=2).flatten(1, 2)
    keep = torch.stack([real & inside, real & (inside != inside_next)], dim=2).flatten(1, 2)
    order = (~keep).to(torch.int8).argsort(dim=1, stable=True)[:, : polygon.shape[1] + 1]
    # A line cuts a triangle's remains twice at most, but for rounding.
    return candidates.gather(1, order[:, :, None].expand(-1, -1, 3)), keep.sum(1).clamp(max=order.shape[1])


def _rasterize_cpu(
    projected: Float[Tensor, "views vertices 3"], faces: Int[Tensor, "faces 3"], height: int, width: int
) -> Fragments:
    face_ids, weights, depth_z = _RasterizeCpu.apply(projected, faces, height, width)
    return Fragments(face_ids, weights, depth_z, projected)


class _RasterizeCpu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, projected: Tensor, faces: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        views = len(projected)
        face_array = kernels.trusted(faces, projected.shape[1])
        snapped = torch.empty(views, projected.shape[1], 2, dtype=torch.int32)
        kernels.over_points(
            kernels.snap,
            snapped.shape[0] * snapped.shape[1],
            projected.view(-1, 3).numpy(),
            snapped.view(-1, 2).numpy(),
        )
        clipped = _clip(projected, snapped[:, :, 0] == OUTSIDE, faces)
        face_ids = torch.empty(views, height, width, dtype=torch.long)
        weights, depth_z = torch.empty(views, height, width, 3), torch.empty(views, height, width)
        kernels.over_rows(
            kernels.rasterize,
            views,
            height,
            snapped.numpy(),
            projected.numpy(),
            face_array,
            clipped.view.numpy(),
            clipped.face.numpy(),
            clipped.corners.contiguous().numpy(),
            face_ids.numpy(),
            weights.numpy(),
            depth_z.numpy(),
        )
        ctx.save_for_backward(projected, face_ids)
        ctx.faces = face_array
        ctx.mark_non_differentiable(face_ids)
        return face_ids, weights, depth_z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor, grad_weights: Tensor, grad_depth_z: Tensor) -> tuple[Tensor, None, None, None]:
        projected, face_ids = ctx.saved_tensors
        grad = kernels.summed_over_rows(
            kernels.rasterize_backward,
            tuple(projected.shape),
            face_ids.shape[1],
            projected.numpy(),
            ctx.faces,
            face_ids.numpy(),
            grad_weights.contiguous().numpy(),
            grad_depth_z.contiguous().numpy(),
        )
        return torch.from_numpy(grad), None, None, None


def _rasterize_torch(
    projected: Float[Tensor, "views vertices 3"], faces: Int[Tensor, "faces 3"], height: int, width: int
) -> Fragments:
    """The torch twin of the compiled kernel, for any device, in bounded memory."""
    with torch.no_grad():
        snapped, outside = _snap(projected)
        clipped = _clip(projected, outside, faces)
        nearest = []
        for number in range(len(projected)):
            whole = (~outside[number][faces].any(1)).nonzero()[:, 0]  # faces that did not have to be clipped
            pieces = clipped.view == number
            corners = torch.cat([snapped[number][faces[whole]], clipped.corners[pieces]])
            face = torch.cat([whole, clipped.face[pieces]])
            nearest.append(_nearest(corners, face, projected[number], faces, height, width))
        packed = torch.stack(nearest)
        face_ids = torch.where(packed < _NOTHING, packed & 0xFFFFFFFF, -1).view(-1, height, width)
    view, row, col = seen = (face_ids >= 0).nonzero(as_tuple=True)
    weights, depth_z = _weights(projected[view[:, None], faces[face_ids[seen]]], col, row)
    return Fragments(
        face_ids,
        weights.new_zeros(*face_ids.shape, 3).index_put(seen, weights),
        depth_z.new_zeros(face_ids.shape).index_put(seen, depth_z),
        projected,
    )


def _nearest(
    corners: Int[Tensor, "triangles 3 2"],
    face: Int[Tensor, " triangles"],
    projected: Float[Tensor, "vertices 3"],
    faces: Int[Tensor, "faces 3"],
    height: int,
    width: int,
) -> Int[Tensor, " pixels"]:
    """For each pixel of one view the smallest (depth_z, face), packed in 64 bits: positive floats order like ints."""
    one, half = 1 << SUBPIXEL_BITS, 1 << (SUBPIXEL_BITS - 1)
    nearest = torch.full((height * width,), _NOTHING, device=projected.device)
    area = _cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    corners = torch.where((area < 0)[:, None, None], corners[:, [0, 2, 1]], corners)
    last_pixel = torch.tensor([width - 1, height - 1], device=corners.device)
    first = ((corners.amin(1) - half + one - 1) >> SUBPIXEL_BITS).clamp(min=0)
    size = (torch.minimum((corners.amax(1) - half) >> SUBPIXEL_BITS, last_pixel) - first + 1).clamp(min=0)
    count = size.prod(1)
    drawn = (area != 0) & (count > 0)
    corners, face, first, size, count = corners[drawn], face[drawn], first[drawn], size[drawn], count[drawn]
    ends = count.cumsum(0)
    for part in _parts(ends.cpu().numpy()):
        triangle = torch.repeat_interleave(torch.arange(part.start, part.stop, device=face.device), count[part])
        offset = torch.arange(len(triangle), device=face.device) + (ends[part.start] - count[part.start])
        offset = offset - (ends - count)[triangle]
        col = first[triangle, 0] + offset % size[triangle, 0]
        row = first[triangle, 1] + offset // size[triangle, 0]
        covered = _covers(corners[triangle], torch.stack([col, row], dim=1) * one + half)
        triangle, col, row = triangle[covered], col[covered], row[covered]
        _, depth_z = _weights(projected[faces[face[triangle]]], col, row)
        key = (depth_z.view(torch.int32).long() << 32) | face[triangle]
        nearest.scatter_reduce_(0, row * width + col, key, "amin")
    return nearest


def _parts(ends: np.ndarray) -> list[slice]:
    """Runs of triangles that hold at most _CANDIDATES_AT_ONCE pixels each, or a single triangle."""
    parts = []
    start = 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _CANDIDATES_AT_ONCE, side="right")))
        parts.append(slice(start, stop))
        start = stop
    return parts


def _covers(corners: Int[Tensor, "pixels 3 2"], xy: Int[Tensor, "pixels 2"]) -> Tensor:
    """Whether points lie in triangles of positive area, by the top-left rule."""
    covered = torch.ones(len(xy), dtype=torch.bool, device=xy.device)
    for i in range(3):
        start = corners[:, i]
        along = corners[:, (i + 1) % 3] - start
        top_left = (along[:, 1] < 0) | ((along[:, 1] == 0) & (along[:, 0] > 0))
        covered &= _cross(along, xy - start) >= (~top_left).long()
    return covered


def _weights(
    corners: Float[Tensor, "pixels 3 3"], col: Int[Tensor, " pixels"], row: Int[Tensor, " pixels"]
) -> tuple[Float[Tensor, "pixels 3"], Float[Tensor, " pixels"]]:
    """Barycentric coordinates and depth_z at pixel centres, as in kernels._pixel_weights."""
    z = corners[:, :, 2]
    xy = corners[:, :, :2] - torch.stack([col + 0.5, row + 0.5], dim=1).to(z.dtype)[:, None, :] * z[:, :, None]
    a, b, c = xy.unbind(1)
    edges = torch.stack([_cross(b, c), _cross(c, a), _cross(a, b)], dim=1)
    edges = torch.where((_sum3(edges) < 0)[:, None], -edges, edges)
    inside = ((edges >= 0).all(1) & (_sum3(edges) > 0))[:, None]
    # Where the weights are held within the face they do not follow the vertices.
    edges = torch.where(inside, edges, edges.detach().clamp(min=0))
    edges = torch.where((_sum3(edges) > 0)[:, None], edges, 1.0)
    z = torch.where(inside, z, z.detach())
    inverse = 1 / _sum3(edges)
    return (edges * inverse[:, None]).float(), (_sum3(edges * z) * inverse).clamp(min=NEAR_Z).float()


def _sum3(values: Float[Tensor, "pixels 3"]) -> Float[Tensor, " pixels"]:
    return values[:, 0] + values[:, 1] + values[:, 2]  # in the kernel's order, so that the bits agree


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
