"""Pictures of one object made to agree with each other.

A gain and an offset for each view and channel are found on what several views see, then whatever slow difference is
left is found on the surface and drawn back into each picture. Pixels that contradict the other views lose weight.
"""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import coo_array, diags_array
from torch import Tensor

from meshwright.color.visibility import VisibleSurface
from meshwright.mesh import Mesh
from meshwright.raster import interpolate, rasterize

_SLOW_SHARE = 0.03  # differences between views wider than this share of the object's extent are slow
_MOST_DIFFUSION = 200  # averaging steps over the surface
DISAGREEMENT = (0.4, 0.2, 0.1, 0.1)  # sRGB: colours this far from the other views' count a quarter, round by round
_GAIN_PRIOR = 1e-3  # how much a view's gain is held to 1 and, ten times that, its offset to 0, next to what it sees


def even_exposures(surfaces: list[VisibleSurface], mesh: Mesh) -> list[VisibleSurface]:
    """The same views with their exposures and other slow differences evened out, less confident where they disagree."""
    normals = mesh.vertex_normals()
    samples = [surface.sample_view(mesh.vertices, normals) for surface in surfaces]
    colors = torch.stack([color for color, _ in samples])
    quality = torch.stack([quality for _, quality in samples])
    gain, offset, agreement = _exposures(colors, quality.square())
    colors = colors * gain[:, None] + offset[:, None]
    weights = quality.square() * agreement
    consensus = (weights[..., None] * colors).sum(0) / weights.sum(0).clamp(min=1e-12)[:, None]
    diffusion = _SurfaceDiffusion(mesh)
    evened = []
    for i, surface in enumerate(surfaces):
        total, own = quality[i, :, None].square(), weights[i, :, None]
        slow = diffusion.smooth(torch.cat([own * (consensus - colors[i]), own, total], dim=1))
        difference = slow[:, :3] / slow[:, 3:4].clamp(min=1e-6)
        slow_agreement = slow[:, 3:4] / slow[:, 4:].clamp(min=1e-6)
        evened.append(_evened(surface, mesh, gain[i], offset[i], difference, slow_agreement))
    return evened


def _exposures(
    colors: Float[Tensor, "views points 3"], weights: Float[Tensor, "views points"]
) -> tuple[Float[Tensor, "views 3"], Float[Tensor, "views 3"], Float[Tensor, "views points"]]:
    """Gain and offset by which each view agrees best with the others, and how far it then does so at each point.

    The pictures' own gains have the mean 1 and their offsets the mean 0, so that all brighter or all darker pictures
    stay what they are. Least squares, reweighted in rounds (Geman and McClure 1987) that start out tolerant, so that
    exposures are found before disagreement is judged.
    """
    agreement = torch.ones_like(weights)
    for scale in DISAGREEMENT:
        gain, offset = _least_squares_exposures(colors, weights * agreement)
        levelled = colors * gain[:, None] + offset[:, None]
        share = weights * agreement
        mean = (share[..., None] * levelled).sum(0) / share.sum(0).clamp(min=1e-12)[:, None]
        residual = (levelled - mean).square().sum(2)
        agreement = (1 + residual / scale**2) ** -2
        # A view that is wrong in many places loses weight where it happens to be right or alone either.
        of_view = (weights * agreement).sum(1) / weights.sum(1).clamp(min=1e-12)
        agreement = agreement * ((of_view / of_view.median().clamp(min=1e-12)).clamp(max=1) ** 4)[:, None]
    return gain, offset, agreement


def _least_squares_exposures(
    colors: Float[Tensor, "views points 3"], weights: Float[Tensor, "views points"]
) -> tuple[Float[Tensor, "views 3"], Float[Tensor, "views 3"]]:
    """Minimise the weighted variance over the views of gain * color + offset, summed over the points."""
    count = len(colors)
    # A small solve, in float64 on the CPU: not every device has float64.
    w = weights.cpu().double()
    ones = torch.ones_like(w)
    of_view = w.sum(1)
    prior = _GAIN_PRIOR * torch.cat([of_view, 10 * of_view]) + 1e-9
    target = torch.cat([torch.ones_like(of_view), torch.zeros_like(of_view)])
    gains, offsets = [], []
    for channel in colors.cpu().double().unbind(2):
        terms = torch.cat([w * channel, w * ones]) / w.sum(0).clamp(min=1e-12).sqrt()
        own = [torch.diag((w * a * b).sum(1)) for a, b in ((channel, channel), (channel, ones), (ones, ones))]
        squares = torch.cat([torch.cat([own[0], own[1]], dim=1), torch.cat([own[1], own[2]], dim=1)])
        solution = torch.linalg.solve(squares - terms @ terms.T + torch.diag(prior), prior * target)
        gain, offset = solution[:count].clamp(0.25, 4), solution[count:]
        # The pictures' own gains are 1 / gain and their offsets -offset / gain.
        scale, shift = (1 / gain).mean(), -(offset / gain).mean()
        gains.append(gain * scale)
        offsets.append(offset * scale + shift)
    return torch.stack(gains, dim=1).to(colors), torch.stack(offsets, dim=1).to(colors)


def _evened(
    surface: VisibleSurface,
    mesh: Mesh,
    gain: Float[Tensor, "3"],
    offset: Float[Tensor, "3"],
    difference: Float[Tensor, "vertices 3"],
    agreement: Float[Tensor, "vertices 1"],
) -> VisibleSurface:
    """A view with its exposure changed and what was found at vertices drawn into it."""
    view = surface.view
    fragments = rasterize(mesh.vertices, mesh.faces, view.cameras, *view.images.shape[2:])
    drawn = interpolate(fragments, mesh.faces, torch.cat([difference, agreement], dim=1)).permute(0, 3, 1, 2)
    drawn_agreement = torch.where((fragments.face_ids >= 0)[:, None], drawn[:, 3:], 1.0)
    shift = offset.view(1, 3, 1, 1) + drawn[:, :3]
    images = (view.images - (1 - view.alpha)) * gain.view(1, 3, 1, 1) + shift * view.alpha + (1 - view.alpha)
    return replace(surface, view=replace(view, images=images), confidence=surface.confidence * drawn_agreement)


class _SurfaceDiffusion:
    """Averages of values at vertices with their neighbours', again and again: diffusion over the mesh."""

    def __init__(self, mesh: Mesh) -> None:
        edges, _ = mesh.unique_edges()
        ends = torch.cat([edges, edges.flip(1)])
        count = len(mesh.vertices)
        degree = torch.bincount(ends[:, 0], minlength=count).clamp(min=1).to(mesh.vertices)
        # SciPy's sparse product: faster than torch's COO on the CPU, and torch's CSR is not settled.
        to_ends = coo_array((0.5 / degree[ends[:, 0]].cpu().numpy(), ends.T.cpu().numpy()), shape=(count, count))
        self.average = (to_ends + diags_array(np.full(count, 0.5, np.float32))).tocsr()
        step = (mesh.vertices[edges[:, 0]] - mesh.vertices[edges[:, 1]]).square().sum(1).mean().sqrt()
        extent = (mesh.vertices.amax(0) - mesh.vertices.amin(0)).norm()
        # A walk that half the time stays goes as far as the root of half its steps.
        self.steps = int((2 * (_SLOW_SHARE * extent / step) ** 2).clamp(1, _MOST_DIFFUSION))

    def smooth(self, values: Float[Tensor, "vertices channels"]) -> Float[Tensor, "vertices channels"]:
        smoothed = values.cpu().numpy()
        for _ in range(self.steps):
            smoothed = self.average @ smoothed
        return torch.from_numpy(smoothed).to(values)
