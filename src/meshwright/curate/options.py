"""Every option of curation, defined once: name, type, default, meaning, and bounds.

Imports nothing but the standard library and `meshwright.limits`, so that ``--help`` is quick.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from meshwright.errors import InputError
from meshwright.limits import Limits

ViewSetName = Literal["instantmesh", "mindone", "random", "circle", "sv3d", "orbit", "zero123plus", "zero123plus-v1.1"]
Fit = Literal["box", "sphere"]
Lighting = Literal["unlit", "studio", "varied"]
RendererName = Literal["builtin", "blender"]
LayoutName = Literal["meshwright", "instantmesh", "mindone"]

VIEW_SETS: tuple[str, ...] = get_args(ViewSetName)


@dataclass(frozen=True)
class ViewSetOptions:
    """From where an object is looked at."""

    view_set: ViewSetName = "instantmesh"
    """instantmesh: 32 random views, distance 2 to 3.5, height -0.75 to 1.6, field of view 50 degrees, as the published
    model was trained. mindone: the same, 16 views. random: as the ranges below say. circle: 8 views around, elevation
    20, distance 4, field of view 30. Else a rig of meshwright reconstruct."""
    views: int | None = None
    """How many views, where the set leaves it open; the set's own number when not given."""
    distance: tuple[float, float] = (2.0, 3.5)
    """random: range of the distances from the origin."""
    elevation_deg: tuple[float, float] = (-90.0, 90.0)
    """random: range of the elevations; even over the sphere between them."""
    fov_deg: tuple[float, float] = (50.0, 50.0)
    """random: range of the fields of view, one drawn for each view."""

    def __post_init__(self) -> None:
        if self.view_set not in VIEW_SETS:
            known = ", ".join(VIEW_SETS)
            raise InputError(f"`view_set={self.view_set!r}`: there is no such set; use one of {known}")
        if self.views is not None and not 1 <= self.views <= 1000:
            raise InputError(f"`views={self.views}` makes no set; ask for 1 to 1000")
        fixed = {"zero123plus": 6, "zero123plus-v1.1": 6}.get(self.view_set)
        if fixed is not None and self.views not in (None, fixed):
            raise InputError(f"view set {self.view_set} has {fixed} views, not {self.views}; leave `views` out")
        ranges = (
            (self.distance, 0.1, 1000.0, "distance"),
            (self.elevation_deg, -90.0, 90.0, "elevation_deg"),
            (self.fov_deg, 0.5, 170.0, "fov_deg"),
        )
        for (low, high), least, most, name in ranges:
            if not least <= low <= high <= most:
                raise InputError(
                    f"`{name}`: {low:g} to {high:g} is no range that rises within {least:g} to {most:g}; correct it"
                )


@dataclass(frozen=True)
class DrawOptions:
    """How an object is drawn."""

    size_px: int = 512
    """Side of the pictures."""
    fit: Fit = "box"
    """What becomes [-1, 1]: the longest side of the bounding box, or a sphere around its centre."""
    lighting: Lighting = "unlit"
    """unlit: the base colour. studio: even light. varied: random lights, another set for each object (Blender)."""
    blender: Path | None = None
    """A Python in which ``import bpy`` works, or a blender executable; if not given, MESHWRIGHT_BLENDER names it."""
    cycles_device: Literal["cpu", "gpu"] = "cpu"
    """Where Blender draws; gpu: all of the first kind that Cycles finds (OptiX, CUDA, HIP, Metal, oneAPI)."""

    def __post_init__(self) -> None:
        if not 16 <= self.size_px <= 4096:
            raise InputError(f"`size_px={self.size_px}`: pictures of this size cannot be drawn; choose 16 to 4096")


@dataclass(frozen=True)
class SampleOptions:
    """How a sample is drawn from an object. Defaults are those of the published training of stage 1."""

    inputs: int = 6
    """Views that the model is given."""
    targets: int = 4
    """Further views that only supervise."""
    supervise_inputs: bool = True
    """The input views supervise as well; they come first among the targets."""
    input_px: int = 320
    """Side of the input pictures."""
    crop_px: int = 192
    """Side of the target pictures."""
    render_px: tuple[int, int] = (192, 512)
    """Targets are resized to a side drawn evenly from this range (never above that of the files) and then cropped,
    all in one place. Equal to ``crop_px`` twice: whole pictures."""
    background: Literal["white", "black", "random"] = "white"
    """What stands behind the object; random: one grey a sample."""
    rotate_z: bool = True
    """Turn the world about z by any angle: cameras and normals."""
    scale: tuple[float, float] = (0.7, 1.1)
    """Scale the world about the origin by a factor drawn evenly from this range: camera distances and depth."""
    scale_probability: float = 0.5
    """Share of the samples that are scaled."""
    camera_noise: float = 0.02
    """Added evenly within +- this to each of the 16 numbers of the input cameras; targets keep theirs."""

    def __post_init__(self) -> None:
        if self.inputs < 1 or self.targets < 0 or self.targets + self.inputs * self.supervise_inputs < 1:
            raise InputError("a sample needs at least one input and one supervised view; choose more of them")
        low, high = self.render_px
        if not 16 <= self.crop_px <= low <= high:
            raise InputError(
                f"`render_px` {low} to {high} must rise from `crop_px={self.crop_px}` or more, at least 16; correct it"
            )
        if not 0 < self.scale[0] <= self.scale[1] or not 0 <= self.scale_probability <= 1 or self.camera_noise < 0:
            raise InputError(
                "`scale` must rise from above 0, `scale_probability` lie in [0, 1], `camera_noise` not be below 0"
            )


@dataclass(frozen=True)
class CurateRenderOptions:
    """Options of `meshwright curate render`."""

    objects: tuple[Path, ...]
    """Files or folders of GLB, glTF, OBJ, PLY or STL (by Blender also FBX), or a manifest of curate select."""
    out: Path
    """Folder of the data set; a run that was stopped goes on there."""
    views: ViewSetOptions = field(default_factory=ViewSetOptions)
    draw: DrawOptions = field(default_factory=DrawOptions)
    limits: Limits = field(default_factory=Limits)
    renderer: RendererName = "builtin"
    """What draws: the package's own rasteriser, or Blender (Cycles)."""
    seed: int = 0
    """Random views depend on it and on the object's content alone."""
    workers: int = 0
    """Objects drawn side by side; 0: one for each processor."""
    ray: str | None = None
    """Address of a Ray cluster that does the work, or local to start one here; workers has no part in it then."""
    retry_failed: bool = False
    """Try objects again that failed in an earlier run."""

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise InputError(f"`workers={self.workers}`: cannot work; use 1 or more, or 0 for one each processor")


@dataclass(frozen=True)
class CurateSelectOptions:
    """Options of `meshwright curate select`. Rules are asked in the order in which they stand here."""

    objects: tuple[Path, ...]
    """Files or folders of GLB, glTF, OBJ, PLY or STL, or a manifest."""
    out: Path
    """The manifest to write, for meshwright curate render."""
    most_faces: int = 2_000_000
    """huge: more triangles than this."""
    least_faces: int = 8
    """empty: fewer triangles than this."""
    least_thickness: float = 0.01
    """flat: the shortest side of its box is a smaller share of the longest."""
    textureless: bool = False
    """Keep objects without colours, or of one colour."""
    most_objects: int = 1
    """scene: falls into more than so many large parts (each a tenth of the surface) that stand clear of each other."""
    hold_out_sources: tuple[str, ...] = ()
    """Sources whose objects all go to the test split."""
    seed: int = 0
    """Of the split into train (0.9), validation and test (0.05 each), by a digest of the object's name."""
    workers: int = 0
    """Files read side by side; 0: one for each processor."""
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class CurateCheckOptions:
    """Options of `meshwright curate check`."""

    dataset: Path
    """A data set in any layout that can be read."""
    workers: int = 1
    """Objects checked side by side."""
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class CuratePreviewOptions:
    """Options of `meshwright curate preview`."""

    dataset: Path
    """A data set in any layout that can be read."""
    out: Path = Path("preview.png")
    """The picture to write."""
    objects: int = 12
    """How many objects, evenly chosen; one row each."""
    views: int = 5
    """How many views of each; then depth and normals of the first."""
    tile_px: int = 160
    """Side of a tile."""

    def __post_init__(self) -> None:
        if min(self.objects, self.views) < 1 or not 16 <= self.tile_px <= 1024:
            raise InputError("a preview needs one object, one view and tiles of 16 to 1024 px at least; ask for more")


@dataclass(frozen=True)
class CuratePackOptions:
    """Options of `meshwright curate pack`."""

    dataset: Path
    """A data set of `meshwright curate render`."""
    out: Path
    """Folder for the shards; made when missing."""
    shard_mib: int = 1024
    """A shard is closed with the object that takes it over this size."""

    def __post_init__(self) -> None:
        if self.shard_mib < 1:
            raise InputError(f"`shard_mib={self.shard_mib}`: holds nothing; choose 1 or more")


@dataclass(frozen=True)
class CurateConvertOptions:
    """Options of `meshwright curate convert`."""

    source: Path
    """A data set in any layout that can be read."""
    out: Path
    """Folder for the new one; made when missing."""
    layout: LayoutName = "meshwright"
    """meshwright, instantmesh (TencentARC) or mindone."""
