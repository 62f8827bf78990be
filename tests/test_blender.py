"""The two renderers agree on what they draw: silhouettes, depth, normals and base colours.

Needs Blender: MESHWRIGHT_BLENDER names a Python with bpy, or a blender executable.
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from meshwright.curate import (
    CurateCheckOptions,
    CurateRenderOptions,
    DrawOptions,
    RenderedFolder,
    ViewSetOptions,
    check_dataset,
    render_objects,
)
from meshwright.curate.blender import find_blender
from meshwright.errors import InputError
from small_objects import write_objects

pytestmark = pytest.mark.blender


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[RenderedFolder, RenderedFolder]:
    """The same objects from the same views by either renderer."""
    folder = tmp_path_factory.mktemp("blender")
    write_objects(folder / "objects")
    views, drawing = ViewSetOptions("random", 3, distance=(3.0, 4.0), fov_deg=(40.0, 60.0)), DrawOptions(128)
    for renderer in ("builtin", "blender"):
        options = CurateRenderOptions(
            (folder / "objects",),
            folder / renderer,
            views,
            drawing,
            renderer=renderer,
            workers=1,  # type: ignore[arg-type]
        )
        assert render_objects(options).rendered == 4
    return RenderedFolder(folder / "builtin"), RenderedFolder(folder / "blender")


def test_renderers_agree(both: tuple[RenderedFolder, RenderedFolder]) -> None:
    """On a textured, a vertex-coloured, a plain and a multi-part object, each in another file format."""
    builtin, blender = both
    assert builtin.names == blender.names
    for name in builtin.names:
        ours, theirs = builtin.read(name), blender.read(name)
        assert torch.allclose(ours.cameras.embedding(), theirs.cameras.embedding())
        seen, seen_there = ours.depth_z > 0, theirs.depth_z > 0
        assert float((seen & seen_there).sum() / (seen | seen_there).sum()) > 0.999
        same = seen & seen_there
        assert float((ours.depth_z - theirs.depth_z)[same].abs().quantile(0.99)) < 5e-4
        cosine = (ours.normals * theirs.normals).sum(1, keepdim=True)[same]
        assert float(cosine.quantile(0.01)) > 0.9999
        alpha, alpha_there = ours.rgba[:, 3].float(), theirs.rgba[:, 3].float()
        assert float((alpha - alpha_there).abs().mean()) < 1.0
        color = (ours.rgba[:, :3].float() - theirs.rgba[:, :3].float()).abs().mean(1, keepdim=True)
        assert float(color[same].median()) <= 2.0
        record, record_there = builtin.record(name), blender.record(name)
        assert np.allclose(record.normalization.center, record_there.normalization.center, atol=1e-5)
        assert abs(record.normalization.scale / record_there.normalization.scale - 1) < 1e-5
        assert np.allclose(record.bounds, record_there.bounds, atol=1e-5)
        assert record_there.renderer.startswith("Blender ")


def test_what_blender_draws_passes_the_check(both: tuple[RenderedFolder, RenderedFolder]) -> None:
    assert check_dataset(CurateCheckOptions(both[1].dataset)).problems == ()


def test_a_file_that_blender_cannot_read_costs_itself_alone(tmp_path: Path) -> None:
    write_objects(tmp_path / "objects")
    (tmp_path / "objects" / "broken.glb").write_bytes(b"glTF" + b"\0" * 40)
    options = CurateRenderOptions(
        (tmp_path / "objects" / "box.glb", tmp_path / "objects" / "broken.glb"),
        tmp_path / "out",
        ViewSetOptions("random", 1),
        DrawOptions(32, lighting="varied"),
        renderer="blender",
        workers=1,
    )
    summary = render_objects(options)
    assert (summary.rendered, summary.failed) == (1, 1)
    assert next(iter(summary.failures)).startswith("input: Blender cannot draw it")
    lit = RenderedFolder(tmp_path / "out").read("box")
    assert len(lit.rgba[:, :3].flatten().unique()) > 20


def test_without_a_gpu_the_wish_for_one_is_answered_in_a_line(tmp_path: Path) -> None:
    """With one, what it draws is what the CPU draws."""
    write_objects(tmp_path / "objects")
    drawn = {}
    for device in ("cpu", "gpu"):
        options = CurateRenderOptions(
            (tmp_path / "objects" / "box.glb",),
            tmp_path / device,
            ViewSetOptions("circle", 1),
            DrawOptions(64, cycles_device=device),  # type: ignore[arg-type]
            renderer="blender",
            workers=1,
        )
        summary = render_objects(options)
        if summary.failed:
            assert device == "gpu"
            assert "Cycles finds no GPU" in next(iter(summary.failures))
            return
        drawn[device] = RenderedFolder(tmp_path / device).read("box")
    assert float((drawn["cpu"].depth_z - drawn["gpu"].depth_z).abs().quantile(0.99)) < 5e-4


def test_no_blender_is_said_before_anything_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHWRIGHT_BLENDER", "/no/such/python")
    with pytest.raises(InputError, match="cannot be run"):
        find_blender()
    monkeypatch.delenv("MESHWRIGHT_BLENDER")
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    with pytest.raises(InputError, match="pip install bpy"):
        find_blender()


_TO_FBX = """
import sys, bpy
source, target = sys.argv[-2:]
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.import_scene.gltf(filepath=source)
picture = bpy.data.images[0]
picture.filepath_raw, picture.file_format = target + ".png", "PNG"
picture.save()
# What FBX can say: a Principled material (ours is unlit, which the exporter does not know).
material = bpy.data.materials.new("painted")
material.use_nodes = True
nodes = material.node_tree.nodes
texture = nodes.new("ShaderNodeTexImage")
texture.image = picture
material.node_tree.links.new(texture.outputs["Color"], nodes["Principled BSDF"].inputs["Base Color"])
for obj in bpy.data.objects:
    obj.data.materials[0] = material
bpy.ops.export_scene.fbx(filepath=target, path_mode="COPY", embed_textures=True)
"""


def test_an_fbx_is_drawn_as_the_glb_it_was_made_of(tmp_path: Path) -> None:
    """Blender writes the FBX and reads it again: axes, units and the embedded picture survive."""
    write_objects(tmp_path / "objects")
    glb, fbx, script = tmp_path / "objects" / "box.glb", tmp_path / "fbx" / "box.fbx", tmp_path / "to_fbx.py"
    fbx.parent.mkdir()
    script.write_text(_TO_FBX, encoding="utf-8")
    program = find_blender()
    start = ["-b", "--factory-startup", "--python"] if program.name.startswith("blender") else ["-P"]
    surroundings = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    subprocess.run([program, *start, script, "--", glb, fbx], check=True, capture_output=True, env=surroundings)
    views, drawing = ViewSetOptions("circle", 3), DrawOptions(128)
    drawn = []
    for path, renderer in ((glb, "builtin"), (fbx, "blender")):
        options = CurateRenderOptions((path,), tmp_path / renderer, views, drawing, renderer=renderer, workers=1)  # type: ignore[arg-type]
        assert render_objects(options).rendered == 1
        drawn.append(RenderedFolder(tmp_path / renderer).read("box"))
    ours, theirs = drawn
    seen, seen_there = ours.depth_z > 0, theirs.depth_z > 0
    assert float((seen & seen_there).sum() / (seen | seen_there).sum()) > 0.995
    difference = (ours.rgba[:, :3].float() - theirs.rgba[:, :3].float()).abs().mean(1, keepdim=True)
    assert float(difference[seen & seen_there].median()) <= 2.0
