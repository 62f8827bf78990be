"""Evaluation: the truth scores best, faults cost what they should, runs go on, and the command line does the same."""

import dataclasses
import json
import sys

import pytest
import torch

from meshwright.cameras import Cameras
from meshwright.cli import main
from meshwright.errors import InputError
from meshwright.evaluate import Case, Scene, Split, draw_split, evaluate, read_splits, write_comparison
from meshwright.evaluate.novel_views import points_at_depth, score
from meshwright.raster import render
from meshwright.views import Views
from training_scenes import MESHES, write_dataset

SPLIT = Split((0, 1), (2, 3, 4))


def views_of(name: str) -> Views:
    cameras = Cameras.zero123plus()
    drawn = render(MESHES[name], cameras, 64, 64)
    return Views(
        drawn.rgb.clamp(0, 1), drawn.alpha, cameras, torch.full((6, 2), 64), tuple("abcdef"), depth_z=drawn.depth_z
    )


def case(name: str, pictures_of: str | None = None) -> Case:
    views = views_of(pictures_of or name)
    scene = Scene(views[list(SPLIT.inputs)], views[list(SPLIT.targets)])
    return Case(name, lambda: scene, SPLIT)


def judged(mesh, scene: Scene):
    return score(mesh, scene, Case("tall", lambda: scene, SPLIT))


def test_the_truth_scores_best_and_a_shift_costs_what_it_is_long():
    mesh, scene = MESHES["tall"], case("tall").read()
    true = judged(mesh, scene)
    assert true.psnr_db == 100.0
    assert true.iou == 1.0
    assert true.chamfer == pytest.approx(0.0, abs=1e-5)
    assert true.f_scores == (1.0, 1.0, 1.0)
    assert true.normals is None  # the views bring no normals
    assert true.whole_chamfer_percent is None
    larger = judged(mesh.replace(vertices=mesh.vertices * 1.1), scene)
    assert 0.02 < larger.chamfer < 0.07  # a tenth of radii between 0.35 and 0.75, nearest points
    assert 0.75 < larger.iou < 0.9
    colorless = judged(mesh.replace(vertex_colors=None), scene)
    assert colorless.iou == 1.0
    assert colorless.psnr_db < 30


def test_what_no_view_sees_counts_on_the_whole_surface_alone():
    mesh, views = MESHES["tall"], views_of("tall")
    scene = Scene(views[[0]], views[[2]], mesh)
    true = judged(mesh, scene)
    assert true.normals == pytest.approx(1.0, abs=1e-6)
    assert true.whole_chamfer_percent < 0.5  # two samplings of one surface
    assert true.whole_normals > 0.99
    # A ball inside: hidden from every view, but it is surface.
    inner = mesh.replace(
        vertices=torch.cat([mesh.vertices, 0.5 * mesh.vertices]),
        faces=torch.cat([mesh.faces, mesh.faces + len(mesh.vertices)]),
        vertex_colors=None,
    )
    found = judged(inner, scene)
    assert found.chamfer == pytest.approx(0.0, abs=1e-5)
    assert found.f_scores == (1.0, 1.0, 1.0)
    assert found.whole_chamfer_percent > 1
    assert found.whole_f_scores[1] < 0.95


def test_lpips_is_the_mean_over_the_target_views():
    scene = case("tall").read()
    found = score(MESHES["tall"], scene, case("tall"), perceptual=lambda rgb, true: torch.arange(len(rgb)).float())
    assert found.lpips == 1.0


def test_visible_points_lie_on_the_object():
    views = views_of("tall")
    points = points_at_depth(views.depth_z[:, 0], views.cameras) / torch.tensor([0.35, 0.4, 0.75])
    assert float((points.norm(dim=1) - 1).abs().max()) < 0.03


def test_splits_depend_on_name_and_seed_alone():
    split = draw_split("a", 12, 4, 6)
    assert split == draw_split("a", 12, 4, 6)
    assert split != draw_split("b", 12, 4, 6)
    assert split != draw_split("a", 12, 4, 6, seed=1)
    assert not set(split.inputs) & set(split.targets)
    fewer = draw_split("a", 12, 2, 6, most_inputs=4)
    assert fewer.targets == split.targets
    assert fewer.inputs == split.inputs[:2]
    assert (len(split.inputs), len(split.targets)) == (4, 6)
    with pytest.raises(InputError, match="too few for 12 inputs"):
        draw_split("a", 12, 12, 1)


def test_an_index_gives_the_views(tmp_path):
    (tmp_path / "x.json").write_text('{"tall": {"inputs": [0, 1], "targets": [2, 3, 4]}}')
    assert read_splits(tmp_path / "x.json") == {"tall": SPLIT}
    for bad in ("[1]", '{"a": {"inputs": [0], "targets": [0]}}', '{"a": {"inputs": [0]}}', "{"):
        (tmp_path / "x.json").write_text(bad)
        with pytest.raises(InputError, match=r"x\.json"):
            read_splits(tmp_path / "x.json")


def test_a_stopped_evaluation_goes_on_and_failures_are_listed(tmp_path):
    asked = []

    def reconstruct(name, scene):
        asked.append(name)
        assert len(scene.inputs) == 2
        if len(asked) == 2:
            raise KeyboardInterrupt
        if name == "broken":
            raise InputError("no silhouette; give masks")
        return MESHES[name]

    objects = [case("tall"), case("flat"), case("broken", pictures_of="flat")]
    with pytest.raises(KeyboardInterrupt):
        evaluate(objects, reconstruct, tmp_path / "out", {"a": 1})
    with (tmp_path / "out" / "objects.jsonl").open("a") as file:
        file.write('{"name": "flat", "psn')
    summary = evaluate(objects, reconstruct, tmp_path / "out", {"a": 1})
    assert asked == ["tall", "flat", "flat", "broken"]
    assert summary["objects"] == 3
    assert summary["failed"] == ["broken"]
    assert summary["means"]["psnr_db"] == 100.0
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == json.loads(json.dumps(summary))
    with pytest.raises(InputError, match="other settings"):
        evaluate(objects, reconstruct, tmp_path / "out", {"a": 2})
    write_comparison([tmp_path / "out", tmp_path / "out"], tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert page.count("data:image/png;base64") == 4
    assert "http" not in page


def test_meshes_of_other_tools_from_the_command_line(tmp_path, monkeypatch, capsys):
    data = write_dataset(tmp_path / "data")
    (tmp_path / "meshes").mkdir()
    MESHES["tall"].save(tmp_path / "meshes" / "tall.glb")
    words = [
        "evaluate",
        data,
        "--meshes",
        tmp_path / "meshes",
        "--out",
        tmp_path / "out",
        "--inputs",
        3,
        "--targets",
        4,
    ]
    monkeypatch.setattr(sys, "argv", ["meshwright", *map(str, words)])
    main()
    entries = {e["name"]: e for e in map(json.loads, (tmp_path / "out" / "objects.jsonl").read_text().splitlines())}
    assert "has no mesh flat" in entries["flat"]["error"]
    assert entries["tall"]["psnr_db"] > 35
    assert entries["tall"]["chamfer"] < 0.01
    assert entries["tall"]["split"] == json.loads(json.dumps(dataclasses.asdict(draw_split("tall", 8, 3, 4))))
    assert (tmp_path / "out" / "report.html").is_file()
    assert "1 failed" in capsys.readouterr().out


def run_main(monkeypatch, *words) -> None:
    monkeypatch.setattr(sys, "argv", ["meshwright", "evaluate", *map(str, words)])
    main()


def test_mesh_files_are_photographed_and_judged_all_over(tmp_path, monkeypatch):
    """The true mesh, but in another place and size: worthless where it lies, nearly perfect once its box is aligned."""
    mesh = MESHES["flat"]
    mesh.save(tmp_path / "flat.glb")
    (tmp_path / "other").mkdir()
    mesh.replace(vertices=3 * mesh.vertices + 1).save(tmp_path / "other" / "flat.ply")
    words = [tmp_path / "flat.glb", "--meshes", tmp_path / "other", "--size", 64, "--input-rig", "orbit"]
    found = {}
    for align in ("none", "box"):
        out = tmp_path / align
        run_main(monkeypatch, *words, "--align", align, "--inputs", 4, 8, "--out", out)
        for count in (4, 8):
            (line,) = (out / f"inputs-{count}" / "objects.jsonl").read_text().splitlines()
            found[align, count] = json.loads(line)
    assert found["none", 4]["whole_chamfer_percent"] > 20
    assert found["box", 4]["whole_chamfer_percent"] < 0.5
    assert found["box", 4]["psnr_db"] > 35
    assert found["box", 4]["psnr_db"] == found["box", 8]["psnr_db"]  # whatever is given, the same views judge
    page = (tmp_path / "box" / "report.html").read_text()
    assert "against the number of given views" in page
    assert page.count("data:image/png;base64") == 2


def test_what_makes_no_sense_is_refused(tmp_path, monkeypatch, capsys):
    MESHES["flat"].save(tmp_path / "flat.glb")
    scan, out = tmp_path / "flat.glb", ["--out", tmp_path / "out"]
    for words, complaint in (
        ([scan, *out, "--inputs", 4], "zero123plus has 6 views"),
        ([scan, *out, "--truth", tmp_path], "--truth: has no effect on mesh files"),
        ([scan, *out, "--align", "box"], "no effect without --meshes"),
        ([scan, *out, "--inputs", 0], "--inputs: give"),
        ([*out], "no objects were given"),
        ([scan, *out, "--perceptual-weights", tmp_path / "none.pth"], "none.pth"),
    ):
        with pytest.raises(SystemExit) as stop:
            run_main(monkeypatch, *words)
        assert stop.value.code == 2
        assert complaint in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
