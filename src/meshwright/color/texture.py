"""A texture for a mesh, out of the pictures.

Texels ask the views the same questions as vertices do in `meshwright.color.vertex_colors`. Before that the pictures
are made to agree with each other: a gain and an offset for each view and channel, found on what several views see, and then
whatever slow difference is left, found on the surface and drawn back into each picture. So each texel can be taken
from the view that sees it best and no border between views shows: fine detail comes from one picture, the slow parts
of the colour from all of them (the two bands of Burt and Adelson 1983, "A multiresolution spline", on the surface
instead of in the plane). What contradicts the other views is not believed. At last the texture is fitted to the
pictures through the renderer.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array, diags_array
from torch import Tensor
from torch.nn.functional import normalize

from meshwright.cameras import Cameras
from meshwright.color.atlas import unwrap
from meshwright.color.vertex_colors import SHARPNESS, Field, Sight, ask, fill_unseen
from meshwright.mesh import Mesh, subdivide
from meshwright.progress import Progress, silent
from meshwright.raster import interpolate, mip_levels, rasterize, sample_texture
from meshwright.views import Views

_GUTTER_PX = 8
_FINE_FACES = 10_000  # what is found at vertices needs at least about that many
_SLOW_SHARE = 0.03  # differences between views wider than this share of the object's extent are slow
_MOST_DIFFUSION = 200  # averaging steps over the surface

_DISAGREEMENT = (0.4, 0.2, 0.1, 0.1)  # sRGB: colours this far from the other views' count a quarter, round by round
_GAIN_PRIOR = 1e-3  # how much a view's gain is held to 1 and, ten times that, its offset to 0, next to what it sees

_SAMPLES = 2  # points a pixel side when the texture is fitted
_MOST_PIXELS = 3_000_000
_MOST_STEPS = 12
_WITHHELD = 1 / 16  # share of the pixels that only judge the fit
_PRIOR = 0.03  # how much each texel is held to its start, next to what the pixels tell of one on average
# Pixels kept apart must err less than this share of before. Measured: 0.1 to 0.4 on true shapes; 0.85 up on shapes
# that are wrong, where the views contradict each other and a fit blurs.
_WORTH_IT = 0.7
_FIT_SHARPNESS = 2  # power of a view's quality there


@torch.no_grad()
def bake_texture(
    mesh: Mesh,
    views: Views,
    *,
    texture_size_px: int = 2048,
    field: Field | None = None,
    optimise: bool = True,
    seed: int = 0,
    progress: Progress = silent,
) -> Mesh:
    """The mesh with ``uv`` and a square ``texture`` (sRGB) taken from the views; on the mesh's device.

    ``field``: colours (sRGB) of points where no view looks; without it they come over the surface from what is seen.
    ``optimise`` fits the texture to the pictures at the end if that clearly improves pixels kept apart, which ``seed``
    chooses. Mesh and views are on one device.

    Raises:
        InputError: the mesh has no area, or falls into too many pieces for the texture.
    """
    progress("atlas", 0.0)
    mesh = unwrap(mesh, texture_size_px, _GUTTER_PX)
    progress("atlas", 1.0)
    fine = _refined(mesh)
    sights = _agreeing([Sight.of(mesh, views[[i]]) for i in range(len(views))], fine)
    texels = _Texels.of(fine, texture_size_px)
    colors = _blended(sights, texels, fine, field, progress)
    if optimise:
        colors = _fitted(colors, sights, texels, mesh, seed, progress)
    return mesh.replace(texture=texels.texture(colors.clamp(0, 1)), vertex_colors=None)


@torch.no_grad()
def bake_field(mesh: Mesh, field: Field, *, texture_size_px: int = 2048, progress: Progress = silent) -> Mesh:
    """The mesh with ``uv`` and a square ``texture`` that shows a field's colours (sRGB) on its surface.

    Raises:
        InputError: the mesh has no area, or falls into too many pieces for the texture.
    """
    progress("atlas", 0.0)
    mesh = unwrap(mesh, texture_size_px, _GUTTER_PX)
    progress("atlas", 1.0)
    texels = _Texels.of(mesh, texture_size_px)
    colors = ask(field, texels.interpolate(mesh.faces, mesh.vertices))
    progress("bake", 1.0)
    return mesh.replace(texture=texels.texture(colors.clamp(0, 1)), vertex_colors=None)


# ------------------------------------------------------------------------------- the surface


def _refined(mesh: Mesh) -> Mesh:
    """The same surface with every face cut in four until its vertices are dense enough to carry slow colour."""
    assert mesh.uv is not None
    assert mesh.uv_faces is not None
    while len(mesh.faces) < _FINE_FACES:
        vertices, faces = subdivide(mesh.vertices, mesh.faces)
        uv, uv_faces = subdivide(mesh.uv, mesh.uv_faces)
        mesh = Mesh(vertices, faces, uv=uv, uv_faces=uv_faces)
    return mesh


@dataclass(frozen=True, eq=False)
class _Texels:
    """The texels whose centre lies on the surface: their faces and barycentric coordinates there.

    ``nearest``: for every texel of the texture the number of the nearest one on the surface, itself if it is one.
    """

    face: Int[Tensor, " texels"]
    weights: Float[Tensor, "texels 3"]
    nearest: Int[Tensor, "texture_height texture_width"]

    @classmethod
    def of(cls, mesh: Mesh, size_px: int) -> "_Texels":
        from scipy.ndimage import distance_transform_edt

        assert mesh.uv is not None
        assert mesh.uv_faces is not None
        # A camera one unit before the plane z = -1 whose picture is the texture: u to the right, v upwards.
        flat = torch.cat([mesh.uv, -torch.ones_like(mesh.uv[:, :1])], dim=1)
        camera = Cameras(torch.eye(4).to(flat)[None], torch.tensor([[1.0, 1.0, 0.0, 1.0]]).to(flat))
        fragments = rasterize(flat, mesh.uv_faces, camera, size_px, size_px)
        face, weights = fragments.face_ids[0], fragments.barycentrics[0]
        # A face too small to cover any texel's centre gets the one that its own centre is in.
        missed = torch.ones(len(mesh.faces), dtype=torch.bool, device=face.device)
        missed[face[face >= 0]] = False
        missed = missed.nonzero()[:, 0]
        column, row = (mesh.uv[mesh.uv_faces[missed]].mean(1) * size_px).long().clamp(0, size_px - 1).unbind(1)
        row = size_px - 1 - row
        free = face[row, column] < 0
        face[row[free], column[free]] = missed[free]
        weights[row[free], column[free]] = 1 / 3
        on_surface = face >= 0
        number = (on_surface.flatten().cumsum(0) - 1).view_as(face)
        row, column = distance_transform_edt(~on_surface.cpu().numpy(), return_distances=False, return_indices=True)
        nearest = number[torch.from_numpy(row).to(face.device).long(), torch.from_numpy(column).to(face.device).long()]
        return cls(face[on_surface], weights[on_surface], nearest)

    def interpolate(
        self, faces: Int[Tensor, "faces 3"], attributes: Float[Tensor, "points channels"]
    ) -> Float[Tensor, "texels channels"]:
        corner_of_texel = faces[self.face]
        return sum(self.weights[:, k : k + 1] * attributes[corner_of_texel[:, k]] for k in range(3))  # type: ignore[return-value]

    def texture(self, values: Float[Tensor, "texels 3"]) -> Float[Tensor, "3 texture_height texture_width"]:
        """The picture of these values, the gutters filled from their nearest texels. Differentiable."""
        return values.index_select(0, self.nearest.flatten()).T.view(3, *self.nearest.shape)


class _Surface:
    """Averages over a mesh's surface."""

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


# ------------------------------------------------------------------------------- views that agree


def _agreeing(sights: list[Sight], mesh: Mesh) -> list[Sight]:
    """The same views with their exposures and other slow differences evened out, and trusted as far as they agree."""
    normals = mesh.vertex_normals()
    looks = [sight.look(mesh.vertices, normals) for sight in sights]
    colors = torch.stack([color for color, _ in looks])
    quality = torch.stack([quality for _, quality in looks])
    gain, offset, trust = _exposures(colors, quality.square())
    colors = colors * gain[:, None] + offset[:, None]
    weights = quality.square() * trust
    consensus = (weights[..., None] * colors).sum(0) / weights.sum(0).clamp(min=1e-12)[:, None]
    surface = _Surface(mesh)
    evened = []
    for i, sight in enumerate(sights):
        total, own = quality[i, :, None].square(), weights[i, :, None]
        slow = surface.smooth(torch.cat([own * (consensus - colors[i]), own, total], dim=1))
        difference = slow[:, :3] / slow[:, 3:4].clamp(min=1e-6)
        believed = slow[:, 3:4] / slow[:, 4:].clamp(min=1e-6)
        evened.append(_evened(sight, mesh, gain[i], offset[i], difference, believed))
    return evened


def _exposures(
    colors: Float[Tensor, "views points 3"], weights: Float[Tensor, "views points"]
) -> tuple[Float[Tensor, "views 3"], Float[Tensor, "views 3"], Float[Tensor, "views points"]]:
    """Gain and offset by which each view agrees best with the others, and how far it then does so at each point.

    The pictures' own gains have the mean 1 and their offsets the mean 0, so that all brighter or all darker pictures
    stay what they are. Least squares, reweighted in rounds (Geman and McClure 1987) that start out tolerant, so that
    exposures are found before disagreement is judged.
    """
    trust = torch.ones_like(weights)
    for scale in _DISAGREEMENT:
        gain, offset = _least_squares_exposures(colors, weights * trust)
        levelled = colors * gain[:, None] + offset[:, None]
        share = weights * trust
        mean = (share[..., None] * levelled).sum(0) / share.sum(0).clamp(min=1e-12)[:, None]
        residual = (levelled - mean).square().sum(2)
        trust = (1 + residual / scale**2) ** -2
        # A view that is wrong in many places is not believed where it happens to be right or alone either.
        of_view = (weights * trust).sum(1) / weights.sum(1).clamp(min=1e-12)
        trust = trust * ((of_view / of_view.median().clamp(min=1e-12)).clamp(max=1) ** 4)[:, None]
    return gain, offset, trust


def _least_squares_exposures(
    colors: Float[Tensor, "views points 3"], weights: Float[Tensor, "views points"]
) -> tuple[Float[Tensor, "views 3"], Float[Tensor, "views 3"]]:
    """Minimise the weighted variance over the views of gain * color + offset, summed over the points."""
    count = len(colors)
    w = weights.double()
    ones = torch.ones_like(w)
    of_view = w.sum(1)
    prior = _GAIN_PRIOR * torch.cat([of_view, 10 * of_view]) + 1e-9
    target = torch.cat([torch.ones_like(of_view), torch.zeros_like(of_view)])
    gains, offsets = [], []
    for channel in colors.double().unbind(2):
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
    sight: Sight,
    mesh: Mesh,
    gain: Float[Tensor, "3"],
    offset: Float[Tensor, "3"],
    difference: Float[Tensor, "vertices 3"],
    believed: Float[Tensor, "vertices 1"],
) -> Sight:
    """A view with its exposure changed and what was found at vertices drawn into it."""
    view = sight.view
    fragments = rasterize(mesh.vertices, mesh.faces, view.cameras, *view.images.shape[2:])
    drawn = interpolate(fragments, mesh.faces, torch.cat([difference, believed], dim=1)).permute(0, 3, 1, 2)
    trust = torch.where((fragments.face_ids >= 0)[:, None], drawn[:, 3:], 1.0)
    shift = offset.view(1, 3, 1, 1) + drawn[:, :3]
    images = (view.images - (1 - view.alpha)) * gain.view(1, 3, 1, 1) + shift * view.alpha + (1 - view.alpha)
    return replace(sight, view=replace(view, images=images), belief=sight.belief * trust)


# ------------------------------------------------------------------------------- texels


def _blended(
    sights: list[Sight],
    texels: _Texels,
    mesh: Mesh,
    field: Field | None,
    progress: Progress,
) -> Float[Tensor, "texels 3"]:
    """Each texel from the views that see it best; the others from the field or from what is seen around them."""
    vertex_normals = mesh.vertex_normals()
    points = texels.interpolate(mesh.faces, mesh.vertices)
    normals = normalize(texels.interpolate(mesh.faces, vertex_normals), dim=1)
    total, weight = torch.zeros_like(points), torch.zeros_like(points[:, :1])
    at_vertices, weight_at_vertices = torch.zeros_like(mesh.vertices), torch.zeros_like(mesh.vertices[:, :1])
    for i, sight in enumerate(sights):
        towards = ((sight.view.cameras.positions - points) * normals).sum(1) > 0
        facing = towards.nonzero()[:, 0]
        colors, quality = sight.look(points[facing], normals[facing])
        share = quality[:, None] ** SHARPNESS
        total.index_add_(0, facing, share * colors)
        weight.index_add_(0, facing, share)
        colors, quality = sight.look(mesh.vertices, vertex_normals)
        at_vertices += quality[:, None] ** SHARPNESS * colors
        weight_at_vertices += quality[:, None] ** SHARPNESS
        progress("bake", (i + 1) / len(sights))
    known = at_vertices / weight_at_vertices.clamp(min=1e-30)
    filling = _filling(mesh, known, weight_at_vertices[:, 0] > 0, points, texels, field)
    return torch.where(weight > 0, total / weight.clamp(min=1e-30), filling)


def _filling(
    mesh: Mesh,
    known: Float[Tensor, "vertices 3"],
    seen: Bool[Tensor, " vertices"],
    points: Float[Tensor, "texels 3"],
    texels: _Texels,
    field: Field | None,
) -> Float[Tensor, "texels 3"]:
    """Colours for texels that no view sees: the field's, moved towards what the views show around them.

    Without a field it is what is known at vertices, carried on over the surface.
    """
    at_vertices = ask(field, mesh.vertices)
    moved = fill_unseen(mesh, known, seen, at_vertices) - at_vertices
    return ask(field, points) + texels.interpolate(mesh.faces, moved)


# ------------------------------------------------------------------------------- the fit


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


def _fitted(
    start: Float[Tensor, "texels 3"], sights: list[Sight], texels: _Texels, mesh: Mesh, seed: int, progress: Progress
) -> Float[Tensor, "texels 3"]:
    """Colours whose pictures come nearer to the views, as long as withheld pixels come nearer too.

    Pictures are linear in the texture, so this is weighted least squares: conjugate gradients on the normal equations
    (Hestenes and Stiefel 1952), stopped early. Texels of which pixels tell little or nothing stay near their start.
    """
    generator = torch.Generator().manual_seed(seed)
    share = min(1.0, _MOST_PIXELS / max(1, sum(int((sight.view.alpha > 0.5).sum()) for sight in sights)))
    parts = [_pixels(sight, mesh, len(texels.nearest), share, generator) for sight in sights]
    pixels = _Pixels(*(torch.cat([getattr(part, name) for part in parts]) for name in _Pixels.__dataclass_fields__))
    del parts

    colors = start
    residual = pixels.colors - pixels.draw(texels.texture(colors))
    weights = (pixels.weights / (1 + residual.square().sum(1) / _DISAGREEMENT[-1] ** 2))[:, None]
    withheld = torch.rand(len(weights), generator=generator).to(weights)[:, None] < _WITHHELD
    used = torch.where(withheld, 0, weights)

    probe = torch.zeros_like(start).requires_grad_()
    with torch.enable_grad():
        drawn_probe = pixels.draw(texels.texture(probe))

    def drawn_transposed(values: Tensor) -> Tensor:
        # Of a sum, because for anything else torch imports its symbolic half, which takes seconds.
        with torch.enable_grad():
            return torch.autograd.grad((drawn_probe * values).sum(), probe, retain_graph=True)[0]

    def error() -> float:
        return float((torch.where(withheld, weights, 0) * residual.square()).sum())

    told = drawn_transposed(used.expand_as(residual))
    prior = _PRIOR * told.sum() / (told > 0).sum().clamp(min=1)
    scale = 1 / (told + prior).clamp(min=1e-20)
    gradient = drawn_transposed(used * residual)
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
        gradient = gradient - length * (drawn_transposed(used * change) + prior * direction)
        new_power = (gradient * scale * gradient).sum(0)
        direction = scale * gradient + new_power / power.clamp(min=1e-20) * direction
        power = new_power
        progress("sharpen", (step + 1) / _MOST_STEPS)
    progress("sharpen", 1.0)
    return best if best_error < _WORTH_IT * first_error else start


def _pixels(sight: Sight, mesh: Mesh, texture_px: int, share: float, generator: torch.Generator) -> _Pixels:
    """A random share of a view's pixels, of those that lie on the mesh wholly."""
    assert mesh.uv is not None
    assert mesh.uv_faces is not None
    height, width = sight.view.images.shape[2:]
    fragments = rasterize(mesh.vertices, mesh.faces, sight.view.cameras, _SAMPLES * height, _SAMPLES * width)
    levels = mip_levels(fragments, mesh.faces, mesh.uv, mesh.uv_faces, texture_px, texture_px)
    uv = interpolate(fragments, mesh.uv_faces, mesh.uv)
    geometry = interpolate(fragments, mesh.faces, torch.cat([mesh.vertices, mesh.vertex_normals()], dim=1))

    def by_pixel(values: Tensor) -> Tensor:
        values = values.view(height, _SAMPLES, width, _SAMPLES, -1).transpose(1, 2)
        return values.reshape(height * width, _SAMPLES**2, -1)

    chosen = (by_pixel(fragments.face_ids) >= 0).flatten(1).all(1)
    chosen &= torch.rand(height * width, generator=generator).to(levels) < share
    points, normals = by_pixel(geometry)[chosen].mean(1).split(3, dim=1)
    colors, quality = sight.look(points, normalize(normals, dim=1))
    told = quality > 0
    return _Pixels(
        by_pixel(uv)[chosen][told], by_pixel(levels)[chosen][told, :, 0], colors[told], quality[told] ** _FIT_SHARPNESS
    )
