"""What a model predicts for a batch, in the form in which it is compared with the truth and drawn."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from meshwright.curate import Batch

_SHOWN_PX = 128


@dataclass(frozen=True, eq=False)
class Prediction:
    """Renders of a batch's target views on the batch's background, as `Batch` has them.

    Depth and normals mean something where ``alpha`` is above 0; a radiance field has no ``normals``.
    """

    rgb: Float[Tensor, "batch targets 3 height width"]
    alpha: Float[Tensor, "batch targets 1 height width"]
    depth_z: Float[Tensor, "batch targets 1 height width"]
    normals: Float[Tensor, "batch targets 3 height width"] | None = None

    def detached(self) -> "Prediction":
        normals = None if self.normals is None else self.normals.detach()
        return Prediction(self.rgb.detach(), self.alpha.detach(), self.depth_z.detach(), normals)


def contact_sheet(batch: Batch, prediction: Prediction | None = None) -> Image.Image:
    """The first object: its inputs; below them each target's truth and prediction: colours, alpha, depth, normals."""
    inputs = batch.input_images[0]
    rows = [inputs]
    truth = (batch.target_images, batch.target_alpha, batch.target_depth, batch.target_normals)
    found: tuple[Tensor | None, ...] = (None,) * 4
    if prediction is not None:
        found = (prediction.rgb, prediction.alpha, prediction.depth_z, prediction.normals)
    depth = batch.target_depth[0]
    nearest, farthest = (float(depth[depth > 0].min()), float(depth.max())) if bool((depth > 0).any()) else (0.0, 1.0)
    for kind, pair in zip(("rgb", "alpha", "depth", "normals"), zip(truth, found, strict=True), strict=True):
        for maps in pair:
            if maps is None:
                continue
            row = maps[0].detach().cpu().float()
            if kind == "depth":  # near is bright, nothing is black
                row = torch.where(row > 0, 1.1 - (row - nearest) / max(farthest - nearest, 1e-6), 0.0)
            elif kind == "normals":
                row = torch.where(row.square().sum(1, keepdim=True) > 0, (row + 1) / 2, 0.0)
            rows.append(row)
    return _stacked(rows)


def _stacked(rows: list[Float[Tensor, "_ _ _ _"]]) -> Image.Image:
    # Enlarged without smoothing, so that small crops can be looked at beside large inputs.
    same = [torch.nn.functional.interpolate(row.detach().cpu(), size=(_SHOWN_PX, _SHOWN_PX)) for row in rows]
    pictures = [torch.cat(list(row.expand(-1, 3, -1, -1)), dim=2) for row in same]
    width = max(picture.shape[2] for picture in pictures)
    padded = [torch.nn.functional.pad(p, (0, width - p.shape[2]), value=1.0) for p in pictures]
    pixels = (torch.cat(padded, dim=1).clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))
