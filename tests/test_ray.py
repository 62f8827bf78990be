"""Rendering on a Ray cluster of two processes on this machine: the same bytes as without, whatever is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from meshwright.curate import CurateRenderOptions, DrawOptions, Limits, ViewSetOptions, dataset_digest, render_objects
from small_objects import write_objects

pytestmark = pytest.mark.ray

RUN = """
import sys
from pathlib import Path
from meshwright.curate import CurateRenderOptions, DrawOptions, Limits, ViewSetOptions, render_objects
if __name__ == "__main__":
    objects, out = map(Path, sys.argv[1:])
    views, drawing = ViewSetOptions("instantmesh", 16), DrawOptions(256)
    render_objects(CurateRenderOptions((objects,), out, views, drawing, Limits(60.0), ray="local"))
"""


def ray_workers() -> list[int]:
    """Processes of Ray that run tasks, by their titles."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            title = line.read_bytes()
        except OSError:
            continue
        if title.startswith((b"ray::_render", b"ray::IDLE")):
            found.append(int(line.parent.name))
    return found


def test_ray_ends_with_the_same_bytes_even_when_killed(tmp_path: Path) -> None:
    write_objects(tmp_path / "objects")
    (tmp_path / "objects" / "broken.glb").write_bytes(b"no mesh")
    (tmp_path / "run.py").write_text(RUN)

    def start(out: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, tmp_path / "run.py", tmp_path / "objects", out])

    views, drawing = ViewSetOptions("instantmesh", 16), DrawOptions(256)
    render_objects(CurateRenderOptions((tmp_path / "objects",), tmp_path / "plain", views, drawing, Limits(60.0)))
    expected = dataset_digest(tmp_path / "plain")
    # A worker of Ray is killed with what it runs; then the whole run is; then it is resumed.
    out = tmp_path / "ray"
    process = start(out)
    until = time.monotonic() + 400  # a node of Ray takes 40 s to start on a busy machine
    while not (list(out.glob("objects/*")) and ray_workers()):
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(ray_workers()[0], signal.SIGKILL)
    time.sleep(0.5)
    if process.poll() is None:
        process.kill()
    process.wait()
    assert start(out).wait(400) == 0
    assert dataset_digest(out) == expected
    # Undisturbed.
    assert start(tmp_path / "again").wait(400) == 0
    assert dataset_digest(tmp_path / "again") == expected
