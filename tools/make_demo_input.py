"""Make the pictures in examples/demo from a textured scan: ``python tools/make_demo_input.py SCAN.glb``.

Writes orbit.mp4 (21 frames around the object, 20 degrees above it, in front of white) and posed/ (ten pictures with
alpha from all around, above and below, with a transforms.json).
"""

import argparse
import json
from pathlib import Path

import torch

from benchmarks.scans import load_scan, render_scan_views
from meshwright import Cameras
from meshwright.cameras import focal_from_fov
from meshwright.images import write_image, write_video

ORBIT_SIZE_PX = 512
POSED_SIZE_PX = 320


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path)
    parser.add_argument("--out", type=Path, default=Path("examples/demo"))
    arguments = parser.parse_args()
    mesh = load_scan(arguments.scan)
    arguments.out.mkdir(parents=True, exist_ok=True)
    orbit = render_scan_views(mesh, Cameras.sv3d(21, elevation_deg=20.0), ORBIT_SIZE_PX)
    write_video(orbit.images, arguments.out / "orbit.mp4", fps=7)

    fov_deg = 40.0
    azimuths_deg = [i * 77.0 % 360 for i in range(10)]
    elevations_deg = [35.0, -15.0, 10.0, 60.0, -35.0, 5.0, 40.0, -5.0, 20.0, -60.0]
    cameras = Cameras.spherical(azimuths_deg, elevations_deg, radius=3.2, fov_deg=fov_deg)
    views = render_scan_views(mesh, cameras, POSED_SIZE_PX)
    folder = arguments.out / "posed"
    folder.mkdir(exist_ok=True)
    frames = []
    for i in range(len(views)):
        # Views are composited on white; a file with alpha holds the colour before that.
        alpha = views.alpha[i]
        color = torch.where(alpha > 0, 1 - (1 - views.images[i]) / alpha.clamp(min=1e-6), 1.0).clamp(0, 1)
        write_image(torch.cat([color, alpha]), folder / f"{i:02d}.png")
        frames.append({"file_path": f"{i:02d}.png", "transform_matrix": cameras.T_world_camera[i].tolist()})
    focal_px = focal_from_fov(fov_deg) * POSED_SIZE_PX
    transforms = {
        "w": POSED_SIZE_PX, "h": POSED_SIZE_PX, "fl_x": focal_px, "fl_y": focal_px,
        "cx": POSED_SIZE_PX / 2, "cy": POSED_SIZE_PX / 2, "frames": frames,
    }  # fmt: skip
    (folder / "transforms.json").write_text(json.dumps(transforms, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
