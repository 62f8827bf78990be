"""How near a picture or a shape is to the true one.

Pictures are sRGB in [0, 1]; each function returns one number a view. Shapes are compared by points sampled evenly on
their surfaces; distances are in world units and do not depend on the order of the two shapes unless said.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from meshwright.mesh import Mesh

SSIM_WINDOW_PX = 11
SSIM_SIGMA_PX = 1.5


def psnr(
    images: Float[Tensor, "views channels height width"], reference: Float[Tensor, "views channels height width"]
) -> Float[Tensor, " views"]:
    """Peak signal-to-noise ratio in dB, -10 log10 of the mean squared error; infinite for equal pictures."""
    return -10 * torch.log10((images - reference).square().mean(dim=(1, 2, 3)))


def ssim(
    images: Float[Tensor, "views channels height width"], reference: Float[Tensor, "views channels height width"]
) -> Float[Tensor, " views"]:
    """Structural similarity (Wang et al. 2004, equation 13), 1 for equal pictures; differentiable.

    Gaussian window of 11 x 11 pixels with sigma 1.5, K1 = 0.01, K2 = 0.03, data range 1, only windows that lie
    wholly inside the picture, the mean over channels and windows.

    Raises:
        ValueError: the pictures are smaller than the window.
    """
    if min(images.shape[2:]) < SSIM_WINDOW_PX:
        raise ValueError(f"pictures of {images.shape[3]}x{images.shape[2]} px are smaller than the window of SSIM")
    offset = torch.arange(SSIM_WINDOW_PX).to(images) - SSIM_WINDOW_PX // 2
    taps = torch.exp(-0.5 * (offset / SSIM_SIGMA_PX) ** 2)
    taps = taps / taps.sum()

    def blurred(x: Tensor) -> Tensor:
        planes = x.flatten(0, 1)[:, None]
        planes = torch.nn.functional.conv2d(planes, taps.view(1, 1, -1, 1))
        return torch.nn.functional.conv2d(planes, taps.view(1, 1, 1, -1)).unflatten(0, x.shape[:2])[:, :, 0]

    mean_x, mean_y = blurred(images), blurred(reference)
    variance_x = blurred(images * images) - mean_x * mean_x
    variance_y = blurred(reference * reference) - mean_y * mean_y
    covariance = blurred(images * reference) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def silhouette_iou(
    alpha: Float[Tensor, "views 1 height width"], reference: Float[Tensor, "views 1 height width"]
) -> Float[Tensor, " views"]:
    """Intersection over union of coverages: the sum of the pixelwise minima over that of the maxima.

    For coverages of 0 and 1 (``(alpha > 0.5).float()``) it is the usual hard IoU. Two empty silhouettes agree: 1.
    """
    intersection = torch.minimum(alpha, reference).sum(dim=(1, 2, 3))
    union = torch.maximum(alpha, reference).sum(dim=(1, 2, 3))
    return torch.where(union > 0, intersection / union.clamp(min=torch.finfo(union.dtype).tiny), 1.0)


@dataclass(frozen=True, eq=False)
class SurfaceSamples:
    """Points spread evenly over a surface with the unit normals there."""

    points: Float[Tensor, "points 3"]
    normals: Float[Tensor, "points 3"]

    @classmethod
    def of(cls, mesh: Mesh, count: int = 200_000, seed: int = 0) -> "SurfaceSamples":
        """``count`` points of ``mesh``, reproducible by ``seed``; normals are those of the faces, outward."""
        points, faces, _ = mesh.sample_surface(count, seed)
        return cls(points, torch.nn.functional.normalize(mesh.face_normals()[faces], dim=1))


@dataclass(frozen=True, eq=False)
class ShapeScores:
    """How near one surface is to another; see ``compare_shapes``."""

    chamfer: float
    f_scores: tuple[float, ...]
    normal_consistency: float


def compare_shapes(samples: SurfaceSamples, reference: SurfaceSamples, thresholds: Sequence[float]) -> ShapeScores:
    """``chamfer``, ``f_score`` and ``normal_consistency`` from one search each way.

    Both surfaces are points, so distances do not fall below the spacing of the samples: two samplings of one surface
    are about 0.5 sqrt(area / count) apart. Take the same count for all that is to be compared.
    """
    there, back = _nearest_both_ways(samples.points, reference.points)
    return ShapeScores(
        _chamfer(there, back),
        tuple(_f_score(there, back, threshold) for threshold in thresholds),
        _normal_consistency(samples, reference, there, back),
    )


def chamfer(points: Float[Tensor, "points 3"], reference: Float[Tensor, "others 3"]) -> float:
    """Mean distance to the nearest point of the other set, averaged over both directions, in world units.

    The Chamfer-L1 distance of Mescheder et al. 2019 (Occupancy Networks): the mean of accuracy and completeness.
    """
    return _chamfer(*_nearest_both_ways(points, reference))


def f_score(
    points: Float[Tensor, "points 3"], reference: Float[Tensor, "others 3"], thresholds: Sequence[float]
) -> tuple[float, ...]:
    """Harmonic mean of precision and recall at each threshold, in [0, 1] (Tatarchenko et al. 2019, section 5).

    Precision is the share of ``points`` nearer than the threshold (world units) to the reference, recall the share of
    the reference nearer than that to ``points``.
    """
    there, back = _nearest_both_ways(points, reference)
    return tuple(_f_score(there, back, threshold) for threshold in thresholds)


def normal_consistency(samples: SurfaceSamples, reference: SurfaceSamples) -> float:
    """Mean |cosine| between each normal and that of the nearest point of the other surface, both ways, in [0, 1].

    Mescheder et al. 2019 (Occupancy Networks), section 4: absolute, so that the sign of a normal does not count.
    """
    return _normal_consistency(samples, reference, *_nearest_both_ways(samples.points, reference.points))


@dataclass(frozen=True, eq=False)
class _Nearest:
    """For each point of one set, how far the nearest of the other set is, and which."""

    distances: Float[Tensor, " points"]
    indices: Int[Tensor, " points"]


def _nearest_both_ways(
    points: Float[Tensor, "points 3"], reference: Float[Tensor, "others 3"]
) -> tuple[_Nearest, _Nearest]:
    return _nearest(points, reference), _nearest(reference, points)


def _nearest(points: Float[Tensor, "points 3"], reference: Float[Tensor, "others 3"]) -> _Nearest:
    from scipy.spatial import cKDTree

    tree = cKDTree(reference.detach().cpu().numpy())
    distances, indices = tree.query(points.detach().cpu().numpy(), workers=-1)
    return _Nearest(
        torch.from_numpy(distances).to(points.dtype).to(points.device), torch.from_numpy(indices).to(points.device)
    )


def _chamfer(there: _Nearest, back: _Nearest) -> float:
    return float((there.distances.mean() + back.distances.mean()) / 2)


def _f_score(there: _Nearest, back: _Nearest, threshold: float) -> float:
    precision = float((there.distances < threshold).float().mean())
    recall = float((back.distances < threshold).float().mean())
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def _normal_consistency(samples: SurfaceSamples, reference: SurfaceSamples, there: _Nearest, back: _Nearest) -> float:
    cosines_there = (samples.normals * reference.normals[there.indices]).sum(dim=1)
    cosines_back = (reference.normals * samples.normals[back.indices]).sum(dim=1)
    return float((cosines_there.abs().mean() + cosines_back.abs().mean()) / 2)
