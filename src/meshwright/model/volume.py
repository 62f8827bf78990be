"""Volume rendering: pictures of a radiance field, differentiable and in bounded memory.

Each ray is sampled twice inside the box [-1, 1]^3, first evenly, then where the even samples found something, and the
field's densities and colours are blended along it (Mildenhall et al. 2020, arXiv 2003.08934, section 5). The details
(where samples lie, how interval ends are averaged, the shifted bins of the second pass) are those of the published
InstantMesh weights, which were trained with them.

``distances`` are measured along unit rays. ``raw_density`` is the field's output before `density_from_raw`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad, softplus
from torch.utils.checkpoint import checkpoint

from meshwright.cameras import Rays
from meshwright.device import items_per_chunk
from meshwright.errors import InputError

_BOX_HALF_SIDE = 1.0
_BYTES_PER_POINT = 1024  # what a field may hold for one point: two layers of 64 numbers and what leads to them

RadianceField = Callable[[Float[Tensor, "points 3"]], tuple[Float[Tensor, " points"], Float[Tensor, "points 3"]]]
"""World points to raw density and colour."""


@dataclass(frozen=True, eq=False)
class Rendering:
    """What the rays of one call see, on white.

    ``rgb`` may leave [0, 1] by as much as the field's colours do. ``depth`` is the sum of weight times distance along
    the ray, not divided by ``weight`` and clamped to the distances sampled in the call, as published; divide by
    ``weight`` for the mean distance of what is seen. ``weight`` is the opacity, 0 to 1.
    """

    rgb: Float[Tensor, "*rays 3"]
    depth: Float[Tensor, "*rays"]
    weight: Float[Tensor, "*rays"]


@dataclass(frozen=True, eq=False)
class Draws:
    """Where in its stratum each even sample lies, and where in the distribution each further one; all in [0, 1]."""

    jitter: Float[Tensor, "rays samples"]
    u: Float[Tensor, "rays samples"]

    @classmethod
    def fixed(cls, rays: int, samples_per_ray: int, device: torch.device | str = "cpu") -> "Draws":
        """Strata at their middle, the distribution at equal steps: the same picture every time."""
        half = samples_per_ray // 2
        jitter = torch.full((1, 1), 0.5, device=device).expand(rays, half)
        return cls(jitter, torch.linspace(0, 1, half, device=device).expand(rays, half))

    @classmethod
    def random(
        cls, rays: int, samples_per_ray: int, generator: torch.Generator, device: torch.device | str = "cpu"
    ) -> "Draws":
        """Uniform draws, the published renderer's own for a generator in the same state.

        It takes all jitter first, one sample of every ray after the other, then u ray by ray.
        """
        half = samples_per_ray // 2
        jitter = torch.rand(half, rays, generator=generator, device=generator.device).T.to(device)
        return cls(jitter, torch.rand(rays, half, generator=generator, device=generator.device).to(device))


@dataclass(frozen=True, eq=False)
class _Segments:
    """Rays with the part of each that is sampled."""

    origins: Float[Tensor, "rays 3"]
    directions: Float[Tensor, "rays 3"]
    near: Float[Tensor, " rays"]
    far: Float[Tensor, " rays"]
    draws: Draws

    def __getitem__(self, index: Int[Tensor, " chosen"]) -> "_Segments":
        draws = Draws(self.draws.jitter[index], self.draws.u[index])
        return _Segments(self.origins[index], self.directions[index], self.near[index], self.far[index], draws)


def render_rays(
    field: RadianceField,
    rays: Rays,
    samples_per_ray: int = 128,
    draws: Draws | None = None,
    checkpointing: bool = True,
    rays_per_chunk: int | None = None,
) -> Rendering:
    """Render ``field`` along ``rays``: half of the samples evenly, half by importance.

    Without ``draws`` the result is a fixed function of field and rays; `Draws.random` gives the noise that training
    wants. A crop of a picture is a slice of its rays. All rays of one call share the clamp range of ``depth``; nothing
    else depends on which rays are rendered together, nor on how the work is cut into chunks. The field is asked once a
    sample, never outside the box, and not at all for rays that miss it.

    While gradients are recorded, ``checkpointing`` evaluates each chunk again in the backward pass rather than keeping
    its activations. ``rays_per_chunk`` bounds the memory; by default it follows from the device.

    Raises:
        InputError: fewer than 8 samples a ray, too few for the second pass, or ``draws`` for other rays or samples.
    """
    if samples_per_ray < 8:
        raise InputError(f"samples_per_ray is {samples_per_ray}: half of them must make a histogram; use 8 or more")
    shape = rays.origins.shape[:-1]
    origins, directions = rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3)
    device = origins.device
    draws = draws or Draws.fixed(len(origins), samples_per_ray, device)
    if draws.jitter.shape != (len(origins), samples_per_ray // 2):
        raise InputError(
            f"the draws are of shape {tuple(draws.jitter.shape)}, but {len(origins)} rays of {samples_per_ray} samples"
            " are to be rendered; make them for these numbers"
        )

    near, far = box_interval(origins, directions)
    hits = near <= far
    near, far = _fill_missing(near, far, hits)
    every_ray = _Segments(origins, directions, near, far, draws)
    nearest, farthest = _distance_range(every_ray)

    rays_per_chunk = rays_per_chunk or items_per_chunk(device, _BYTES_PER_POINT * samples_per_ray // 2)
    seen = hits.nonzero().squeeze(1)
    march = _march
    if checkpointing and torch.is_grad_enabled():
        march = partial(checkpoint, _march, use_reentrant=False)
    parts = [march(field, every_ray[chunk]) for chunk in seen.split(rays_per_chunk)]
    rgb, depth, weight = (torch.cat(column) for column in zip(*parts, strict=True))

    # A missing ray's samples all lie outside the box, so its weights are exactly 0.
    nothing = torch.zeros_like(near)
    depth = nothing.index_copy(0, seen, depth).clamp(nearest, farthest)
    rgb = torch.ones_like(origins).index_copy(0, seen, rgb)
    return Rendering(rgb.view(*shape, 3), depth.view(shape), nothing.index_copy(0, seen, weight).view(shape))


def density_from_raw(raw_density: Float[Tensor, "*points"]) -> Float[Tensor, "*points"]:
    """Density per world unit: softplus(raw - 1), so that an untrained field starts nearly empty."""
    return softplus(raw_density - 1)


def box_interval(
    origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]
) -> tuple[Float[Tensor, " rays"], Float[Tensor, " rays"]]:
    """Distances at which rays enter and leave the box [-1, 1]^3; (-1, -2) for rays whose line misses it.

    Distances behind the origin are negative, as published: cameras are expected outside of the box.
    """
    to_low, to_high = (-_BOX_HALF_SIDE - origins) / directions, (_BOX_HALF_SIDE - origins) / directions
    # 0/0, a ray inside a face's plane, bounds nothing.
    enter = torch.minimum(to_low, to_high).nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).amax(1)
    leave = torch.maximum(to_low, to_high).nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf).amin(1)
    hits = enter <= leave
    return torch.where(hits, enter, -1.0), torch.where(hits, leave, -2.0)


def stratified_distances(
    near: Float[Tensor, " rays"], far: Float[Tensor, " rays"], jitter: Float[Tensor, "rays samples"]
) -> Float[Tensor, "rays samples"]:
    """Even steps from ``near`` to ``far``, each sample moved on by ``jitter`` steps; the last may pass ``far``."""
    steps = jitter.shape[1] - 1
    fraction = torch.linspace(0, 1, steps + 1, device=near.device)
    extent = (far - near)[:, None]
    return near[:, None] + fraction * extent + jitter * (extent / steps)


def interval_weights(
    raw_density: Float[Tensor, "rays samples"], distances: Float[Tensor, "rays samples"]
) -> Float[Tensor, "rays intervals"]:
    """How much of what a ray sees lies in each interval between its sorted samples.

    The density of an interval comes from the mean of its ends' raw densities. Light that reaches interval k is
    exp(-sum of density times length before it): the product of all (1 - alpha) without its cancellation (Max 1995,
    "Optical models for direct volume rendering").
    """
    density = density_from_raw((raw_density[:, 1:] + raw_density[:, :-1]) / 2)
    thickness = density * distances.diff(dim=1)
    arriving = torch.exp(-pad(thickness.cumsum(1)[:, :-1], (1, 0)))
    return arriving * -torch.expm1(-thickness)


@torch.no_grad()
def importance_distances(
    distances: Float[Tensor, "rays samples"],
    weights: Float[Tensor, "rays intervals"],
    u: Float[Tensor, "rays draws"],
) -> Float[Tensor, "rays draws"]:
    """Distances distributed like ``weights``, blurred and lifted so that nothing is passed over; unsorted, no gradient.

    Two oddities of the published renderer are kept because its weights were trained with them: the weight of an
    interval serves the bin half a step before it, and the last bin is never drawn from.
    """
    spread = torch.maximum(pad(weights, (1, 0)), pad(weights, (0, 1)))
    blurred = (spread[:, 1:] + spread[:, :-1]) / 2 + 0.01
    bins = (distances[:, 1:] + distances[:, :-1]) / 2
    mass = blurred[:, 1:-1] + 1e-5
    cdf = pad((mass / mass.sum(1, keepdim=True)).cumsum(1), (1, 0))
    index = torch.searchsorted(cdf, u.contiguous(), right=True)
    below, above = (index - 1).clamp(min=0), index.clamp(max=mass.shape[1])
    cdf_below, bin_below = cdf.gather(1, below), bins.gather(1, below)
    rise = cdf.gather(1, above) - cdf_below
    fraction = (u - cdf_below) / torch.where(rise < 1e-5, 1.0, rise)
    return bin_below + fraction * (bins.gather(1, above) - bin_below)


def _march(
    field: RadianceField, rays: _Segments
) -> tuple[Float[Tensor, "rays 3"], Float[Tensor, " rays"], Float[Tensor, " rays"]]:
    """Colour on white, unclamped depth and opacity of rays that hit the box."""
    even = stratified_distances(rays.near, rays.far, rays.draws.jitter)
    even_raw, even_rgb = _query(field, rays, even)
    further = importance_distances(even, interval_weights(even_raw.detach(), even), rays.draws.u)
    further_raw, further_rgb = _query(field, rays, further)

    distances, order = torch.cat([even, further], dim=1).sort(dim=1, stable=True)
    weights = interval_weights(torch.cat([even_raw, further_raw], dim=1).gather(1, order), distances)
    depth = (weights * (distances[:, 1:] + distances[:, :-1])).sum(1) / 2
    # An interval has the mean colour of its ends, so a sample's colour counts with half the weight of either side.
    # Weights go back to the samples' own order, which is a third of the work of sorting the colours.
    share = torch.zeros_like(distances).scatter(1, order, (pad(weights, (1, 0)) + pad(weights, (0, 1))) / 2)
    rgb = torch.einsum("rs,rsc->rc", share, torch.cat([even_rgb, further_rgb], dim=1))
    weight = weights.sum(1)
    return rgb + (1 - weight)[:, None], depth, weight


def _query(
    field: RadianceField, rays: _Segments, distances: Float[Tensor, "rays samples"]
) -> tuple[Float[Tensor, "rays samples"], Float[Tensor, "rays samples 3"]]:
    """Raw density and colour of samples; nothing outside the box, where the field is not asked."""
    # One axis after the other: the innermost loop then runs over samples, not over 3 coordinates.
    xyz = rays.origins.T[:, :, None] + distances * rays.directions.T[:, :, None]
    inside = xyz.abs().amax(0) <= _BOX_HALF_SIDE
    points = xyz.clamp(-_BOX_HALF_SIDE, _BOX_HALF_SIDE).flatten(1).T
    raw_density, rgb = field(points)
    # Low enough that an interval with one end outside has density 0, high enough that the sum of both ends is finite.
    # Colours need no mask, for the intervals around an outside sample weigh exactly 0.
    empty = torch.finfo(torch.float32).min / 3
    raw_density = torch.where(inside, raw_density.float().view_as(distances), empty)
    return raw_density, rgb.float().view(*distances.shape, 3)


def _fill_missing(
    near: Float[Tensor, " rays"], far: Float[Tensor, " rays"], hits: Bool[Tensor, " rays"]
) -> tuple[Float[Tensor, " rays"], Float[Tensor, " rays"]]:
    """Give rays that miss the box the nearest and the farthest entry of those that hit it, as published.

    They see nothing either way, but their samples count in the clamp range of depth.
    """
    if not hits.any():
        return near, far
    entries = near[hits]
    return torch.where(hits, near, entries.min()), torch.where(hits, far, entries.max())


def _distance_range(rays: _Segments) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Least and greatest sampled distance: even samples are sorted, and further ones lie between them."""
    jitter = rays.draws.jitter
    step = (rays.far - rays.near) / (jitter.shape[1] - 1)
    ends = torch.cat([rays.near + jitter[:, 0] * step, rays.far + jitter[:, -1] * step])
    return ends.min(), ends.max()
