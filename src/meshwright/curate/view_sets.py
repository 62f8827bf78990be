"""Named sets of cameras from which objects are rendered."""

from collections.abc import Callable

import numpy as np
import torch

from meshwright.cameras import Cameras
from meshwright.curate.options import ViewSetOptions


def view_set_cameras(options: ViewSetOptions, generator: np.random.Generator) -> Cameras:
    """The set's cameras; what is random in them comes from ``generator`` alone."""
    draw: dict[str, Callable[[], Cameras]] = {
        "instantmesh": lambda: _in_shell(options.views or 32, (2.0, 3.5), (-0.75, 1.6), 50.0, generator),
        "mindone": lambda: _in_shell(options.views or 16, (2.0, 3.5), (-0.75, 1.6), 50.0, generator),
        "random": lambda: _random(options, options.views or 32, generator),
        "circle": lambda: Cameras.orbit(options.views or 8, elevation_deg=20.0, radius=4.0, fov_deg=30.0),
        "sv3d": lambda: Cameras.sv3d(options.views or 21),
        "orbit": lambda: Cameras.orbit(options.views or 21),
        "zero123plus": lambda: Cameras.zero123plus("1.2"),
        "zero123plus-v1.1": lambda: Cameras.zero123plus("1.1"),
    }
    return draw[options.view_set]()


def object_cameras(options: ViewSetOptions, seed: int, sha256: str) -> tuple[Cameras, int]:
    """The cameras of one object, and a seed for what else is random in its pictures.

    The file's content decides, not its name or place: a set that grows or moves keeps its pictures.
    """
    generator = np.random.default_rng([seed, int(sha256[:16], 16)])
    return view_set_cameras(options, generator), int(generator.integers(1 << 31))


def _random(options: ViewSetOptions, count: int, generator: np.random.Generator) -> Cameras:
    azimuth_rad = generator.uniform(0, 2 * np.pi, count)
    low, high = np.sin(np.deg2rad(options.elevation_deg))
    sine = generator.uniform(low, high, count)  # even in the sine of the elevation is even over the sphere
    cosine = np.sqrt(1 - sine**2)
    directions = np.stack([cosine * np.cos(azimuth_rad), cosine * np.sin(azimuth_rad), sine], axis=1)
    positions = torch.from_numpy(directions * generator.uniform(*options.distance, (count, 1))).float()
    fovs_deg = generator.uniform(*options.fov_deg, count)
    return Cameras.cat([Cameras.look_at(positions[[i]], float(fovs_deg[i])) for i in range(count)])


def _in_shell(
    count: int,
    distance: tuple[float, float],
    height: tuple[float, float],
    fov_deg: float,
    generator: np.random.Generator,
) -> Cameras:
    """Directions even over the sphere and distances even in their range, drawn again until the height is in its own."""
    positions: list[np.ndarray] = []
    while len(positions) < count:
        direction = generator.standard_normal(3)
        position = direction / np.linalg.norm(direction) * generator.uniform(*distance)
        if height[0] <= position[2] <= height[1]:
            positions.append(position)
    return Cameras.look_at(torch.from_numpy(np.stack(positions)).float(), fov_deg)
