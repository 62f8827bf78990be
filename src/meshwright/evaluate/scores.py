"""How well a mesh agrees with the views it is judged by."""

from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from meshwright.evaluate.metrics import psnr, silhouette_iou
from meshwright.mesh import Mesh
from meshwright.raster import render
from meshwright.views import Views

_TILE_PX = 256  # side of a square of the preview
_DOUBTFUL_IOU = 0.5  # below this a mesh does not show what the pictures show
VIEWS_AT_ONCE = 8  # that are rendered together


@dataclass(frozen=True)
class ViewScore:
    """How well a mesh agrees with one of its input pictures, over the whole picture on white."""

    name: str
    psnr_db: float
    silhouette_iou: float


@dataclass(frozen=True, eq=False)
class Scored:
    """A mesh, the views it is judged by, how well it agrees with each, and how it looks there, in small squares."""

    mesh: Mesh
    views: Views
    scores: list[ViewScore]
    tiles: list[Float[Tensor, "3 side side"]]

    @classmethod
    def of(cls, mesh: Mesh, views: Views) -> "Scored":
        """Render the mesh by the views' cameras: PSNR over each whole picture on white, and silhouette IoU."""
        scores, tiles = [], []
        for i in range(len(views)):
            if i % VIEWS_AT_ONCE == 0:
                together = render(mesh, views.cameras[i : i + VIEWS_AT_ONCE], *views.images.shape[2:])
            height, width = (int(side) for side in views.sizes_px[i])
            rgb = together.rgb[[i % VIEWS_AT_ONCE], :, :height, :width].clamp(0, 1)
            alpha = together.alpha[[i % VIEWS_AT_ONCE], :, :height, :width]
            psnr_db = float(psnr(rgb, views.images[[i], :, :height, :width]))
            iou = float(silhouette_iou(alpha, views.alpha[[i], :, :height, :width]))
            # JSON knows no infinity.
            scores.append(ViewScore(views.names[i], round(min(psnr_db, 99.0), 3), round(iou, 4)))
            tiles.append(square_tile(rgb[0]))
        return cls(mesh, views, scores, tiles)

    @property
    def psnr_db(self) -> float:
        return float(np.mean([score.psnr_db for score in self.scores]))

    @property
    def silhouette_iou(self) -> float:
        return float(np.mean([score.silhouette_iou for score in self.scores]))

    def warnings(self) -> list[str]:
        """What speaks against the result as a whole or against pictures, and why it may be, in sentences."""
        told = [
            f"the mask of {name!r} lacks a piece of the object that the other pictures show; it was not believed there"
            for name in self.mended
        ]
        if self.silhouette_iou >= _DOUBTFUL_IOU:
            return told
        return [
            *told,
            f"the mesh does not show what the pictures show (mean silhouette IoU {self.silhouette_iou:.2f}); probably"
            " wrong: focal length, positions or order of the cameras, direction of rotation, or masks",
        ]

    @property
    def mended(self) -> list[str]:
        """Names of the pictures whose masks lack a piece, as the others show."""
        unknown = self.views.unknown
        return [] if unknown is None else [n for n, here in zip(self.views.names, unknown, strict=True) if here.any()]

    def summary(self) -> dict[str, object]:
        """``unseen_share``: of the surface, that no view saw; null if the mesh does not know."""
        unseen = self.mesh.unseen_share()
        return {
            "mesh": {
                "triangles": len(self.mesh.faces),
                "vertices": len(self.mesh.vertices),
                "watertight": self.mesh.is_watertight(),
                "components": int(self.mesh.components().max()) + 1,
                "unseen_share": None if unseen is None else round(unseen, 4),
            },
            "views": [asdict(score) for score in self.scores],
            "mean": {"psnr_db": round(self.psnr_db, 3), "silhouette_iou": round(self.silhouette_iou, 4)},
        }


def square_tile(picture: Float[Tensor, "3 height width"]) -> Float[Tensor, "3 side side"]:
    """Shrink or enlarge to fit a white square, centred."""
    height, width = picture.shape[1:]
    scale = _TILE_PX / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    fitted = torch.nn.functional.interpolate(picture[None], size=size, mode="bilinear", antialias=True)[0]
    tile = torch.ones(3, _TILE_PX, _TILE_PX)
    top, left = (_TILE_PX - size[0]) // 2, (_TILE_PX - size[1]) // 2
    tile[:, top : top + size[0], left : left + size[1]] = fitted.clamp(0, 1)
    return tile
