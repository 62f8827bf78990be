"""Views to files of other programs: COLMAP's sparse model and transforms.json, with the pictures that belong to them.

The pictures are those that were worked with: upright, without distortion, as large as they were read. So the cameras
are pinholes, whatever lens took the originals.
"""

import dataclasses
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from torch import Tensor

from meshwright.cameras import CV_TO_GL, Cameras, rigid
from meshwright.capture.camera_files.posed_files import check_cameras
from meshwright.errors import InputError
from meshwright.images import write_image
from meshwright.progress import Progress, silent
from meshwright.untrusted import MIB, finite, parse_json, read_untrusted
from meshwright.views import Views

_PINHOLE = 1  # COLMAP's number of the model
_MAX_REPORT_BYTES = 64 * MIB


def write_transforms(views: Views, folder: Path, progress: Progress = silent) -> None:
    """Write transforms.json and images/*.png with alpha into ``folder``, which exists; `load_views` reads it back.

    Raises:
        InputError: the place cannot be written.
    """
    frames: list[dict[str, object]] = []
    for i, name in enumerate(_write_pictures(views, folder, with_alpha=True, progress=progress)):
        width_px, height_px, fx, fy, cx, cy = _lens(views, i)
        lens = {"w": width_px, "h": height_px, "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy}
        matrix = views.cameras.T_world_camera[i].tolist()
        frames.append({"file_path": f"images/{name}", **lens, "transform_matrix": matrix})
    content = {"camera_model": "PINHOLE", "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_colmap(
    views: Views,
    folder: Path,
    points: Float[Tensor, "points 3"] | None = None,
    colors: Float[Tensor, "points 3"] | None = None,
    progress: Progress = silent,
) -> None:
    """Write sparse/0/*.bin, images/*.png on white and masks/*.png.png into ``folder``, which exists.

    The layout is what COLMAP, 3DGS, gsplat and nerfstudio read. ``points`` and their sRGB ``colors`` become points3D;
    they have no tracks.

    Raises:
        InputError: the place cannot be written.
    """
    names = _write_pictures(views, folder, with_alpha=False, progress=progress)
    cameras, images = [struct.pack("<Q", len(names))], [struct.pack("<Q", len(names))]
    for i, name in enumerate(names):
        T = np.linalg.inv(views.cameras.T_world_camera[i].double().cpu().numpy() @ CV_TO_GL)
        x, y, z, w = Rotation.from_matrix(T[:3, :3]).as_quat()
        cameras.append(struct.pack("<IiQQ4d", i + 1, _PINHOLE, *_lens(views, i)))
        pose = struct.pack("<I7dI", i + 1, w, x, y, z, *T[:3, 3], i + 1)
        images.append(pose + name.encode("utf-8", "surrogateescape") + b"\0" + struct.pack("<Q", 0))
    positions = torch.zeros(0, 3) if points is None else points
    grey = torch.full((len(positions), 3), 0.5) if colors is None else colors
    rgb = (grey.clamp(0, 1) * 255).round().int().tolist()
    table = [struct.pack("<Q", len(positions))]
    for i, (point, color) in enumerate(zip(positions.double().tolist(), rgb, strict=True)):
        table.append(struct.pack("<Q3d3BdQ", i + 1, *point, *color, 0.0, 0))
    model = folder / "sparse" / "0"
    model.mkdir(parents=True)
    for file, records in (("cameras.bin", cameras), ("images.bin", images), ("points3D.bin", table)):
        (model / file).write_bytes(b"".join(records))


def with_reported_cameras(views: Views, report: Path) -> Views:
    """The views of a result with the cameras that its report.json holds: corrected ones, in the frame of its mesh.

    Raises:
        InputError: the report holds no cameras, or those of other pictures.
    """
    content = parse_json(read_untrusted(report, _MAX_REPORT_BYTES, "a report"), report)
    entries = content.get("cameras") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{report}: holds no cameras; run the reconstruction again with this version")
    by_name = {entry.get("name"): entry for entry in entries if isinstance(entry.get("name"), str)}
    missing = [name for name in views.names if name not in by_name]
    if missing:
        raise InputError(f"{report}: holds no camera for {missing[0]}; it is the report of other pictures")
    canvas_height, canvas_width = views.images.shape[2:]
    T, intrinsics = [], []
    for name in views.names:
        entry: dict[str, Any] = by_name[name]
        where = f"{report}: camera {name}"
        matrix = np.array(entry.get("transform_matrix", 0), dtype=object)
        if matrix.shape != (4, 4):
            raise InputError(f"{where}: transform_matrix is no 4x4 matrix; run the reconstruction again")
        numbers = [[finite(value, f"{where}: its matrix") for value in row] for row in matrix.tolist()]
        T.append(rigid(np.array(numbers), where))
        fx, fy, cx, cy = (finite(entry.get(key), f"{where}: {key}") for key in ("fl_x", "fl_y", "cx", "cy"))
        intrinsics.append([fx / canvas_width, fy / canvas_height, cx / canvas_width, cy / canvas_height])
    cameras = Cameras(torch.from_numpy(np.stack(T)), torch.tensor(intrinsics, dtype=torch.float64))
    check_cameras(cameras, report)
    return dataclasses.replace(views, cameras=cameras)


def _write_pictures(views: Views, folder: Path, with_alpha: bool, progress: Progress) -> list[str]:
    """images/NAME.png, and masks/NAME.png.png where alpha is not in them; the names."""
    names = [_file_name(name) for name in views.names]
    if len(set(names)) < len(names):
        names = [f"{name.removesuffix('.png')}-{i:04d}.png" for i, name in enumerate(names)]
    for i, name in enumerate(names):
        progress("pictures", i / len(names), name)
        height, width = views.sizes_px[i].tolist()
        image, alpha = views.images[i, :, :height, :width], views.alpha[i, :, :height, :width]
        # Straight colours: who composites them again by alpha or mask mixes no white into the outline twice.
        image = torch.where(alpha > 0, ((image - (1 - alpha)) / alpha.clamp(min=1e-3)).clamp(0, 1), 1.0)
        if with_alpha:
            image = torch.cat([image, alpha])
        else:
            place = folder / "masks" / f"{name}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            write_image(alpha, place)
        place = folder / "images" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        write_image(image, place)
    progress("pictures", 1.0)
    return names


def _file_name(name: str) -> str:
    """The name of a view as a relative path that ends in .png and holds no control characters."""
    parts = [part for part in Path(name).with_suffix("").parts if part not in ("/", "..", ".")]
    return "/".join("".join(c if c.isprintable() else "_" for c in part) for part in parts) + ".png"


def _lens(views: Views, i: int) -> tuple[int, int, float, float, float, float]:
    """(width, height, fx, fy, cx, cy) of the real picture, in its pixels."""
    canvas_height, canvas_width = views.images.shape[2:]
    height, width = views.sizes_px[i].tolist()
    fx, fy, cx, cy = views.cameras.intrinsics[i].double().tolist()
    return width, height, fx * canvas_width, fy * canvas_height, cx * canvas_width, cy * canvas_height
