"""``meshwright evaluate``: reconstructions of known objects against pictures that they were not made from."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, Suppress, arg

from meshwright.cli.display import progress_bars
from meshwright.errors import InputError
from meshwright.options import ColorOptions, FitOptions, ModelOptions, RunOptions, ShapeOptions

if TYPE_CHECKING:  # torch takes seconds to import: --help and usage errors should not wait for it
    from meshwright.curate import ObjectSource, RenderedObject
    from meshwright.evaluate import Case, Scene, Split
    from meshwright.mesh import Mesh
    from meshwright.views import Views

_SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl")
_MOST_INPUTS = 1000


@dataclass(frozen=True)
class RunHere(RunOptions):
    """Where and how the work is done."""

    isolate: Suppress[bool] = False  # data sets are not from strangers


@dataclass(frozen=True)
class Evaluate:
    """Reconstruct the objects of DATA from some of their views and judge the meshes by others, and by the true surface.

    DATA is a data set of `meshwright curate render` (or in a published layout), whose pictures are used, or mesh files
    (or folders of them), which are photographed here: the protocol of docs/evaluation.md. The folder --out gets
    objects.jsonl, summary.json, pictures, and report.html.
    """

    data: Annotated[Positional[tuple[Path, ...]], arg(metavar="DATA", help_behavior_hint="(required)")]
    """Data set, or mesh files and folders of them."""
    out: Path
    """Folder for the results; one that was stopped goes on there."""
    meshes: Path | None = None
    """Folder of meshes NAME.glb (or .obj, .ply, .stl; y up) by any tool, to be judged instead of our own."""
    align: Literal["none", "box"] = "none"
    """Of these meshes: judged where they lie, or the box around each moved and scaled to that of the true mesh."""
    inputs: tuple[int, ...] = (6,)
    """How many views are given; several numbers make as many evaluations, one report."""
    targets: int = 8
    """Of a data set: how many others are predicted, at most."""
    input_rig: Literal["zero123plus", "orbit"] = "zero123plus"
    """Of mesh files: the cameras of the given views. zero123plus: six; orbit: any number, 20 degrees above."""
    size_px: int = 512
    """Of mesh files: side of the pictures."""
    index: Path | None = None
    """Of a data set: file that says which views of which objects are given and predicted, instead of drawing them."""
    truth: Path | None = None
    """Of a data set: folder with the mesh files that it was drawn from, to judge whole surfaces too."""
    split: Literal["all", "train", "validation", "test"] = "all"
    """Of a data set: which objects."""
    objects: int | None = None
    """Only the first so many objects."""
    compare: str = ""
    """Folders of other evaluations that report.html sets beside this one, with commas between."""
    perceptual_weights: str = ""
    """Files with the weights of LPIPS, with commas between (see docs/training.md); it is left out without them."""
    model: ModelOptions = ModelOptions()
    shape: ShapeOptions = ShapeOptions()
    fit: FitOptions = FitOptions()
    color: ColorOptions = ColorOptions()
    run: RunHere = RunHere()

    def __post_init__(self) -> None:
        if not self.data:
            raise InputError("no objects were given; name a data set or mesh files")
        if not self.inputs or not all(1 <= count <= _MOST_INPUTS for count in self.inputs):
            raise InputError(f"`inputs`: give one or more numbers from 1 to {_MOST_INPUTS}")
        if self.targets < 1:
            raise InputError(f"`targets={self.targets}`: nothing would be judged; give 1 or more")
        if not 16 <= self.size_px <= 4096:
            raise InputError(f"`size_px={self.size_px}`: choose 16 to 4096")
        if self.align != "none" and self.meshes is None:
            raise InputError(f"`align={self.align!r}`: has no effect without `meshes`; leave it out")
        if self.index is not None and len(self.inputs) > 1:
            raise InputError("`index`: says how many views are given; leave `inputs` out")

    def __call__(self) -> None:
        from meshwright.evaluate import evaluate, write_comparison

        reconstruct = self._reconstruct()
        perceptual = None
        if self.perceptual_weights:
            from meshwright.train import Lpips

            perceptual = Lpips.load(tuple(filter(None, self.perceptual_weights.split(","))))
        cases_of = self._scans() if _are_meshes(self.data) else self._dataset()
        folders = []
        for count in dict.fromkeys(self.inputs):
            out = self.out if len(self.inputs) == 1 else self.out / f"inputs-{count}"
            cases = cases_of(count)
            with progress_bars() as bars:
                summary = evaluate(cases, reconstruct, out, self._settings(count, cases), bars, perceptual)
            _print_means(summary, f"{count} views given" if len(self.inputs) > 1 else "")
            folders.append(out)
        write_comparison([*map(Path, filter(None, self.compare.split(","))), *folders], self.out / "report.html")

    def _settings(self, count: int, cases: "list[Case]") -> dict[str, Any]:
        """All that decides the numbers of one evaluation: which objects, and where to, does not."""
        settings: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        for name in ("out", "objects", "compare"):
            settings.pop(name)
        settings["inputs"] = count
        drawn = self.index is None
        settings["views"] = "drawn" if drawn else {case.name: asdict(case.split) for case in cases if case.split}
        return settings

    def _scans(self) -> "Callable[[int], list[Case]]":
        """Mesh files, photographed."""
        from meshwright.curate import find_objects
        from meshwright.evaluate import Case, rig_cameras, scan_scene

        for name, value in (("index", self.index), ("truth", self.truth)):
            if value is not None:
                raise InputError(f"`{name}`: has no effect on mesh files; leave it out")
        found = find_objects(self.data, _SUFFIXES)[: self.objects]
        for count in self.inputs:
            rig_cameras(self.input_rig, count)  # refuses before the work begins

        def cases(count: int) -> "list[Case]":
            def reader(path: Path) -> "Callable[[], Scene]":
                return lambda: scan_scene(path, self.input_rig, count, self.size_px)

            return [Case(item.name, reader(item.path)) for item in found]

        return cases

    def _dataset(self) -> "Callable[[int], list[Case]]":
        """The pictures of a data set."""
        from meshwright.curate import open_dataset
        from meshwright.evaluate import Case, draw_split, read_splits

        if len(self.data) != 1:
            raise InputError(f"{self.data[1]}: one data set at a time; evaluate it by itself, then `compare`")
        source = open_dataset(self.data[0], self.split)
        if self.index is None:
            splits = None
            names = list(source.names[: self.objects])
        else:
            splits = read_splits(self.index)
            if missing := sorted(splits.keys() - set(source.names)):
                raise InputError(
                    f"{self.index}: {missing[0]} is not in the data set; choose another `index` or data set"
                )
            names = list(splits)[: self.objects]

        def cases(count: int) -> "list[Case]":
            found = []
            for name in names:
                if splits is not None:
                    split = splits[name]
                else:
                    views, most = source.view_count(name), max(self.inputs)
                    split = draw_split(name, views, count, self.targets, self.run.seed, most)
                found.append(Case(name, self._reader(source, name, split), split))
            return found

        return cases

    def _reader(self, source: "ObjectSource", name: str, split: "Split") -> "Callable[[], Scene]":
        def read() -> "Scene":
            from meshwright.curate import true_mesh
            from meshwright.evaluate import Scene

            whole = _views(source.read(name, [*split.inputs, *split.targets]))
            count = len(split.inputs)
            given = replace(whole[:count], depth_z=None, normals=None)
            mesh = None if self.truth is None else true_mesh(source, name, self.truth)
            return Scene(given, whole[count:], mesh)

        return read

    def _reconstruct(self) -> "Callable[[str, Scene], Mesh]":
        """A scene's input views to a mesh: read from a folder, or made by `meshwright.reconstruct`."""
        if self.meshes is not None:
            return self._of_other_tool(self.meshes)
        import torch

        from meshwright.device import resolve_device
        from meshwright.reconstruct import reconstruct
        from meshwright.views import ObjectFrame
        from meshwright.weights import load_model

        device, places = resolve_device(self.run.device), self.model
        model = None
        if places.model != "none":
            model = load_model(places.model, model_dir=places.model_dir, revision=places.revision, device=device)
        return lambda name, scene: reconstruct(
            scene.inputs,
            model=model,
            shape=self.shape,
            fit=self.fit,
            color=self.color,
            frame=ObjectFrame.world(torch.float32),  # known objects are normalised in their world
            device=device,
            seed=self.run.seed,
        )

    def _of_other_tool(self, folder: Path) -> "Callable[[str, Scene], Mesh]":
        def load(name: str, scene: "Scene") -> "Mesh":
            mesh = _load(folder, name)
            if self.align == "none":
                return mesh
            if scene.mesh is None:
                raise InputError("`align='box'`: needs the true mesh; evaluate mesh files, or give `truth`")
            low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
            true_low, true_high = scene.mesh.vertices.amin(0), scene.mesh.vertices.amax(0)
            scale = (true_high - true_low).norm() / (high - low).norm().clamp(min=1e-20)
            return mesh.replace(vertices=(mesh.vertices - (low + high) / 2) * scale + (true_low + true_high) / 2)

        return load


def _print_means(summary: dict[str, Any], which: str) -> None:
    title = f"{summary['objects']} objects, {len(summary['failed'])} failed"
    table = Table("", "mean over objects", title=f"{which}: {title}" if which else title)
    for key, value in summary["means"].items():
        numbers = value if isinstance(value, list) else [value]
        if numbers and numbers[0] is not None:
            table.add_row(key, ", ".join(f"{number:.4f}" for number in numbers))
    Console().print(table)


def _are_meshes(paths: tuple[Path, ...]) -> bool:
    """Mesh files or folders with some in them, not data sets."""
    first = paths[0]
    if first.is_dir():
        return any(child.suffix.lower() in _SUFFIXES for child in first.iterdir())
    return first.suffix.lower() in _SUFFIXES


def _load(folder: Path, name: str) -> "Mesh":
    from meshwright.mesh_files import load_mesh

    for suffix in _SUFFIXES:
        if (path := folder / f"{name}{suffix}").is_file():
            return load_mesh(path)
    raise InputError(f"{folder}: has no mesh {name} with one of the suffixes {', '.join(_SUFFIXES)}; add it")


def _views(whole: "RenderedObject") -> "Views":
    """A rendered object's pictures on white."""
    import torch

    from meshwright.views import Views

    rgba = whole.rgba.float() / 255
    alpha = rgba[:, 3:]
    height, width = rgba.shape[2:]
    return Views(
        images=rgba[:, :3] * alpha + 1 - alpha,
        alpha=alpha,
        cameras=whole.cameras,
        sizes_px=torch.tensor([[height, width]] * len(rgba)),
        names=tuple(f"{i:03d}" for i in range(len(rgba))),
        depth_z=whole.depth_z if bool((whole.depth_z > 0).any()) else None,
        normals=whole.normals if bool((whole.normals != 0).any()) else None,
    )
