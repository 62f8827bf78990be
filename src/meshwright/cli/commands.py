"""The commands: their arguments, and the library calls that they stand for."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from rich.console import Console
from tyro.conf import Positional, Suppress, arg

from meshwright.cli.batch import run_batch
from meshwright.cli.curate import Curate
from meshwright.cli.display import print_facts, print_result, print_views, progress_bars
from meshwright.cli.evaluate import Evaluate
from meshwright.cli.export import ExportCameras
from meshwright.cli.reading import RunReading
from meshwright.cli.serve import Serve
from meshwright.errors import InputError
from meshwright.options import (
    ColorOptions,
    FitLevel,
    FitOptions,
    ModelOptions,
    OutputOptions,
    RunOptions,
    ShapeOptions,
    ViewOptions,
)

if TYPE_CHECKING:  # torch takes seconds to import: --help and usage errors should not wait for it
    from meshwright.progress import Progress
    from meshwright.reconstruct import Finished, StartShape
    from meshwright.views import ObjectFrame, Views

    Work = tuple[Views, StartShape, Finished, ObjectFrame]

InputPath = Annotated[Positional[Path], arg(metavar="INPUT")]
MorePaths = Annotated[Positional[tuple[Path, ...]], arg(metavar="[INPUT ...]", help_behavior_hint="")]
MeshPath = Annotated[Positional[Path], arg(metavar="MESH")]
ViewsPath = Annotated[Positional[Path], arg(metavar="VIEWS")]


@dataclass(frozen=True)
class Reconstruct:
    """Turn INPUT into a mesh: the folder --out gets mesh.glb, preview.png and report.json."""

    input: InputPath
    """Photos of an object (a folder or a film), a capture with cameras, orbit video, or Zero123++ sheet."""
    out: Path
    """Folder for the results; made when missing."""
    more: MorePaths = ()
    """More inputs: each gets a folder of its own in --out; what is there already is not made again."""
    views: ViewOptions = ViewOptions()
    model: ModelOptions = ModelOptions()
    shape: ShapeOptions = ShapeOptions()
    fit: FitOptions = FitOptions()
    color: ColorOptions = ColorOptions()
    output: OutputOptions = OutputOptions()
    run: RunOptions = RunOptions()

    def __call__(self) -> None:
        if self.more:

            def make(source: Path, out: Path) -> None:
                dataclasses.replace(self, input=source, out=out, more=())()

            run_batch((self.input, *self.more), self.out, make)
            return
        name = self.model.model
        if self.color.colors == "model" and name == "none":
            raise InputError("`colors='model'`: there is no model to take colours from; give a `model` or leave it out")

        def work(progress: "Progress") -> "Work":
            from meshwright.device import resolve_device
            from meshwright.isolated import file_readers
            from meshwright.reconstruct import finish, in_output_frame, start_shape
            from meshwright.weights import load_model

            device, places, files = resolve_device(self.run.device), self.model, file_readers(self.run.isolate)
            views = files.load_views(self.input, self.views, progress=progress).to(device)
            views, frame = in_output_frame(views, self.output.frame)
            model = None if name == "none" else load_model(
                name, model_dir=places.model_dir, revision=places.revision, device=device, read=files.read_checkpoint,
                progress=progress,
            )  # fmt: skip
            start = start_shape(views, model=model, shape=self.shape, fit=self.fit, progress=progress)
            finished = finish(start, views, fit=self.fit, color=self.color, seed=self.run.seed, progress=progress)
            return views, start, finished, frame

        _write_results(self, work)


@dataclass(frozen=True)
class FitALevel(FitOptions):
    """How the shape is fitted to the pictures."""

    refine: Annotated[FitLevel, arg(name="level")] = "fast"
    """How long to fit: fast or full."""


@dataclass(frozen=True)
class FitNothing(FitOptions):
    """The shape stays as it is."""

    refine: Suppress[Literal["off"]] = "off"
    refine_cameras: Suppress[bool | None] = None
    time_budget_s: Suppress[float | None] = None


@dataclass(frozen=True)
class ColorFromViews(ColorOptions):
    """The colours of the mesh: the pictures', and where none looks its own."""

    colors: Suppress[Literal["views"]] = "views"


@dataclass(frozen=True)
class Refine:
    """Fit the shape of MESH to pictures of it and give it their colours; where none looks it keeps its own."""

    mesh: MeshPath
    """A .glb, .gltf, .obj, .ply or .stl file, y up."""
    input: ViewsPath
    """Its pictures: as INPUT of meshwright reconstruct."""
    out: Path
    """Folder for the results; made when missing."""
    fit: FitALevel = FitALevel()
    views: ViewOptions = ViewOptions()
    color: ColorFromViews = ColorFromViews()
    output: OutputOptions = OutputOptions()
    run: RunOptions = RunOptions()

    def __call__(self) -> None:
        _write_results(self, lambda progress: _finish_mesh(self, progress))


@dataclass(frozen=True)
class Texture:
    """Give MESH, as it is, the colours of pictures of it; where none looks it keeps its own."""

    mesh: MeshPath
    """A .glb, .gltf, .obj, .ply or .stl file, y up."""
    input: ViewsPath
    """Its pictures: as INPUT of meshwright reconstruct."""
    out: Path
    """Folder for the results; made when missing."""
    views: ViewOptions = ViewOptions()
    color: ColorFromViews = ColorFromViews()
    fit: FitNothing = FitNothing()
    output: OutputOptions = OutputOptions()
    run: RunOptions = RunOptions()

    def __call__(self) -> None:
        _write_results(self, lambda progress: _finish_mesh(self, progress))


@dataclass(frozen=True)
class Info:
    """Say what INPUT was recognised as, without reconstructing it."""

    input: InputPath
    """Photos of an object (a folder or a film), a capture with cameras, orbit video, or Zero123++ sheet."""
    views: ViewOptions = ViewOptions()
    run: RunReading = RunReading()

    def __call__(self) -> None:
        from meshwright.isolated import file_readers

        with progress_bars() as bars:
            views = file_readers(self.run.isolate).load_views(self.input, self.views, progress=bars)
        print_views(self.input, views)


@dataclass(frozen=True)
class Pose:
    """Find the cameras of photos or a film: --out gets images, sparse/0 (COLMAP) and transforms.json (extra sfm)."""

    input: Annotated[Positional[Path], arg(metavar="PHOTOS")]
    """Folder of photos of one scene, or a film around it."""
    out: Path
    """Folder for the results; made when missing."""
    max_size_px: int = 1600
    """Larger pictures are made smaller, to this many pixels."""
    max_views: int = 128
    """Of more pictures an even selection is used, of films at most 64 of the sharpest frames."""

    def __call__(self) -> None:
        from meshwright.capture import pose

        # The same bounds as those of pictures to be reconstructed.
        ViewOptions(max_size_px=self.max_size_px, max_views=self.max_views)
        with progress_bars() as bars:
            posed = pose(self.input, self.out, max_size_px=self.max_size_px, max_views=self.max_views, progress=bars)
        facts = {
            "cameras": f"{len(posed.views)} of {len(posed.views) + len(posed.left_out)}",
            "error": f"{posed.error_px:.2f} px",
            "points": str(len(posed.points.positions)),
        }
        print_facts(facts)
        for note in posed.notes[1:]:
            Console().print(note, markup=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Convert:
    """Convert model weights: published, DINO, OpenLRM and MindSpore files to safetensors or MindSpore."""

    source: Annotated[Positional[str], arg(metavar="SRC")]
    """A weights file of any known form, or a known name."""
    destination: Annotated[Positional[Path], arg(metavar="DST")]
    """.safetensors for meshwright, .ckpt for MindSpore."""
    dtype: Literal["as-is", "fp32", "fp16", "bf16"] = "as-is"
    """Number format; as-is keeps that of SRC."""
    mindspore: bool = False
    """MindSpore's names in a .safetensors too."""
    model_dir: Path | None = None
    """Folder that is searched for weights first."""
    revision: str | None = None
    """Commit or tag of the weights on the hub; the pinned one if not given."""
    run: RunReading = RunReading()

    def __call__(self) -> None:
        from meshwright import weights
        from meshwright.isolated import file_readers

        with progress_bars() as bars:
            done = weights.convert(
                self.source,
                self.destination,
                dtype=None if self.dtype == "as-is" else weights.DTYPES[self.dtype],
                mindspore=self.mindspore,
                model_dir=self.model_dir,
                revision=self.revision,
                read=file_readers(self.run.isolate).read_checkpoint,
                progress=bars,
            )
        Console().print(f"{done.source} -> {done.destination}: {done.tensors} tensors", markup=False, highlight=False)


@dataclass(frozen=True)
class Doctor:
    """Print versions, devices and which extras are installed."""

    def __call__(self) -> None:
        import importlib.util

        import torch

        from meshwright.device import available_devices, resolve_device
        from meshwright.evaluate import versions

        facts = {
            **versions(),
            "devices": f"{', '.join(available_devices())}; auto means {resolve_device('auto')}",
            "cpu threads": str(torch.get_num_threads()),
        }
        extras = {
            "hub": "huggingface_hub",
            "sfm": "pycolmap",
            "rembg": "rembg",
            "heic": "pi_heif",
            "app": "uvicorn",
            "train": "lightning_fabric",
        }
        for extra, module in extras.items():
            present = importlib.util.find_spec(module) is not None
            facts[f"extra {extra}"] = "installed" if present else f"missing: pip install 'meshwright[{extra}]'"
        print_facts(facts)


@dataclass(frozen=True)
class Train:
    """Train a model on a data set: meshwright train --help."""

    def __call__(self) -> None:
        """Never called: `meshwright.cli.main` sees to this command before, for its flags depend on the recipe."""
        raise NotImplementedError


COMMANDS = {
    "reconstruct": Reconstruct,
    "refine": Refine,
    "texture": Texture,
    "info": Info,
    "export-cameras": ExportCameras,
    "pose": Pose,
    "train": Train,
    "evaluate": Evaluate,
    "convert": Convert,
    "serve": Serve,
    "curate": Curate,
    "doctor": Doctor,
}


def _finish_mesh(command: Refine | Texture, progress: "Progress") -> "Work":
    """Go on from a mesh file as from a start shape.

    Raises:
        InputError: the file is not a mesh, or the mesh is not where the views look.
    """
    from meshwright.device import resolve_device
    from meshwright.isolated import file_readers
    from meshwright.reconstruct import finish
    from meshwright.results import start_from_mesh

    files = file_readers(command.run.isolate)
    views = files.load_views(command.input, command.views, progress=progress)
    mesh = files.load_mesh(command.mesh)
    device = resolve_device(command.run.device)
    start, views, frame = start_from_mesh(mesh, str(command.mesh), views, command.output.frame, device)
    finished = finish(start, views, fit=command.fit, color=command.color, seed=command.run.seed, progress=progress)
    return views, start, finished, frame


def _write_results(command: Reconstruct | Refine | Texture, work: "Callable[[Progress], Work]") -> None:
    """Do the work, and write what comes of it to a folder that appears whole."""
    from meshwright.device import resolve_device
    from meshwright.evaluate import StageClock
    from meshwright.files import atomic_directory
    from meshwright.results import write_results

    settings = json.loads(json.dumps(dataclasses.asdict(command), default=str))
    settings["run"]["device"] = str(resolve_device(command.run.device))
    with atomic_directory(command.out) as folder, progress_bars() as bars:
        clock = StageClock(bars)
        views, start, finished, frame = work(clock)
        before, result = write_results(folder, start, finished, views, frame, command.output, settings, clock)
    print_result(command.out, before, result, clock.stages)
