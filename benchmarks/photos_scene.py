"""Photos of a scan as a phone would take them, and the truth about them: what reconstruction from pixels is tried on.

    python -m benchmarks.photos_scene SCAN.glb --out FOLDER [--count 24] [--width-px 640] [--seed 0] [--turntable]

The scan stands on a textured table in a room. FOLDER/photos holds JPEG files of random hand-held cameras: one lens,
distorted, rounded focal length in EXIF, exposures that differ by up to 20 % of the light, white balances by 3 %, sensor
noise, a soft contact shadow. FOLDER/truth holds the cameras (cameras.json), the silhouettes in the distorted pictures
(masks/), and the table's height; `Truth.read` gives them back. Textures and shadows are made here, of noise and shapes.
With ``--turntable`` the camera stands still, and so do the room, the table and the lamp; the scan turns with a plain
round plate, uneven by a few degrees, and its shadow changes as it turns. The true cameras are beside the scan.
"""

import argparse
import itertools
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from PIL import Image, ImageDraw
from scipy import ndimage
from torch import Tensor

from benchmarks.scans import load_scan
from meshwright.cameras import Cameras
from meshwright.mesh import Mesh
from meshwright.raster import Rendered, render
from meshwright.srgb import linear_from_srgb, srgb_from_linear

ASPECT = 4 / 3
FOV_X_DEG = 65.0  # a phone's main camera, held sideways
TABLE_HALF, ROOM_HALF, ROOM_HEIGHT = 3.6, 9.0, 9.0  # units; the object's radius is 0.95
TABLE_PX, WALL_PX = 1536, 640
FIELD = 1.3  # how much wider than the picture the scene is drawn before the lens bends it
DENSITY = 1.5  # pixels drawn a pixel side
LIGHT = (0.4, -0.3, 0.87)  # towards the lamp
EXPOSURE, WHITE_BALANCE = 0.2, 0.03
STILL_EXPOSURE = 0.02  # of a camera that stands still
PLATE_RADIUS, PLATE_HEIGHT, PLATE_PX = 1.25, 0.06, 512
NOISE = 1.2 / 255  # sRGB
JPEG_QUALITY = 90


@dataclass(frozen=True)
class Lens:
    """OpenCV's radial and tangential terms, of coordinates divided by the focal length."""

    k1: float
    k2: float
    p1: float
    p2: float

    def distort(self, x: Float[ndarray, "*any"], y: Float[ndarray, "*any"]) -> tuple[ndarray, ndarray]:
        r2 = x * x + y * y
        radial = 1 + self.k1 * r2 + self.k2 * r2 * r2
        return (
            x * radial + 2 * self.p1 * x * y + self.p2 * (r2 + 2 * x * x),
            y * radial + self.p1 * (r2 + 2 * y * y) + 2 * self.p2 * x * y,
        )

    def undistort(self, x: Float[ndarray, "*any"], y: Float[ndarray, "*any"]) -> tuple[ndarray, ndarray]:
        """The inverse, by fixed-point steps, which converge for lenses as weak as these."""
        ux, uy = x.copy(), y.copy()
        for _ in range(30):
            dx, dy = self.distort(ux, uy)
            ux, uy = ux + x - dx, uy + y - dy
        return ux, uy


@dataclass(frozen=True, eq=False)
class Truth:
    """``cameras`` without distortion; ``masks`` are of the photos as they are, bent by ``lens``."""

    cameras: Cameras
    lens: Lens
    names: tuple[str, ...]
    masks: Float[Tensor, "views 1 height width"]
    table_z: float
    gains: Float[Tensor, "views 3"]

    @classmethod
    def read(cls, folder: Path) -> "Truth":
        told = json.loads((folder / "truth" / "cameras.json").read_text())
        masks = [
            np.asarray(Image.open(folder / "truth" / "masks" / f"{Path(name).stem}.png")) for name in told["names"]
        ]
        return cls(
            Cameras(torch.tensor(told["T_world_camera"]), torch.tensor(told["intrinsics"])),
            Lens(**told["lens"]),
            tuple(told["names"]),
            torch.from_numpy(np.stack(masks)).float()[:, None] / 255,
            told["table_z"],
            torch.tensor(told["gains"]),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--width-px", type=int, default=640)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--turntable", action="store_true")
    options = parser.parse_args()
    write = write_turntable if options.turntable else write_scene
    write(load_scan(options.scan), options.out, options.count, options.width_px, options.seed)


def write_scene(scan: Mesh, folder: Path, count: int, width_px: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    height_px = round(width_px / ASPECT)
    table_z = float(scan.vertices[:, 2].min())
    lens = Lens(rng.uniform(-0.08, 0.05), rng.uniform(-0.02, 0.02), *rng.uniform(-5e-4, 5e-4, 2))
    cameras = handheld_cameras(count, rng)
    table, room = table_mesh(scan, table_z, rng), room_mesh(table_z, rng)
    gains = rng.uniform(1 - EXPOSURE, 1 + EXPOSURE, (count, 1)) * rng.uniform(
        1 - WHITE_BALANCE, 1 + WHITE_BALANCE, (count, 3)
    )
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    (folder / "truth" / "masks").mkdir(parents=True, exist_ok=True)
    names = tuple(f"IMG_{1001 + i}.jpg" for i in range(count))
    for i, name in enumerate(names):
        wide = cameras[[i]].cropped((1 - FIELD) / 2, (1 - FIELD) / 2, FIELD, FIELD)
        sides = round(height_px * FIELD * DENSITY), round(width_px * FIELD * DENSITY)
        rgb = render(room, wide, *sides, samples=1).rgb
        for mesh, shaded in ((table, False), (scan, True)):
            drawn = lit(mesh, wide, *sides) if shaded else render(mesh, wide, *sides, samples=1)
            rgb = over(drawn, rgb)
        layers = bend(torch.cat([rgb, drawn.alpha], dim=1)[0], cameras[[i]], lens, height_px, width_px)
        write_photo(layers, gains[i], folder, name, rng)
    write_truth(folder, names, cameras, lens, table_z, gains)


def write_turntable(scan: Mesh, folder: Path, count: int, width_px: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    height_px = round(width_px / ASPECT)
    table_z = float(scan.vertices[:, 2].min())
    lens = Lens(rng.uniform(-0.08, 0.05), rng.uniform(-0.02, 0.02), *rng.uniform(-5e-4, 5e-4, 2))
    camera = handheld_cameras(count, rng)[[count // 3]]
    table, room = table_mesh(None, table_z - PLATE_HEIGHT, rng), room_mesh(table_z, rng)
    gains = rng.uniform(1 - STILL_EXPOSURE, 1 + STILL_EXPOSURE, (count, 1)).repeat(3, axis=1)
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    (folder / "truth" / "masks").mkdir(parents=True, exist_ok=True)
    names = tuple(f"IMG_{1001 + i}.jpg" for i in range(count))
    wide = camera.cropped((1 - FIELD) / 2, (1 - FIELD) / 2, FIELD, FIELD)
    sides = round(height_px * FIELD * DENSITY), round(width_px * FIELD * DENSITY)
    still = render(room, wide, *sides, samples=1).rgb
    still = over(render(table, wide, *sides, samples=1), still)
    color = muted(rng)
    angles = 2 * np.pi * (np.arange(count) + rng.uniform(-0.2, 0.2, count)) / count
    poses = []
    for i, name in enumerate(names):
        turned = torch.eye(4)
        cos, sin = np.cos(angles[i]), np.sin(angles[i])
        turned[:2, :2] = torch.tensor([[cos, -sin], [sin, cos]])
        seen = scan.replace(vertices=scan.vertices @ turned[:3, :3].T)
        poses.append(turned.T @ camera.T_world_camera[0])
        rgb = over(render(plate_mesh(seen, table_z, color), wide, *sides, samples=1), still)
        drawn = lit(seen, wide, *sides)
        layers = torch.cat([over(drawn, rgb), drawn.alpha], dim=1)[0]
        write_photo(bend(layers, camera, lens, height_px, width_px), gains[i], folder, name, rng)
    cameras = Cameras(torch.stack(poses), camera.intrinsics.repeat(count, 1))
    write_truth(folder, names, cameras, lens, table_z, gains)


def plate_mesh(scan: Mesh, table_z: float, color: Float[ndarray, "3"]) -> Mesh:
    """A round plate of one colour with the scan's shadow on it, seen from above: its texture is clear around it."""
    side = PLATE_PX
    shadow = contact_shadow(scan, table_z, side, PLATE_RADIUS)
    pixels = color * (1 - 0.55 * shadow[..., None])
    angle = np.linspace(0, 2 * np.pi, 97)[:-1]
    rim = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    corners = np.concatenate([[[0.0, 0.0]], rim])
    top = np.concatenate([corners * PLATE_RADIUS, np.full((97, 1), table_z - 1e-3)], axis=1)
    k = np.arange(96)
    faces = torch.from_numpy(np.stack([np.zeros(96, int), k + 1, (k + 1) % 96 + 1], axis=1))
    uv = torch.from_numpy((corners + 1) / 2).float()
    texture = torch.from_numpy(pixels).float().permute(2, 0, 1).clamp(0, 1)
    return Mesh(torch.from_numpy(top).float(), faces, uv=uv, uv_faces=faces, texture=texture)


def write_photo(
    layers: Float[Tensor, "4 height width"],
    gain: Float[ndarray, "3"],
    folder: Path,
    name: str,
    rng: np.random.Generator,
) -> None:
    """A JPEG of colours under a gain, with noise, and the mask that is the fourth layer."""
    photo = (linear_from_srgb(layers[:3]) * torch.from_numpy(gain).float()[:, None, None]).clamp(0, 1)
    photo = srgb_from_linear(photo) + NOISE * torch.from_numpy(rng.normal(size=photo.shape)).float()
    pixels = (photo.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(folder / "photos" / name, quality=JPEG_QUALITY, exif=phone_exif())
    mask = (layers[3].clamp(0, 1) * 255).round().byte().numpy()
    Image.fromarray(mask).save(folder / "truth" / "masks" / f"{Path(name).stem}.png")


def write_truth(
    folder: Path,
    names: tuple[str, ...],
    cameras: Cameras,
    lens: Lens,
    table_z: float,
    gains: Float[ndarray, "views 3"],
) -> None:
    told = {
        "names": names,
        "T_world_camera": cameras.T_world_camera.tolist(),
        "intrinsics": cameras.intrinsics.tolist(),
        "lens": asdict(lens),
        "table_z": table_z,
        "gains": gains.tolist(),
    }
    (folder / "truth" / "cameras.json").write_text(json.dumps(told))


def handheld_cameras(count: int, rng: np.random.Generator) -> Cameras:
    """Around the object in two or three uneven rounds; aimed, levelled and held at a distance by hand."""
    azimuths = (np.arange(count) * 360 * 2.4 / count + rng.uniform(-8, 8, count)) % 360
    elevations = np.linspace(14, 58, count) + rng.uniform(-9, 9, count)
    radius = rng.uniform(2.7, 3.7, count)
    at = np.deg2rad(azimuths), np.deg2rad(elevations)
    unit = np.stack([np.cos(at[1]) * np.cos(at[0]), np.cos(at[1]) * np.sin(at[0]), np.sin(at[1])], axis=1)
    targets = torch.from_numpy(rng.uniform(-0.15, 0.15, (count, 3))).float()
    positions = torch.from_numpy(radius[:, None] * unit).float()
    fov_y_deg = np.rad2deg(2 * np.arctan(np.tan(np.deg2rad(FOV_X_DEG) / 2) / ASPECT))
    parts = [Cameras.look_at(positions[[i]], float(fov_y_deg), target=targets[i], aspect=ASPECT) for i in range(count)]
    cameras = Cameras.cat(parts)
    roll = torch.from_numpy(np.deg2rad(rng.normal(0, 4, count))).float()
    turn = torch.eye(4).repeat(count, 1, 1)
    turn[:, 0, 0], turn[:, 0, 1], turn[:, 1, 0], turn[:, 1, 1] = roll.cos(), -roll.sin(), roll.sin(), roll.cos()
    return Cameras(cameras.T_world_camera @ turn, cameras.intrinsics)


@dataclass(frozen=True, eq=False)
class Lit:
    rgb: Float[Tensor, "views 3 height width"]
    alpha: Float[Tensor, "views 1 height width"]


def over(drawn: Rendered | Lit, behind: Float[Tensor, "1 3 height width"]) -> Float[Tensor, "1 3 height width"]:
    """What was drawn on white, before something else."""
    return drawn.rgb - (1 - drawn.alpha) + (1 - drawn.alpha) * behind


def lit(scan: Mesh, cameras: Cameras, height: int, width: int, samples: int = 1) -> Lit:
    """The scan on white under a lamp that stands still beside it: matte, four fifths of the light from everywhere."""
    drawn = render(scan, cameras, height, width, samples=samples)
    direction = torch.nn.functional.normalize(torch.tensor(LIGHT), dim=0)
    shade = 0.8 + 0.3 * (drawn.normals * direction[:, None, None]).sum(1, keepdim=True).clamp(min=0)
    shade = torch.where(drawn.depth_z > 0, shade, 1.0)
    straight = (drawn.rgb - (1 - drawn.alpha)) * shade
    return Lit((straight + 1 - drawn.alpha).clamp(0, 1), drawn.alpha)


def bend(
    layers: Float[Tensor, "channels drawn_height drawn_width"],
    camera: Cameras,
    lens: Lens,
    height_px: int,
    width_px: int,
) -> Float[Tensor, "channels height width"]:
    """What the lens makes of a wide pinhole picture."""
    fx, fy, cx, cy = camera.intrinsics[0].double().tolist()
    u, v = np.meshgrid((np.arange(width_px) + 0.5) / width_px, (np.arange(height_px) + 0.5) / height_px)
    x, y = lens.undistort((u - cx) / fx, (v - cy) / fy)
    grid = np.stack([(fx * x + cx - 0.5) / FIELD * 2, (fy * y + cy - 0.5) / FIELD * 2], axis=2)
    small = torch.nn.functional.avg_pool2d(layers[None], 3, stride=1, padding=1, count_include_pad=False)
    return torch.nn.functional.grid_sample(
        small, torch.from_numpy(grid)[None].float(), mode="bilinear", align_corners=False
    )[0]


def phone_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "meshwright", "benchmark phone"
    focal_35mm = 0.5 * 36 / np.tan(np.deg2rad(FOV_X_DEG) / 2)
    exif.get_ifd(0x8769)[0xA405] = round(focal_35mm * 43.27 / (36 * np.hypot(1, 1 / ASPECT)))
    return exif


# ------------------------------------------------------------------------------- the place


def table_mesh(scan: Mesh | None, table_z: float, rng: np.random.Generator) -> Mesh:
    pixels = pattern(TABLE_PX, rng, coarse=int(rng.integers(8, 20)), contrast=rng.uniform(0.5, 1.0))
    if scan is not None:
        pixels = pixels * (1 - 0.55 * contact_shadow(scan, table_z, TABLE_PX, TABLE_HALF)[..., None])
    h = TABLE_HALF
    corners = [(-h, -h), (h, -h), (h, h), (-h, h)]
    return quads([[(x, y, table_z - 1e-3) for x, y in corners]], pixels, 1, 1)


def contact_shadow(scan: Mesh, table_z: float, side_px: int, half: float) -> Float[ndarray, "side side"]:
    """Blurred prints of the object in slices, each farther from the lamp's foot and softer than the one below."""
    points, _, _ = scan.sample_surface(60_000)
    height = points[:, 2].numpy() - table_z
    slope = np.array(LIGHT[:2]) / LIGHT[2]
    unit_px = side_px / (2 * half)
    shadow = np.zeros((side_px, side_px))
    slices = np.linspace(0, max(height.max(), 1e-3), 7)
    for low, high in itertools.pairwise(slices):
        inside = (height >= low) & (height <= high)
        at = points[inside, :2].numpy() - height[inside, None] * slope
        column = ((at[:, 0] + half) * unit_px).astype(int).clip(0, side_px - 1)
        row = ((half - at[:, 1]) * unit_px).astype(int).clip(0, side_px - 1)
        blot = np.zeros_like(shadow)
        blot[row, column] = 1
        blot = ndimage.binary_closing(blot, iterations=round(0.028 * unit_px)).astype(np.float64)
        sigma = (0.06 + 0.25 * high) * unit_px
        shadow = np.maximum(shadow, ndimage.gaussian_filter(blot, sigma))
    return shadow


def room_mesh(table_z: float, rng: np.random.Generator) -> Mesh:
    """Four walls, floor and ceiling, seen from inside."""
    w, low = ROOM_HALF, table_z - 3.0
    high = low + ROOM_HEIGHT
    ring = [(-w, -w), (w, -w), (w, w), (-w, w)]
    walls = []
    for (ax, ay), (bx, by) in zip(ring, [*ring[1:], ring[0]], strict=True):
        walls.append([(bx, by, low), (ax, ay, low), (ax, ay, high), (bx, by, high)])
    walls.append([(x, y, low) for x, y in ring])
    walls.append([(x, y, high) for x, y in reversed(ring)])
    rows = [np.concatenate([wall_picture(rng) for _ in range(3)], axis=1) for _ in range(2)]
    return quads(walls, np.concatenate(rows), 2, 3)


def quads(corners: list[list[tuple[float, float, float]]], pixels: ndarray, rows: int, columns: int) -> Mesh:
    """Each quad shows one cell of the picture, row by row; quads are finely cut, so that depth is even."""
    steps = 24
    vertices: list[ndarray] = []
    uv: list[ndarray] = []
    faces: list[ndarray] = []
    t = np.linspace(0, 1, steps + 1)
    for number, quad in enumerate(corners):
        a, b, c, d = (np.array(corner) for corner in quad)
        s, r = np.meshgrid(t, t)
        s, r = s.ravel()[:, None], r.ravel()[:, None]
        first = len(vertices) * (steps + 1) ** 2
        vertices.append((1 - r) * ((1 - s) * a + s * b) + r * ((1 - s) * d + s * c))
        row, column = divmod(number, columns)
        uv.append(np.concatenate([(column + s) / columns, 1 - (row + 1 - r) / rows], axis=1))
        i, j = np.meshgrid(np.arange(steps), np.arange(steps))
        corner = first + (j * (steps + 1) + i).ravel()
        right, up = corner + 1, corner + steps + 1
        faces += [np.stack([corner, right, up + 1], axis=1), np.stack([corner, up + 1, up], axis=1)]
    index = torch.from_numpy(np.concatenate(faces))
    texture = torch.from_numpy(pixels).float().permute(2, 0, 1).clamp(0, 1)
    return Mesh(
        torch.from_numpy(np.concatenate(vertices)).float(),
        index,
        uv=torch.from_numpy(np.concatenate(uv)).float(),
        uv_faces=index,
        texture=texture,
    )


def pattern(side: int, rng: np.random.Generator, coarse: int, contrast: float) -> Float[ndarray, "side side 3"]:
    """Noise of all scales between two or three colours, with strokes and blots: cloth, stone or wood from afar."""
    stretch = rng.uniform(1, 5)
    layers = []
    for octave in range(6):
        cells = coarse * 2**octave
        noise = rng.normal(size=(max(2, round(cells / stretch)), cells))
        zoomed = np.asarray(Image.fromarray(noise.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC))
        layers.append(zoomed * 0.75**octave)
    mixed = np.sum(layers, axis=0)
    mixed = (mixed - mixed.mean()) / mixed.std()
    first, second, third = (muted(rng) for _ in range(3))
    share = np.clip(0.5 + 0.35 * contrast * mixed, 0, 1)[..., None]
    pixels = first * share + second * (1 - share)
    picture = Image.fromarray((pixels * 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(60, 240))):
        x, y, size = rng.uniform(0, side), rng.uniform(0, side), side * rng.uniform(0.003, 0.02)
        colour = tuple(((third + rng.normal(0, 0.08, 3)).clip(0, 1) * 255).astype(int).tolist())
        if rng.random() < 0.5:
            pen.ellipse([x, y, x + size, y + size * rng.uniform(0.5, 2)], fill=colour)
        else:
            pen.line([x, y, x + rng.normal(0, 4) * size, y + rng.normal(0, 4) * size], fill=colour, width=2)
    return np.asarray(picture, dtype=np.float32) / 255


def muted(rng: np.random.Generator) -> Float[ndarray, "3"]:
    """A colour such as rooms have: a grey with a little of some hue."""
    return np.clip(rng.uniform(0.15, 0.85) + rng.normal(0, 0.1, 3), 0.03, 0.97)


def wall_picture(rng: np.random.Generator) -> Float[ndarray, "side side 3"]:
    """A wall with furniture and pictures: boxes of one colour or a pattern of their own."""
    base = pattern(WALL_PX, rng, coarse=3, contrast=0.25)
    for _ in range(int(rng.integers(8, 20))):
        width, height = (rng.uniform(0.06, 0.35, 2) * WALL_PX).astype(int)
        left, top = int(rng.integers(0, WALL_PX - width)), int(rng.integers(0, WALL_PX - height))
        if rng.random() < 0.5:
            piece = pattern(max(width, height), rng, coarse=4, contrast=0.8)[:height, :width]
        else:
            piece = np.broadcast_to(muted(rng), (height, width, 3))
        base[top : top + height, left : left + width] = piece
    return base


if __name__ == "__main__":
    main()
