"""Between sRGB and linear light (IEC 61966-2-1): glTF's vertex colours and factors are linear."""

import numpy as np
import numpy.typing as npt


def linear_from_srgb(srgb: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """IEC 61966-2-1."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).astype(np.float32)


def srgb_from_linear(linear: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """IEC 61966-2-1."""
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055).astype(np.float32)
