"""How good a mesh and cameras are: how well they predict pixels that were withheld from the fit."""

import dataclasses
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d

from meshwright.cameras import Cameras
from meshwright.losses import charbonnier
from meshwright.mesh import Mesh
from meshwright.shape.refine.pyramid import Pictures
from meshwright.shape.refine.scene import RenderedGeometry, Topology, compare_views, render_geometry
from meshwright.shape.refine.terms import COLOR_SCALE, depth_offset, normal_offset

_INSIDE = 0.99  # coverage of pixels that show nothing but the object
_OUTLINE_HAIR = 1 / 6  # mean difference of coverage over 3 x 3 pixels along an outline that is off by half a pixel
_DROPPED = 0.1  # share of the views, the worst, that do not count


@torch.no_grad()
def validation_error(
    mesh: Mesh, cameras: Cameras, pictures: Pictures, neighbors: Int[Tensor, "views others"], size: float
) -> float:
    """Mean squared error of the withheld pixels as the other views predict them.

    Colours are predicted by way of the mesh from the view's ``neighbors``, coverage by the mesh. Given depths, in
    units of ``size``, and normals count as well.
    """
    rendered = render_geometry(mesh.vertices, Topology.of(mesh.faces), cameras, *pictures.alpha.shape[1:])
    at = ((rendered.fragments.face_ids >= 0) & pictures.withheld).nonzero().unbind(1)
    colors, _ = _predicted_colors(rendered, at, cameras, pictures, neighbors)
    # Colours count where picture and mesh are wholly object: what outlines mix in is counted as coverage.
    inside = (pictures.opaque & (rendered.coverage > _INSIDE))[at]
    squared = _outline_offset(rendered.coverage, pictures.alpha).square()
    squared[at] += torch.where(inside, (colors - pictures.colors[at]).square().mean(1), 0)
    if pictures.depth_z is not None:
        squared = squared + depth_offset(rendered, pictures, size).square()
    if pictures.normals is not None:
        squared = squared + normal_offset(mesh, rendered, pictures) / 4
    return _mean_over_views(squared, pictures)


@torch.no_grad()
def coverage_error(mesh: Mesh, cameras: Cameras, pictures: Pictures) -> float:
    """The share of coverage in `validation_error`: what a mesh has lost shows here, however it looks."""
    rendered = render_geometry(mesh.vertices, Topology.of(mesh.faces), cameras, *pictures.alpha.shape[1:])
    return _mean_over_views(_outline_offset(rendered.coverage, pictures.alpha).square(), pictures)


def _mean_over_views(squared: Float[Tensor, "views height width"], pictures: Pictures) -> float:
    """Over the withheld pixels of all views but the worst."""
    errors = (squared * pictures.withheld).sum(dim=(1, 2)) / pictures.withheld.sum(dim=(1, 2)).clamp(min=1)
    counted = len(errors) - int(_DROPPED * len(errors))
    return float(errors.sort().values[:counted].mean())


@torch.no_grad()
def prediction_error(mesh: Mesh, cameras: Cameras, pictures: Pictures, neighbors: Int[Tensor, "views others"]) -> float:
    """Mean robust error of the colours of each picture as the others predict them by way of the mesh, fitted or not.

    For choosing between meshes of different topology that were refined alike: a surface where there is none shows one
    thing in one picture and another in the next. Only points that several pictures see count, for the others cannot be
    predicted; and coverage does not: a hull fills the outlines as well as the truth does, and thin parts are torn in
    any refined mesh. docs/shape.md has what other measures choose. Infinite if nothing is seen twice.
    """
    every = dataclasses.replace(pictures, kept=torch.ones_like(pictures.kept))
    rendered = render_geometry(mesh.vertices, Topology.of(mesh.faces), cameras, *pictures.alpha.shape[1:])
    inside = pictures.opaque & (rendered.coverage > _INSIDE) & (rendered.fragments.face_ids >= 0)
    at = inside.nonzero().unbind(1)
    colors, weight = _predicted_colors(rendered, at, cameras, every, neighbors)
    squared = (colors - pictures.colors[at]).square().sum(1)[weight > 0]
    return float(charbonnier(squared, COLOR_SCALE).mean()) if len(squared) > 0 else math.inf


def _predicted_colors(
    rendered: RenderedGeometry,
    at: tuple[Tensor, ...],
    cameras: Cameras,
    pictures: Pictures,
    neighbors: Int[Tensor, "views others"],
) -> tuple[Float[Tensor, "pixels 3"], Float[Tensor, " pixels"]]:
    """Colours of pixels ``at`` (views, rows, columns), as the neighbours of their views show the same surface.

    And how well these see it. What none of them sees, with weight 0, has the mean colour of its own view.
    """
    total = torch.zeros_like(rendered.points[at])
    weight = torch.zeros_like(total[:, :1])
    for other in neighbors.unbind(1):
        comparison = compare_views(
            rendered.points[at],
            rendered.normals[at],
            pictures.colors[at],
            at[0],
            other[at[0]],
            cameras,
            pictures,
            rendered.fragments.depth_z,
        )
        total += comparison.weight[:, None] * comparison.colors
        weight += comparison.weight[:, None]
    mean = _mean_colors(pictures)[at[0]]
    colors = torch.where(weight > 0, total / weight.clamp(min=torch.finfo(weight.dtype).tiny), mean)
    return colors, weight[:, 0]


def _outline_offset(
    coverage: Float[Tensor, "views height width"], alpha: Float[Tensor, "views height width"]
) -> Float[Tensor, "views height width"]:
    """Differences of coverage, but for those that an outline off by half a pixel makes.

    A hull was carved with the withheld pixels too, so its outlines are better than any fit's by a hair.
    """
    difference = avg_pool2d((coverage - alpha)[:, None], 3, stride=1, padding=1)[:, 0].abs()
    return (difference - _OUTLINE_HAIR).clamp(min=0)


def _mean_colors(pictures: Pictures) -> Float[Tensor, "views 3"]:
    """The prediction for points that no other view sees: the mean of the object in the picture, white apart."""
    weight = (pictures.alpha * pictures.kept)[..., None]
    colors = (pictures.colors - (1 - pictures.alpha[..., None])) * pictures.kept[..., None]
    return colors.sum(dim=(1, 2)) / weight.sum(dim=(1, 2)).clamp(min=1)
