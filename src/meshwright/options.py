"""Every option of the road from pictures to a mesh, defined once: name, type, default, meaning, and bounds.

Python, the command line and report.json all use these dataclasses. A flag is a field's name without its unit
(``elevation_deg`` is ``--elevation``). Functions further down take plain arguments, whose defaults come from here
(``FitOptions.refine``). This module imports nothing but the standard library, so that ``--help`` is quick.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from meshwright.errors import InputError

Rig = Literal["auto", "sv3d", "orbit", "zero123plus", "zero123plus-v1.1", "posed", "photos"]
Turn = Literal["estimate", "even"]
Background = Literal["auto", "flat", "multiview", "rembg"]
Surface = Literal["flexicubes", "marching-cubes"]
Start = Literal["auto", "hull", "carve"]
FitLevel = Literal["fast", "full"]
RefineLevel = Literal["off", "fast", "full"]
Colors = Literal["views", "model"]
Frame = Literal["auto", "input", "object"]
MeshFormat = Literal["glb", "obj", "ply", "stl"]


@dataclass(frozen=True)
class ViewOptions:
    """The pictures, and the cameras that took them."""

    rig: Rig = "auto"
    """Which cameras took the pictures; auto decides by what the input is."""

    elevation_deg: float | None = None
    """Degrees of an orbit's cameras above the horizon; estimated from the pictures if not given."""

    clockwise: bool | None = None
    """Whether an orbit's cameras move clockwise seen from above; estimated from the pictures if not given."""

    turn: Turn = "estimate"
    """Estimate how unevenly an orbit's camera turns and bobs (a given elevation stays), or take the turn for even."""

    fov_deg: float | None = None
    """Vertical field of view in degrees; the rig's own if not given."""

    radius: float | None = None
    """Distance of a rig's cameras from the origin; if not given, [-1, 1] is framed as by the Zero123++ rig."""

    background: Background = "auto"
    """Without alpha or masks the object is found before a flat background, by all views together, or by rembg."""

    box: str | None = None
    """Left, top, right and bottom in pixels of the first picture (120,80,400,390): the object is in there."""

    masks: Path | str | None = None
    """Folder of masks, white on the object, named like the pictures; a folder masks beside them if not given."""

    max_size_px: int = 1024
    """Larger pictures are made smaller, to this many pixels."""

    max_views: int = 128
    """Of more pictures an even selection is used."""

    def __post_init__(self) -> None:
        _require_choice("rig", self.rig, Rig)
        _require_choice("turn", self.turn, Turn)
        _require_choice("background", self.background, Background)
        _require_between("elevation_deg", self.elevation_deg, -90, 90)
        _require_between("fov_deg", self.fov_deg, 0.5, 170)
        _require_positive("radius", self.radius)
        _require_between("radius", self.radius, 1e-4, 1e6)
        _require_between("max_size_px", self.max_size_px, 16, 8192)
        _require_between("max_views", self.max_views, 1, 20_000)
        _ = self.box_px

    @property
    def box_px(self) -> tuple[float, float, float, float] | None:
        """``box`` as numbers.

        Raises:
            InputError: these are no box.
        """
        if self.box is None:
            return None
        try:
            left, top, right, bottom = (float(word) for word in self.box.split(","))
        except ValueError:
            left, top, right, bottom = 0.0, 0.0, 0.0, 0.0
        if not (0 <= left < right < 1e6 and 0 <= top < bottom < 1e6):
            raise InputError(f"`box`: {self.box[:60]!r} is no box; give left,top,right,bottom in pixels")
        return left, top, right, bottom


@dataclass(frozen=True)
class ModelOptions:
    """A model to start from."""

    model: str = "none"
    """none (shape from the silhouettes), a preset (instant-mesh-large, ...; downloaded), a weights file or a run;
    demo is a tiny one that comes with the package and knows the three objects of examples/demo_model."""

    model_dir: Path | None = None
    """Folder that is searched for weights first."""

    revision: str | None = None
    """Commit or tag of the weights on the hub; the pinned one if not given."""

    def __post_init__(self) -> None:
        if self.model == "none":
            require_unset("a reconstruction without a model", model_dir=self.model_dir, revision=self.revision)


@dataclass(frozen=True)
class ShapeOptions:
    """The shape to start from."""

    start: Start | None = None
    """hull, of the outlines; carve: without what colours look through; auto: fit both, keep the better. If not given:
    carve. With fewer than three pictures always hull."""

    resolution: int = 128
    """The visual hull's grid has about this many cells cubed; models have their own."""

    surface: Surface = "flexicubes"
    """How the surface is extracted from the grid."""

    def __post_init__(self) -> None:
        _require_between("resolution", self.resolution, 16, 512)
        _require_choice("surface", self.surface, Surface)
        if self.start is not None:
            _require_choice("start", self.start, Start)


@dataclass(frozen=True)
class FitOptions:
    """How the shape is fitted to the pictures."""

    refine: RefineLevel = "fast"
    """Fit the shape to the pictures: off, fast or full."""

    refine_cameras: bool | None = None
    """Let the fit correct small errors of the cameras, too; if not given, only for orbits without enough pattern."""

    time_budget_s: float | None = None
    """Seconds after which the fit ends with what it has; without end if not given."""

    faces: int | None = None
    """Simplify to about so many triangles; as they come if not given."""

    def __post_init__(self) -> None:
        _require_choice("refine", self.refine, RefineLevel)
        _require_positive("time_budget_s", self.time_budget_s)
        _require_between("faces", self.faces, 4, math.inf)
        if self.refine == "off":
            require_unset(
                "a shape that is not refined", refine_cameras=self.refine_cameras, time_budget_s=self.time_budget_s
            )


@dataclass(frozen=True)
class ColorOptions:
    """The colours of the mesh."""

    colors: Colors = "views"
    """Of the pictures, with the model's where no picture looks; or the model's alone."""

    vertex_colors: bool = False
    """Colours at vertices, no texture."""

    texture_size_px: int = 2048
    """Side of the texture in pixels."""

    delight: bool = False
    """Take slow shading out of the pictures' colours, so that the mesh can be lit anew."""

    def __post_init__(self) -> None:
        _require_choice("colors", self.colors, Colors)
        if self.delight and self.colors == "model":
            raise InputError("`delight`: has no effect with `colors='model'`; leave one of them out")
        _require_between("texture_size_px", self.texture_size_px, 256, 8192)
        if self.vertex_colors and self.texture_size_px != ColorOptions.texture_size_px:
            raise InputError("`texture_size_px`: has no effect with `vertex_colors`; leave one of them out")


@dataclass(frozen=True)
class OutputOptions:
    """The files that are written."""

    format: tuple[MeshFormat, ...] = ("glb",)
    """Formats of the mesh: any of glb, obj, ply, stl."""

    frame: Frame = "auto"
    """Where the mesh is: in the input's world, or upright about the origin in [-1, 1]; auto: the input's, if chosen."""

    turntable: bool = False
    """Also write turntable.mp4."""

    def __post_init__(self) -> None:
        if not self.format:
            raise InputError(f"`format`: names no format; use one or more of {', '.join(get_args(MeshFormat))}")
        for name in self.format:
            _require_choice("format", name, MeshFormat)
        _require_choice("frame", self.frame, Frame)


@dataclass(frozen=True)
class RunOptions:
    """Where and how the work is done."""

    device: str = "auto"
    """auto (the CPU: no accelerator has been tried), cpu, cuda, cuda:N, mps or npu."""

    seed: int = 0
    """Same seed, same machine, same mesh."""

    isolate: bool = False
    """Read pictures, meshes and weights in processes of their own, within limits on memory and time."""


def require_unset(what: str, **values: object) -> None:
    """Raise if an option is given that would have no effect.

    Args:
        what: the input or choice on which the options have no effect.
        values: options by name; None is not given.

    Raises:
        InputError: one of ``values`` is not None.
    """
    for name, value in values.items():
        if value is not None:
            raise InputError(f"`{name}`: has no effect on {what}; leave it out")


def _require_choice(name: str, value: str, choices: object) -> None:
    known = get_args(choices)
    if value not in known:
        raise InputError(f"`{name}`: there is no such {name} as {value!r}; use one of {', '.join(known)}")


def _require_between(name: str, value: float | int | None, low: float | int, high: float | int) -> None:
    if value is not None and not low <= value <= high:
        bounds = f"of at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
        raise InputError(f"`{name}`: {_shown(value)} is impossible; give a number {bounds}")


def _require_positive(name: str, value: float | int | None) -> None:
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise InputError(f"`{name}`: {_shown(value)} is impossible; give a number above 0")


def _shown(value: float | int) -> str:
    """A number of any size, shortly."""
    return f"{value:g}" if abs(value) < 10**15 or isinstance(value, float) else f"{str(value)[:20]}..."
