"""The Blender add-on and the ComfyUI nodes. Blender's part needs a Python with bpy: MESHWRIGHT_BPY_PYTHON."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ADDON = ROOT / "integrations" / "blender" / "meshwright_bridge"
NODES = ROOT / "integrations" / "comfyui"


def test_the_blender_manifest_is_complete() -> None:
    manifest = tomllib.loads((ADDON / "blender_manifest.toml").read_text(encoding="utf-8"))
    assert manifest["schema_version"] == "1.0.0"
    assert manifest["type"] == "add-on"
    assert re.fullmatch(r"[a-z_]+", manifest["id"])
    assert tuple(map(int, manifest["blender_version_min"].split("."))) >= (4, 2, 0)
    assert not manifest["tagline"].endswith(".")
    assert len(manifest["tagline"]) <= 64
    assert set(manifest["permissions"]) <= {"network", "files"}
    assert all(len(reason) <= 64 and not reason.endswith(".") for reason in manifest["permissions"].values())
    assert "wheels" not in manifest


def test_the_addon_needs_nothing_but_blender() -> None:
    for file in ADDON.glob("*.py"):
        names = re.findall(r"^(?:from|import) ([\w.]+)", file.read_text(encoding="utf-8"), re.MULTILINE)
        for name in names:
            top = name.split(".")[0]
            assert top in ("", "bpy", "mathutils") or top in sys.stdlib_module_names, (file.name, name)


@pytest.mark.slow
@pytest.mark.blender
def test_blender_sees_through_the_cameras_of_the_pictures(tmp_path: Path) -> None:
    """The whole add-on, headless: its cameras project points as ours do."""
    python = os.environ.get("MESHWRIGHT_BPY_PYTHON")
    if not python:
        pytest.skip("MESHWRIGHT_BPY_PYTHON: name a Python that has bpy")
    code = f"from meshwright.app import serve; serve(port=0, data={str(tmp_path / 'data')!r})"
    server = subprocess.Popen([sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        address = server.stdout.readline().split()[-1].rstrip("/")
        source = ROOT / "examples" / "demo" / "posed"
        script = Path(__file__).parent / "blender_addon_script.py"
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [python, script, ADDON, address, source], capture_output=True, text=True, timeout=900, env=environment
        )
    finally:
        server.terminate()
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, (done.stdout[-2000:], done.stderr[-2000:])
    result = json.loads(lines[0][7:])
    assert result["made"] == ["FINISHED"]
    assert result["textured"] == ["FINISHED"]
    assert "client.py" in result["refused"]
    assert result["meshes"][0] > 1000
    assert result["materials"][0] == 1
    import torch

    from meshwright import load_views

    views = load_views(source)
    ours, _ = views.cameras.project(torch.tensor(result["points"]))
    by_name = {name: ours[number] for number, name in enumerate(views.names)}
    assert len(result["seen"]) == len(views)
    for seen in result["seen"]:
        torch.testing.assert_close(torch.tensor(seen["uv"]), by_name[seen["name"]], atol=2e-5, rtol=0)
