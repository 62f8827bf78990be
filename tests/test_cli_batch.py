"""Many inputs on the command line."""

import json
from pathlib import Path

import pytest

from meshwright.cli.batch import folder_names, run_batch
from meshwright.cli.commands import COMMANDS
from meshwright.cli.flags import parse
from meshwright.errors import InputError


def _write(folder: Path) -> None:
    folder.mkdir(parents=True)
    report = {"mesh": {"triangles": 1200}, "mean": {"psnr_db": 31.25, "silhouette_iou": 0.98}}
    (folder / "report.json").write_text(json.dumps(report))


def test_failures_stay_alone_and_a_rerun_makes_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[str] = []
    broken = True

    def make(source: Path, out: Path) -> None:
        made.append(source.name)
        if source.name == "bad.mp4" and broken:
            raise InputError("bad.mp4: is no film; send another")
        if source.name == "bug.mp4" and broken:
            raise ZeroDivisionError
        _write(out)

    inputs = [tmp_path / name for name in ("a.mp4", "bad.mp4", "bug.mp4", "z.mp4")]
    with pytest.raises(InputError, match="2 of 4 inputs failed"):
        run_batch(inputs, tmp_path / "out", make)
    table = capsys.readouterr().out
    assert made == ["a.mp4", "bad.mp4", "bug.mp4", "z.mp4"]
    assert "1,200" in table
    assert "31.2 dB" in table
    assert "is no film" in table.replace("\n", " ")
    broken = False
    run_batch(inputs, tmp_path / "out", make)
    assert made[4:] == ["bad.mp4", "bug.mp4"]


def test_every_input_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "scan.d").mkdir()
    inputs = ["x/film.mp4", "y/film.webm", "film.d/transforms.json", "scan.d", "film-2.mp4"]
    names = folder_names([tmp_path / name for name in inputs])
    assert names == ["film", "film-2", "film.d", "scan.d", "film-2-2"]


def test_the_command_takes_one_input_or_many() -> None:
    one = parse(COMMANDS, ["reconstruct", "a.mp4", "--out", "o", "--format", "glb,obj"])
    assert (one.input, one.more, one.output.format) == (Path("a.mp4"), (), ("glb", "obj"))  # type: ignore[attr-defined]
    many = parse(COMMANDS, ["reconstruct", "a.mp4", "b", "c.gif", "--out", "o"])
    assert (many.input, many.more) == (Path("a.mp4"), (Path("b"), Path("c.gif")))  # type: ignore[attr-defined]
