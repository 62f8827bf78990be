"""The commands of curation: one line for a user's mistake, and the road from files to a checked set."""

import sys
from pathlib import Path

import pytest

from meshwright.cli import main
from small_objects import colored_ball, textured_box


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """The exit code of ``meshwright curate WORDS``."""
    monkeypatch.setattr(sys, "argv", ["meshwright", "curate", *map(str, words)])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_from_files_to_a_checked_and_packed_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    colored_ball().save(tmp_path / "in" / "Ball.glb")
    textured_box().save(tmp_path / "in" / "box.obj")
    assert run(monkeypatch, "select", tmp_path / "in", "--out", tmp_path / "chosen.json", "--workers", 1) == 0
    assert run(
        monkeypatch, "render", tmp_path / "chosen.json", "--out", tmp_path / "set",
        "--view-set", "random", "--views", 4, "--distance", 3, 4, "--size", 48, "--workers", 1,
    ) == 0  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "set" / "objects").iterdir()) == ["Ball", "box"]
    assert run(monkeypatch, "check", tmp_path / "set") == 0
    assert run(monkeypatch, "preview", tmp_path / "set", "--out", tmp_path / "sheet.png") == 0
    assert run(monkeypatch, "pack", tmp_path / "set", "--out", tmp_path / "shards") == 0
    assert run(monkeypatch, "convert", tmp_path / "shards", tmp_path / "there", "--layout", "mindone") == 0
    assert (tmp_path / "there" / "uid_set.txt").read_text() == "Ball\nbox\n"
    assert "objects a minute" in capsys.readouterr().out
    (tmp_path / "set" / "objects" / "box" / "001.png").unlink()
    assert run(monkeypatch, "check", tmp_path / "set") == 2
    assert "1 of 2 objects have faults" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("render", "{}/none", "--out", "{}/out"), "there is no such file or folder"),
        (("render", "{}", "--out", "{}/out"), "holds no mesh files"),
        (("render", "{}", "--out", "{}/out", "--size", "7"), "--size 7"),
        (("render", "{}", "--out", "{}/out", "--view-set", "zero123plus", "--views", "7"), "leave --views out"),
        (("render", "{}", "--out", "{}/out", "--lighting", "varied"), "needs Blender"),
        (("render", "{}", "--out", "{}/out", "--cycles-device", "gpu"), "--cycles-device gpu needs Blender"),
        (("check", "{}/none"), "there is no such data set"),
        (("pack", "{}", "--out", "{}/out"), "holds no folder objects"),
        (("convert", "{}", "{}/out"), "is no data set that is known"),
        (("render", "{}"), "--out"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    words: tuple[str, ...],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, *(word.format(tmp_path) for word in words)) == 2
    said = capsys.readouterr().err.strip()
    assert expected in said
    assert "\n" not in said
    assert not (tmp_path / "out").exists()
