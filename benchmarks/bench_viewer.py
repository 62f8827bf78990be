"""Frames a second of the page's 3D view in a headless browser, in full resolution and in the one that it chooses.

    python -m benchmarks.bench_viewer [--triangles 200000] [--seconds 6]

A textured sphere turns at 1280 x 800. WebGL is SwiftShader, which draws on the processor; both rows come from one
page, one after the other and again. Needs playwright and chromium, as `pytest -m browser` does.
"""

import argparse
import math
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from playwright.sync_api import sync_playwright

from meshwright.mesh import Mesh

SCRIPT = """async ([seconds, fixed]) => {
  const { Viewer } = await import("/viewer.js");
  const stage = document.createElement("div");
  stage.style = "position: fixed; inset: 0";
  document.body.append(stage);
  const viewer = new Viewer(stage);
  if (fixed) viewer.renderer.setPixelRatio = () => {};
  const triangles = await viewer.load("mesh", "/bench.glb");
  viewer.setTurning(true);
  const wait = (s) => new Promise((done) => setTimeout(done, 1000 * s));
  await wait(2);
  const before = viewer.frames, began = performance.now();
  await wait(seconds);
  const rate = (viewer.frames - before) / (performance.now() - began) * 1000;
  const { sharpness } = viewer;
  viewer.dispose();
  stage.remove();
  return { triangles, rate, sharpness };
}"""


def sphere(triangles: int) -> Mesh:
    """A sphere of about so many triangles with a texture of 2048 px."""
    rows = max(2, math.isqrt(triangles // 4))
    v, u = torch.meshgrid(torch.arange(rows + 1) / rows, torch.arange(2 * rows + 1) / (2 * rows), indexing="ij")
    uv = torch.stack([u.flatten(), v.flatten()], dim=1)
    tilt, turn = math.pi * (uv[:, 1] - 0.5), 2 * math.pi * uv[:, 0]
    vertices = torch.stack([tilt.cos() * turn.cos(), tilt.cos() * turn.sin(), tilt.sin()], dim=1)
    i = torch.arange(rows)[:, None] * (2 * rows + 1) + torch.arange(2 * rows)
    quads = torch.stack([i, i + 1, i + 2 * rows + 2, i + 2 * rows + 1], dim=-1).view(-1, 4)
    faces = torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    texture = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)).repeat(1, 32, 32)
    return Mesh(vertices, faces, uv=uv, uv_faces=faces, texture=texture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triangles", type=int, default=200_000)
    parser.add_argument("--seconds", type=float, default=6.0)
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("needs chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.glb"
        sphere(options.triangles).save(path)
        code = f"from meshwright.app import serve; serve(port=0, data={folder!r})"
        with subprocess.Popen([sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            url = server.stdout.readline().split()[-1]
            try:
                measure(url, chromium, path, options.seconds)
            finally:
                server.kill()


def measure(url: str, chromium: str, glb: Path, seconds: float) -> None:
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.route("**/bench.glb", lambda route: route.fulfill(path=glb))
        page.goto(url)
        for fixed in (True, False, True, False):
            found = page.evaluate(SCRIPT, [seconds, fixed])
            kind = "full resolution" if fixed else f"own choice ({found['sharpness']:.2f} of the width)"
            print(f"{found['triangles']:.0f} triangles, {kind}: {found['rate']:.1f} frames/s", flush=True)
        browser.close()


if __name__ == "__main__":
    main()
