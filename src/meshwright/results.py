"""The ends of the road that command line and app share: a mesh as the start, and the folder of results."""

from collections.abc import Mapping
from pathlib import Path

import torch

from meshwright.color import color_vertices, surface_field
from meshwright.errors import InputError
from meshwright.evaluate import Scored, StageClock, preview, turntable, write_report
from meshwright.images import write_image
from meshwright.mesh import Mesh
from meshwright.options import Frame, OutputOptions
from meshwright.reconstruct import Finished, StartShape, in_output_frame
from meshwright.views import ObjectFrame, Views

_LEAST_IOU = 0.1  # a mesh whose silhouettes overlap less than this with the pictures lies elsewhere


def start_from_mesh(
    mesh: Mesh, name: str, views: Views, asked: Frame, device: torch.device
) -> tuple[StartShape, Views, ObjectFrame]:
    """A mesh to go on from, in the input's world or in the object's own frame, whichever the pictures show it in.

    Args:
        name: of its file, for messages.
        asked: the frame of the results; auto: that of the mesh.
        device: where the work will be done; mesh and views are still on the CPU.

    Returns:
        The start and the views on ``device``, in the frame of the results, and that frame.

    Raises:
        InputError: the mesh has no triangles, or is not where the views look.
    """
    if len(mesh.faces) == 0:
        raise InputError(f"{name}: has no triangles; export it again with its surface")
    found: Frame = "input"
    overlap = Scored.of(mesh, views).silhouette_iou
    if overlap < _LEAST_IOU:  # perhaps it is a result in the object's own frame
        own_views, own = in_output_frame(views, "object")
        if own.is_identity or Scored.of(mesh, own_views).silhouette_iou < _LEAST_IOU:
            raise InputError(
                f"{name}: does not lie where the views look (mean silhouette IoU {overlap:.2f}); place and scale it in"
                " the cameras' world, with y up in the file"
            )
        mesh, found = own.restore_mesh(mesh), "object"
    views, frame = in_output_frame(views, found if asked == "auto" else asked)
    mesh = frame.normalize_mesh(mesh).to(device)
    return StartShape(mesh, surface_field(mesh)), views.to(device), frame


def colored_start(start: StartShape, views: Views) -> Mesh:
    """The start as people are shown it: in its own colours, or in those of the views."""
    return start.mesh if start.mesh.has_colors else color_vertices(start.mesh, views)


def write_results(
    folder: Path,
    start: StartShape,
    finished: Finished,
    views: Views,
    frame: ObjectFrame,
    output: OutputOptions,
    settings: Mapping[str, object],
    clock: StageClock,
    shown: Mesh | None = None,
) -> tuple[Scored, Scored]:
    """Write mesh files, preview.png, turntable.mp4 if wanted, and report.json.

    Returns how well start and result agree with the views.

    Args:
        start: what the work began from; the preview has its `colored_start`.
        views: those that the work began with.
        settings: for the report.
        clock: has timed the work so far; it is closed before the report is written.
        shown: that coloured start, if there is one already.
    """
    clock("files", 0.0)
    shown = colored_start(start, views) if shown is None else shown
    before = Scored.of(shown.to("cpu"), views.to("cpu"))
    result = Scored.of(finished.mesh.to("cpu"), finished.views.to("cpu"))
    for suffix in output.format:
        result.mesh.save(folder / f"mesh.{suffix}")
    write_image(preview([before, result]), folder / "preview.png")
    if output.turntable:
        turntable(result.mesh, folder / "turntable.mp4", progress=clock)
    clock.close()
    report = folder / "report.json"
    write_report(report, before, result, finished.refined, start.rejected_views, settings, clock.stages, frame)
    return before, result
