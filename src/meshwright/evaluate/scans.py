"""True textured meshes as test scenes: photographed from the cameras of a rig, judged from cameras that no rig has.

The object is scaled into a ball around the origin, so that the Zero123++ rig (distance 4, 30 degrees of view) frames it
with some air, and photographed unlit on white; masks are true, depth is not given.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch

from meshwright.cameras import Cameras
from meshwright.errors import InputError
from meshwright.mesh import Mesh
from meshwright.mesh_files import load_mesh
from meshwright.raster import render
from meshwright.views import Views

ScanRig = Literal["zero123plus", "orbit"]
"""Cameras of the given views: the six of Zero123++, or any number around at 20 degrees of elevation."""

BOUNDING_RADIUS = 0.95
_ORBIT_ELEVATION_DEG = 20.0
_INPUT_SAMPLES, _TARGET_SAMPLES = 4, 2  # points along a pixel's side
_TARGETS = 20
_GOLDEN_ANGLE_DEG = 137.508


@dataclass(frozen=True, eq=False)
class Scene:
    """What a reconstruction is given and what it is judged by; ``mesh``: the whole true surface, where it is known."""

    inputs: Views
    targets: Views
    mesh: Mesh | None = None


def scan_scene(path: Path, rig: ScanRig = "zero123plus", count: int = 6, size_px: int = 512) -> Scene:
    """A mesh file as a scene: ``count`` input views from ``rig``, and 20 novel ones, of ``size_px`` x ``size_px``.

    Raises:
        InputError: the file cannot be read, or the rig has another number of views.
    """
    cameras = rig_cameras(rig, count)
    mesh = load_scan(path)
    inputs = replace(photograph(mesh, cameras, size_px, _INPUT_SAMPLES), depth_z=None)
    return Scene(inputs, photograph(mesh, novel_cameras(), size_px, _TARGET_SAMPLES), mesh)


def rig_cameras(rig: ScanRig, count: int) -> Cameras:
    """Raises: InputError: the rig has another number of views, or there is no such rig."""
    if rig == "orbit":
        return Cameras.orbit(count, _ORBIT_ELEVATION_DEG)
    if rig != "zero123plus":
        raise InputError(f"`rig={rig!r}`: is no rig of mesh files; use one of {', '.join(get_args(ScanRig))}")
    cameras = Cameras.zero123plus()
    if count != len(cameras):
        raise InputError(f"`inputs={count}`: rig zero123plus has {len(cameras)} views; leave it out or use rig orbit")
    return cameras


def novel_cameras() -> Cameras:
    """20 cameras that no rig has: azimuths by the golden angle, elevations from -20 to 50 degrees, distance 4."""
    azimuths_deg = [i * _GOLDEN_ANGLE_DEG % 360 for i in range(_TARGETS)]
    elevations_deg = [-20 + 70 * (i * 7 % _TARGETS) / (_TARGETS - 1) for i in range(_TARGETS)]
    return Cameras.spherical(azimuths_deg, elevations_deg, 4.0, 30.0)


def load_scan(path: Path) -> Mesh:
    """A mesh file in the world: its box's centre in the origin, its farthest vertex ``BOUNDING_RADIUS`` away.

    Raises:
        InputError: it cannot be read, or is a point.
    """
    mesh = load_mesh(path)
    vertices = mesh.vertices - (mesh.vertices.amin(dim=0) + mesh.vertices.amax(dim=0)) / 2
    radius = vertices.norm(dim=1).max()
    if not 1e-20 < float(radius) < 1e20:
        raise InputError(f"{path}: has no size that can be scaled ({float(radius):g}); export it again")
    return mesh.replace(vertices=vertices * (BOUNDING_RADIUS / radius))


def photograph(mesh: Mesh, cameras: Cameras, size_px: int, samples: int = _INPUT_SAMPLES) -> Views:
    """Unlit square pictures on white with alpha and depth, each pixel the mean of ``samples`` x ``samples`` points."""
    rendered = render(mesh, cameras, size_px, size_px, samples=samples)
    return Views(
        images=rendered.rgb.clamp(0, 1),
        alpha=rendered.alpha,
        cameras=cameras,
        sizes_px=torch.full((len(cameras), 2), size_px),
        names=tuple(f"{i:03d}" for i in range(len(cameras))),
        depth_z=rendered.depth_z,
    )
