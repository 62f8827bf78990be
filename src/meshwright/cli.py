"""The command line: meshwright reconstruct | info | convert | doctor."""

import contextlib
import enum
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from meshwright.errors import InputError

if TYPE_CHECKING:  # torch takes seconds to import: --help and usage errors should not wait for it
    from meshwright.mesh import Mesh
    from meshwright.progress import Progress as ReportsProgress
    from meshwright.report import Stage, ViewScore
    from meshwright.views import Views

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Turn pictures of one object from known directions into a 3D mesh.",
)
console = Console(stderr=True)


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
    out: Annotated[Path, typer.Option(help="Folder for the results; made when missing.", show_default=False)],
    rig: RigOption = Rig.auto,
    elevation: ElevationOption = None,
    fov: FovOption = None,
    radius: RadiusOption = None,
    clockwise: ClockwiseOption = False,
    background: BackgroundOption = Background.auto,
    masks: MasksOption = None,
    max_size: MaxSizeOption = 1024,
    formats: Annotated[str, typer.Option("--format", help="Any of glb,obj,ply,stl, separated by commas.")] = "glb",
    model: ModelOption = "none",
    model_dir: ModelDirOption = None,
    revision: RevisionOption = None,
    resolution: Annotated[
        int,
        typer.Option(min=16, max=512, help="The hull's grid has about this many cells cubed; models have their own."),
    ] = 128,
    surface: Annotated[Surface, typer.Option(help="How the surface is taken out of the grid.")] = Surface.flexicubes,
    turntable: Annotated[bool, typer.Option("--turntable", help="Also write turntable.mp4.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N, mps or npu.")] = "auto",
    seed: Annotated[int, typer.Option(help="Same seed, same machine, same mesh.")] = 0,
) -> None:
    """Turn INPUT into a mesh: DIR gets mesh.glb, preview.png and report.json."""
    chosen = _formats(formats)
    from meshwright import report
    from meshwright.device import resolve_device
    from meshwright.files import atomic_directory
    from meshwright.images import write_image
    from meshwright.reconstruct import reconstruct as run
    from meshwright.weights import load_model

    settings = {
        "input": str(input_path), "rig": rig.value, "elevation_deg": elevation, "fov_deg": fov, "radius": radius,
        "clockwise": clockwise, "background": background.value, "masks": None if masks is None else str(masks),
        "max_size_px": max_size, "model": model, "resolution": resolution, "surface": surface.value,
        "device": str(resolve_device(device)), "seed": seed,
    }  # fmt: skip
    with atomic_directory(out) as folder, _progress_bars() as bars:
        clock = report.StageClock(bars)
        views = _load_views(input_path, rig, elevation, fov, radius, clockwise, background, masks, max_size, clock)
        loaded = None if model == "none" else load_model(
            model, model_dir=model_dir, revision=revision, device=device, progress=clock
        )  # fmt: skip
        mesh = run(views, model=loaded, resolution=resolution, surface=surface.value, device=device, progress=clock)
        clock("files", 0.0)
        for suffix in chosen:
            mesh.save(folder / f"mesh.{suffix}")
        scores = report.score_views(mesh, views)
        write_image(report.preview(mesh, views), folder / "preview.png")
        if turntable:
            report.turntable(mesh, folder / "turntable.mp4", progress=clock)
        clock.close()
        report.write_report(folder / "report.json", mesh, views, settings, scores, clock.stages)
    _print_result(out, mesh, views, scores, clock.stages)


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
    from meshwright.report import versions

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
    from meshwright.orbit import estimate_orbit, estimate_path
    from meshwright.views import load_views

    views = load_views(
        path, rig.value, elevation_deg=elevation_deg or 0.0, fov_deg=fov_deg, radius=radius, clockwise=clockwise,
        background=background.value, masks=masks, max_size_px=max_size_px, progress=progress,
    )  # fmt: skip
    if rig is Rig.auto and views.rig in (Rig.sv3d, Rig.orbit) and elevation_deg is None and not clockwise:
        views = estimate_path(estimate_orbit(views, progress), progress)
    return views


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


def _print_result(out: Path, mesh: "Mesh", views: "Views", scores: "list[ViewScore]", stages: "list[Stage]") -> None:
    for assumption in views.assumptions:
        console.print(f"assumed: {assumption}", style="yellow", markup=False, highlight=False)
    table = Table(title=str(out))
    table.add_column("")
    table.add_column("", justify="right")
    table.add_row("triangles", f"{len(mesh.faces):,}")
    table.add_row("watertight", "yes" if mesh.is_watertight() else "no")
    table.add_row("silhouette IoU, mean over views", f"{sum(s.silhouette_iou for s in scores) / len(scores):.3f}")
    table.add_row("PSNR, mean over views", f"{sum(s.psnr_db for s in scores) / len(scores):.1f} dB")
    for stage in stages:
        table.add_row(stage.name, f"{stage.seconds:.1f} s  {stage.peak_memory_mib:,.0f} MiB")
    Console().print(table)


if __name__ == "__main__":
    main()
