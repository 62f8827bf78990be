"""``meshwright evaluate``: reconstructions of a data set's objects against pictures that they were not made from."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, Suppress, arg

from meshwright.cli.display import progress_bars
from meshwright.errors import InputError
from meshwright.options import ColorOptions, FitOptions, ModelOptions, RunOptions, ShapeOptions

if TYPE_CHECKING:  # torch takes seconds to import: --help and usage errors should not wait for it
    from meshwright.curate import RenderedObject
    from meshwright.evaluate import Split
    from meshwright.mesh import Mesh
    from meshwright.views import Views

_SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl")


@dataclass(frozen=True)
class RunHere(RunOptions):
    """Where and how the work is done."""

    isolate: Suppress[bool] = False  # data sets are not from strangers


@dataclass(frozen=True)
class Evaluate:
    """Reconstruct the objects of DATASET from some of their views and judge the meshes by the others.

    The folder --out gets objects.jsonl, summary.json, pictures, and report.html.
    """

    data: Annotated[Positional[Path], arg(metavar="DATASET")]
    """Data set of `meshwright curate render`, or in a published layout."""
    out: Path
    """Folder for the results; one that was stopped goes on there."""
    meshes: Path | None = None
    """Folder of meshes NAME.glb (or .obj, .ply, .stl; y up) by any tool, to be judged instead of our own."""
    inputs: int = 6
    """How many views are given."""
    targets: int = 8
    """How many others are predicted, at most."""
    index: Path | None = None
    """File that says which views of which objects are given and predicted, instead of drawing them."""
    split: Literal["all", "train", "validation", "test"] = "all"
    """Which objects of the data set."""
    objects: int | None = None
    """Only the first so many."""
    compare: str = ""
    """Folders of other evaluations that report.html sets beside this one, with commas between."""
    model: ModelOptions = ModelOptions()
    shape: ShapeOptions = ShapeOptions()
    fit: FitOptions = FitOptions()
    color: ColorOptions = ColorOptions()
    run: RunHere = RunHere()

    def __call__(self) -> None:
        from meshwright.curate import open_dataset
        from meshwright.evaluate import draw_split, evaluate, read_splits, write_comparison

        source = open_dataset(self.data, self.split)
        names = source.names[: self.objects]
        seed = self.run.seed
        if self.index is not None:
            chosen = read_splits(self.index)
            if missing := sorted(chosen.keys() - set(source.names)):
                raise InputError(
                    f"{self.index}: {missing[0]} is not in the data set; choose another `index` or data set"
                )
            splits = dict(list(chosen.items())[: self.objects])
        else:
            splits = {n: draw_split(n, source.view_count(n), self.inputs, self.targets, seed) for n in names}

        def read(name: str) -> "Callable[[Split], tuple[Views, Views]]":
            def of(split: "Split") -> "tuple[Views, Views]":
                whole = source.read(name, [*split.inputs, *split.targets])
                views = _views(whole)
                count = len(split.inputs)
                given = views[:count]
                return _without_depth(given), views[count:]

            return of

        settings = json.loads(json.dumps(asdict(self), default=str))
        for name in ("out", "objects", "compare"):  # which objects, and where to, do not change a number
            settings.pop(name)
        settings["views"] = {name: asdict(split) for name, split in splits.items()} if self.index else "drawn"
        with progress_bars() as bars:
            listed = [(name, read(name), split) for name, split in splits.items()]
            summary = evaluate(listed, self._reconstruct(), self.out, settings, bars)
        write_comparison([*map(Path, filter(None, self.compare.split(","))), self.out], self.out / "report.html")
        table = Table("", "mean over objects", title=f"{summary['objects']} objects, {len(summary['failed'])} failed")
        for key, value in summary["means"].items():
            numbers = value if isinstance(value, list) else [value]
            table.add_row(key, ", ".join("none" if number is None else f"{number:.4f}" for number in numbers))
        Console().print(table)

    def _reconstruct(self) -> "Callable[[str, Views], Mesh]":
        """Input views to a mesh: read from a folder, or made by `meshwright.reconstruct`."""
        if self.meshes is not None:
            folder = self.meshes
            return lambda name, views: _load(folder, name)
        from meshwright.device import resolve_device
        from meshwright.reconstruct import reconstruct
        from meshwright.weights import load_model

        device, places = resolve_device(self.run.device), self.model
        model = None
        if places.model != "none":
            model = load_model(places.model, model_dir=places.model_dir, revision=places.revision, device=device)
        return lambda name, views: reconstruct(
            views, model=model, shape=self.shape, fit=self.fit, color=self.color, device=device, seed=self.run.seed
        )


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
    )


def _without_depth(views: "Views") -> "Views":
    return replace(views, depth_z=None, normals=None)
