"""Slow shading taken out of the pictures, so that a mesh can be lit anew.

The logarithm of a point's light is that of its own brightness plus two smooth functions of its normal, quadratic each
(as spherical harmonics to the second order: Ramamoorthi and Hanrahan 2001, "An efficient representation for irradiance
environment maps", section 3, show that diffuse light needs no more):

- light that moves with the camera (a turntable, a flash): a function of the normal as the camera sees it. Where views
  overlap they see one point under several such normals, which tells this light without any assumption about colours.
- light that stands still in the world: every view shows it alike, so only an assumption tells it. It is that most
  points of the same hue are of the same paint: differences of their brightness that the normals explain are shading
  (as in Land and McCann 1971, "Lightness and retinex theory"); larger ones are edges of paint and are left alone.

Colour of the light, cast shadows and highlights stay. Paint of one hue that really is brighter on one side than on the
other is taken for shading.
"""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from meshwright.color.visibility import VisibleSurface
from meshwright.mesh import Mesh
from meshwright.raster import interpolate, rasterize
from meshwright.srgb import linear_from_srgb, srgb_from_linear
from meshwright.views import Views

_MOST_POINTS = 20_000
_PAIRS_A_POINT = 4
_DARKEST = 0.01  # light: logarithms of less say nothing
_SAME_HUE = 0.03  # side of the squares of chromaticity in which points count as of one paint
_SCALES = (0.5, 0.3, 0.2, 0.1, 0.05, 0.05)  # of differences of logarithms beyond which paint changes, round by round
_PRIOR = 1e-3  # how much light is held to be even, next to what the points say
_STRONGEST = 1.4  # logarithm of light: shading is never taken to be more, a factor of 4


@torch.no_grad()
def delight(mesh: Mesh, views: Views, seed: int = 0) -> Views:
    """The views without slow shading: light of each pixel divided by what the mesh's normals say of its shading.

    Mesh and views in the object's frame (`meshwright.views.ObjectFrame`), on one device. The object's mean brightness
    stays. ``seed`` chooses the points that are compared.
    """
    of_camera, of_world = estimate_light(mesh, views, seed)
    normals, height, width = mesh.vertex_normals(), *views.images.shape[2:]
    drawn = []
    for i in range(len(views)):
        fragments = rasterize(mesh.vertices, mesh.faces, views.cameras[[i]], height, width)
        shading = interpolate(fragments, mesh.faces, shading_of(normals, views, i, of_camera, of_world)[:, None])
        drawn.append(torch.where((fragments.face_ids >= 0)[:, None], shading.permute(0, 3, 1, 2), torch.nan))
    shading = torch.cat(drawn)
    shading = (shading - shading.nanmean()).nan_to_num()  # what lies beside the mesh stays as it is
    straight = ((views.images - (1 - views.alpha)) / views.alpha.clamp(min=1 / 255)).clamp(0, 1)
    even = srgb_from_linear(linear_from_srgb(straight) * (-shading).exp()).clamp(0, 1)
    return replace(views, images=even * views.alpha + (1 - views.alpha))


def shading_of(
    normals: Float[Tensor, "points 3"],
    views: Views,
    view: int,
    of_camera: Float[Tensor, "8"],
    of_world: Float[Tensor, "8"],
) -> Float[Tensor, " points"]:
    """The logarithm of the light on points with these normals in a view, at most `_STRONGEST` from even light's."""
    R_camera_world = views.cameras.T_world_camera[view, :3, :3].T
    return (basis(normals @ R_camera_world.T) @ of_camera + basis(normals) @ of_world).clamp(-_STRONGEST, _STRONGEST)


def basis(normals: Float[Tensor, "*points 3"]) -> Float[Tensor, "*points 8"]:
    """Spherical harmonics of the first and second order, up to their factors; each has the mean 0 over the sphere."""
    x, y, z = normals.unbind(-1)
    return torch.stack([x, y, z, x * y, y * z, x * z, x * x - y * y, 3 * z * z - 1], dim=-1)


def estimate_light(mesh: Mesh, views: Views, seed: int = 0) -> tuple[Float[Tensor, "8"], Float[Tensor, "8"]]:
    """Coefficients of `basis` of the logarithm of light: of what moves with the camera, and of what stands still."""
    generator = torch.Generator().manual_seed(seed)
    all_normals = mesh.vertex_normals()
    chosen = torch.randperm(len(mesh.vertices), generator=generator)[:_MOST_POINTS].to(mesh.vertices.device)
    points, normals = mesh.vertices[chosen], all_normals[chosen]
    colors, weights, seen_normals = [], [], []
    for i in range(len(views)):
        srgb, quality = VisibleSurface.of(mesh, views[[i]]).sample_view(points, normals)
        light = linear_from_srgb(srgb)
        colors.append(light)
        weights.append(torch.where(light.amin(1) > _DARKEST, quality, 0))
        seen_normals.append(normals @ views.cameras.T_world_camera[i, :3, :3])
    light, weight = torch.stack(colors), torch.stack(weights)
    brightness = light.clamp(min=_DARKEST).mean(2).log()
    of_view = basis(torch.stack(seen_normals))
    of_camera = _moving_light(brightness, weight, of_view)

    share = weight / weight.sum(0).clamp(min=1e-12)
    own = (share * (brightness - of_view @ of_camera)).sum(0)
    mean = (share[..., None] * light).sum(0)
    hue = mean[:, :2] / mean.sum(1, keepdim=True).clamp(min=1e-6)
    known = (weight.sum(0) > 0).nonzero()[:, 0]
    left, right = (known[pair] for pair in _pairs_of_one_hue(hue[known].cpu(), generator))
    at = basis(normals)
    of_world = _robust(at[left] - at[right], own[left] - own[right], torch.ones_like(own[left]))
    return of_camera, of_world


def _moving_light(
    brightness: Float[Tensor, "views points"],
    weight: Float[Tensor, "views points"],
    terms: Float[Tensor, "views points 8"],
) -> Float[Tensor, "8"]:
    """What makes views differ at one point: light that moves with the camera, beside an exposure of each view."""
    count = len(brightness)
    exposure = torch.eye(count).to(terms)[:, None].expand(-1, terms.shape[1], -1)
    unknowns = torch.cat([terms, exposure], dim=2)
    share = weight / weight.sum(0).clamp(min=1e-12)
    differs = brightness - (share * brightness).sum(0)
    unknowns = unknowns - (share[..., None] * unknowns).sum(0)
    several = ((weight > 0).sum(0) > 1) & (weight > 0)
    if not bool(several.any()):
        return torch.zeros(8).to(terms)
    return _robust(unknowns[several], differs[several], weight[several])[:8]


def _pairs_of_one_hue(
    hue: Float[Tensor, "points 2"], generator: torch.Generator
) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
    """Random pairs of points whose chromaticities lie in one square of a grid."""
    squares = (hue / _SAME_HUE).floor().long()
    _, square = torch.unique(squares, dim=0, return_inverse=True)
    left, right = [], []
    for _ in range(_PAIRS_A_POINT):
        shuffled = torch.randperm(len(hue), generator=generator)
        by_square = shuffled[square[shuffled].argsort(stable=True)]
        same = square[by_square[:-1]] == square[by_square[1:]]
        left.append(by_square[:-1][same])
        right.append(by_square[1:][same])
    return torch.cat(left), torch.cat(right)


def _robust(
    terms: Float[Tensor, "rows unknowns"], target: Float[Tensor, " rows"], weight: Float[Tensor, " rows"]
) -> Float[Tensor, " unknowns"]:
    """Least squares, reweighted as Geman and McClure (1987) have it, from tolerant to strict; drawn towards 0."""
    like = terms
    terms, target, weight = terms.cpu().double(), target.cpu().double(), weight.cpu().double()
    prior = _PRIOR * weight.sum().clamp(min=1e-12) * torch.eye(terms.shape[1], dtype=torch.float64)
    agreement, solution = torch.ones_like(target), torch.zeros(terms.shape[1], dtype=torch.float64)
    for scale in _SCALES:
        weighted = (weight * agreement)[:, None] * terms
        solution = torch.linalg.solve(weighted.T @ terms + prior, weighted.T @ target)
        agreement = (1 + (target - terms @ solution).square() / scale**2) ** -2
    return solution.to(like)
