"""The command line: meshwright reconstruct | refine | texture | info | convert | doctor."""

import contextlib
import enum
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from meshwright.errors import InputError

if TYPE_CHECKING:  # torch takes seconds to import: --help and usage errors should not wait for it
    from meshwright.evaluate import Scored, Stage
    from meshwright.progress import Progress as ReportsProgress
    from meshwright.reconstruct import Finished, StartShape
    from meshwright.views import Views

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Turn pictures of one object from known directions into a 3D mesh.",
)
console = Console(stderr=True)

_LEAST_IOU = 0.1  # a mesh whose silhouettes overlap less than this with the pictures lies elsewhere


class Format(enum.StrEnum):
    glb = "glb"
    obj = "obj"
    ply = "ply"
    stl = "stl"


class Surface(enum.StrEnum):
    flexicubes = "flexicubes"
    marching_cubes = "marching-cubes"


class Rig(enum.StrEnum):
    auto = "auto"
    sv3d = "sv3d"
    orbit = "orbit"
    zero123plus = "zero123plus"
    zero123plus_v1_1 = "zero123plus-v1.1"
    posed = "posed"


class Refine(enum.StrEnum):
    off = "off"
    fast = "fast"
    full = "full"


class Level(enum.StrEnum):
    fast = "fast"
    full = "full"


class Colors(enum.StrEnum):
    views = "views"
    model = "model"


class Background(enum.StrEnum):
    auto = "auto"
    rembg = "rembg"


InputPath = Annotated[
    Path,
    typer.Argument(
        metavar="INPUT",
        help="Orbit video or animation, Zero123++ sheet, folder of posed pictures, or transforms.json.",
        show_default=False,
    ),
]
RigOption = Annotated[Rig, typer.Option(help="Which cameras took the pictures; auto decides by what INPUT is.")]
ElevationOption = Annotated[
    float | None,
    typer.Option(
        help="Degrees of an orbit's cameras above the horizon.",
        show_default="read off the pictures with --rig auto, else 0",
    ),
]
FovOption = Annotated[
    float | None, typer.Option(help="Vertical field of view in degrees.", show_default="the rig's own")
]
RadiusOption = Annotated[
    float | None, typer.Option(help="Distance of the cameras from the origin.", show_default="frames [-1, 1]")
]
ClockwiseOption = Annotated[
    bool, typer.Option("--clockwise", help="The orbit's cameras move clockwise seen from above.")
]
BackgroundOption = Annotated[
    Background,
    typer.Option(help="How to find the object: alpha, masks or a flat background (auto), or a neural network."),
]
MasksOption = Annotated[
    Path | None, typer.Option(help="Folder of masks, white on the object, named like the pictures.", show_default=False)
]
ModelOption = Annotated[
    str,
    typer.Option(
        help="none (shape from the silhouettes), a preset (instant-mesh-large, ...; downloaded), or a weights file."
    ),
]
ModelDirOption = Annotated[
    Path | None, typer.Option(help="Folder that is searched for weights first.", show_default=False)
]
RevisionOption = Annotated[
    str | None, typer.Option(help="Commit or tag of the weights on the hub.", show_default="newest")
]
MaxSizeOption = Annotated[
    int, typer.Option(min=16, max=8192, help="Make larger pictures smaller, to this many pixels.")
]


MeshPath = Annotated[
    Path,
    typer.Argument(metavar="MESH", help="A .glb, .gltf, .obj, .ply or .stl file, y up.", show_default=False),
]
ViewsPath = Annotated[
    Path,
    typer.Argument(metavar="VIEWS", help="Its pictures: as INPUT of meshwright reconstruct.", show_default=False),
]
OutOption = Annotated[Path, typer.Option(help="Folder for the results; made when missing.", show_default=False)]
FormatOption = Annotated[str, typer.Option("--format", help="Any of glb,obj,ply,stl, separated by commas.")]
RefineCamerasOption = Annotated[
    bool | None,
    typer.Option(
        "--refine-cameras/--keep-cameras",
        help="Let the fit correct small errors of the cameras, too.",
        show_default="for orbits only",
    ),
]
TimeBudgetOption = Annotated[
    float | None,
    typer.Option(help="Seconds after which the fit ends with what it has.", show_default="none"),
]
VertexColorsOption = Annotated[bool, typer.Option("--vertex-colors", help="Colours at vertices, no texture.")]
FacesOption = Annotated[
    int | None, typer.Option(min=4, help="Simplify to about so many triangles.", show_default="as they come")
]
TextureSizeOption = Annotated[int, typer.Option(min=256, max=8192, help="Side of the texture in pixels.")]
TurntableOption = Annotated[bool, typer.Option("--turntable", help="Also write turntable.mp4.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N, mps or npu.")]
SeedOption = Annotated[int, typer.Option(help="Same seed, same machine, same mesh.")]


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2, never a traceback."""
    try:
        app()
    except InputError as error:
        console.print(f"error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("interrupted; nothing was written", style="yellow")
        sys.exit(130)


@app.command()
def reconstruct(
    input_path: InputPath,
    out: OutOption,
    rig: RigOption = Rig.auto,
    elevation: ElevationOption = None,
    fov: FovOption = None,
    radius: RadiusOption = None,
    clockwise: ClockwiseOption = False,
    background: BackgroundOption = Background.auto,
    masks: MasksOption = None,
    max_size: MaxSizeOption = 1024,
    model: ModelOption = "none",
    model_dir: ModelDirOption = None,
    revision: RevisionOption = None,
    resolution: Annotated[
        int,
        typer.Option(min=16, max=512, help="The hull's grid has about this many cells cubed; models have their own."),
    ] = 128,
    surface: Annotated[Surface, typer.Option(help="How the surface is taken out of the grid.")] = Surface.flexicubes,
    refine: Annotated[Refine, typer.Option(help="Fit the shape to the pictures: off, fast or full.")] = Refine.fast,
    refine_cameras: RefineCamerasOption = None,
    time_budget: TimeBudgetOption = None,
    colors: Annotated[
        Colors, typer.Option(help="Of the pictures, with the model's where none looks; or the model's alone.")
    ] = Colors.views,
    vertex_colors: VertexColorsOption = False,
    faces: FacesOption = None,
    texture_size: TextureSizeOption = 2048,
    formats: FormatOption = "glb",
    turntable: TurntableOption = False,
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
) -> None:
    """Turn INPUT into a mesh: DIR gets mesh.glb, preview.png and report.json."""
    settings = _settings(locals())
    chosen = _formats(formats)
    if colors is Colors.model and model == "none":
        raise InputError("--colors model: there is no model to take colours from; name one with --model")

    def make(progress: "ReportsProgress") -> "tuple[Views, StartShape, Finished]":
        from meshwright.device import resolve_device
        from meshwright.reconstruct import finish, start_shape
        from meshwright.weights import load_model

        views = _load_views(input_path, rig, elevation, fov, radius, clockwise, background, masks, max_size, progress)
        loaded = None if model == "none" else load_model(
            model, model_dir=model_dir, revision=revision, device=device, progress=progress
        )  # fmt: skip
        views = views.to(resolve_device(device))
        start = start_shape(views, model=loaded, resolution=resolution, surface=surface.value, progress=progress)
        finished = finish(
            start, views, refine=refine.value, refine_cameras=refine_cameras, time_budget_s=time_budget,
            colors=colors.value, vertex_colors=vertex_colors, faces=faces, texture_size_px=texture_size,
            seed=seed, progress=progress,
        )  # fmt: skip
        return views, start, finished

    _write_results(settings, out, chosen, turntable, device, make)


@app.command()
def refine(
    mesh: MeshPath,
    views: ViewsPath,
    out: OutOption,
    level: Annotated[Level, typer.Option(help="How long to fit: fast or full.")] = Level.fast,
    refine_cameras: RefineCamerasOption = None,
    time_budget: TimeBudgetOption = None,
    rig: RigOption = Rig.auto,
    elevation: ElevationOption = None,
    fov: FovOption = None,
    radius: RadiusOption = None,
    clockwise: ClockwiseOption = False,
    background: BackgroundOption = Background.auto,
    masks: MasksOption = None,
    max_size: MaxSizeOption = 1024,
    vertex_colors: VertexColorsOption = False,
    faces: FacesOption = None,
    texture_size: TextureSizeOption = 2048,
    formats: FormatOption = "glb",
    turntable: TurntableOption = False,
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
) -> None:
    """Fit the shape of MESH to pictures of it and give it their colours; where none looks it keeps its own."""
    settings = _settings(locals())

    def make(progress: "ReportsProgress") -> "tuple[Views, StartShape, Finished]":
        from meshwright.reconstruct import finish

        given = _load_views(views, rig, elevation, fov, radius, clockwise, background, masks, max_size, progress)
        given, start = _load_shape(mesh, given, device)
        finished = finish(
            start, given, refine=level.value, refine_cameras=refine_cameras, time_budget_s=time_budget,
            vertex_colors=vertex_colors, faces=faces, texture_size_px=texture_size, seed=seed, progress=progress,
        )  # fmt: skip
        return given, start, finished

    _write_results(settings, out, _formats(formats), turntable, device, make)


@app.command()
def texture(
    mesh: MeshPath,
    views: ViewsPath,
    out: OutOption,
    rig: RigOption = Rig.auto,
    elevation: ElevationOption = None,
    fov: FovOption = None,
    radius: RadiusOption = None,
    clockwise: ClockwiseOption = False,
    background: BackgroundOption = Background.auto,
    masks: MasksOption = None,
    max_size: MaxSizeOption = 1024,
    vertex_colors: VertexColorsOption = False,
    faces: FacesOption = None,
    texture_size: TextureSizeOption = 2048,
    formats: FormatOption = "glb",
    turntable: TurntableOption = False,
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
) -> None:
    """Give MESH, as it is, the colours of pictures of it; where none looks it keeps its own."""
    settings = _settings(locals())

    def make(progress: "ReportsProgress") -> "tuple[Views, StartShape, Finished]":
        from meshwright.reconstruct import finish

        given = _load_views(views, rig, elevation, fov, radius, clockwise, background, masks, max_size, progress)
        given, start = _load_shape(mesh, given, device)
        finished = finish(
            start, given, refine="off", vertex_colors=vertex_colors, faces=faces, texture_size_px=texture_size,
            seed=seed, progress=progress,
        )  # fmt: skip
        return given, start, finished

    _write_results(settings, out, _formats(formats), turntable, device, make)


@app.command()
def info(
    input_path: InputPath,
    rig: RigOption = Rig.auto,
    elevation: ElevationOption = None,
    fov: FovOption = None,
    radius: RadiusOption = None,
    clockwise: ClockwiseOption = False,
    background: BackgroundOption = Background.auto,
    masks: MasksOption = None,
    max_size: MaxSizeOption = 1024,
) -> None:
    """Say what INPUT was recognised as, without reconstructing it."""
    with _progress_bars() as bars:
        views = _load_views(input_path, rig, elevation, fov, radius, clockwise, background, masks, max_size, bars)
    out = Console()
    out.print(f"{input_path}: {len(views)} views, rig {views.rig}", highlight=False)
    for assumption in views.assumptions:
        out.print(f"  assumed: {assumption}", markup=False, highlight=False)
    table = Table("view", "size", "azimuth", "elevation", "distance", "fov", "covered")
    for i, name in enumerate(views.names):
        height, width = (int(side) for side in views.sizes_px[i])
        x, y, z = views.cameras.positions[i].tolist()
        fov_deg = 2 * math.degrees(math.atan(0.5 / float(views.cameras.intrinsics[i, 1])))
        coverage = float(views.alpha[i, 0, :height, :width].mean())
        table.add_row(
            name, f"{width} x {height}", f"{math.degrees(math.atan2(y, x)) % 360:.1f}°",
            f"{math.degrees(math.atan2(z, math.hypot(x, y))):.1f}°", f"{math.hypot(x, y, z):.3f}",
            f"{fov_deg:.1f}°", f"{coverage:.1%}",
        )  # fmt: skip
    out.print(table)


class Dtype(enum.StrEnum):
    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


@app.command()
def convert(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A weights file of any known form, or a known name.")],
    destination: Annotated[
        Path, typer.Argument(metavar="DST", help=".safetensors for meshwright, .ckpt for MindSpore.")
    ],
    dtype: Annotated[Dtype | None, typer.Option(help="Number format.", show_default="as in SRC")] = None,
    mindspore: Annotated[bool, typer.Option("--mindspore", help="MindSpore's names in a .safetensors too.")] = False,
    model_dir: ModelDirOption = None,
    revision: RevisionOption = None,
) -> None:
    """Convert model weights: published, DINO, OpenLRM and MindSpore files to safetensors or MindSpore."""
    from meshwright import weights

    with _progress_bars() as bars:
        done = weights.convert(
            source, destination, dtype=None if dtype is None else weights.DTYPES[dtype.value], mindspore=mindspore,
            model_dir=model_dir, revision=revision, progress=bars,
        )  # fmt: skip
    Console().print(f"{done.source} -> {done.destination}: {done.tensors} tensors", markup=False, highlight=False)


@app.command()
def doctor() -> None:
    """Print versions, devices and which extras are installed."""
    import importlib.util

    import torch

    from meshwright.device import available_devices
    from meshwright.evaluate import versions

    out = Console()
    table = Table("what", "found")
    for name, version in versions().items():
        table.add_row(name, version)
    table.add_row("devices", ", ".join(available_devices()))
    table.add_row("cpu threads", str(torch.get_num_threads()))
    for extra, module in (("hub", "huggingface_hub"), ("rembg", "rembg")):
        present = importlib.util.find_spec(module) is not None
        table.add_row(f"extra {extra}", "installed" if present else f"missing: pip install 'meshwright[{extra}]'")
    out.print(table)


def _load_views(
    path: Path,
    rig: Rig,
    elevation_deg: float | None,
    fov_deg: float | None,
    radius: float | None,
    clockwise: bool,
    background: Background,
    masks: Path | None,
    max_size_px: int,
    progress: "ReportsProgress",
) -> "Views":
    """Views as the options say; what no option says of an orbit is read off its pictures."""
    from meshwright.capture.load import load_views
    from meshwright.capture.orbit import estimate_orbit, estimate_path

    views = load_views(
        path, rig.value, elevation_deg=elevation_deg or 0.0, fov_deg=fov_deg, radius=radius, clockwise=clockwise,
        background=background.value, masks=masks, max_size_px=max_size_px, progress=progress,
    )  # fmt: skip
    if rig is Rig.auto and views.rig in (Rig.sv3d, Rig.orbit) and elevation_deg is None and not clockwise:
        views = estimate_path(estimate_orbit(views, progress), progress)
    return views


def _load_shape(path: Path, views: "Views", device: str) -> "tuple[Views, StartShape]":
    """A mesh file as the shape to start from, and the views on the same device.

    Raises:
        InputError: the file is not a mesh, or the mesh is not where the views look.
    """
    from meshwright.color import surface_field
    from meshwright.device import resolve_device
    from meshwright.evaluate import Scored
    from meshwright.mesh_files import load_mesh
    from meshwright.reconstruct import StartShape

    mesh = load_mesh(path)
    if len(mesh.faces) == 0:
        raise InputError(f"{path}: has no triangles; export it again with its surface")
    found = Scored.of(mesh, views).silhouette_iou
    if found < _LEAST_IOU:
        raise InputError(
            f"{path}: does not lie where the views look (mean silhouette IoU {found:.2f}); place and scale it in the "
            "cameras' world, with y up in the file"
        )
    chosen = resolve_device(device)
    mesh = mesh.to(chosen)
    return views.to(chosen), StartShape(mesh, surface_field(mesh))


def _write_results(
    settings: dict[str, object],
    out: Path,
    formats: list[str],
    turntable: bool,
    device: str,
    make: "Callable[[ReportsProgress], tuple[Views, StartShape, Finished]]",
) -> None:
    """Run ``make`` and write what it made to a folder that appears whole."""
    from meshwright import evaluate
    from meshwright.color import color_vertices
    from meshwright.device import resolve_device
    from meshwright.files import atomic_directory
    from meshwright.images import write_image

    settings = {**settings, "device": str(resolve_device(device))}
    with atomic_directory(out) as folder, _progress_bars() as bars:
        clock = evaluate.StageClock(bars)
        views, start, finished = make(clock)
        clock("files", 0.0)
        colored = start.mesh if start.mesh.has_colors else color_vertices(start.mesh, views)
        before = evaluate.Scored.of(colored.to("cpu"), views.to("cpu"))
        result = evaluate.Scored.of(finished.mesh.to("cpu"), finished.views.to("cpu"))
        for suffix in formats:
            result.mesh.save(folder / f"mesh.{suffix}")
        write_image(evaluate.preview([before, result]), folder / "preview.png")
        if turntable:
            evaluate.turntable(result.mesh, folder / "turntable.mp4", progress=clock)
        clock.close()
        evaluate.write_report(
            folder / "report.json", before, result, finished.refined, start.rejected_views, settings, clock.stages
        )
    _print_result(out, before, result, clock.stages)


def _formats(text: str) -> list[str]:
    """Split and check --format, keeping the order and dropping repeats."""
    names = list(dict.fromkeys(part.strip().lower().removeprefix(".") for part in text.split(",") if part.strip()))
    unknown = [name for name in names if name not in set(Format)]
    if unknown or not names:
        raise InputError(f"--format {text}: use one or more of {', '.join(Format)}, separated by commas")
    return names


class _Bars:
    """One rich progress bar a stage."""

    def __init__(self, display: Progress) -> None:
        self._display = display
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, fraction: float, detail: str = "") -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._display.add_task(stage, total=1.0, detail="")
        self._display.update(self._tasks[stage], completed=fraction, detail=detail)


@contextlib.contextmanager
def _progress_bars() -> Iterator[_Bars]:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[detail]}"))
    with Progress(*columns, console=console, transient=True) as display:
        yield _Bars(display)


def _settings(options: dict[str, object]) -> dict[str, object]:
    """The options of a command as JSON knows them, for report.json."""
    plain = {name: value.value if isinstance(value, enum.Enum) else value for name, value in options.items()}
    return {name: str(value) if isinstance(value, Path) else value for name, value in plain.items()}


def _print_result(out: Path, before: "Scored", result: "Scored", stages: "list[Stage]") -> None:
    for assumption in before.views.assumptions:
        console.print(f"assumed: {assumption}", style="yellow", markup=False, highlight=False)
    table = Table("", "start", "result", title=str(out))
    both = (before, result)
    table.add_row("triangles", *(f"{len(scored.mesh.faces):,}" for scored in both))
    table.add_row("watertight", *("yes" if scored.mesh.is_watertight() else "no" for scored in both))
    table.add_row("silhouette IoU, mean over views", *(f"{scored.silhouette_iou:.3f}" for scored in both))
    table.add_row("PSNR, mean over views", *(f"{scored.psnr_db:.1f} dB" for scored in both))
    table.add_section()
    for stage in stages:
        table.add_row(stage.name, f"{stage.seconds:.1f} s", f"{stage.peak_memory_mib:,.0f} MiB")
    Console().print(table)


if __name__ == "__main__":
    main()
