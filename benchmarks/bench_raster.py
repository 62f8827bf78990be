"""Times of the rasteriser: `python benchmarks/bench_raster.py [--device cpu] [--repeats 20]`.

Wall time is what matters on a quiet machine; processor time (all threads together) is printed beside it because it
can be compared on a busy one. The smallest of the repeats is shown, in milliseconds.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch

from meshwright.cameras import Cameras
from meshwright.mesh import Mesh
from meshwright.raster import (
    antialias,
    edge_partners,
    interpolate,
    mip_levels,
    rasterize,
    render,
    sample_texture,
)


def bumpy_sphere(rows: int) -> Mesh:
    """A closed sphere-like grid of 4 rows^2 faces with a texture."""
    columns = 2 * rows
    v, u = torch.meshgrid(torch.linspace(0, 1, rows + 1), torch.linspace(0, 1, columns + 1), indexing="ij")
    polar, azimuth = torch.pi * v, 2 * torch.pi * u
    radius = 0.9 + 0.05 * (9 * azimuth).sin() * (8 * polar).sin() * polar.sin()
    xyz = torch.stack([polar.sin() * azimuth.cos(), polar.sin() * azimuth.sin(), polar.cos()], dim=2)
    corner = torch.arange(rows)[:, None] * (columns + 1) + torch.arange(columns)
    corner = corner.flatten()
    below = corner + columns + 1
    uv_faces = torch.cat(
        [torch.stack([corner, below, below + 1], dim=1), torch.stack([corner, below + 1, corner + 1], dim=1)]
    )
    row, column = uv_faces // (columns + 1), uv_faces % (columns + 1) % columns
    return Mesh(
        (radius[..., None] * xyz)[:, :columns].flatten(0, 1),
        row * columns + column,
        uv=torch.stack([u, 1 - v], dim=2).flatten(0, 1),
        uv_faces=uv_faces,
        texture=torch.rand(3, 1024, 1024, generator=torch.Generator().manual_seed(0)),
    )


def report(name: str, work: Callable[[], object], repeats: int) -> None:
    start = time.perf_counter()
    work()
    first = time.perf_counter() - start
    wall, processor = [], []
    for _ in range(repeats):
        start, start_processor = time.perf_counter(), time.process_time()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_processor)
    print(f"{name:58s} {min(wall) * 1e3:9.1f} {min(processor) * 1e3:9.1f} {first * 1e3:9.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    print(f"threads {torch.get_num_threads()}, device {arguments.device}")
    print(f"{'':58s} {'wall ms':>9s} {'cpu ms':>9s} {'first':>9s}")

    for views, size_px, rows in ((1, 512, 158), (6, 320, 112), (21, 512, 112)):
        mesh = bumpy_sphere(rows).to(arguments.device)
        cameras = Cameras.orbit(views, 20.0).to(arguments.device)
        name = f"rasterize {len(mesh.faces) // 1000}k faces, {views} views, {size_px} px"
        report(name, partial(rasterize, mesh.vertices, mesh.faces, cameras, size_px, size_px), arguments.repeats)

    mesh = bumpy_sphere(112).to(arguments.device)
    cameras = Cameras.orbit(6, 20.0).to(arguments.device)
    report("render, textured, 6 views, 320 px, 2 x 2 samples", lambda: render(mesh, cameras, 320, 320), 3)

    print("parts of one optimiser step: 50k faces, 6 views, 320 px")
    partners = edge_partners(mesh.faces)
    report("  edge_partners", lambda: edge_partners(mesh.faces), arguments.repeats)
    vertices = mesh.vertices.clone().requires_grad_()
    colors = torch.rand(len(vertices), 3, generator=torch.Generator().manual_seed(1)).to(vertices).requires_grad_()
    assert mesh.texture is not None
    assert mesh.uv is not None
    assert mesh.uv_faces is not None
    uv, uv_faces, texture = mesh.uv, mesh.uv_faces, mesh.texture.clone().requires_grad_()
    fragments = rasterize(vertices, mesh.faces, cameras, 320, 320)
    report("  rasterize", lambda: rasterize(vertices, mesh.faces, cameras, 320, 320), arguments.repeats)
    report("  interpolate 3 channels", lambda: interpolate(fragments, mesh.faces, colors), arguments.repeats)
    image = interpolate(fragments, mesh.faces, colors).detach()
    report("  antialias 3 channels", lambda: antialias(image, fragments, mesh.faces, partners), arguments.repeats)
    report(
        "  mip_levels",
        lambda: mip_levels(fragments, mesh.faces, uv, uv_faces, 1024, 1024),
        arguments.repeats,
    )

    def step(textured: bool) -> None:
        fragments = rasterize(vertices, mesh.faces, cameras, 320, 320)
        if textured:
            uv_image = interpolate(fragments, uv_faces, uv)
            levels = mip_levels(fragments, mesh.faces, uv, uv_faces, 1024, 1024)
            color = sample_texture(texture, uv_image.flatten(0, 2), levels.flatten()).view(*uv_image.shape[:3], 3)
        else:
            color = interpolate(fragments, mesh.faces, colors)
        seen = (fragments.face_ids >= 0).float()[..., None]
        pictures = antialias(torch.cat([color, seen], dim=3), fragments, mesh.faces, partners)
        pictures.square().mean().backward()
        vertices.grad = colors.grad = texture.grad = None

    report("forward and backward, vertex colours and mask", lambda: step(False), arguments.repeats)
    report("forward and backward, 1024 px texture and mask", lambda: step(True), arguments.repeats)


if __name__ == "__main__":
    main()
