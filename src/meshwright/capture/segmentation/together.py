"""One object in pictures from known cameras, cut out of any background: all pictures together, with no download.

After Campbell, Vogiatzis, Hernandez & Cipolla, "Automatic 3D object segmentation in multiple views using volumetric
graph-cuts" (2010): the object is what all cameras look at; colour models of it and of each picture's background and
the shape that the pictures agree on are found in turn. What is added here is the table: its picture from above says
of most background what colour it has to have (`table`), with shadows and all, so that nothing need be known of the
object at first.

1. The volume that most cameras see, above the table. Voxels of it that no picture explains as table are a first shape.
2. Colour models from inside and outside of the shape's silhouettes; what each says of each pixel, what the table says,
   and the silhouettes are the costs of a cut (`cut`) in each picture.
3. Voxels that nearly all cuts call object are the next shape. Again from 2.
4. At last a cut in full resolution around the shape's outline.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from meshwright.cameras import Cameras
from meshwright.capture.foreground import without_specks
from meshwright.capture.segmentation.colors import ColorModel
from meshwright.capture.segmentation.cut import contrast_weight, smallest_cut
from meshwright.capture.segmentation.table import TABLE_SIDE, Ground, TablePicture, table_explains
from meshwright.capture.upright import Plane, level_world, moved_cameras
from meshwright.errors import InputError
from meshwright.progress import Progress, silent

_WORK_PX = 320  # longer side of the pictures in all rounds but the last
_BELIEF = (0.25, 0.5, 1.0, 1.0)  # in the common shape, round by round: the first may lack parts
_FIRM_BELIEF = (1.0, 1.0, 1.0)  # in a shape that was found from outside, which has parts too many
_OWN_BELIEF = 0.25  # when each picture is asked what it shows by itself
_VOXELS = 72  # along the longest side of a grid
_REACH = 2.4  # units around where the cameras look: 4 units away they cannot look at more
_SEEN_BY, _FIRST_SEEN_BY = 0.75, 0.95  # share of the views that must see a voxel; of the first volume
_TABLE_GAP = 0.02  # units above the table where the volume begins
_TABLE_REACH = 1.4  # times as far as the first volume: table that is seen beside it
_MOST_PARINGS, _MOST_FINE_PARINGS = 24, 5
_SETTLED = 0.98  # of the voxels are left by the last paring
_LEAST_PROOF = 0.25  # share of the views in which a voxel of the first shape hides the table's colour
_CLEAR_PX = 3.0  # at work resolution: so near the shape's silhouettes nothing is taken for the table
_DISSENT = 0.12  # share of the views that may call a voxel background
_TOLERANCE = (0.012, 0.03)  # sRGB: least and most difference from the table's colour that is none; in between
_NOISES = 2.0  # times the difference that nine tenths of what surely is table stay below
_CONTRADICTED = 4.0  # tolerances, that are a difference
_LEAST_VALUE = 0.3  # of the way there, that speaks against the table
_TABLE_TRUST, _FIRM_TRUST = 0.9, 0.97  # that a pixel of the table where its colour is known has that colour
_MOST_LOG_ODDS = 5.0
_OWN_COLOR = 3.0  # log odds of a colour's being the object's, from where the table's having it is doubtful
_OBJECT_PARTS, _BACKGROUND_PARTS = 8, 6
_NEAR_PX = 24  # at work resolution: background so near the object counts as much as all the rest
_EDGE_COST, _LEAST_EDGE = 3.0, 0.08
_INSIDE, _OUTSIDE = 1.5, 4.0  # log odds that the shape's silhouette adds, well inside and well outside
_BAND_PX = 3.0  # around the silhouette's outline in which they fade
_FOOT = 0.3  # of the shape's height, that may be the table's shadow
_BASE_LAYERS = 3  # of voxels: what is there, and below the rest, stands on the table
_MARGIN = 0.1  # of the shape's sides, left around it for the next grid; more where it is not yet believed
_LEAST_AGREEMENT, _MOST_UNEXPLAINED, _MOST_CUT_OFF = 0.87, 0.05, 0.34  # of `Segmented`, without doubt
_CLEARLY_BETTER = 0.02  # of the score: outlines begun from outside keep a rim of shadow, which no score tells
_DISAGREE = 0.8  # IoU of a cut and the shape's silhouette below which a view is reported
_SPECK = 0.02  # of the largest piece: what is smaller is no part of the object
_SOFT_PX = 0.6  # of the last alpha's edge


@dataclass(frozen=True, eq=False)
class Segmented:
    """``alpha``: the object's coverage. ``agreement``: IoU of each view's cut with the common shape's silhouette.

    ``unexplained``: pixels near it that surely do not show the table and yet are in no outline, as a share of those in
    outlines. ``cut_off``: share of the views in which the outline meets the picture's edge.
    """

    alpha: Float[Tensor, "views 1 height width"]
    agreement: Float[Tensor, " views"]
    unexplained: float
    cut_off: float

    @property
    def disagreeing(self) -> list[int]:
        return [i for i, iou in enumerate(self.agreement.tolist()) if iou < _DISAGREE]

    @property
    def doubts(self) -> list[str]:
        """What is wrong with the outlines as a whole, for people; nothing where they may be believed."""
        doubts = []
        if float(self.agreement.mean()) < _LEAST_AGREEMENT or 3 * len(self.disagreeing) > len(self.agreement):
            doubts.append(
                f"what the pictures show by themselves agrees by {self.agreement.mean():.2f} with all together"
            )
        if self.unexplained > _MOST_UNEXPLAINED:
            doubts.append(
                f"{100 * self.unexplained:.0f} % more than the outlines hold stands out from the table beside it"
            )
        if self.cut_off > _MOST_CUT_OFF:
            doubts.append(f"the outline reaches the edge of {100 * self.cut_off:.0f} % of the pictures")
        return doubts

    @property
    def score(self) -> float:
        return float(self.agreement.mean()) - self.unexplained - self.cut_off


def segment_together(
    images: Float[Tensor, "views 3 height width"],
    cameras: Cameras,
    seen: Float[Tensor, "views 1 height width"],
    table: Plane | None,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> Segmented:
    """Find the one object that all cameras look at.

    ``images``: exposed alike. ``seen``: 1 where a picture may show the object, 0 on the canvas around it. ``table``:
    the plane on which the object stands, in the cameras' world; None if there is none.

    Raises:
        InputError: the cameras look at no common place, or nothing in it differs from its surroundings.
    """
    T_world_camera = cameras.T_world_camera.double().numpy()
    T_level_world = level_world(T_world_camera, table)
    moved = torch.from_numpy(moved_cameras(T_world_camera, T_level_world)).float()
    cameras = Cameras(moved, cameras.intrinsics.float())
    table_z = None if table is None else table.moved(T_level_world).height
    full = _Pictures(images, cameras, (seen[:, 0] > 0.99).numpy(), None)
    work = full.smaller(min(1.0, _WORK_PX / max(full.size)))
    found: Segmented | None = None
    failure = InputError("")
    try:
        first = _first_shape(work, table_z)
        found = _segmented(full, work, first, table_z, False, np.random.default_rng(seed), progress)
        if table_z is None or not found.doubts:
            return found
    except InputError as error:
        if table_z is None:
            raise
        failure = error
    # The table was taken for what most pictures agree on, and what stands on it has a part in that where it is of one
    # colour: bowls, lids. Begun from outside that cannot be, but it takes longer and keeps a rim of shadow.
    try:
        first = _standing_on(table_z, _common_volume(cameras, table_z, _FIRST_SEEN_BY), work)
        other = _segmented(full, work, first, table_z, True, np.random.default_rng(seed), progress)
    except InputError:
        if found is None:
            raise failure from None
        return found
    return other if found is None or other.score > found.score + _CLEARLY_BETTER else found


def _segmented(
    full: "_Pictures",
    work: "_Pictures",
    shape: "_Shape",
    table_z: float | None,
    firm: bool,
    rng: np.random.Generator,
    progress: Progress,
) -> Segmented:
    """Colour models, cuts and the common shape in turn, from a first shape.

    ``firm``: it holds all of the object and little else, and the table's picture is to have no part in it.
    """
    volume = _common_volume(work.cameras, table_z, _SEEN_BY)
    center, half = volume.footprint()
    first_outlines = [shape.silhouette(work, i) & firm for i in range(len(work))]

    def with_table(outlines: list[Bool[ndarray, "height width"]], stood_on: Ground | None = None) -> _Pictures:
        if table_z is None:
            return work
        hidden = [outline | first for outline, first in zip(outlines, first_outlines, strict=True)]
        return work.with_table(hidden, _CLEAR_PX, table_z, center, half, firm=firm, stood_on=stood_on)

    cuts: list[Bool[ndarray, "height width"]] = []
    beliefs = _FIRM_BELIEF if firm else _BELIEF
    for round_, belief in enumerate(beliefs):
        progress("object", 0.2 + 0.5 * round_ / len(beliefs))
        outlines = [shape.silhouette(work, i) for i in range(len(work))]
        work = with_table(outlines)
        models = _Models.fit(work, outlines, rng)
        cuts = [work.cut(i, models, outlines[i], belief) for i in range(len(work))]
        shape = shape.refitted(float(volume.low[2]), _MARGIN / belief).voted(work, cuts)
    upper = None if table_z is None else shape.above_foot()
    if upper is not None:
        # The table under what hangs over, or close around, is in the outlines of nearly all views, which hide it from
        # the table's picture. So once more with outlines and colours of what surely stands above it.
        outlines = [shape.silhouette(work, i) for i in range(len(work))]
        inner = [upper.silhouette(work, i) for i in range(len(work))]
        first_outlines = [first & core for first, core in zip(first_outlines, inner, strict=True)]
        work = with_table(inner)
        models = _Models.fit(work, outlines, rng, inner)
        cuts = [work.cut(i, models, outlines[i], 1.0) for i in range(len(work))]
        shape = shape.refitted(float(volume.low[2]), _MARGIN).voted(work, cuts)
    progress("object", 0.7)
    outlines = [shape.silhouette(work, i) for i in range(len(work))]
    models = _Models.fit(work, [cut & out for cut, out in zip(cuts, outlines, strict=True)], rng)
    # What each picture shows by itself, nearly: with the common shape before its eyes a cut agrees with that anyway.
    own = [work.cut(i, models, outlines[i], _OWN_BELIEF) for i in range(len(work))]
    agreement = torch.tensor([_iou(cut, outline) for cut, outline in zip(own, outlines, strict=True)])
    upper = None if table_z is None else shape.above_foot()
    if upper is None:
        work = with_table(outlines)
    else:
        # Outlines that hold a lump of table would hide that it is table, so what is above it is believed only.
        work = with_table([upper.silhouette(work, i) for i in range(len(work))], shape.base(upper))
    full = full.with_table_of(work)
    alpha = torch.zeros(len(full), 1, *full.size)
    for i in range(len(full)):
        progress("object", 0.7 + 0.3 * i / len(full))
        alpha[i, 0] = torch.from_numpy(full.last_cut(i, models, outlines[i]))
    progress("object", 1.0)
    return Segmented(alpha, agreement, _unexplained(work, alpha), _cut_off(alpha, full.seen))


def _unexplained(pictures: "_Pictures", alpha: Float[Tensor, "views 1 full_height full_width"]) -> float:
    """As in `Segmented`: in a box around each mask, with half of its sides as room."""
    masks = interpolate(alpha, size=pictures.size, mode="area")[:, 0].numpy()
    left = 0
    for i, mask in enumerate(masks):
        if mask.max() <= 0.5:
            continue
        difference, known = pictures.table_difference(i)
        other = known & (ndimage.uniform_filter(difference, 3) > _CONTRADICTED * pictures.tolerance)
        other &= ~_grown(mask > 0.01, 3.0)  # outlines may be wrong by some pixels
        left += int(ndimage.binary_opening(other[_around(mask > 0.5, 0.5, 12)]).sum())
    return left / max(float((masks > 0.5).sum()), 1.0)


def _cut_off(alpha: Float[Tensor, "views 1 height width"], seen: Bool[ndarray, "views height width"]) -> float:
    """Share of the views in which the object reaches the edge of what was seen."""
    rim = np.stack([~ndimage.binary_erosion(view, iterations=2) for view in seen])
    return float(((alpha[:, 0] > 0.5).numpy() & rim).any(axis=(1, 2)).mean())


@dataclass(frozen=True, eq=False)
class _Shape:
    """Voxels: ``inside[x, y, z]`` is the cube of side ``cell`` whose lower corner is ``low + cell * (x, y, z)``."""

    inside: Bool[Tensor, "nx ny nz"]
    low: Float[Tensor, "3"]
    cell: float

    def centers(self) -> Float[Tensor, "voxels 3"]:
        axes = [self.low[k] + self.cell * (torch.arange(n) + 0.5) for k, n in enumerate(self.inside.shape)]
        return torch.cartesian_prod(*axes)

    def footprint(self) -> tuple[tuple[float, float], float]:
        """Middle and half side, with room around it, of the square below."""
        where = self.inside.any(dim=2).nonzero()
        low = self.low[:2] + self.cell * where.amin(dim=0)
        high = self.low[:2] + self.cell * (where.amax(dim=0) + 1)
        x, y = ((low + high) / 2).tolist()
        return (x, y), float((high - low).max()) / 2 * 1.1

    def silhouette(self, pictures: "_Pictures", view: int) -> Bool[ndarray, "height width"]:
        """Where a picture shows voxels."""
        height, width = pictures.size
        points = self.centers()[self.inside.flatten()]
        uv, depth_z = pictures.cameras[[view]].project(points)
        column, row = (uv[0, :, 0] * width).long(), (uv[0, :, 1] * height).long()
        ahead = (depth_z[0] > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        mask = np.zeros((height, width), bool)
        mask[row[ahead].numpy(), column[ahead].numpy()] = True
        if not mask.any():
            return mask
        focal_px = float(pictures.cameras.intrinsics[view, 1]) * height
        # Centres lie up to half a diagonal inside the voxels' outline.
        reach_px = self.cell * focal_px / float(depth_z[0][ahead].median())
        near = ndimage.distance_transform_edt(~mask) <= 0.75 * reach_px + 0.5
        return ndimage.binary_erosion(near, iterations=max(1, round(0.4 * reach_px)), border_value=1) | mask

    def filled_down(self) -> "_Shape":
        """With everything below it, down to the lowest layer."""
        below = self.inside.flip(2).cummax(dim=2).values.flip(2) if self.inside.any() else self.inside
        return _Shape(below, self.low, self.cell)

    def above_foot(self) -> "_Shape | None":
        """Without its lowest part; None if hardly anything would be left."""
        layers = self.inside.any(dim=0).any(dim=0).nonzero()[:, 0]
        floor = int(layers.min()) + round(_FOOT * int(layers.max() - layers.min() + 1))
        inside = self.inside.clone()
        inside[:, :, :floor] = False
        return _Shape(inside, self.low, self.cell) if 2 * inside.sum() > self.inside.sum() else None

    def base(self, upper: "_Shape") -> Ground:
        """Where its lowest layers are below ``upper``, which is on the same grid: what it stands on."""
        lowest = int(self.inside.any(dim=0).any(dim=0).nonzero()[0])
        stands = self.inside[:, :, lowest : lowest + _BASE_LAYERS].any(dim=2) & upper.inside.any(dim=2)
        return Ground(stands, self.low[:2], self.cell)

    def refitted(self, floor: float, margin: float) -> "_Shape":
        """A full grid that fits it, with room on all sides, but none below ``floor``."""
        where = self.inside.nonzero()
        low = self.low + self.cell * where.amin(dim=0)
        high = self.low + self.cell * (where.amax(dim=0) + 1)
        room = max(margin * float((high - low).max()), self.cell)
        low, high = low - room, high + room
        low[2] = low[2].clamp(min=floor)
        cell = float((high - low).max()) / _VOXELS
        sides = ((high - low) / cell).ceil().long().clamp(min=1).tolist()
        return _Shape(torch.ones(*sides, dtype=torch.bool), low, cell)

    def refined(self, floor: float) -> "_Shape":
        """The same shape, a voxel thicker, on a grid that fits it."""
        thick = _Shape(torch.from_numpy(ndimage.binary_dilation(self.inside.numpy())), self.low, self.cell)
        grid = self.refitted(floor, _MARGIN)
        index = ((grid.centers() - thick.low) / thick.cell).floor().long()
        within = ((index >= 0) & (index < torch.tensor(thick.inside.shape))).all(dim=1)
        i, j, k = torch.where(within[:, None], index, 0).unbind(dim=1)
        return _Shape((thick.inside[i, j, k] & within).view(grid.inside.shape), grid.low, grid.cell)

    def voted(self, pictures: "_Pictures", cuts: list[Bool[ndarray, "height width"]]) -> "_Shape":
        """The voxels that nearly all views call object."""
        votes = torch.from_numpy(np.stack(cuts)).float()[:, None]
        score, _ = self.seen_values(pictures, 2 * votes - 1, 1.0)
        inside = ((score > 0) & self.inside).numpy()
        return _Shape(torch.from_numpy(_main_piece(inside, inside)), self.low, self.cell)

    def seen_values(
        self, pictures: "_Pictures", values: Float[Tensor, "views 1 height width"], unseen: float
    ) -> tuple[Float[Tensor, "nx ny nz"], Float[Tensor, "views voxels"]]:
        """Values of the pixels that show each voxel, ``unseen`` where one has none; first the least but for a few.

        What too few views show is no object: the least is -1.
        """
        points = self.centers()
        uv, depth_z = pictures.cameras.project(points)
        visible = (depth_z > 0) & (uv > 0).all(dim=2) & (uv < 1).all(dim=2)
        sampled = grid_sample(values, (uv * 2 - 1)[:, :, None], align_corners=False, padding_mode="border")[:, 0, :, 0]
        sampled = torch.where(visible, sampled, unseen)
        kth = 1 + int(_DISSENT * len(values))
        least = torch.where(visible.float().mean(dim=0) < _SEEN_BY, -1.0, sampled.kthvalue(kth, dim=0).values)
        return least.view(self.inside.shape), sampled


def _main_piece(inside: Bool[ndarray, "nx ny nz"], counted: Bool[ndarray, "nx ny nz"]) -> Bool[ndarray, "nx ny nz"]:
    """The connected piece with the most voxels that are ``counted``, and others with a tenth of these.

    Parts of an object may seem to stand apart.
    """
    pieces, _ = ndimage.label(inside)
    if not counted.any():
        raise InputError(
            "no object stands out in the place that all cameras look at; give `masks`, pictures with alpha,"
            " or photograph it before another background"
        )
    sizes = np.bincount(pieces[inside & counted], minlength=pieces.max() + 1)
    sizes[0] = 0
    return sizes[pieces] >= 0.1 * sizes.max()


def _common_volume(cameras: Cameras, table_z: float | None, seen_by: float) -> _Shape:
    """The voxels above the table that the share ``seen_by`` of the cameras see, around where they look."""
    cell = 2 * _REACH / _VOXELS
    low = torch.tensor([-_REACH, -_REACH, -_REACH])
    if table_z is not None:
        low[2] = max(-_REACH, table_z + _TABLE_GAP)
    layers = max(1, int((_REACH - float(low[2])) / cell))
    shape = _Shape(torch.ones(_VOXELS, _VOXELS, layers, dtype=torch.bool), low, cell)
    points = shape.centers()
    uv, depth_z = cameras.project(points)
    visible = (depth_z > 0) & (uv > 0).all(dim=2) & (uv < 1).all(dim=2)
    inside = (visible.float().mean(dim=0) >= seen_by).view(shape.inside.shape)
    if not bool(inside.any()):
        raise InputError(
            "the cameras do not look at one place together; check them, or leave pictures of other things out"
        )
    return _Shape(inside, low, cell)


@dataclass(frozen=True, eq=False)
class _Models:
    object: ColorModel
    backgrounds: list[ColorModel]

    @classmethod
    def fit(
        cls,
        pictures: "_Pictures",
        outlines: list[Bool[ndarray, "height width"]],
        rng: np.random.Generator,
        cores: list[Bool[ndarray, "height width"]] | None = None,
    ) -> "_Models":
        """``cores``: what surely is object, if the outlines hold more."""
        inner, backgrounds = [], []
        for i, outline in enumerate(outlines):
            colors = pictures.colors(i)
            core = ndimage.binary_erosion(outline if cores is None else cores[i], iterations=2)
            # Where the table explains a pixel inside the first, rough outlines, it is no colour of the object.
            core &= ~pictures.is_table(i)
            inner.append(colors[core])
            outside = ~ndimage.binary_dilation(outline, iterations=3) & pictures.seen[i]
            near = outside & (ndimage.distance_transform_edt(~outline) < _NEAR_PX)
            far = colors[outside]
            if len(far) == 0:
                far = colors[~outline]
            if len(far) == 0:
                far = colors.reshape(-1, 3)
            close = colors[near]
            if len(close):
                far = np.concatenate([far, close[rng.integers(len(close), size=len(far))]])
            backgrounds.append(ColorModel.fit(far, _BACKGROUND_PARTS, rng))
        total = np.concatenate(inner)
        if len(total) == 0:
            raise InputError("the object cannot be told from its surroundings; give `masks` or pictures with alpha")
        return cls(ColorModel.fit(total, _OBJECT_PARTS, rng), backgrounds)


class _Pictures:
    """Pictures of one size with what the table says of each pixel."""

    def __init__(
        self,
        images: Float[Tensor, "views 3 height width"],
        cameras: Cameras,
        seen: Bool[ndarray, "views height width"],
        table: TablePicture | None,
        tolerance: float = _TOLERANCE[1],
        trust: float = _TABLE_TRUST,
    ) -> None:
        self.images, self.cameras, self.seen, self._table = images, cameras, seen, table
        self.tolerance, self.trust = tolerance, trust
        self.size: tuple[int, int] = (images.shape[2], images.shape[3])
        self._differences: dict[int, tuple[ndarray, ndarray]] = {}

    def __len__(self) -> int:
        return len(self.images)

    def colors(self, view: int) -> Float[ndarray, "height width 3"]:
        return self.images[view].permute(1, 2, 0).numpy()

    def table_difference(self, view: int) -> tuple[Float[ndarray, "height width"], Bool[ndarray, "height width"]]:
        """How far from the table's colour, and where that is known."""
        if self._table is None:
            return np.ones(self.size, np.float32), np.zeros(self.size, bool)
        if view not in self._differences:
            difference, agreeing = self._table.difference(self.images[view], self.cameras[[view]])
            self._differences[view] = difference.numpy(), table_explains(agreeing.numpy())
        return self._differences[view]

    def is_table(self, view: int) -> Bool[ndarray, "height width"]:
        difference, known = self.table_difference(view)
        return known & (ndimage.uniform_filter(difference, 3) < self.tolerance)

    def with_table(
        self,
        outlines: list[Bool[ndarray, "height width"]],
        clear_px: float,
        height: float,
        center: tuple[float, float],
        half: float,
        side: int = TABLE_SIDE,
        firm: bool = False,
        stood_on: Ground | None = None,
    ) -> "_Pictures":
        """With the table as it is seen farther than ``clear_px`` outside of some outlines.

        ``firm``: these hold all of the object, so the table is known well: how well the pictures themselves say.
        ``stood_on``: as for `TablePicture`.
        """
        free = self.seen & ~np.stack([_grown(outline, clear_px) for outline in outlines])
        layer = torch.from_numpy(free).float()[:, None]
        table = TablePicture.of(self.images, self.cameras, layer, height, center, half, side, stood_on)
        result = _Pictures(self.images, self.cameras, self.seen, table)
        if not firm:
            return result
        result.trust = _FIRM_TRUST
        differences = []
        for i in range(len(self)):
            difference, known = result.table_difference(i)
            differences.append(ndimage.uniform_filter(difference, 3)[known & free[i]])
        noise = np.concatenate(differences)
        if len(noise):
            result.tolerance = float(np.clip(_NOISES * np.quantile(noise, 0.9), *_TOLERANCE))
        return result

    def with_table_of(self, others: "_Pictures") -> "_Pictures":
        return _Pictures(self.images, self.cameras, self.seen, others._table, others.tolerance, others.trust)

    def smaller(self, scale: float) -> "_Pictures":
        """With so many times the pixels a side, and no table."""
        size = [max(16, round(side * scale)) for side in self.size]
        seen = interpolate(torch.from_numpy(self.seen).float()[:, None], size=size, mode="area")[:, 0] > 0.99
        return _Pictures(interpolate(self.images, size=size, mode="area"), self.cameras, seen.numpy(), None)

    def log_odds(self, view: int, models: _Models) -> Float[ndarray, "height width"]:
        """Of being object, from colours and table, clipped."""
        colors = self.colors(view)
        of_object = models.object.log_density(colors)
        of_background = models.backgrounds[view].log_density(colors)
        difference, known = self.table_difference(view)
        sigma = self.tolerance
        of_table = -0.5 * (difference / sigma) ** 2 - 3 * np.log(sigma) - 1.5 * np.log(2 * np.pi)
        doubt = np.exp(np.minimum(of_object - of_background - _OWN_COLOR, 30.0))
        trust = self.trust / (1 + doubt)
        both = np.logaddexp(np.log(trust) + of_table, np.log(1 - trust) + of_background)
        odds = of_object - np.where(known, both, of_background)
        return odds.clip(-_MOST_LOG_ODDS, _MOST_LOG_ODDS).astype(np.float32)

    def cut(
        self, view: int, models: _Models, outline: Bool[ndarray, "height width"], belief: float
    ) -> Bool[ndarray, "height width"]:
        if not outline.any():
            return outline
        cut = np.zeros(self.size, bool)
        place = _around(outline, 0.2 / belief, 12)
        cut[place] = self._cut_inside(view, models, outline[place], place, 1.0, belief)
        return cut

    def _cut_inside(
        self,
        view: int,
        models: _Models,
        outline: Bool[ndarray, "height width"],
        place: tuple[slice, slice],
        scale: float,
        belief: float,
    ) -> Bool[ndarray, "height width"]:
        """``scale``: pixels a pixel of the work resolution."""
        crop = self.cropped(view, place)
        cost = -crop.log_odds(0, _Models(models.object, [models.backgrounds[view]]))
        cost -= belief * _of_silhouette(outline, _BAND_PX * scale)
        cost[~crop.seen[0]] = _MOST_LOG_ODDS
        edges = contrast_weight(crop.colors(0), _EDGE_COST * scale, _LEAST_EDGE)
        return smallest_cut(cost, edges, outline) > 0.5

    def last_cut(
        self, view: int, models: _Models, outline: Bool[ndarray, "small_height small_width"]
    ) -> Float[ndarray, "height width"]:
        """Coverage, from a cut around an outline that was found in a smaller picture."""
        alpha = np.zeros(self.size, np.float32)
        if not outline.any():
            return alpha
        ratio = self.size[0] / outline.shape[0]
        fine = interpolate(
            torch.from_numpy(outline).float()[None, None], size=self.size, mode="bilinear", align_corners=False
        )
        large = fine[0, 0].numpy() > 0.5
        place = _around(large, 0.1, round(8 * ratio))
        mask = self._cut_inside(view, models, large[place], place, ratio, 1.0)
        mask = without_specks(ndimage.binary_fill_holes(mask) if _holes_are_small(mask) else mask, _SPECK)
        alpha[place] = ndimage.gaussian_filter(mask.astype(np.float32), _SOFT_PX)
        return alpha

    def cropped(self, view: int, place: tuple[slice, slice]) -> "_Pictures":
        height, width = self.size
        rows, columns = place
        camera = self.cameras[[view]].cropped(
            columns.start / width,
            rows.start / height,
            (columns.stop - columns.start) / width,
            (rows.stop - rows.start) / height,
        )
        return _Pictures(
            self.images[view : view + 1, :, rows, columns],
            camera,
            self.seen[view : view + 1, rows, columns],
            self._table,
            self.tolerance,
            self.trust,
        )


def _ball(volume: _Shape) -> _Shape:
    """Where there is no table: voxels around the place where all look."""
    points = volume.centers()
    radius = 0.4 * float(points[volume.inside.flatten()].norm(dim=1).max())
    near = (points.norm(dim=1) < radius).view(volume.inside.shape) & volume.inside
    return _Shape(near if bool(near.any()) else volume.inside, volume.low, volume.cell)


def _table_values(pictures: _Pictures) -> Float[Tensor, "views 1 height width"]:
    """Below 0 where the table explains a pixel, above where it contradicts it; 0.2 where nothing is known."""
    values = []
    for i in range(len(pictures)):
        difference, known = pictures.table_difference(i)
        tolerances = ndimage.uniform_filter(difference, 3) / pictures.tolerance
        value = (tolerances - 1) / (_CONTRADICTED - 1) - _LEAST_VALUE
        values.append(ndimage.median_filter(np.where(known, value.clip(-1, 1), 0.2), 5))
    return torch.from_numpy(np.stack(values)).float()[:, None]


def _first_shape(pictures: _Pictures, table_z: float | None) -> _Shape:
    """Voxels that no view explains as table, whose picture is what most views agree on; without a table a ball."""
    volume = _common_volume(pictures.cameras, table_z, _SEEN_BY)
    if table_z is None:
        return _ball(volume)
    center, half = volume.footprint()
    nothing = [np.zeros(pictures.size, bool)] * len(pictures)
    pictures = pictures.with_table(nothing, 0.0, table_z, center, half)
    score, sampled = volume.seen_values(pictures, _table_values(pictures), 0.2)
    proven = ((sampled > 0.25).float().mean(dim=0) >= _LEAST_PROOF).view(volume.inside.shape)
    inside = ((score > 0) & proven & volume.inside).numpy()
    # What stands on the table reaches down to it: an object of one colour hides that colour's foot in all views.
    return _Shape(torch.from_numpy(_main_piece(inside, inside)), volume.low, volume.cell).filled_down()


def _standing_on(table_z: float, volume: _Shape, pictures: _Pictures) -> _Shape:
    """What stands on the table: what is left of the volume when all is taken away through which views see the table.

    The table's picture is taken from outside of the shape's silhouettes only, so that the object has no part in it,
    and grows as these shrink. First in few pixels, then again, more finely, in what is left.
    """
    center, half = volume.footprint()
    shape = volume
    for scale, side, most in ((0.5, TABLE_SIDE // 2, _MOST_PARINGS), (1.0, TABLE_SIDE, _MOST_FINE_PARINGS)):
        work = pictures.smaller(scale)
        for _ in range(most):
            outlines = [shape.silhouette(work, i) for i in range(len(work))]
            work = work.with_table(outlines, 0.0, table_z, center, _TABLE_REACH * half, side, firm=True)
            pared = _pared(work, shape)
            settled = pared.inside.sum() > _SETTLED * shape.inside.sum()
            shape = pared
            if settled or not shape.inside.any():
                break
        # What stands on the table reaches down to it.
        shape = _proven(work, shape).filled_down()
        if scale < 1:
            shape = shape.refined(float(volume.low[2]))
    return shape


def _pared(pictures: _Pictures, shape: _Shape) -> _Shape:
    """Without the voxels through which several views see the table."""
    score, _ = shape.seen_values(pictures, _table_values(pictures), 0.2)
    return _Shape((score > 0) & shape.inside, shape.low, shape.cell)


def _proven(pictures: _Pictures, shape: _Shape) -> _Shape:
    """The pieces of a shape that views see before the table."""
    _, sampled = shape.seen_values(pictures, _table_values(pictures), 0.2)
    proven = ((sampled > 0.25).float().mean(dim=0) >= _LEAST_PROOF).view(shape.inside.shape) & shape.inside
    return _Shape(torch.from_numpy(_main_piece(shape.inside.numpy(), proven.numpy())), shape.low, shape.cell)


def _grown(mask: Bool[ndarray, "height width"], reach_px: float) -> Bool[ndarray, "height width"]:
    return ndimage.distance_transform_edt(~mask) <= reach_px


def _of_silhouette(outline: Bool[ndarray, "height width"], band_px: float) -> Float[ndarray, "height width"]:
    """Log odds by the distance from the common shape's outline."""
    inside_px = ndimage.distance_transform_edt(outline)
    outside_px = ndimage.distance_transform_edt(~outline)
    inside = (inside_px / band_px - 0.5).clip(0, 1)
    outside = (outside_px / band_px - 0.5).clip(0, 1)
    return (_INSIDE * inside - _OUTSIDE * outside).astype(np.float32)


def _around(mask: Bool[ndarray, "height width"], share: float, least_px: int) -> tuple[slice, slice]:
    """The mask's box with room around it."""
    slices = []
    for axis, size in enumerate(mask.shape):
        used = np.flatnonzero(mask.any(axis=1 - axis))
        room = max(least_px, round(share * (used[-1] - used[0] + 1)))
        slices.append(slice(max(0, used[0] - room), min(size, used[-1] + 1 + room)))
    return slices[0], slices[1]


def _holes_are_small(mask: Bool[ndarray, "height width"]) -> bool:
    holes = ndimage.binary_fill_holes(mask) & ~mask
    return bool(holes.sum() < 0.01 * max(mask.sum(), 1))


def _iou(a: Bool[ndarray, "height width"], b: Bool[ndarray, "height width"]) -> float:
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0
