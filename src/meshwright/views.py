"""Views: pictures of one object with their cameras."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from meshwright.cameras import Cameras


@dataclass(frozen=True, eq=False)
class Views:
    """Posed pictures of one object.

    ``images``: sRGB in [0, 1], composited on white (white where ``alpha`` is 0). ``alpha``: coverage in [0, 1].
    Pictures of different sizes share one canvas: each lies in its top left corner, ``sizes_px`` (height, width)
    large; the rest of the canvas is white with alpha 0 and was never seen. ``cameras`` are those of the canvas.
    Optional, and 0 where unknown: ``depth_z``, depth along the viewing axis in world units; ``normals``, unit normals
    of the surface in the world, outward. No file format brings normals yet.
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

    def __len__(self) -> int:
        return self.images.shape[0]

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
        )

    @property
    def seen(self) -> Float[Tensor, "views 1 height width"]:
        """1 on the real picture, 0 on the canvas around it."""
        height, width = self.images.shape[2:]
        rows = torch.arange(height, device=self.images.device)[None, :, None] < self.sizes_px[:, :1, None]
        columns = torch.arange(width, device=self.images.device)[None, None, :] < self.sizes_px[:, 1:, None]
        return (rows & columns)[:, None].to(self.images.dtype)
