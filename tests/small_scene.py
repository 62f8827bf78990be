"""A ball or a textured box on a patterned table before patterned walls, drawn small: photos with known cameras."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from meshwright.cameras import Cameras
from meshwright.mesh import Mesh
from meshwright.raster import render
from small_objects import colored_ball, textured_box


@dataclass(frozen=True, eq=False)
class Scene:
    """``images`` with their background; ``alpha`` of the object alone. The table is at z = -0.5."""

    images: Float[Tensor, "views 3 height width"]
    alpha: Float[Tensor, "views 1 height width"]
    cameras: Cameras


TABLE_Z = -0.5


def draw_scene(
    count: int,
    width_px: int,
    plain: bool = False,
    seed: int = 0,
    shadow: bool = False,
    thing: Mesh | None = None,
    by_hand: bool = False,
) -> Scene:
    """``plain``: a ball of one colour instead of a box with a pattern; ``thing``: another; ``shadow``: under it.

    ``by_hand``: cameras nearer, and not all aimed at one point.
    """
    rng = np.random.default_rng(seed)
    height_px = width_px * 3 // 4
    if thing is None and plain:
        ball = colored_ball((0.0, 0.0, 0.0), 0.5, rounds=4)
        thing = ball.replace(vertex_colors=torch.tensor([[0.8, 0.35, 0.1]]).repeat(len(ball.vertices), 1))
    elif thing is None:
        thing = textured_box((1.0, 0.7, 1.0))
    azimuths = [360 * i / count + rng.uniform(-5, 5) for i in range(count)]
    elevations = [18 + 32 * (i * 5 % count) / count for i in range(count)]
    cameras = Cameras.spherical(azimuths, elevations, 3.5, 45.0, aspect=4 / 3)
    if by_hand:
        cameras = _handheld(count, rng)
    images = render(walls(rng), cameras, height_px, width_px).rgb
    for mesh in (table(rng, shadow), thing):
        drawn = render(mesh, cameras, height_px, width_px)
        images = drawn.rgb - (1 - drawn.alpha) + (1 - drawn.alpha) * images
    return Scene(images.clamp(0, 1), drawn.alpha, cameras)


def _handheld(count: int, rng: np.random.Generator) -> Cameras:
    azimuths, elevations = ([first + step * i / count for i in range(count)] for first, step in ((0, 864), (14, 44)))
    cameras = Cameras.spherical(azimuths, elevations, 3.2, 51.0, aspect=4 / 3)
    positions = cameras.positions * torch.from_numpy(rng.uniform(0.85, 1.15, (count, 1))).float()
    targets = torch.from_numpy(rng.uniform(-0.15, 0.15, (count, 3))).float()
    return Cameras.cat([Cameras.look_at(positions[[i]], 51.0, target=targets[i], aspect=4 / 3) for i in range(count)])


def table(rng: np.random.Generator, shadow: bool = False) -> Mesh:
    """``shadow``: a soft dark disc of radius 0.45 in the middle, as under a ball."""
    corners = torch.tensor([[-3.0, -3, TABLE_Z], [3, -3, TABLE_Z], [3, 3, TABLE_Z], [-3, 3, TABLE_Z]])
    texture = _noise(rng, 512, 40)
    if shadow:
        at = 6 * ((torch.arange(512) + 0.5) / 512 - 0.5)
        distance = (at[:, None] ** 2 + at**2).sqrt()
        texture = texture * (1 - 0.75 * torch.sigmoid((0.45 - distance) / 0.04))
    return _square(corners, texture)


def walls(rng: np.random.Generator) -> Mesh:
    """A ring of eight upright squares around it all, as one mesh."""
    angles = torch.arange(9) * torch.pi / 4
    ring = 7 * torch.stack([angles.cos(), angles.sin()], dim=1)
    vertices, uv, faces = [], [], []
    for i in range(8):
        a, b = ring[i].tolist(), ring[i + 1].tolist()
        vertices += [[*b, -4.0], [*a, -4.0], [*a, 6.0], [*b, 6.0]]
        uv += [[i / 8, 0.0], [(i + 1) / 8, 0.0], [(i + 1) / 8, 1.0], [i / 8, 1.0]]
        faces += [[4 * i, 4 * i + 1, 4 * i + 2], [4 * i, 4 * i + 2, 4 * i + 3]]
    index = torch.tensor(faces)
    return Mesh(torch.tensor(vertices), index, uv=torch.tensor(uv), uv_faces=index, texture=_noise(rng, 512, 24))


def _square(corners: Float[Tensor, "4 3"], texture: Float[Tensor, "3 side side"]) -> Mesh:
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    uv = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    return Mesh(corners, faces, uv=uv, uv_faces=faces, texture=texture)


def _noise(rng: np.random.Generator, side: int, cells: int) -> Float[Tensor, "3 side side"]:
    """Blots of greyish colours in two sizes."""
    layers = [torch.from_numpy(rng.uniform(0.1, 0.9, (1, 3, n, n))).float() for n in (cells, cells * 3)]
    grown = [torch.nn.functional.interpolate(layer, size=(side, side), mode="bicubic") for layer in layers]
    mixed = (0.6 * grown[0] + 0.4 * grown[1])[0]
    return (0.5 * mixed + 0.5 * mixed.mean(dim=0)).clamp(0, 1)


def aligned_differences(found: Cameras, true: Cameras) -> tuple[torch.Tensor, torch.Tensor]:
    """Degrees and units after the best similarity."""
    a, b = found.positions.double(), true.positions.double()
    u, s, vt = torch.linalg.svd((b - b.mean(0)).T @ (a - a.mean(0)))
    R = u @ torch.diag(torch.tensor([1.0, 1.0, float(torch.linalg.det(u @ vt))], dtype=torch.float64)) @ vt
    scale = s.sum() / (a - a.mean(0)).square().sum()
    T = found.T_world_camera.double().clone()
    T[:, :3, :3] = R @ T[:, :3, :3]
    T[:, :3, 3] = scale * (a - a.mean(0)) @ R.T + b.mean(0)
    return Cameras(T, found.intrinsics.double()).difference(true.to(dtype=torch.float64))
