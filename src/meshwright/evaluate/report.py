"""What came out, as numbers: report.json."""

import contextlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from meshwright.evaluate.scores import Scored
from meshwright.evaluate.stages import Stage
from meshwright.shape import Refined
from meshwright.views import ObjectFrame, Views

_STARTS = ("hull", "carve")  # as `meshwright.reconstruct.StartShape` has them
LIBRARIES = ("meshwright", "torch", "numpy", "scipy", "numba", "pillow", "av", "trimesh", "PyMCubes")


def write_report(
    path: str | os.PathLike[str],
    start: Scored,
    result: Scored,
    refined: Refined | None,
    rejected_views: Sequence[int],
    settings: Mapping[str, object],
    stages: Sequence[Stage],
    frame: ObjectFrame,
) -> None:
    """Write report.json: settings, versions, stages, agreement with each view before and after, mesh facts.

    ``frame`` is that of the mesh and the cameras in the input's world; written as a matrix that leads there.
    """
    views = start.views
    report = {
        "settings": dict(settings),
        "input": {
            "rig": views.rig,
            "views": len(views),
            "assumptions": list(views.assumptions),
            "rejected_silhouettes": [views.names[i] for i in rejected_views],
            "mended_silhouettes": result.mended,
            "outlines": None if views.outlines is None else asdict(views.outlines),
        },
        "warnings": result.warnings(),
        "frame": {"T_input_mesh": frame.T_world_object.tolist()},
        "versions": versions(),
        "stages": [asdict(stage) for stage in stages],
        "start": start.summary(),
        "refinement": None if refined is None else _refinement(refined, views),
        **result.summary(),
        "cameras": _cameras(result.views),
    }
    Path(path).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _cameras(views: Views) -> list[dict[str, object]]:
    """Each picture's pinhole camera (OpenGL), in the mesh's frame; lengths of its lens in pixels of the picture."""
    canvas_height, canvas_width = views.images.shape[2:]
    cameras = []
    for i, name in enumerate(views.names):
        height, width = views.sizes_px[i].tolist()
        fx, fy, cx, cy = views.cameras.intrinsics[i].tolist()
        lens = {
            "fl_x": fx * canvas_width,
            "fl_y": fy * canvas_height,
            "cx": cx * canvas_width,
            "cy": cy * canvas_height,
        }
        matrix = views.cameras.T_world_camera[i].tolist()
        cameras.append({"name": name, "w": width, "h": height, **lens, "transform_matrix": matrix})
    return cameras


def _refinement(refined: Refined, views: Views) -> dict[str, object]:
    """Errors on withheld pixels, which start was kept of several, and what the fit found out about each view."""
    turned_deg, moved = views.cameras.difference(refined.views.cameras)
    errors = refined.prediction_errors
    return {
        "start": _STARTS[refined.start] if errors else None,
        "prediction_errors": dict(zip(_STARTS, errors, strict=True)) if errors else None,
        "withheld_error_before": refined.error_before,
        "withheld_error_after": refined.error_after,
        "views": [
            {"name": name, "weight": round(weight, 3), "camera_turned_deg": round(deg, 3), "camera_moved": round(by, 4)}
            for name, weight, deg, by in zip(
                views.names, refined.view_weights.tolist(), turned_deg.tolist(), moved.tolist(), strict=True
            )
        ],
    }


def versions() -> dict[str, str]:
    """Versions of Python, the operating system and the libraries that matter for a result."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for library in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[library] = metadata.version(library)
    return found
