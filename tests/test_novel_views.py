"""Evaluation: the truth scores best, faults cost what they should, runs go on, and the command line does the same."""

import dataclasses
import json
import sys

import pytest
import torch

from meshwright.cameras import Cameras
from meshwright.cli import main
from meshwright.errors import InputError
from meshwright.evaluate import Split, draw_split, evaluate, read_splits, write_comparison
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


def read(name: str):
    return lambda split: (views_of(name)[list(split.inputs)], views_of(name)[list(split.targets)])


def test_the_truth_scores_best_and_a_shift_costs_what_it_is_long():
    mesh, targets = MESHES["tall"], views_of("tall")[[2, 3, 4]]
    true = score("tall", mesh, targets, SPLIT)
    assert true.psnr_db == 100.0
    assert true.iou == 1.0
    assert true.chamfer == pytest.approx(0.0, abs=1e-5)
    assert true.f_scores == (1.0, 1.0, 1.0)
    larger = score("tall", mesh.replace(vertices=mesh.vertices * 1.1), targets, SPLIT)
    assert 0.02 < larger.chamfer < 0.07  # a tenth of radii between 0.35 and 0.75, nearest points
    assert 0.75 < larger.iou < 0.9
    colorless = score("tall", mesh.replace(vertex_colors=None), targets, SPLIT)
    assert colorless.iou == 1.0
    assert colorless.psnr_db < 30


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

    def reconstruct(name, views):
        asked.append(name)
        assert len(views) == 2
        if len(asked) == 2:
            raise KeyboardInterrupt
        if name == "broken":
            raise InputError("no silhouette; give masks")
        return MESHES[name]

    objects = [(name, read("flat" if name == "broken" else name), SPLIT) for name in ("tall", "flat", "broken")]
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
