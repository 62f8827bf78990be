"""The Blender add-on and the ComfyUI nodes. Blender's part needs a Python with bpy: MESHWRIGHT_BLENDER."""

import asyncio
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path
from typing import Any

import pytest
import torch

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


class _Field:
    """Stands in for comfy_api.latest.io's types: keeps what a node says of its inputs and outputs."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def Input(self, name: str, **options: object) -> tuple[str, str, dict[str, object]]:
        return self.kind, name, options

    def Output(self, name: str, **options: object) -> tuple[str, str]:
        return self.kind, name


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """The nodes by their ids, loaded against a stand-in of ComfyUI's published V3 interface."""

    class NodeOutput:
        def __init__(self, *values: object, ui: object = None) -> None:
            self.values, self.ui = values, ui

    latest = types.ModuleType("comfy_api.latest")
    latest.ComfyExtension = object  # type: ignore[attr-defined]
    kinds = {name: _Field(name.upper()) for name in ("Image", "Mask", "Combo", "String", "Int")}
    latest.io = types.SimpleNamespace(  # type: ignore[attr-defined]
        ComfyNode=object, Custom=_Field, NodeOutput=NodeOutput, Schema=lambda **given: given, **kinds
    )
    utils, management = types.ModuleType("comfy.utils"), types.ModuleType("comfy.model_management")
    bar = types.SimpleNamespace(update_absolute=lambda done, total: None)
    utils.ProgressBar = lambda total: bar  # type: ignore[attr-defined]
    management.throw_exception_if_processing_interrupted = lambda: None  # type: ignore[attr-defined]
    folders = types.ModuleType("folder_paths")
    folders.get_output_directory = lambda: str(tmp_path)  # type: ignore[attr-defined]
    folders.get_save_image_path = lambda prefix, root: (root, "name", 7, "", prefix)  # type: ignore[attr-defined]
    for name, module in {
        "comfy_api": types.ModuleType("comfy_api"), "comfy_api.latest": latest, "comfy": types.ModuleType("comfy"),
        "comfy.utils": utils, "comfy.model_management": management, "folder_paths": folders,
    }.items():  # fmt: skip
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("meshwright_comfyui", NODES / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    extension = asyncio.run(module.comfy_entrypoint())
    return {node.define_schema()["node_id"]: node for node in asyncio.run(extension.get_node_list())}


def test_comfyui_nodes_fit_together(nodes: dict[str, Any]) -> None:
    made = {"IMAGE", "MASK", "COMBO", "STRING", "INT"}
    for node in nodes.values():
        made |= {kind for kind, _ in node.define_schema()["outputs"]}
    for node in nodes.values():
        schema = node.define_schema()
        taken = list(inspect.signature(node.execute).parameters)
        assert [name for _, name, _ in schema["inputs"]] == taken  # ComfyUI calls by these names
        assert {kind for kind, _, _ in schema["inputs"]} <= made
    project = tomllib.loads((NODES / "pyproject.toml").read_text(encoding="utf-8"))
    assert "comfyui" not in project["project"]["name"].lower()
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["project"]["version"])
    assert set(project["tool"]["comfy"]) == {"PublisherId", "DisplayName"}
    text = (NODES / "__init__.py").read_text(encoding="utf-8")
    assert not re.search(r"\b(eval|exec|subprocess)\b", text)  # the registry's rules


def test_comfyui_makes_a_mesh_in_inference_mode(nodes: dict[str, Any], tmp_path: Path) -> None:
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    disc = ((rows - 31.5) ** 2 + (columns - 31.5) ** 2 < 20**2).float()
    images = torch.ones(8, 64, 64, 3) - disc[..., None] * torch.tensor([0.2, 0.7, 0.7])
    with torch.inference_mode():
        (views,) = nodes["MeshwrightViews"].execute(images.clone(), "orbit", disc[None].clone()).values
        assert len(views) == 8
        assert not views.images.is_inference()
        (mesh,) = nodes["MeshwrightReconstruct"].execute(views, "off", 256, 500, 0).values
        saved = nodes["MeshwrightSave"].execute(mesh, "mesh/it")
    # A ball seen as a disc of 20 of 32 pixels in a field that frames 2.144 units.
    radius = mesh.vertices.norm(dim=1).median()
    torch.testing.assert_close(radius, torch.tensor(20 / 32 * 2.144 / 2), atol=0.05, rtol=0)
    color = mesh.texture.flatten(1).median(dim=1).values
    torch.testing.assert_close(color, torch.tensor([0.8, 0.3, 0.3]), atol=0.02, rtol=0)
    assert (tmp_path / "name_00007_.glb").read_bytes()[:4] == b"glTF"
    assert saved.ui["3d"][0]["filename"] == "name_00007_.glb"


@pytest.mark.slow
@pytest.mark.blender
def test_blender_sees_through_the_cameras_of_the_pictures(tmp_path: Path) -> None:
    """The whole add-on, headless: its cameras project points as ours do."""
    python = os.environ.get("MESHWRIGHT_BLENDER")
    if not python or Path(python).name.startswith("blender"):
        pytest.skip("MESHWRIGHT_BLENDER: name a Python that has bpy")
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
    from meshwright import load_views

    views = load_views(source)
    ours, _ = views.cameras.project(torch.tensor(result["points"]))
    by_name = {name: ours[number] for number, name in enumerate(views.names)}
    assert len(result["seen"]) == len(views)
    for seen in result["seen"]:
        torch.testing.assert_close(torch.tensor(seen["uv"]), by_name[seen["name"]], atol=2e-5, rtol=0)
