"""What a camera file says: pictures, and the cameras that took them; checks that all formats share."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from meshwright.cameras import Cameras
from meshwright.capture.lens import Lens
from meshwright.capture.undistort import pinhole_of, undistort, undistort_picture
from meshwright.errors import InputError
from meshwright.images import Picture, image_size, quarter_turns, read_depth, read_image, shrink_picture
from meshwright.views import Capture

MAX_CAMERA_FILE_BYTES = 64 * 2**20
MAX_CAMERAS = 20_000  # the header of every picture is looked at
_FOV_DEG = (0.1, 170.0)  # what a pinhole camera can be, and the work here can bear
_FARTHEST_CENTER = 10.0  # of the principal point from the picture's corner, in pictures
_FARTHEST_CAMERA = 1e9  # from the origin; beyond, squares of float32 lose the object
_FARTHEST_OF_ALL = 1e4  # from the middle of all cameras, in their median distance from it


@dataclass(frozen=True)
class DepthFile:
    """A depth picture, and how many world units one of its steps is."""

    path: Path
    unit: float


@dataclass(frozen=True, eq=False)
class PosedPicture:
    """A picture file with the camera that took it, its mask and its depths.

    ``T_world_camera`` (OpenGL) and ``lens`` are those of the pixels as they are stored if ``stored``, as photogrammetry
    has them; else of the picture as its EXIF tag turns it. What is read is upright and without distortion, and so are
    the cameras of `PosedFiles`.
    """

    path: Path
    T_world_camera: Float[ndarray, "4 4"]
    lens: Lens
    mask: Path | None = None
    depth: DepthFile | None = None
    stored: bool = False

    def turned_by(self) -> int:
        """Quarter turns to the left that make the picture upright."""
        return quarter_turns(self.path) if self.stored else 0

    def camera(self) -> tuple[Float[ndarray, "4 4"], tuple[float, float, float, float]]:
        """T_world_camera (OpenGL) and (fx, fy, cx, cy), normalised, of the pinhole camera whose picture is read."""
        T, turns = self.T_world_camera.copy(), self.turned_by()
        fx, fy, cx, cy = pinhole_of(self.lens).intrinsics
        for _ in range(turns):  # the picture's right becomes its top
            T = T @ _QUARTER_TURN
            fx, fy, cx, cy = fy, fx, cy, 1 - cx
        return T, (fx, fy, cx, cy)

    def read(self, max_size_px: int) -> Picture:
        """Decode the picture, upright and without distortion, with at most ``max_size_px`` on the longer side.

        Raises:
            InputError: it is missing or damaged.
        """
        if self.lens.is_pinhole:
            picture = read_image(self.path, max_size_px, upright=not self.stored)
        else:  # larger first, so that what resampling softens is lost when the picture is made small
            large = read_image(self.path, 2 * max_size_px, upright=not self.stored)
            picture = shrink_picture(undistort_picture(large, self.lens), max_size_px)
        return torch.rot90(picture, self.turned_by(), (1, 2))

    def straighten(self, mask: Float[Tensor, "1 height width"]) -> Float[Tensor, "1 _height _width"]:
        """A mask of the picture file, made upright and undistorted like it."""
        return torch.rot90(undistort(mask, self.lens, "bilinear"), self.turned_by(), (1, 2))

    def read_depth(self) -> Float[Tensor, "1 height width"] | None:
        """depth_z in world units, 0 where unknown; upright and undistorted like the picture.

        Raises:
            InputError: the file of depths is missing or damaged.
        """
        if self.depth is None:
            return None
        depth_z = read_depth(self.depth.path, self.depth.unit)
        return torch.rot90(undistort(depth_z, self.lens, "nearest"), self.turned_by(), (1, 2))


_QUARTER_TURN = np.array([[0.0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


@dataclass(frozen=True, eq=False)
class PosedFiles:
    """What a capture holds.

    ``kind`` names the format for people. Where the format brings them: ``points`` on the surfaces that it shows, and
    ``up``, the direction against gravity, in the capture's world. ``own_axes``: somebody chose that world's axes.
    """

    pictures: tuple[PosedPicture, ...]
    kind: str
    assumptions: tuple[str, ...] = ()
    points: Float[ndarray, "points 3"] | None = None
    up: Float[ndarray, "3"] | None = None
    own_axes: bool = True

    @property
    def capture(self) -> Capture:
        up = None if self.up is None else (float(self.up[0]), float(self.up[1]), float(self.up[2]))
        return Capture(self.kind, up, self.own_axes)

    @property
    def cameras(self) -> Cameras:
        """Of the pictures as they are read, in float64."""
        T, intrinsics = zip(*(picture.camera() for picture in self.pictures), strict=True)
        return Cameras(torch.from_numpy(np.stack(T)), torch.tensor(intrinsics, dtype=torch.float64))


def fitted(picture: PosedPicture, where: str) -> PosedPicture:
    """The same if the lens is that of a picture of this shape, stored or upright; ``stored`` is set as it says.

    Raises:
        InputError: the picture cannot be read, its sides are not those of the lens, or the lens makes no sense.
    """
    lens = picture.lens
    sizes = [(stored, image_size(picture.path, upright=not stored)) for stored in (picture.stored, not picture.stored)]
    for stored, (height_px, width_px) in sizes:
        if abs(width_px * lens.height_px / (height_px * lens.width_px) - 1) <= 0.01 + 1 / min(width_px, height_px):
            try:
                pinhole_of(lens)
            except InputError as error:
                raise InputError(f"{where}: {error}") from None
            return dataclasses.replace(picture, stored=stored)
    height_px, width_px = sizes[0][1]
    raise InputError(
        f"{where}: says {lens.width_px:g}x{lens.height_px:g} but {picture.path.name} is {width_px}x{height_px};"
        " correct width and height"
    )


def check_cameras(cameras: Cameras, path: Path) -> None:
    """Refuse cameras that no one has used: what such numbers become further down is no mesh, or no end.

    Raises:
        InputError: a field of view, principal point or position beyond all measure.
    """
    for i in range(len(cameras)):
        fx, fy, cx, cy = cameras.intrinsics[i].tolist()
        for what, focal in (("horizontal", fx), ("vertical", fy)):
            fov_deg = math.degrees(2 * math.atan(0.5 / focal)) if focal > 0 else math.nan
            if not _FOV_DEG[0] <= fov_deg <= _FOV_DEG[1]:
                raise InputError(
                    f"{path}: camera {i} has a {what} field of view of {fov_deg:.3g} degrees, not between"
                    f" {_FOV_DEG[0]:g} and {_FOV_DEG[1]:g}; correct its focal length or the size of its picture"
                )
        if not max(abs(cx), abs(cy)) <= _FARTHEST_CENTER:
            raise InputError(f"{path}: camera {i} looks past its picture; correct cx and cy")
    positions = cameras.positions.double()
    if not bool(torch.isfinite(positions).all()) or float(positions.abs().max()) > _FARTHEST_CAMERA:
        raise InputError(f"{path}: a camera is more than {_FARTHEST_CAMERA:g} from the origin; correct or rescale it")
    distances = (positions - positions.median(dim=0).values).norm(dim=1)
    if float(distances.max()) > _FARTHEST_OF_ALL * float(distances.median()) > 0:
        raise InputError(
            f"{path}: camera {int(distances.argmax())} stands {_FARTHEST_OF_ALL:g} times farther out than the others;"
            " correct or remove it"
        )


def pose_table(values: object, path: Path) -> Float[ndarray, "views rows 4"]:
    table = np.asarray(values, dtype=np.float64)
    if table.ndim and len(table) > MAX_CAMERAS:
        raise InputError(f"{path}: holds more than {MAX_CAMERAS} cameras; leave some out")
    if table.ndim != 3 or table.shape[1:] not in ((3, 4), (4, 4)) or len(table) == 0:
        raise InputError(f"{path}: cam_poses has shape {table.shape}, not (views, 3 or 4, 4); correct it")
    return table
