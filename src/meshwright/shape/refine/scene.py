"""The mesh at hand as the cameras at hand see it, and its points in several pictures at once."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from meshwright.cameras import Cameras
from meshwright.mesh import Mesh
from meshwright.raster import Fragments, antialias, depth_tolerance, edge_partners, interpolate, rasterize
from meshwright.shape.refine.pyramid import Pictures, project_each, sample_views

_GRAZING_COS = 0.15  # surface seen at a flatter angle than this (81 degrees) shows nothing
_USABLE = 0.99  # share of usable pixels among the four that a colour is interpolated from: nearly all
_DEPTH_SLACK_PX = 3.0  # depth differences up to so many pixel sides are the surface itself


@dataclass(frozen=True, eq=False)
class Topology:
    """What follows from the faces alone.

    ``partners``: see `meshwright.raster.edge_partners`. ``pairs``: faces that share an edge.
    """

    faces: Int[Tensor, "faces 3"]
    partners: Int[Tensor, "faces 3"]
    pairs: Int[Tensor, "pairs 2"]

    @classmethod
    def of(cls, faces: Int[Tensor, "faces 3"]) -> "Topology":
        partners = edge_partners(faces)
        other = partners.flatten()
        half_edge = torch.arange(len(other), device=faces.device)
        once = half_edge < other
        return cls(faces, partners, torch.stack([half_edge[once] // 3, other[once] // 3], dim=1))


@dataclass(frozen=True, eq=False)
class RenderedGeometry:
    """The mesh in some views. ``coverage``: antialiased; ``points`` and ``normals``: of the surface in each pixel."""

    fragments: Fragments
    coverage: Float[Tensor, "views height width"]
    points: Float[Tensor, "views height width 3"]
    normals: Float[Tensor, "views height width 3"]


def render_geometry(
    vertices: Float[Tensor, "vertices 3"], topology: Topology, cameras: Cameras, height: int, width: int
) -> RenderedGeometry:
    """Draw the mesh; differentiable with respect to vertices and cameras, but for the normals."""
    fragments = rasterize(vertices, topology.faces, cameras, height, width)
    normals = Mesh(vertices.detach(), topology.faces).vertex_normals()
    seen = (fragments.face_ids >= 0)[..., None].to(vertices.dtype)
    return RenderedGeometry(
        fragments,
        antialias(seen, fragments, topology.faces, topology.partners)[..., 0],
        interpolate(fragments, topology.faces, vertices),
        normalize(interpolate(fragments, topology.faces, normals).detach(), dim=3),
    )


@dataclass(frozen=True, eq=False)
class Comparison:
    """Pixels of one view against what other views show of the same points.

    ``view`` and ``other``: the two views. ``squared``: squared difference of colours. ``weight``: 0 where the other
    view does not see the point, else how squarely both see it, at most 1. ``colors``: those in the other view.
    """

    view: Int[Tensor, " points"]
    other: Int[Tensor, " points"]
    squared: Float[Tensor, " points"]
    weight: Float[Tensor, " points"]
    colors: Float[Tensor, "points 3"]


def compare_views(
    points: Float[Tensor, "points 3"],
    normals: Float[Tensor, "points 3"],
    colors: Float[Tensor, "points 3"],
    view: Int[Tensor, " points"],
    other: Int[Tensor, " points"],
    cameras: Cameras,
    pictures: Pictures,
    depth_z: Float[Tensor, "views height width"],
) -> Comparison:
    """Compare the ``colors`` that ``view`` has of ``points`` with those in ``other``, hidden where ``depth_z`` says so.

    The gradient says where the points would have to move for the other view to agree: photo-consistency, as exact as
    the pictures are, whatever the size of the faces.
    """
    uv, z = project_each(cameras, other, points)
    usable = (pictures.opaque & pictures.kept)[..., None].to(colors.dtype)
    seen = sample_views(torch.cat([pictures.colors, usable, depth_z[..., None]], dim=3), other, uv)
    with torch.no_grad():
        positions = cameras.positions
        cos = (normalize(positions[other] - points, dim=1) * normals).sum(1).clamp(min=0)
        cos_own = (normalize(positions[view] - points, dim=1) * normals).sum(1).clamp(min=0)
        tolerance = depth_tolerance(z, cos, cameras.intrinsics[other, 1] * depth_z.shape[1])
        visible = (z > 0) & (seen[:, 3] > _USABLE) & (cos > _GRAZING_COS)
        visible &= (z - seen[:, 4]).abs() < _DEPTH_SLACK_PX * tolerance
        weight = torch.where(visible, cos * cos_own, 0)
    return Comparison(view, other, (seen[:, :3] - colors).square().sum(1), weight, seen[:, :3])


def comparable_pixels(rendered: RenderedGeometry, pictures: Pictures) -> Int[Tensor, "pixels 3"]:
    """Pixels (view, row, column) of the fit where both mesh and picture show the object."""
    return ((rendered.fragments.face_ids >= 0) & pictures.opaque & pictures.kept).nonzero()


def draw_rows(rows: Int[Tensor, "rows columns"], count: int, random: torch.Generator) -> Int[Tensor, "drawn columns"]:
    """Some of the rows, drawn by lot; all if there are no more than ``count``."""
    if len(rows) <= count:
        return rows
    return rows[torch.randint(len(rows), (count,), generator=random).to(rows.device)]


def compare_with_neighbors(
    rendered: RenderedGeometry,
    chosen: Int[Tensor, " chosen"],
    pixels: Int[Tensor, "pixels 3"],
    neighbors: Int[Tensor, "views others"],
    cameras: Cameras,
    pictures: Pictures,
    depth_z: Float[Tensor, "views height width"],
    random: torch.Generator,
) -> Comparison:
    """Pixels (number in ``chosen``, row, column) of rendered views, each against one neighbour of its view, by lot."""
    at = tuple(pixels.unbind(1))
    height, width = depth_z.shape[1:]
    # Not points[at]: the gradient of that adds up pixels drawn twice in the order in which threads happen to run.
    pixel = (pixels[:, 0] * height + pixels[:, 1]) * width + pixels[:, 2]
    view = chosen[pixels[:, 0]]
    lot = torch.randint(neighbors.shape[1], (len(pixels),), generator=random).to(view.device)
    return compare_views(
        rendered.points.flatten(0, 2).index_select(0, pixel),
        rendered.normals[at],
        pictures[chosen].colors[at],
        view,
        neighbors[view, lot],
        cameras,
        pictures,
        depth_z,
    )


def nearest_views(cameras: Cameras, count: int) -> Int[Tensor, "views others"]:
    """For each view the others, at most ``count``, from the most similar direction on, seen from the origin."""
    directions = normalize(cameras.positions, dim=1)
    cos = (directions @ directions.T).fill_diagonal_(-torch.inf)
    return cos.argsort(dim=1, descending=True, stable=True)[:, : min(count, len(cameras) - 1)]
