"""The loss of a step, as a sum of named terms."""

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from meshwright.cameras import Cameras
from meshwright.losses import charbonnier, normal_roughness, silhouette_error
from meshwright.mesh import Mesh
from meshwright.shape.refine.pyramid import Pictures
from meshwright.shape.refine.scene import (
    Comparison,
    RenderedGeometry,
    Topology,
    comparable_pixels,
    compare_with_neighbors,
    draw_rows,
    render_geometry,
)
from meshwright.shape.refine.stages import Stage

COLOR_SCALE = 0.03  # sRGB: larger differences of colour have more and more often other reasons than shape
_PHOTO, _DEPTH, _NORMALS = 400.0, 200.0, 60.0  # weights; that of the silhouettes is 1
_DEPTH_SCALE = 0.01  # of the mesh's size: robust beyond
_NORMAL_SCALE = 0.1  # differences of unit normals: robust beyond
_PIXELS = 20_000  # compared in a step


@dataclass(frozen=True, eq=False)
class LossTerms:
    """Each with its weight: what the sum of them is made of. None where the views do not have it.

    ``silhouettes``: differences of coverage. ``smoothness``: normals of neighbouring faces. ``area``: of the surface.
    ``photo``: colours of one point in several views. ``depth``, ``normals``: against those given with the views.
    ``cameras``: how large the corrections of the cameras are.
    """

    silhouettes: Float[Tensor, ""]
    smoothness: Float[Tensor, ""]
    area: Float[Tensor, ""]
    photo: Float[Tensor, ""] | None = None
    depth: Float[Tensor, ""] | None = None
    normals: Float[Tensor, ""] | None = None
    cameras: Float[Tensor, ""] | None = None

    def named(self) -> dict[str, Tensor]:
        """The terms that there are, in order."""
        fields = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        return {name: term for name, term in fields if term is not None}

    def total(self) -> Float[Tensor, ""]:
        first, *others = self.named().values()
        return sum(others, start=first)

    def __str__(self) -> str:
        return ", ".join(f"{name} {float(term.detach()):.3f}" for name, term in self.named().items())


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the mesh is compared with in some steps.

    ``pictures``: of all views, at the stage's size. ``neighbors``: of each view the views nearest to it.
    ``depth_z``: of the mesh in all views, which says what is hidden. ``view_weights``: how far each view is believed.
    ``size``: half the diagonal of the mesh's box, the unit of area and depth.
    """

    pictures: Pictures
    neighbors: Int[Tensor, "views others"]
    depth_z: Float[Tensor, "views height width"]
    view_weights: Float[Tensor, " views"]
    size: float


def loss_terms(
    vertices: Float[Tensor, "vertices 3"],
    topology: Topology,
    cameras: Cameras,
    chosen: Int[Tensor, " chosen"],
    evidence: Evidence,
    stage: Stage,
    random: torch.Generator,
    camera_penalty: Float[Tensor, ""] | None = None,
) -> LossTerms:
    """The terms over the ``chosen`` views, differentiable in vertices and cameras.

    ``camera_penalty`` is there if the cameras may move.
    """
    pictures = evidence.pictures[chosen]
    weights = evidence.view_weights[chosen]
    rendered = render_geometry(vertices, topology, cameras[chosen], *evidence.depth_z.shape[1:])
    outline = silhouette_error(rendered.coverage, pictures.alpha, pictures.kept.to(vertices.dtype))
    silhouettes = (outline * weights).mean()
    smoothness = stage.roughness * normal_roughness(vertices, topology.faces, topology.pairs, stage.crease)
    area = stage.area * _area(Mesh(vertices, topology.faces), evidence.size, camera_penalty is not None)
    photo = depth = normals = None
    if len(cameras) > 1:
        pixels = draw_rows(comparable_pixels(rendered, pictures), _PIXELS, random)
        comparison = compare_with_neighbors(
            rendered, chosen, pixels, evidence.neighbors, cameras, evidence.pictures, evidence.depth_z, random
        )
        photo = _PHOTO * photo_error(comparison, evidence.view_weights)
    if pictures.depth_z is not None:
        offset = depth_offset(rendered, pictures, evidence.size)
        depth = _DEPTH * _robust_mean(offset.square() * pictures.kept, _DEPTH_SCALE, weights)
    if pictures.normals is not None:
        squared = normal_offset(Mesh(vertices, topology.faces), rendered, pictures)
        normals = _NORMALS * _robust_mean(squared * pictures.kept, _NORMAL_SCALE, weights)
    return LossTerms(silhouettes, smoothness, area, photo, depth, normals, camera_penalty)


def photo_error(comparison: Comparison, view_weights: Float[Tensor, " views"]) -> Float[Tensor, ""]:
    """Mean robust difference of colours, in multiples of `COLOR_SCALE`, over all points, unseen ones counting as 0."""
    weight = comparison.weight * view_weights[comparison.view] * view_weights[comparison.other]
    error = charbonnier(comparison.squared, COLOR_SCALE) / COLOR_SCALE
    return (weight * error).sum() / max(1, len(weight))


def depth_offset(rendered: RenderedGeometry, pictures: Pictures, size: float) -> Float[Tensor, "views height width"]:
    """How far behind the given depth the surface lies, in the mesh's size; 0 where either has none."""
    assert pictures.depth_z is not None
    both = (pictures.depth_z > 0) & (rendered.fragments.depth_z > 0)
    return torch.where(both, rendered.fragments.depth_z - pictures.depth_z, 0) / size


def normal_offset(mesh: Mesh, rendered: RenderedGeometry, pictures: Pictures) -> Float[Tensor, "views height width"]:
    """Squared difference between the given normals and those of the faces, 0 to 4; 0 where there is none of either."""
    assert pictures.normals is not None
    both = (pictures.normals.square().sum(3) > 0.5) & (rendered.fragments.face_ids >= 0)
    ours = normalize(mesh.face_normals(), dim=1)[rendered.fragments.face_ids[both]]
    squared = (ours - pictures.normals[both]).square().sum(1)
    return torch.zeros_like(rendered.coverage).index_put(both.nonzero(as_tuple=True), squared)


def _robust_mean(
    squared: Float[Tensor, "views height width"], scale: float, view_weights: Float[Tensor, " views"]
) -> Float[Tensor, ""]:
    return ((charbonnier(squared, scale) / scale).mean(dim=(1, 2)) * view_weights).mean()


def _area(mesh: Mesh, size: float, cameras_move: bool) -> Float[Tensor, ""]:
    """The surface's area in the mesh's size.

    If the cameras may move, its gradient does not shrink the whole: a smaller object nearer to them looks the same.
    """
    area = mesh.area() / size**2
    if not cameras_move:
        return area
    spread = (mesh.vertices - mesh.vertices.mean(0)).square().sum(1).mean()
    return area * spread.detach() / spread
