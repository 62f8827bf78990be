"""Between sRGB and linear light (IEC 61966-2-1), of tensors. `meshwright.mesh_files` has its own, of arrays."""

import torch
from jaxtyping import Float
from torch import Tensor


def linear_from_srgb(srgb: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """sRGB to light."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb.clamp(min=0) + 0.055) / 1.055) ** 2.4)


def srgb_from_linear(light: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Light to sRGB."""
    # Clamped, for the power has no finite slope at 0; the other branch is taken there.
    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * light.clamp(min=1e-9) ** (1 / 2.4) - 0.055)
