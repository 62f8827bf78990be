"""The page in a real browser: Debian's chromium, headless, driven by playwright. Needs `pytest -m browser`."""

import contextlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api")

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
AXE = os.environ.get("MESHWRIGHT_AXE")  # axe.min.js of npm's axe-core
PATIENCE_MS = 600_000  # a mesh on a busy machine


class Served:
    def __init__(self, data: Path, port: int = 0) -> None:
        self.data, self.port = data, port
        self.start()

    def start(self) -> None:
        code = f"from meshwright.app import serve; serve(port={self.port}, data={str(self.data)!r})"
        self.process = subprocess.Popen([sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split()[-1]
        self.port = int(self.url.rstrip("/").rpartition(":")[2])
        for _ in range(100):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(self.url + "health")
                return
            time.sleep(0.1)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    running = Served(tmp_path_factory.mktemp("data"))
    yield running
    running.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("needs chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        flags = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, served: Served) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    opened = context.new_page()
    opened.set_default_timeout(60_000)
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    asked: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    yield opened
    context.close()
    assert not faults
    # Nothing comes from anywhere else.
    assert all(url.startswith((served.url, "blob:", "data:")) for url in asked), asked


def few_pictures(folder: Path) -> list[str]:
    """Six posed pictures: quicker than a film, whose cameras must be found first."""
    source = ROOT / "examples" / "demo" / "posed"
    cameras = json.loads((source / "transforms.json").read_text())
    cameras["frames"] = cameras["frames"][:6]
    names = []
    for frame in cameras["frames"]:
        found = next(source.glob(Path(frame["file_path"]).name + "*"))
        shutil.copy(found, folder / found.name)
        names.append(str(folder / found.name))
    (folder / "transforms.json").write_text(json.dumps(cameras))
    return [*names, str(folder / "transforms.json")]


def accessible(page: Any) -> None:
    if AXE is None:
        return
    page.evaluate(Path(AXE).read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")
    problems = [(one["id"], [node["target"] for node in one["nodes"]]) for one in found["violations"]]
    assert not problems, problems


def test_from_pictures_to_a_download(page: Any, served: Served, tmp_path: Path) -> None:
    page.goto(served.url)
    page.get_by_role("button", name="Choose files").wait_for()
    accessible(page)
    page.set_input_files("input[type=file] >> nth=0", few_pictures(tmp_path))
    page.get_by_role("button", name="Make the mesh").wait_for(timeout=PATIENCE_MS)
    accessible(page)
    assert page.locator(".thumb").count() == 6
    page.locator(".thumb").nth(5).click()
    page.get_by_text("5 of 6 views will be used").wait_for()
    page.get_by_label("Outlines only").check(force=True)
    page.get_by_role("button", name="Make the mesh").click()
    page.get_by_role("button", name="Cancel").wait_for()
    page.reload()  # in the middle: the job goes on, and so does the page
    download_link = page.get_by_role("link", name="Download GLB")
    download_link.wait_for(timeout=PATIENCE_MS)
    page.get_by_role("button", name="Wireframe").wait_for()
    accessible(page)
    assert page.locator(".thumb").count() == 5
    assert not {"null", "undefined", "NaN"} & set(page.inner_text("body").split())
    with page.expect_download() as downloading:
        download_link.click()
    data = Path(downloading.value.path()).read_bytes()
    assert data[:4] == b"glTF"
    assert struct.unpack("<I", data[8:12])[0] == len(data)

    # A picture lies on the render of its camera: where both show the object, their difference is small.
    page.locator(".thumb").nth(2).click()
    page.locator(".overlay").wait_for()
    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("slider").get_attribute("aria-valuenow") == "55"
    page.get_by_role("button", name="Difference").click()
    time.sleep(1)
    box = page.locator(".overlay").bounding_box()
    shot = page.screenshot(clip=box)
    assert mean_brightness(shot) < 12
    accessible(page)
    page.get_by_role("button", name="Back to 3D").click()
    for mode in ("Lit", "Normals", "Wireframe", "Before"):
        page.get_by_role("button", name=mode, exact=True).click()
    page.locator("canvas").focus()
    page.keyboard.press("ArrowLeft")


def mean_brightness(png: bytes) -> float:
    import io

    import numpy as np
    from PIL import Image

    return float(np.asarray(Image.open(io.BytesIO(png)).convert("L")).mean())


def test_slow_frames_are_drawn_coarser_until_all_stands_still(page: Any, served: Served) -> None:
    """The clock of the page is ours: 100 ms a frame, then 10."""
    page.goto(served.url)
    coarse, sharp, quick = page.evaluate("""async () => {
      const { Viewer } = await import("/viewer.js");
      let now = 0, step = 100, frames = 0;
      window.requestAnimationFrame = (draw) => setTimeout(() => { frames += 1; draw(now += step); }, 0);
      const pass = async (count) => {
        for (const end = frames + count; frames < end;) await new Promise((go) => setTimeout(go, 1));
      };
      const stage = document.createElement("div");
      stage.style = "position: fixed; inset: 0";
      document.body.append(stage);
      const viewer = new Viewer(stage);
      const width = () => viewer.canvas.width / stage.clientWidth;
      viewer.setTurning(true);
      await pass(30);
      const coarse = width();
      viewer.setTurning(false);
      await pass(30);
      const sharp = width();
      step = 10;
      viewer.setTurning(true);
      await pass(30);
      return [coarse, sharp, width()];
    }""")
    assert coarse == pytest.approx(0.35, abs=0.01)
    assert sharp == quick == 1


def test_a_wrong_file_is_explained(page: Any, served: Served, tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"this is no film")
    page.goto(served.url)
    page.set_input_files("input[type=file] >> nth=0", [str(tmp_path / "film.mp4")])
    page.get_by_role("heading", name="What went wrong").wait_for(timeout=PATIENCE_MS)
    words = page.locator(".problem p").inner_text()
    assert words.startswith("Film.mp4: ")
    assert str(served.data) not in words
    accessible(page)
    page.get_by_role("link", name="Choose other pictures").click()
    page.get_by_role("button", name="Choose files").wait_for()


def test_cancel_and_a_server_that_dies_in_the_middle(page: Any, served: Served) -> None:
    page.goto(served.url)
    page.get_by_role("button", name="Try the strawberry").click()
    page.get_by_role("button", name="Cancel").wait_for()
    served.kill()
    time.sleep(1)
    served.start()
    page.get_by_role("button", name="Make the mesh").wait_for(timeout=PATIENCE_MS)
    page.get_by_role("button", name="Make the mesh").click()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("You cancelled this job").wait_for()


def test_it_fits_a_phone(browser: Any, served: Served, tmp_path: Path) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    page = context.new_page()
    page.goto(served.url)
    page.get_by_role("button", name="Choose files").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.set_input_files("input[type=file] >> nth=0", few_pictures(tmp_path))
    page.get_by_role("button", name="Make the mesh").wait_for(timeout=PATIENCE_MS)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    context.close()
