"""A texture fitted to the pictures through the renderer."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from meshwright.color.exposure import DISAGREEMENT
from meshwright.color.texels import Texels
from meshwright.color.visibility import VisibleSurface
from meshwright.mesh import Mesh
from meshwright.progress import Progress
from meshwright.raster import interpolate, mip_levels, rasterize, sample_texture

_SAMPLES = 2  # points a pixel side when the texture is fitted
_MOST_PIXELS = 3_000_000
_MOST_STEPS = 12
_WITHHELD = 1 / 16  # share of the pixels that only judge the fit
_PRIOR = 0.03  # how much each texel is held to its start, next to the mean weight of the pixels on one
# Pixels kept apart must err less than this share of before. Measured: 0.1 to 0.4 on true shapes; 0.85 up on shapes
# that are wrong, where the views contradict each other and a fit blurs.
_WORTH_IT = 0.7
_FIT_SHARPNESS = 2  # power of a view's quality there


def fit_texture(
    start: Float[Tensor, "texels 3"],
    surfaces: list[VisibleSurface],
    texels: Texels,
    mesh: Mesh,
    seed: int,
    progress: Progress,
) -> Float[Tensor, "texels 3"]:
    """Colours whose pictures come nearer to the views, as long as withheld pixels come nearer too.

    Pictures are linear in the texture, so this is weighted least squares: conjugate gradients on the normal equations
    (Hestenes and Stiefel 1952), stopped early. Texels with little or no weight in the pixels stay near their start.
    """
    generator = torch.Generator().manual_seed(seed)
    share = min(1.0, _MOST_PIXELS / max(1, sum(int((surface.view.alpha > 0.5).sum()) for surface in surfaces)))
    parts = [_pixels(surface, mesh, len(texels.nearest), share, generator) for surface in surfaces]
    pixels = _Pixels(*(torch.cat([getattr(part, name) for part in parts]) for name in _Pixels.__dataclass_fields__))
    del parts

    colors = start
    residual = pixels.colors - pixels.draw(texels.texture(colors))
    weights = (pixels.weights / (1 + residual.square().sum(1) / DISAGREEMENT[-1] ** 2))[:, None]
    withheld = torch.rand(len(weights), generator=generator).to(weights)[:, None] < _WITHHELD
    used = torch.where(withheld, 0, weights)

    probe = torch.zeros_like(start).requires_grad_()
    with torch.enable_grad():
        drawn_probe = pixels.draw(texels.texture(probe))

    def back_project(values: Tensor) -> Tensor:
        # Of a sum, because for anything else torch imports its symbolic half, which takes seconds.
        with torch.enable_grad():
            return torch.autograd.grad((drawn_probe * values).sum(), probe, retain_graph=True)[0]

    def error() -> float:
        return float((torch.where(withheld, weights, 0) * residual.square()).sum())

    evidence = back_project(used.expand_as(residual))
    prior = _PRIOR * evidence.sum() / (evidence > 0).sum().clamp(min=1)
    scale = 1 / (evidence + prior).clamp(min=1e-20)
    gradient = back_project(used * residual)
    direction = scale * gradient
    power = (gradient * direction).sum(0)
    best, first_error = start, error()
    best_error = first_error
    for step in range(_MOST_STEPS):
        change = pixels.draw(texels.texture(direction))
        curvature = (used * change * change).sum(0) + prior * direction.square().sum(0)
        length = power / curvature.clamp(min=1e-20)
        colors = colors + length * direction
        residual = residual - length * change
        if error() >= best_error:
            break
        best, best_error = colors, error()
        gradient = gradient - length * (back_project(used * change) + prior * direction)
        new_power = (gradient * scale * gradient).sum(0)
        direction = scale * gradient + new_power / power.clamp(min=1e-20) * direction
        power = new_power
        progress("sharpen", (step + 1) / _MOST_STEPS)
    progress("sharpen", 1.0)
    return best if best_error < _WORTH_IT * first_error else start


@dataclass(frozen=True, eq=False)
class _Pixels:
    """What the views say about some of their pixels, and where in the texture these look.

    ``uv`` and ``levels`` (see `mip_levels`) are those of `_SAMPLES` squared points in each pixel.
    """

    uv: Float[Tensor, "pixels samples 2"]
    levels: Float[Tensor, "pixels samples"]
    colors: Float[Tensor, "pixels 3"]
    weights: Float[Tensor, " pixels"]

    def draw(self, texture: Float[Tensor, "3 texture_height texture_width"]) -> Float[Tensor, "pixels 3"]:
        looked_up = sample_texture(texture, self.uv.flatten(0, 1), self.levels.flatten())
        return looked_up.view(*self.levels.shape, 3).mean(1)


def _pixels(surface: VisibleSurface, mesh: Mesh, texture_px: int, share: float, generator: torch.Generator) -> _Pixels:
    """A random share of a view's pixels, of those that lie on the mesh wholly."""
    assert mesh.uv is not None
    assert mesh.uv_faces is not None
    height, width = surface.view.images.shape[2:]
    fragments = rasterize(mesh.vertices, mesh.faces, surface.view.cameras, _SAMPLES * height, _SAMPLES * width)
    levels = mip_levels(fragments, mesh.faces, mesh.uv, mesh.uv_faces, texture_px, texture_px)
    uv = interpolate(fragments, mesh.uv_faces, mesh.uv)
    geometry = interpolate(fragments, mesh.faces, torch.cat([mesh.vertices, mesh.vertex_normals()], dim=1))

    def by_pixel(values: Tensor) -> Tensor:
        values = values.view(height, _SAMPLES, width, _SAMPLES, -1).transpose(1, 2)
        return values.reshape(height * width, _SAMPLES**2, -1)

    chosen = (by_pixel(fragments.face_ids) >= 0).flatten(1).all(1)
    chosen &= torch.rand(height * width, generator=generator).to(levels) < share
    points, normals = by_pixel(geometry)[chosen].mean(1).split(3, dim=1)
    colors, quality = surface.sample_view(points, normalize(normals, dim=1))
    seen = quality > 0
    return _Pixels(
        by_pixel(uv)[chosen][seen], by_pixel(levels)[chosen][seen, :, 0], colors[seen], quality[seen] ** _FIT_SHARPNESS
    )
