"""Stage 1: a radiance field learns to look like the pictures (Xu et al. 2024, arXiv 2404.07191, section 3.4).

All target views of a sample are rendered by volume rendering through one shared crop.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from meshwright.cameras import Rays
from meshwright.curate import Batch
from meshwright.model import Draws, InstantNeRF, Triplane, render_rays
from meshwright.train.config import LossWeights
from meshwright.train.losses import color_error, depth_error, mask_error
from meshwright.train.perceptual import Lpips
from meshwright.train.prediction import Prediction


def stage1_losses(
    model: InstantNeRF,
    batch: Batch,
    seeds: Sequence[int],
    weights: LossWeights,
    perceptual: Lpips | None = None,
    recompute: bool = False,
) -> tuple[dict[str, Tensor], Prediction]:
    """The unweighted loss terms of a batch by name, those whose weight is not 0, and the renders they come from.

    ``seeds``, one an object, decide where along each ray the field is sampled.
    """
    triplane = model.planes(batch.input_images, batch.input_cameras, recompute=recompute)
    with torch.autocast(triplane.planes.device.type, enabled=False):
        prediction = render_targets(model, triplane, batch, seeds)
        return picture_terms(prediction, batch, weights, perceptual), prediction


def render_targets(
    model: InstantNeRF, triplane: Triplane, batch: Batch, seeds: Sequence[int] | None = None
) -> Prediction:
    """The target views of a batch; without ``seeds`` a fixed function of the planes."""
    rgb, alpha, depth_z = [], [], []
    rays = batch.target_rays()
    samples = model.config.samples_per_ray
    for i, planes in enumerate(triplane.planes):
        draws = None
        if seeds is not None:
            generator = torch.Generator().manual_seed(seeds[i])
            draws = Draws.random(rays.origins[i].numel() // 3, samples, generator, planes.device)
        seen = render_rays(model.field(planes), Rays(rays.origins[i], rays.directions[i]), samples, draws)
        colors = seen.rgb + (1 - seen.weight)[..., None] * (batch.background[i] - 1)  # it is rendered on white
        forward = -batch.target_T_world_camera[i, :, :3, 2]
        cosine = torch.einsum("vhwc,vc->vhw", rays.directions[i], forward)
        rgb.append(colors.permute(0, 3, 1, 2))
        alpha.append(seen.weight[:, None])
        depth_z.append((seen.depth * cosine)[:, None])
    return Prediction(torch.stack(rgb), torch.stack(alpha), torch.stack(depth_z))


def picture_terms(
    prediction: Prediction, batch: Batch, weights: LossWeights, perceptual: Lpips | None
) -> dict[str, Tensor]:
    """The terms that compare pictures, which both stages share."""
    terms = {}
    if weights.mse:
        terms["mse"] = color_error(prediction.rgb, batch.target_images)
    if weights.perceptual:
        assert perceptual is not None, "a perceptual term was asked for without its network"
        terms["perceptual"] = perceptual(prediction.rgb.flatten(0, 1), batch.target_images.flatten(0, 1)).mean()
    if weights.mask:
        terms["mask"] = mask_error(prediction.alpha, batch.target_alpha)
    if weights.depth:
        terms["depth"] = depth_error(prediction.depth_z, batch.target_depth, batch.target_alpha)
    return terms
