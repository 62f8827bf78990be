"""meshwright export-cameras: a capture's cameras, or a result's, for other programs."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from rich.console import Console
from tyro.conf import Positional, arg

from meshwright.cli.display import progress_bars
from meshwright.cli.reading import RunReading
from meshwright.errors import InputError
from meshwright.options import ViewOptions
from meshwright.untrusted import MIB, parse_json, printable, read_untrusted

if TYPE_CHECKING:  # torch takes seconds to import: --help and usage errors should not wait for it
    from torch import Tensor

    from meshwright.isolated import Readers
    from meshwright.mesh import Mesh
    from meshwright.progress import Progress
    from meshwright.views import Views

_POINTS = 20_000  # on a result's surface: what splatting begins with


@dataclass(frozen=True)
class ExportCameras:
    """Write the cameras of SOURCE, and its pictures undistorted, for COLMAP, 3DGS, gsplat or nerfstudio."""

    source: Annotated[Positional[Path], arg(metavar="SOURCE")]
    """A capture (as INPUT of meshwright reconstruct), or the folder of a result: its cameras are the corrected ones."""
    out: Path
    """Folder for cameras and pictures; made when missing."""
    format: Literal["colmap", "transforms"] = "colmap"
    """colmap: sparse/0, images, masks; transforms: transforms.json and images with alpha."""
    views: ViewOptions = ViewOptions()
    run: RunReading = RunReading()

    def __call__(self) -> None:
        from meshwright.capture import write_colmap, write_transforms
        from meshwright.files import atomic_directory
        from meshwright.isolated import file_readers

        files = file_readers(self.run.isolate)
        with atomic_directory(self.out) as folder, progress_bars() as bars:
            report = self.source / "report.json"
            if self.source.is_dir() and report.is_file():
                views, mesh = _of_result(report, self.views, files, bars)
            else:
                views, mesh = files.load_views(self.source, self.views, progress=bars), None
            if self.format == "transforms":
                write_transforms(views, folder, bars)
            else:
                write_colmap(views, folder, *_points(self.source, mesh), progress=bars)
        line = f"{printable(self.out)}: {len(views)} cameras and pictures, {self.format}"
        Console().print(line, markup=False, highlight=False)


def _of_result(
    report: Path, options: ViewOptions, files: "Readers", progress: "Progress"
) -> "tuple[Views, Mesh | None]":
    """The pictures that a result was made from, read as they were then, with its cameras; and its mesh.

    Raises:
        InputError: the report is none, or its pictures are elsewhere.
    """
    from meshwright.capture import with_reported_cameras

    if options != ViewOptions():
        raise InputError(f"{report}: a result's pictures are read as they were then; leave out how to read them")
    content = parse_json(read_untrusted(report, 64 * MIB, "a report"), report)
    settings = content.get("settings") if isinstance(content, dict) else None
    source = settings.get("input") if isinstance(settings, dict) else None
    if not isinstance(source, str) or not isinstance(settings, dict) or not isinstance(settings.get("views"), dict):
        raise InputError(f"{report}: says not which pictures it was made from; run the reconstruction again")
    if "\0" in source or not Path(source).exists():
        raise InputError(f"{report}: its pictures, {printable(source)[:200]}, are not there; run this where they are")
    try:
        then = ViewOptions(**settings["views"])
    except TypeError:
        raise InputError(f"{report}: was written by another version; run the reconstruction again") from None
    views = with_reported_cameras(files.load_views(Path(source), then, progress=progress), report)
    meshes = [report.parent / f"mesh.{suffix}" for suffix in ("glb", "obj", "ply", "stl")]
    mesh = next((file for file in meshes if file.is_file()), None)
    return views, None if mesh is None else files.load_mesh(mesh)


def _points(source: Path, mesh: "Mesh | None") -> "tuple[Tensor | None, Tensor | None]":
    """Points and colours for a sparse model: on the mesh of a result, or those of a capture."""
    import torch

    from meshwright.capture import read_colmap_points
    from meshwright.color import query_colors, surface_field

    if mesh is None:
        found = read_colmap_points(source) if source.is_dir() else None
        return None if found is None else torch.from_numpy(found), None
    points, *_ = mesh.sample_surface(_POINTS)
    return points, query_colors(surface_field(mesh), points)
