"""Views: pictures of one object with their cameras, and where in the world that object is."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray
from torch import Tensor
from torch.nn.functional import normalize

from meshwright.cameras import Cameras, framing_radius
from meshwright.errors import InputError
from meshwright.mesh import Mesh

_LEAST_PARALLAX = 1e-4  # smallest mean squared sine between rays that still tells where they meet
_SAME = 1e-5  # frames this near to the world's, in its units, are the world's
_ASIDE = 0.05  # sine of the angle from above the object from which a camera says where its sides are
_FARTHEST, _SMALLEST = 1.0, 0.1  # units: silhouettes farther from the axes' meeting point, or smaller, have the say


@dataclass(frozen=True)
class Capture:
    """What is known of posed pictures beside their cameras.

    ``kind``: the format that they came in, for people. ``up``: against gravity, in the world, where the format says so.
    ``own_axes``: whether somebody chose the world's axes and unit; else they are as a program found them.
    """

    kind: str
    up: tuple[float, float, float] | None = None
    own_axes: bool = True


@dataclass(frozen=True)
class Outlines:
    """How far outlines that were found in all pictures together may be believed.

    ``agreement``, ``least_agreement``: IoU of what a picture shows by itself with what all show together, the mean and
    the least of the pictures. ``disagreeing``: names of the pictures whose outline is not that of the others.
    ``doubts``: what is wrong with the outlines as a whole, for people; nothing where they may be believed.
    """

    agreement: float
    least_agreement: float
    disagreeing: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Views:
    """Posed pictures of one object.

    ``images``: sRGB in [0, 1], composited on white (white where ``alpha`` is 0). ``alpha``: coverage in [0, 1].
    Pictures of different sizes share one canvas: each lies in its top left corner, ``sizes_px`` (height, width)
    large; the rest of the canvas is white with alpha 0 and was never seen. ``cameras`` are those of the canvas.
    ``capture`` says what a capture's files say beside that. ``outlines``: where ``alpha`` was found in all pictures
    together, how well they agree. ``cameras_fitted``: whether the cameras are where points of the object say that they
    were, which is nearer than outlines and colours of a shape that is not there yet can bring them.
    Optional, and 0 where unknown: ``depth_z``, depth along the viewing axis in world units; ``normals``, unit normals
    of the surface in the world, outward. No file format brings normals yet. ``unknown``: where ``alpha`` is not to be
    believed, because the other pictures contradict it (`meshwright.shape.visual_hull` finds that); None: nowhere.
    """

    images: Float[Tensor, "views 3 height width"]
    alpha: Float[Tensor, "views 1 height width"]
    cameras: Cameras
    sizes_px: Int[Tensor, "views 2"]
    names: tuple[str, ...]
    rig: str = "posed"
    assumptions: tuple[str, ...] = ()
    depth_z: Float[Tensor, "views 1 height width"] | None = None
    normals: Float[Tensor, "views 3 height width"] | None = None
    capture: Capture | None = None
    outlines: Outlines | None = None
    cameras_fitted: bool = False
    unknown: Bool[Tensor, "views 1 height width"] | None = None

    def __len__(self) -> int:
        return self.images.shape[0]

    @classmethod
    def from_rgba(
        cls,
        pictures: UInt8[ndarray, "views height width 4"] | Float[ndarray, "views height width 4"],
        cameras: Cameras,
        names: Sequence[str] = (),
    ) -> "Views":
        """Posed pictures from arrays: sRGB and coverage, 0 to 255 or 0 to 1, colours not multiplied by the coverage.

        The same as `meshwright.load_views` makes of these pictures as PNG files beside a transforms.json.

        Raises:
            InputError: numbers of pictures, cameras and names differ, floats lie outside [0, 1], or no picture shows
                anything.
        """
        if not len(pictures) == len(cameras) == (len(names) or len(pictures)):
            told = f"{len(pictures)} pictures, {len(cameras)} cameras and {len(names)} names"
            raise InputError(f"{told}: give as many of each, or no names")
        values = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2)
        rgba = values.float() / 255 if values.dtype == torch.uint8 else values.float()
        if not bool(((rgba >= 0) & (rgba <= 1)).all()):
            raise InputError("pictures of floats must lie in [0, 1]; divide them by 255, or give uint8")
        alpha = rgba[:, 3:].contiguous()
        if not bool(alpha.any()):
            raise InputError("no picture shows anything: the fourth channel, coverage, is 0 everywhere; fill it in")
        size = torch.tensor(pictures.shape[1:3]).expand(len(pictures), 2)
        names = tuple(names) or tuple(f"{i:03d}" for i in range(len(pictures)))
        return cls(rgba[:, :3] * alpha + (1 - alpha), alpha, cameras, size, names)

    def normalized(self) -> "tuple[Views, ObjectFrame]":
        """The same views with the object about the origin, about one unit large; the frame leads back.

        Already normalised views come back as they are, to the bit.
        """
        frame = ObjectFrame.of(self)
        return frame.normalize_views(self), frame

    def __getitem__(self, index: slice | list[int]) -> "Views":
        """Choose views by slice or list; always a batch."""
        numbers = list(range(len(self)))[index] if isinstance(index, slice) else index
        return Views(
            self.images[numbers],
            self.alpha[numbers],
            self.cameras[numbers],
            self.sizes_px[numbers],
            tuple(self.names[i] for i in numbers),
            self.rig,
            self.assumptions,
            None if self.depth_z is None else self.depth_z[numbers],
            None if self.normals is None else self.normals[numbers],
            self.capture,
            self.outlines,
            self.cameras_fitted,
            None if self.unknown is None else self.unknown[numbers],
        )

    def to(self, device: torch.device | str) -> "Views":
        return Views(
            self.images.to(device),
            self.alpha.to(device),
            self.cameras.to(device),
            self.sizes_px.to(device),
            self.names,
            self.rig,
            self.assumptions,
            None if self.depth_z is None else self.depth_z.to(device),
            None if self.normals is None else self.normals.to(device),
            self.capture,
            self.outlines,
            self.cameras_fitted,
            None if self.unknown is None else self.unknown.to(device),
        )

    @property
    def seen(self) -> Float[Tensor, "views 1 height width"]:
        """1 on the real picture, 0 on the canvas around it and where it is not known what the picture shows."""
        height, width = self.images.shape[2:]
        rows = torch.arange(height, device=self.images.device)[None, :, None] < self.sizes_px[:, :1, None]
        columns = torch.arange(width, device=self.images.device)[None, None, :] < self.sizes_px[:, 1:, None]
        seen = (rows & columns)[:, None]
        return (seen if self.unknown is None else seen & ~self.unknown).to(self.images.dtype)


@dataclass(frozen=True, eq=False)
class ObjectFrame:
    """Where the object is: the normalised place of a world point p is R (p - ``center``) / ``unit``.

    R, ``R_object_world``, is the identity in frames made by `of`: axes stay. Frames made by `upright` turn, too.

    The center is where the optical axes of the cameras meet, and the unit such that half a picture's height is
    1.07 units there, as in the Zero123++ rig: for cameras on a rig that looks at the origin, as the world's convention
    has it, the frame is the world. Where the silhouettes say that the object is elsewhere or much smaller, it is in
    their middle and one unit is half their width. Scaling, shifting or turning the world takes the frame along, but a
    single view without depth does not tell how far away the object is: there it is taken to be beside the origin.

    ``center`` is float64 on the CPU. Places in the world are given back in the ``dtype`` of the world's cameras:
    far from the origin float32 is coarse, so pass cameras in float64 there.
    """

    center: Float[Tensor, "3"]
    unit: float
    dtype: torch.dtype
    R_object_world: Float[Tensor, "3 3"] = field(default_factory=lambda: torch.eye(3, dtype=torch.float64))

    @classmethod
    def upright(cls, views: Views) -> "ObjectFrame":
        """`of`, and turned: z is up (as the capture says, else as `Cameras.up` finds), x towards the first camera.

        Whatever the world's place, unit and axes, the normalised views are the same.
        """
        frame = cls.of(views)
        T = views.cameras.T_world_camera.detach().cpu().double()
        known = None if views.capture is None else views.capture.up
        up = views.cameras.up() if known is None else normalize(torch.tensor(known, dtype=torch.float64), dim=0)
        # The first camera that does not stand above the object says where x is; else the top of its picture.
        across = torch.eye(3, dtype=torch.float64) - up[:, None] * up[None, :]
        to_cameras = normalize(T[:, :3, 3] - frame.center, dim=1) @ across
        aside = [axis for axis in [*to_cameras, T[0, :3, 1] @ across, *across] if float(axis.norm()) > _ASIDE]
        x = normalize(aside[0], dim=0)
        R = torch.stack([x, torch.linalg.cross(up, x), up])
        if float((R - torch.eye(3, dtype=torch.float64)).abs().max()) < _SAME:
            return frame
        return dataclasses.replace(frame, R_object_world=R)

    @classmethod
    def of(cls, views: Views) -> "ObjectFrame":
        """The frame of the object in these views, found in float64 on the CPU."""
        dtype = views.cameras.T_world_camera.dtype
        cameras = Cameras(
            *(x.detach().cpu().double() for x in (views.cameras.T_world_camera, views.cameras.intrinsics))
        )
        frame = _frame_of_axes(views, cameras)
        of_silhouettes = _frame_of_silhouettes(views, cameras)
        if of_silhouettes is not None:
            distance = float((of_silhouettes.center - frame.center).norm())
            if distance > _FARTHEST * frame.unit or of_silhouettes.unit < _SMALLEST * frame.unit:
                frame = of_silhouettes
        if float(frame.center.abs().max()) < _SAME and abs(frame.unit - 1) < _SAME:
            frame = cls.world(dtype)
        return dataclasses.replace(frame, dtype=dtype)

    @classmethod
    def world(cls, dtype: torch.dtype) -> "ObjectFrame":
        return cls(torch.zeros(3, dtype=torch.float64), 1.0, dtype)

    @property
    def is_identity(self) -> bool:
        """The frame is the world, and the world is in float32."""
        turns = bool((self.R_object_world != torch.eye(3, dtype=torch.float64)).any())
        return self.unit == 1 and not bool(self.center.any()) and self.dtype == torch.float32 and not turns

    @property
    def T_world_object(self) -> Float[Tensor, "4 4"]:
        """Normalised to world, in float64: a similarity."""
        T = torch.eye(4, dtype=torch.float64)
        T[:3, :3], T[:3, 3] = self.unit * self.R_object_world.T, self.center
        return T

    def normalize_views(self, views: Views) -> Views:
        """World to normalised; cameras become float32, as pictures are."""
        if self.is_identity:
            return views
        T_world_camera = views.cameras.T_world_camera.detach().cpu().to(torch.float64, copy=True)
        T_world_camera[:, :3, 3] = (T_world_camera[:, :3, 3] - self.center) / self.unit
        T_world_camera[:, :3] = self.R_object_world @ T_world_camera[:, :3]
        cameras = Cameras(T_world_camera.to(views.images), views.cameras.intrinsics.to(views.images))
        depth_z = None if views.depth_z is None else views.depth_z / self.unit
        normals, capture = views.normals, views.capture
        if normals is not None:
            normals = torch.einsum("ij,vjhw->vihw", self.R_object_world.to(normals), normals)
        if capture is not None and capture.up is not None:
            x, y, z = (self.R_object_world @ torch.tensor(capture.up, dtype=torch.float64)).tolist()
            capture = dataclasses.replace(capture, up=(x, y, z))
        return dataclasses.replace(views, cameras=cameras, depth_z=depth_z, normals=normals, capture=capture)

    def normalize_mesh(self, mesh: Mesh) -> Mesh:
        """World to normalised, vertices in float32."""
        if self.is_identity:
            return mesh
        return mesh.replace(vertices=self.normalize_points(mesh.vertices))

    def normalize_points(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
        """World to normalised, in float32."""
        if self.is_identity:
            return points
        return ((points.cpu().double() - self.center) / self.unit @ self.R_object_world.T).float().to(points.device)

    def restore_mesh(self, mesh: Mesh) -> Mesh:
        """Normalised to world."""
        return mesh if self.is_identity else mesh.replace(vertices=self.restore_points(mesh.vertices))

    def restore_cameras(self, cameras: Cameras) -> Cameras:
        """Normalised to world."""
        if self.is_identity:
            return cameras
        T_world_camera = cameras.T_world_camera.to(self.dtype, copy=True)
        R_world_object = self.R_object_world.T.to(T_world_camera)
        T_world_camera[:, :3, :3] = R_world_object @ T_world_camera[:, :3, :3]
        T_world_camera[:, :3, 3] = self.restore_points(cameras.positions)
        return Cameras(T_world_camera, cameras.intrinsics.to(self.dtype))

    def restore_points(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
        """Normalised to world."""
        if self.is_identity:
            return points
        world = points.cpu().double() @ self.R_object_world * self.unit + self.center
        return world.to(self.dtype).to(points.device)


def _frame_of_axes(views: Views, cameras: Cameras) -> ObjectFrame:
    backward = cameras.T_world_camera[:, :3, 2]
    center = _meeting_point(cameras.positions, -backward)
    if center is None and views.depth_z is not None:
        depths = [depth[depth > 0].median() for depth in views.depth_z.cpu().double() if bool((depth > 0).any())]
        center = cameras.positions[0] - torch.stack(depths).median() * backward[0] if depths else None
    if center is None:  # the foot of the origin on the axis
        center = cameras.positions[0] - (cameras.positions[0] @ backward[0]) * backward[0]
    depth_z = ((cameras.positions - center) * backward).sum(1)
    half_height = depth_z * 0.5 / cameras.intrinsics[:, 1]
    in_front = half_height[depth_z > 0]
    if len(in_front) == 0:
        return ObjectFrame.world(torch.float64)
    # With 90 degrees of view the framing radius is half a picture's height, and so it is counted here.
    return ObjectFrame(center, float(in_front.median()) / framing_radius(90.0), torch.float64)


def _frame_of_silhouettes(views: Views, cameras: Cameras) -> ObjectFrame | None:
    """In the middle of what is opaque, half as wide; None where the rays to it do not meet in front of the cameras."""
    opaque = (views.alpha[:, 0] >= 0.5).cpu()
    useful = opaque.flatten(1).any(1).nonzero()[:, 0]
    middles, half_sizes = [], []
    for axis in (1, 2):  # horizontally, then vertically
        used = opaque[useful].any(axis).to(torch.float64)
        count = used.shape[1]
        first, last = used.argmax(1), count - used.flip(1).argmax(1)
        middles.append((first + last) / 2 / count)
        half_sizes.append((last - first) / 2 / count)
    fx, fy = cameras.intrinsics[useful, :2].unbind(1)
    directions = cameras[useful].unproject(torch.stack(middles, dim=1)[:, None])[:, 0]
    center = _meeting_point(cameras.positions[useful], directions)
    if center is None:
        return None
    depth_z = ((cameras.positions[useful] - center) * cameras.T_world_camera[useful, :3, 2]).sum(1)
    half_size = torch.maximum(half_sizes[0] / fx.abs(), half_sizes[1] / fy.abs()) * depth_z
    return ObjectFrame(center, float(half_size.median()), torch.float64)


def _meeting_point(origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]) -> Float[Tensor, "3"] | None:
    """The point nearest to the rays, midway where they run along each other; None if it is not ahead of most."""
    if len(origins) == 0:
        return None
    d = normalize(directions, dim=1)
    across = torch.eye(3).to(d) - d[:, :, None] * d[:, None, :]  # projects onto the plane across each ray
    middle = origins.mean(0)
    offset = (across @ (origins - middle)[:, :, None]).mean(0)[:, 0]
    values, vectors = torch.linalg.eigh(across.mean(0))
    told = values > _LEAST_PARALLAX
    point = middle + vectors[:, told] @ ((vectors[:, told].T @ offset) / values[told])
    ahead = ((point - origins) * d).sum(1) > 0
    return point if bool(2 * ahead.sum() > len(ahead)) else None
