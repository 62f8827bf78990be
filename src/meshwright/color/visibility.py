"""What one view sees of a mesh: the colours of points of its surface, and how well they are seen."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, max_pool2d, normalize

from meshwright.mesh import Mesh
from meshwright.raster import depth_tolerance, rasterize
from meshwright.views import Views

SHARPNESS = 8  # power of a view's quality in the blend: the best view dominates, and hands over smoothly
_GRAZING_COS = 0.1  # surface seen at a flatter angle than this is not seen
_EDGE_PX = 2  # this near to an outline the picture may hold background
_EDGE_QUALITY = 0.2  # what is left of the quality there
# What is seen worse than this is not seen: picture heights per unit of the object's frame, so no unit of the world's.
# A picture that shows the object 1000 times smaller than itself has it; its SHARPNESS-th power is still a number.
_LEAST_QUALITY = 1e-3
_VISIBILITY_PX = 512  # smallest side of the depth map that decides what is seen
_DEPTH_SLACK_PX = 1.0  # depth differences up to this many pixel sides are the surface itself


@dataclass(frozen=True, eq=False)
class VisibleSurface:
    """What one view sees of a mesh, both in the object's frame (`meshwright.views.ObjectFrame`).

    ``nearest_z``: depth along the viewing axis of the nearest surface, and of the nearest in the pixels around, at
    ``finer`` samples a pixel side; infinite where there is none. ``confidence``: how far each pixel is used, 0 to 1:
    the IoU of the mesh with the silhouette, less at outlines.
    """

    view: Views
    nearest_z: Float[Tensor, "1 2 samples_high samples_wide"]
    finer: int
    confidence: Float[Tensor, "1 1 height width"]

    @classmethod
    def of(cls, mesh: Mesh, view: Views) -> "VisibleSurface":
        height, width = view.images.shape[2:]
        finer = -(-_VISIBILITY_PX // max(height, width))
        fragments = rasterize(mesh.vertices, mesh.faces, view.cameras, height * finer, width * finer)
        occluder = torch.where(fragments.face_ids >= 0, fragments.depth_z, torch.inf)[:, None]
        # Rows, then columns: a maximum over a square at once would cost its area, and small pictures have large ones.
        around = max_pool2d(-occluder, (2 * finer + 1, 1), stride=1, padding=(finer, 0))
        nearest_around = -max_pool2d(around, (1, 2 * finer + 1), stride=1, padding=(0, finer))
        mask = avg_pool2d((fragments.face_ids >= 0)[:, None].float(), finer) >= 0.5
        silhouette = view.alpha >= 0.5
        intersection = (mask & silhouette & (view.seen > 0)).sum()
        union = ((mask | silhouette) & (view.seen > 0)).sum()
        alpha_around = -max_pool2d(-view.alpha, 2 * _EDGE_PX + 1, stride=1, padding=_EDGE_PX)
        confidence = alpha_around.clamp(_EDGE_QUALITY, 1) * intersection / union.clamp(min=1)
        return cls(view, torch.cat([occluder, nearest_around], dim=1), finer, confidence)

    def sample_view(
        self, points: Float[Tensor, "points 3"], normals: Float[Tensor, "points 3"]
    ) -> tuple[Float[Tensor, "points 3"], Float[Tensor, " points"]]:
        """Colour (sRGB) of points of the surface in this view, and their quality: 0 where it does not see them.

        The quality is the cosine between surface and line of sight times the magnification, less at outlines, for
        views that disagree with the mesh, and 0 behind and beside what stands in front.
        """
        view = self.view
        uv, depth_z = (value[0] for value in view.cameras.project(points))
        in_picture = (depth_z > 0) & (uv >= 0).all(1) & (uv * _canvas_px(view) <= view.sizes_px[0].flip(0)).all(1)
        cos = (normals * normalize(view.cameras.positions - points, dim=1)).sum(1)
        # Bilinear lookup of colour times coverage: divided by the coverage, it is free of the white background.
        covered = torch.cat([view.images - (1 - view.alpha), view.alpha, self.confidence], dim=1)
        premultiplied, alpha, confidence = _sample_picture(covered, uv).split([3, 1, 1], dim=1)
        magnification = view.cameras.intrinsics[0, 1] / depth_z
        quality = cos * magnification * self._unoccluded(uv, depth_z, cos) * confidence[:, 0]
        usable = in_picture & (cos > _GRAZING_COS) & (alpha[:, 0] > 0.5)
        quality = torch.where(usable & (quality > _LEAST_QUALITY), quality, 0)
        return (premultiplied / alpha.clamp(min=0.5)).clamp(0, 1), quality

    def _unoccluded(
        self, uv: Float[Tensor, "points 2"], depth_z: Float[Tensor, " points"], cos: Float[Tensor, " points"]
    ) -> Float[Tensor, " points"]:
        """1 for points in plain view, 0 behind something and in the pixels beside it, which may show it."""
        behind = depth_z[:, None] - _sample_picture(self.nearest_z, uv, mode="nearest")
        tolerance = depth_tolerance(depth_z, cos, self.view.cameras.intrinsics[0, 1] * self.nearest_z.shape[2])
        hidden = behind[:, 0] > tolerance * _DEPTH_SLACK_PX
        beside = behind[:, 1] > tolerance * (self.finer + 1) * _DEPTH_SLACK_PX
        return torch.where(hidden | beside, 0.0, 1.0)


def _canvas_px(view: Views) -> Float[Tensor, "2"]:
    height, width = view.images.shape[2:]
    return torch.tensor([width, height]).to(view.images)


def _sample_picture(
    picture: Float[Tensor, "1 channels height width"], uv: Float[Tensor, "points 2"], mode: str = "bilinear"
) -> Float[Tensor, "points channels"]:
    """A picture's values at picture coordinates ``uv``; its border goes on outside."""
    lookup = (uv.nan_to_num() * 2 - 1)[None, None]
    return grid_sample(picture, lookup, mode=mode, padding_mode="border", align_corners=False)[0, :, 0].T
