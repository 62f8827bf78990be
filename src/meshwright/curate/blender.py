"""Drawing with Blender, which runs in an interpreter of its own: its numpy is not ours.

Which one: `DrawOptions.blender`, else the environment variable MESHWRIGHT_BLENDER (a Python where ``import bpy`` works,
or a ``blender`` executable), else a ``blender`` on the PATH.

What goes there is a JSON file (path, fit, lighting, seed, size_px, cycles_device, T_world_camera, intrinsics, out);
what comes back an .npz: rgba (linear, premultiplied), depth_z, normals, center, scale, bounds, faces, version.
"""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

from meshwright.cameras import Cameras
from meshwright.curate.object_files import Normalization, RenderedObject
from meshwright.curate.options import DrawOptions
from meshwright.curate.render import Drawn, framing_warnings
from meshwright.errors import InputError
from meshwright.srgb import srgb_from_linear

BLENDER_SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".fbx")
_VARIABLE = "MESHWRIGHT_BLENDER"
_SCRIPT = Path(__file__).with_name("blender_render.py")


def find_blender(stated: Path | None = None) -> Path:
    """Raises: InputError: there is none."""
    for place in (stated, os.environ.get(_VARIABLE), shutil.which("blender")):
        if place:
            found = shutil.which(place)
            if found is None:
                raise InputError(f"{place}: cannot be run; give a Python with bpy or a blender executable")
            return Path(found)
    raise InputError(
        "the renderer 'blender' needs Blender: make a venv of its own with `pip install bpy`, and give its python as"
        f" `blender` or in {_VARIABLE}; or use `renderer='builtin'`"
    )


def render_blender(name: str, path: Path, cameras: Cameras, options: DrawOptions, seed: int) -> Drawn:
    """Draw a mesh file with Cycles; the twin of `meshwright.curate.render.render_builtin`.

    Raises:
        InputError: there is no Blender, or it cannot draw the file.
    """
    program = find_blender(options.blender)
    with tempfile.TemporaryDirectory() as folder:
        job, out = Path(folder) / "job.json", Path(folder) / "drawn.npz"
        content = {
            "path": str(path.absolute()),
            "fit": options.fit,
            "lighting": options.lighting,
            "seed": seed,
            "size_px": options.size_px,
            "cycles_device": options.cycles_device,
            "T_world_camera": cameras.T_world_camera.tolist(),
            "intrinsics": cameras.intrinsics.tolist(),
            "out": str(out),
        }
        job.write_text(json.dumps(content), encoding="utf-8")
        command = [str(program), "-P", str(_SCRIPT), str(job)]  # -P: this folder is no place to import from
        if program.name.startswith("blender"):
            command[1:] = [
                "-b",
                "--factory-startup",
                "--python-exit-code",
                "1",
                "--python",
                str(_SCRIPT),
                "--",
                str(job),
            ]
        # Our own import path has nothing in it for another interpreter.
        surroundings = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        ran = subprocess.run(command, capture_output=True, text=True, errors="replace", env=surroundings, check=False)
        if not out.is_file():
            lines = [line for line in (ran.stderr or ran.stdout).splitlines() if line.strip()]
            reason = " ".join((lines or [f"it ended with code {ran.returncode}"])[-1].split())[:200]
            raise InputError(f"{path}: Blender cannot draw it ({reason}); export it again")
        with np.load(out, allow_pickle=False) as arrays:
            return _drawn(name, {key: arrays[key] for key in arrays.files}, cameras, options)


def _drawn(name: str, arrays: dict[str, np.ndarray], cameras: Cameras, options: DrawOptions) -> Drawn:
    linear = torch.from_numpy(arrays["rgba"])
    alpha = linear[:, 3:].clamp(0, 1)
    straight = (linear[:, :3] / alpha.clamp(min=1e-6)).clamp(0, 1)
    srgb = torch.where(alpha > 0, srgb_from_linear(straight), 0.0)
    rgba = (torch.cat([srgb, alpha], dim=1) * 255).round().to(torch.uint8)
    normals = torch.nn.functional.normalize(torch.from_numpy(arrays["normals"]), dim=1)
    rendered = RenderedObject(name, rgba, torch.from_numpy(arrays["depth_z"])[:, None], normals, cameras)
    x, y, z = arrays["center"].tolist()
    low, high = arrays["bounds"].tolist()
    return Drawn(
        rendered,
        Normalization(options.fit, (x, y, z), float(arrays["scale"])),
        ((low[0], low[1], low[2]), (high[0], high[1], high[2])),
        int(arrays["faces"]),
        f"Blender {arrays['version']}",
        framing_warnings(rendered),
    )
