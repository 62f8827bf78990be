"""How far to believe each view, given that most are right."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from meshwright.cameras import Cameras
from meshwright.losses import geman_mcclure_weight, silhouette_error
from meshwright.shape.refine.pyramid import Pictures
from meshwright.shape.refine.scene import (
    Comparison,
    RenderedGeometry,
    comparable_pixels,
    compare_with_neighbors,
    draw_rows,
)
from meshwright.shape.refine.terms import COLOR_SCALE

_FEWEST = 4  # views, of which one may be found wrong
_OUTLIER = 3.0  # a view so many times worse than the median has lost three quarters of its weight
_OUTLINE_SLACK = 0.01  # of a picture: outlines off by this share of it say nothing against a view
_PIXELS = 40_000  # compared


def estimate_view_weights(
    rendered: RenderedGeometry,
    neighbors: Int[Tensor, "views others"],
    cameras: Cameras,
    pictures: Pictures,
    random: torch.Generator,
) -> Float[Tensor, " views"]:
    """1 for views as good as the median, towards 0 for those whose outlines or colours are far off it."""
    depth_z = rendered.fragments.depth_z
    if len(cameras) < _FEWEST:
        return torch.ones(len(cameras)).to(pictures.colors)
    outline = silhouette_error(rendered.coverage, pictures.alpha, pictures.kept.to(depth_z.dtype))
    everywhere = torch.arange(len(cameras), device=depth_z.device)
    pixels = draw_rows(comparable_pixels(rendered, pictures), _PIXELS, random)
    comparison = compare_with_neighbors(rendered, everywhere, pixels, neighbors, cameras, pictures, depth_z, random)
    color = _color_errors(comparison, neighbors)
    return _weights(outline, _OUTLINE_SLACK * max(depth_z.shape[1:])) * _weights(color, COLOR_SCALE)


def _color_errors(comparison: Comparison, neighbors: Int[Tensor, "views others"]) -> Float[Tensor, " views"]:
    """Median over a view's neighbours of the mean difference of colours: one wrong neighbour does not blame a view."""
    views = len(neighbors)
    pair = comparison.view * views + comparison.other
    seen = torch.zeros(views * views).to(comparison.squared).index_add_(0, pair, comparison.weight)
    difference = torch.zeros_like(seen).index_add_(0, pair, comparison.weight * comparison.squared.sqrt())
    mean = torch.where(seen > 0, difference / seen, torch.nan).view(views, views)
    return mean.gather(1, neighbors).nanmedian(dim=1).values.nan_to_num(0.0)


def _weights(errors: Float[Tensor, " views"], slack: float) -> Float[Tensor, " views"]:
    return geman_mcclure_weight(errors, _OUTLIER * errors.median() + slack)
