"""Named sets of cameras from which objects are rendered."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch

from meshwright.cameras import Cameras
from meshwright.errors import InputError

ViewSetName = Literal["instantmesh", "mindone", "random", "circle", "sv3d", "orbit", "zero123plus", "zero123plus-v1.1"]

VIEW_SETS: tuple[str, ...] = get_args(ViewSetName)


@dataclass(frozen=True)
class ViewOptions:
    """From where an object is looked at."""

    view_set: ViewSetName = "instantmesh"
    """instantmesh: 32 random views, distance 2 to 3.5, height -0.75 to 1.6, field of view 50 degrees, as the published
    model was trained. mindone: the same, 16 views. random: as the ranges below say. circle: 8 views around, elevation
    20, distance 4, field of view 30. Else a rig of `meshwright reconstruct`."""
    views: int | None = None
    """How many views, where the set leaves it open; the set's own number when not given."""
    distance: tuple[float, float] = (2.0, 3.5)
    """random: range of the distances from the origin."""
    elevation_deg: tuple[float, float] = (-90.0, 90.0)
    """random: range of the elevations; even over the sphere between them."""
    fov_deg: tuple[float, float] = (50.0, 50.0)
    """random: range of the fields of view, one drawn for each view."""

    def __post_init__(self) -> None:
        if self.view_set not in VIEW_SETS:
            raise InputError(f"view set {self.view_set!r}: there is no such set; use one of {', '.join(VIEW_SETS)}")
        if self.views is not None and self.views < 1:
            raise InputError(f"{self.views} views make no set; ask for one or more")
        fixed = {"zero123plus": 6, "zero123plus-v1.1": 6}.get(self.view_set)
        if fixed is not None and self.views not in (None, fixed):
            raise InputError(f"view set {self.view_set} has {fixed} views, not {self.views}; leave --views out")
        ranges = (
            (self.distance, 0.1, 1000.0, "distance"),
            (self.elevation_deg, -90.0, 90.0, "elevation_deg"),
            (self.fov_deg, 0.5, 170.0, "fov_deg"),
        )
        for (low, high), least, most, name in ranges:
            if not least <= low <= high <= most:
                raise InputError(f"{name} {low:g} to {high:g}: a range must rise and lie within {least:g} to {most:g}")

    def cameras(self, generator: np.random.Generator) -> Cameras:
        """The set's cameras; what is random in them comes from ``generator`` alone."""
        draw: dict[str, Callable[[], Cameras]] = {
            "instantmesh": lambda: _in_shell(self.views or 32, (2.0, 3.5), (-0.75, 1.6), 50.0, generator),
            "mindone": lambda: _in_shell(self.views or 16, (2.0, 3.5), (-0.75, 1.6), 50.0, generator),
            "random": lambda: self._random(self.views or 32, generator),
            "circle": lambda: Cameras.orbit(self.views or 8, elevation_deg=20.0, radius=4.0, fov_deg=30.0),
            "sv3d": lambda: Cameras.sv3d(self.views or 21),
            "orbit": lambda: Cameras.orbit(self.views or 21),
            "zero123plus": lambda: Cameras.zero123plus("1.2"),
            "zero123plus-v1.1": lambda: Cameras.zero123plus("1.1"),
        }
        return draw[self.view_set]()

    def _random(self, count: int, generator: np.random.Generator) -> Cameras:
        azimuth_rad = generator.uniform(0, 2 * np.pi, count)
        low, high = np.sin(np.deg2rad(self.elevation_deg))
        sine = generator.uniform(low, high, count)  # even in the sine of the elevation is even over the sphere
        cosine = np.sqrt(1 - sine**2)
        directions = np.stack([cosine * np.cos(azimuth_rad), cosine * np.sin(azimuth_rad), sine], axis=1)
        positions = torch.from_numpy(directions * generator.uniform(*self.distance, (count, 1))).float()
        fovs_deg = generator.uniform(*self.fov_deg, count)
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
