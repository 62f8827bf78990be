"""Cameras: where each picture was taken from. The only module that knows a foreign frame convention.

World: right-handed, z up, the object inside [-1, 1]^3.  Camera: OpenGL (x right, y up, looks along -z).
Intrinsics are divided by picture width (fx, cx) and height (fy, cy), so they survive resizing.
Picture coordinates ``uv`` run from (0, 0), the outer corner of the top left pixel, to (1, 1); the centre of the
pixel in row i and column j of a width x height picture is ((j + 0.5) / width, (i + 0.5) / height).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from meshwright.errors import InputError

SV3D_FOV_DEG = 33.8
CV_TO_GL = np.diag([1.0, -1.0, -1.0, 1.0])  # a camera's axes in OpenCV (y down, looks along +z) as OpenGL has them
_FAR = 1e3  # distances from the origin, in those between cameras: float32 keeps 1e-4 of these
_LEAST_TURN = (
    3e-3  # variance of the cameras' horizontal axes across the first of their directions: an arc of 10 degrees
)


@dataclass(frozen=True, eq=False)
class Rays:
    """Half-lines in the world; ``directions`` have unit length, so depths along them are distances."""

    origins: Float[Tensor, "*rays 3"]
    directions: Float[Tensor, "*rays 3"]

    def __getitem__(self, index: int | slice | Tensor | tuple[int | slice | Tensor, ...]) -> "Rays":
        """Choose along the leading axes: ``rays[:, top:bottom, left:right]`` is a crop of every view."""
        return Rays(self.origins[index], self.directions[index])


@dataclass(frozen=True, eq=False)
class Cameras:
    """Pinhole cameras, one a view.

    ``T_world_camera`` takes OpenGL camera coordinates to the world; ``intrinsics`` holds (fx, fy, cx, cy),
    normalised by picture width and height.
    """

    T_world_camera: Float[Tensor, "views 4 4"]
    intrinsics: Float[Tensor, "views 4"]

    def __len__(self) -> int:
        return self.T_world_camera.shape[0]

    def __getitem__(self, index: slice | Sequence[int] | Tensor) -> "Cameras":
        """Choose views by slice, list of indices or mask; always a batch."""
        chosen = index if isinstance(index, (slice, Tensor)) else torch.as_tensor(index, dtype=torch.long)
        return Cameras(self.T_world_camera[chosen], self.intrinsics[chosen])

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Cameras":
        return Cameras(self.T_world_camera.to(device, dtype), self.intrinsics.to(device, dtype))

    def in_float32(self) -> "Cameras":
        """Unless they stand so far from the origin that float32 would lose where they stand to each other."""
        spread = float((self.positions - self.positions.mean(dim=0)).norm(dim=1).max())
        far = float(self.positions.abs().max()) > _FAR * spread > 0
        return self if far else self.to(dtype=torch.float32)

    @property
    def positions(self) -> Float[Tensor, "views 3"]:
        """Camera centres in the world."""
        return self.T_world_camera[:, :3, 3]

    @property
    def T_camera_world(self) -> Float[Tensor, "views 4 4"]:
        """World to OpenGL camera, in closed form: the rotation is orthonormal."""
        R_camera_world = self.T_world_camera[:, :3, :3].mT
        t = -(R_camera_world @ self.T_world_camera[:, :3, 3:])
        bottom = self.T_world_camera[:, 3:, :]
        return torch.cat([torch.cat([R_camera_world, t], dim=2), bottom], dim=1)

    def up(self) -> Float[Tensor, "3"]:
        """Which way is up in the world (unit length, float64), as people hold cameras: level.

        The horizontal axes of level cameras are all across one direction, which is found exactly; cameras that are
        not quite level average out. Where the cameras lie on their sides, it is their vertical axes; which way that
        direction points, upright pictures tell, else that objects are seen from above. Cameras that stand too close to
        each other for that have the mean of their tops. Turning the world turns the answer.
        """
        R = self.T_world_camera[:, :3, :3].detach().cpu().double()
        top, backward = R[:, :, 1].mean(0), R[:, :, 2].mean(0)
        levels = [torch.linalg.eigh(axis.T @ axis / len(axis)) for axis in (R[:, :, 0], R[:, :, 1])]
        sideways = bool(levels[1][0][1] - levels[1][0][0] > levels[0][0][1] - levels[0][0][0])
        values, vectors = levels[int(sideways)]
        if not bool(values[1] > 4 * values[0] + _LEAST_TURN):
            return torch.nn.functional.normalize(top if float(top.norm()) > 0.1 else R[0, :, 1], dim=0)
        up = vectors[:, 0]
        along = float(top @ up)
        return up if (float(backward @ up) if sideways or abs(along) < 0.05 else along) >= 0 else -up

    def difference(self, other: "Cameras") -> tuple[Float[Tensor, " views"], Float[Tensor, " views"]]:
        """How far each camera is turned (degrees) and moved (world units) against the same one of ``other``."""
        R = self.T_world_camera[:, :3, :3].mT @ other.T_world_camera[:, :3, :3]
        # From sine and cosine together: the cosine alone cannot tell angles below 0.02 degrees in float32.
        axis = torch.stack([R[:, 2, 1] - R[:, 1, 2], R[:, 0, 2] - R[:, 2, 0], R[:, 1, 0] - R[:, 0, 1]], dim=1)
        turned = torch.atan2(axis.norm(dim=1), R.diagonal(dim1=1, dim2=2).sum(1) - 1)
        return turned.rad2deg(), (self.positions - other.positions).norm(dim=1)

    def project(
        self, points: Float[Tensor, "points 3"] | Float[Tensor, "views points 3"]
    ) -> tuple[Float[Tensor, "views points 2"], Float[Tensor, "views points"]]:
        """World points to picture coordinates ``uv`` and ``depth_z``, the distance along the viewing axis.

        Points with ``depth_z <= 0`` are behind the camera; their uv means nothing.
        """
        T_camera_world = self.T_camera_world
        p_camera = points @ T_camera_world[:, :3, :3].mT + T_camera_world[:, None, :3, 3]
        depth_z = -p_camera[..., 2]
        fx, fy, cx, cy = (value[:, None] for value in self.intrinsics.unbind(1))
        u = fx * p_camera[..., 0] / depth_z + cx
        v = cy - fy * p_camera[..., 1] / depth_z  # picture rows run downwards, the camera's y upwards
        return torch.stack([u, v], dim=2), depth_z

    def project_homogeneous(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "views points 3"]:
        """World points to (u * depth_z, v * depth_z, depth_z): ``project`` before its division.

        Linear in the points, so it means something on and behind the camera plane too.
        """
        fx, fy, cx, cy = self.intrinsics.unbind(1)
        zero, one = torch.zeros_like(fx), torch.ones_like(fx)
        rows = torch.stack([fx, zero, -cx, zero, -fy, -cy, zero, zero, -one], dim=1)
        P_picture_world = rows.view(-1, 3, 3) @ self.T_camera_world[:, :3, :]
        repeated = points.expand(len(self), -1, -1)
        return torch.baddbmm(P_picture_world[:, None, :, 3], repeated, P_picture_world[:, :, :3].mT)

    def unproject(self, uv: Float[Tensor, "views points 2"]) -> Float[Tensor, "views points 3"]:
        """World vectors from each camera to where its picture coordinates ``uv`` lie at ``depth_z`` 1."""
        fx, fy, cx, cy = (value[:, None] for value in self.intrinsics.unbind(1))
        d_camera = torch.stack([(uv[..., 0] - cx) / fx, (cy - uv[..., 1]) / fy, -torch.ones_like(uv[..., 0])], dim=2)
        return d_camera @ self.T_world_camera[:, :3, :3].mT

    def rays(self, height: int, width: int) -> Rays:
        """World rays through all pixel centres, shape (views, height, width, 3)."""
        like = self.intrinsics
        u = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) / width
        v = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) / height
        v_grid, u_grid = torch.meshgrid(v, u, indexing="ij")
        fx, fy, cx, cy = (value[:, None, None] for value in self.intrinsics.unbind(1))
        d_camera = torch.stack(
            [(u_grid - cx) / fx, (cy - v_grid) / fy, -torch.ones_like(u_grid).expand(len(self), -1, -1)],
            dim=3,
        )
        directions = torch.nn.functional.normalize(
            torch.einsum("vij,vhwj->vhwi", self.T_world_camera[:, :3, :3], d_camera), dim=3
        )
        return Rays(self.positions[:, None, None, :].expand_as(directions), directions)

    def cropped(
        self,
        left: float | Float[Tensor, " views"],
        top: float | Float[Tensor, " views"],
        width: float | Float[Tensor, " views"],
        height: float | Float[Tensor, " views"],
    ) -> "Cameras":
        """The same cameras for a rectangle of their pictures, in fractions of the picture.

        The rectangle may reach beyond the picture: a width above 1 gives the cameras of a wider canvas.
        """
        fx, fy, cx, cy = self.intrinsics.unbind(1)
        intrinsics = torch.stack([fx / width, fy / height, (cx - left) / width, (cy - top) / height], dim=1)
        return Cameras(self.T_world_camera, intrinsics)

    def embedding(self) -> Float[Tensor, "views 16"]:
        """The 16 numbers that InstantMesh reads: rows 0 to 2 of ``T_world_camera``, then fx, fy, cx, cy."""
        return torch.cat([self.T_world_camera[:, :3, :].flatten(1), self.intrinsics], dim=1)

    @classmethod
    def cat(cls, parts: Sequence["Cameras"]) -> "Cameras":
        return cls(torch.cat([part.T_world_camera for part in parts]), torch.cat([part.intrinsics for part in parts]))

    @classmethod
    def look_at(
        cls,
        positions: Float[Tensor, "views 3"],
        fov_deg: float,
        target: Float[Tensor, "3"] | None = None,
        aspect: float = 1.0,
    ) -> "Cameras":
        """Cameras at ``positions`` that look at ``target`` (the origin), the world's z up in the picture.

        ``fov_deg`` is the vertical field of view, ``aspect`` width / height. Looking straight up or down, the
        top of the picture is the world's +y or -y.
        """
        backward = torch.nn.functional.normalize(
            positions - (torch.zeros(3) if target is None else target).to(positions), dim=1
        )
        up = torch.tensor([0.0, 0.0, 1.0]).to(positions).expand_as(backward)
        # Parallel to z the cross product vanishes; y takes the place of z there.
        parallel = backward[:, 2:].abs() > 1 - 1e-7
        up = torch.where(parallel, torch.tensor([0.0, 1.0, 0.0]).to(positions), up)
        right = torch.nn.functional.normalize(torch.linalg.cross(up, backward), dim=1)
        true_up = torch.nn.functional.normalize(torch.linalg.cross(backward, right), dim=1)
        T = torch.eye(4).to(positions).repeat(len(positions), 1, 1)
        T[:, :3, :] = torch.stack([right, true_up, backward, positions], dim=2)
        return cls(T, _intrinsics_from_fov(fov_deg, aspect).to(positions).repeat(len(positions), 1))

    @classmethod
    def spherical(
        cls,
        azimuths_deg: Sequence[float],
        elevations_deg: Sequence[float],
        radius: float,
        fov_deg: float,
        aspect: float = 1.0,
    ) -> "Cameras":
        """Cameras on a sphere that look at the origin. Azimuth 0 is +x and grows towards +y."""
        azimuth_rad = torch.deg2rad(torch.tensor(azimuths_deg, dtype=torch.float64))
        elevation_rad = torch.deg2rad(torch.tensor(elevations_deg, dtype=torch.float64))
        directions = torch.stack(
            [
                elevation_rad.cos() * azimuth_rad.cos(),
                elevation_rad.cos() * azimuth_rad.sin(),
                elevation_rad.sin(),
            ],
            dim=1,
        )
        return cls.look_at((radius * directions).float(), fov_deg, aspect=aspect)

    @classmethod
    def orbit(
        cls,
        count: int,
        elevation_deg: float | np.number[Any] | Sequence[float] = 0.0,
        radius: float = 4.0,
        fov_deg: float = 30.0,
        clockwise: bool = False,
        aspect: float = 1.0,
    ) -> "Cameras":
        """``count`` cameras evenly around the z axis, the first on +x, no end point.

        Seen from above the camera moves counter-clockwise (towards +y), or clockwise when asked.
        ``elevation_deg`` is one angle or one a view.
        """
        step = (-360.0 if clockwise else 360.0) / count
        elevations_deg = np.broadcast_to(np.asarray(elevation_deg, np.float64), (count,)).tolist()
        return cls.spherical([i * step for i in range(count)], elevations_deg, radius, fov_deg, aspect)

    @classmethod
    def sv3d(
        cls, count: int = 21, elevation_deg: float | Sequence[float] = 0.0, clockwise: bool = False, aspect: float = 1.0
    ) -> "Cameras":
        """The orbit that SV3D (Voleti et al., arXiv 2403.12008) draws: azimuths i * 360 / count, vertical fov 33.8.

        Real clips run counter-clockwise. The radius is ``framing_radius``: 3.53.
        """
        return cls.orbit(count, elevation_deg, framing_radius(SV3D_FOV_DEG), SV3D_FOV_DEG, clockwise, aspect)

    @classmethod
    def zero123plus(cls, version: str = "1.2", radius: float = 4.0, fov_deg: float = 30.0) -> "Cameras":
        """The six views of a Zero123++ sheet: azimuths 30, 90, ... 330; elevations 20/-10 (v1.2) or 30/-20 (v1.1)."""
        high, low = {"1.2": (20.0, -10.0), "1.1": (30.0, -20.0)}[version]
        return cls.spherical([30.0, 90.0, 150.0, 210.0, 270.0, 330.0], [high, low] * 3, radius, fov_deg)

    @classmethod
    def from_opencv(
        cls, T_world_camera_opencv: Float[Tensor, "views 4 4"], intrinsics: Float[Tensor, "views 4"]
    ) -> "Cameras":
        """From OpenCV / COLMAP camera-to-world matrices (x right, y down, looks along +z)."""
        return cls(T_world_camera_opencv @ torch.from_numpy(CV_TO_GL).to(T_world_camera_opencv), intrinsics)

    @classmethod
    def from_matrices(
        cls,
        T_world_camera: Float[ndarray, "views 4 4"],
        K_px: Float[ndarray, "3 3"] | Float[ndarray, "views 3 3"],
        height_px: int,
        width_px: int,
        axes: Literal["opengl", "opencv"] = "opengl",
    ) -> "Cameras":
        """From camera-to-world matrices and camera matrices in pixels, as simulators and calibrations have them.

        Args:
            T_world_camera: rigid motions. The world may be any, z up or not, in any unit.
            K_px: (fx, 0, cx), (0, fy, cy), (0, 0, 1), of all cameras or one each; the outer corner of the first pixel
                is (0, 0). OpenCV's calibration counts from its centre: add half a pixel to its cx and cy.
            axes: opengl: y up, looks along -z (Blender, NeRF). opencv: y down, looks along +z (COLMAP, ROS).

        Raises:
            InputError: a matrix is no rigid motion, or a focal length is not positive and finite.
        """
        T = np.stack([rigid(np.asarray(matrix, np.float64), f"camera {i}") for i, matrix in enumerate(T_world_camera)])
        K = np.broadcast_to(K_px, (len(T), 3, 3)).astype(np.float64)
        lens = np.stack([K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2]], axis=1)
        for i, (fx, fy, *_) in enumerate(lens):
            if not (np.isfinite(lens[i]).all() and fx > 0 and fy > 0):
                raise InputError(f"camera {i}: its focal lengths must be positive and all numbers finite; correct K")
        intrinsics = torch.from_numpy(lens / [width_px, height_px, width_px, height_px])
        make = cls.from_opencv if axes == "opencv" else cls
        return make(torch.from_numpy(T), intrinsics).in_float32()


def rigid(matrix: Float[ndarray, "rows 4"], where: str) -> Float[ndarray, "4 4"]:
    """Check a 3x4 or 4x4 rigid motion and remove its rounding: the nearest rotation (polar decomposition).

    Raises:
        InputError: it is none; the message begins with ``where``.
    """
    if not np.isfinite(matrix).all():
        raise InputError(f"{where}: the camera matrix holds NaN or infinity; correct it")
    R = matrix[:3, :3]
    if np.abs(R @ R.T - np.eye(3)).max() > 0.02 or np.linalg.det(R) < 0:
        raise InputError(f"{where}: the camera matrix is not a rotation and a position; remove scale and mirroring")
    if len(matrix) == 4 and np.abs(matrix[3] - [0, 0, 0, 1]).max() > 1e-6:
        raise InputError(f"{where}: the camera matrix does not end in the row 0 0 0 1; correct it")
    left, _, right = np.linalg.svd(R)
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = left @ right, matrix[:3, 3]
    return T


def focal_from_fov(fov_deg: float) -> float:
    """Focal length as a fraction of the picture's side, for the field of view across that side."""
    return 0.5 / math.tan(math.radians(fov_deg) / 2)


def framing_radius(fov_deg: float) -> float:
    """Distance at which ``fov_deg`` frames the object as the Zero123++ rig does: 1.07 units each way at the origin."""
    return 4.0 * math.tan(math.radians(30.0) / 2) / math.tan(math.radians(fov_deg) / 2)


def _intrinsics_from_fov(fov_deg: float, aspect: float) -> Float[Tensor, "4"]:
    fy = focal_from_fov(fov_deg)
    return torch.tensor([fy / aspect, fy, 0.5, 0.5])


def opengl_camera_to_world(T: Float[ndarray, "views 4 4"]) -> tuple[Float[ndarray, "views 4 4"], str]:
    """Tell world-to-camera from camera-to-world and OpenGL from OpenCV: right is what looks at the object.

    The published sets hold OpenGL world-to-camera matrices; sets made with other scripts use the same file names
    for the other three. Each view's object is at the world's origin, so exactly one reading has it in front.
    """
    inverse = np.linalg.inv(T)
    readings = {
        "OpenGL world-to-camera": inverse,
        "OpenGL camera-to-world": T,
        "OpenCV world-to-camera": inverse @ CV_TO_GL,
        "OpenCV camera-to-world": T @ CV_TO_GL,
    }
    centred = {name: _origin_centred(T_world_camera) for name, T_world_camera in readings.items()}
    best = max(centred, key=lambda name: centred[name])
    return readings[best], best


def _origin_centred(T_world_camera: Float[ndarray, "views 4 4"]) -> float:
    """Mean cosine between the viewing axes and the directions to the origin."""
    positions, backward = T_world_camera[:, :3, 3], T_world_camera[:, :3, 2]
    distances = np.linalg.norm(positions, axis=1)
    return float(((positions * backward).sum(axis=1) / np.maximum(distances, 1e-9)).mean())
