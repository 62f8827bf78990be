"""The views at one resolution, ready to be compared with: some of their pixels are withheld."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import interpolate

from meshwright.cameras import Cameras
from meshwright.views import Views

_BLOCKS = 128  # withheld blocks along the longer side of a canvas
_WITHHELD = 0.05  # of them
_OPAQUE = 0.95  # coverage above which a pixel has the colour of the object


@dataclass(frozen=True, eq=False)
class Pictures:
    """``colors`` on white (sRGB), ``alpha``, ``depth_z`` and ``normals`` as in `Views`, channels last.

    ``kept``: pixels to fit; ``withheld``: pixels to judge by, in no fit. Neither on the canvas around a picture.
    """

    colors: Float[Tensor, "views height width 3"]
    alpha: Float[Tensor, "views height width"]
    depth_z: Float[Tensor, "views height width"] | None
    normals: Float[Tensor, "views height width 3"] | None
    kept: Bool[Tensor, "views height width"]
    withheld: Bool[Tensor, "views height width"]

    @classmethod
    def of(cls, views: Views, largest_px: int, seed: int) -> "Pictures":
        """The views, no larger than ``largest_px``, each pixel the mean of those that it covers."""
        height, width = views.images.shape[2:]
        scale = min(1.0, largest_px / max(height, width))
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        withheld = _withheld_blocks(len(views), height, width, seed).to(views.images.device)
        kept = views.seen * ~withheld
        share = interpolate(kept, size, mode="area")

        def smaller(x: Tensor) -> Tensor:
            """The mean over what is kept for the fit; over all in pixels that are withheld."""
            of_kept = interpolate(x * kept, size, mode="area") / share.clamp(min=1e-6)
            return torch.where(share > 0.5, of_kept, interpolate(x, size, mode="area"))

        depth_z = None if views.depth_z is None else interpolate(views.depth_z, size, mode="nearest-exact")[:, 0]
        # Not means: halfway between two sides of an edge there is no surface.
        normals = None if views.normals is None else interpolate(views.normals, size, mode="nearest-exact")
        return cls(
            smaller(views.images).permute(0, 2, 3, 1).contiguous(),
            smaller(views.alpha)[:, 0],
            depth_z,
            None if normals is None else normals.permute(0, 2, 3, 1).contiguous(),
            share[:, 0] > 0.5,
            interpolate(views.seen * withheld, size, mode="area")[:, 0] > 0.999,
        )

    @property
    def opaque(self) -> Bool[Tensor, "views height width"]:
        return self.alpha > _OPAQUE

    def __getitem__(self, views: Int[Tensor, " chosen"]) -> "Pictures":
        depth_z = None if self.depth_z is None else self.depth_z[views]
        normals = None if self.normals is None else self.normals[views]
        return Pictures(self.colors[views], self.alpha[views], depth_z, normals, self.kept[views], self.withheld[views])


def _withheld_blocks(views: int, height: int, width: int, seed: int) -> Bool[Tensor, "views 1 height width"]:
    side = max(1, -(-max(height, width) // _BLOCKS))
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(views, 1, -(-height // side), -(-width // side), generator=generator)
    blocks = (draw < _WITHHELD).repeat_interleave(side, 2).repeat_interleave(side, 3)
    return blocks[:, :, :height, :width]


def sample_views(
    pictures: Float[Tensor, "views height width channels"],
    view: Int[Tensor, " points"],
    uv: Float[Tensor, "points 2"],
) -> Float[Tensor, "points channels"]:
    """Bilinear values at picture coordinates, each point in its own view; differentiable with respect to ``uv``."""
    _, height, width, channels = pictures.shape
    flat = pictures.reshape(-1, channels)
    xy = uv.nan_to_num() * torch.tensor([width, height]).to(uv) - 0.5
    x, y = xy[:, 0].clamp(0, width - 1), xy[:, 1].clamp(0, height - 1)
    left, top = x.detach().floor().clamp(max=max(width - 2, 0)), y.detach().floor().clamp(max=max(height - 2, 0))
    fx, fy = (x - left)[:, None], (y - top)[:, None]
    first = (view * height + top.long()) * width + left.long()
    right, down = min(1, width - 1), min(1, height - 1) * width
    above = torch.lerp(flat[first], flat[first + right], fx)
    below = torch.lerp(flat[first + down], flat[first + down + right], fx)
    return torch.lerp(above, below, fy)


def project_each(
    cameras: Cameras, view: Int[Tensor, " points"], points: Float[Tensor, "points 3"]
) -> tuple[Float[Tensor, "points 2"], Float[Tensor, " points"]]:
    """As `Cameras.project`, each point into its own view only."""
    # Not [view]: the gradient of that adds up in the order in which threads happen to run.
    T_camera_world = cameras.T_camera_world.index_select(0, view)
    p_camera = (T_camera_world[:, :3, :3] @ points[:, :, None])[:, :, 0] + T_camera_world[:, :3, 3]
    depth_z = -p_camera[:, 2]
    fx, fy, cx, cy = cameras.intrinsics.index_select(0, view).unbind(1)
    u = fx * p_camera[:, 0] / depth_z + cx
    v = cy - fy * p_camera[:, 1] / depth_z
    return torch.stack([u, v], dim=1), depth_z
