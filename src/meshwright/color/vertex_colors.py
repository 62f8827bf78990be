"""Colour for meshes, out of the pictures."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, max_pool2d, normalize

from meshwright.mesh import Mesh
from meshwright.progress import Progress, silent
from meshwright.raster import rasterize, sample_texture
from meshwright.views import Views

Field = Callable[[Tensor], Tensor]
"""Colours (sRGB) of points in the world, both (points, 3)."""

SHARPNESS = 8  # power of a view's quality in the blend: the best view dominates, and hands over smoothly
_GRAZING_COS = 0.1  # surface seen at a flatter angle than this is not seen
_EDGE_PX = 2  # this near to an outline the picture may hold background
_EDGE_QUALITY = 0.2  # what is left of the quality there
_LEAST_QUALITY = 1e-3  # what is seen worse than this is not seen; its SHARPNESS-th power is still a number
_VISIBILITY_PX = 512  # smallest side of the depth map that decides what is seen
_DEPTH_SLACK_PX = 1.0  # depth differences up to this many pixel sides are the surface itself
_RELAXATIONS = 100  # averaging steps that smooth the colours of what no view sees
_SURFACE_SAMPLES = 400_000  # points of a mesh that stand for its colours
_POINTS_AT_ONCE = 1 << 18  # that a field is asked for


def color_vertices(mesh: Mesh, views: Views, field: Field | None = None, progress: Progress = silent) -> Mesh:
    """The mesh with ``vertex_colors`` (sRGB) taken from the views that see each vertex.

    A view counts by the cosine between the surface and the line of sight and by how large it shows the surface, less
    at outlines and where something stands in front, and by how well the mesh fills its silhouette. Vertices that no
    view sees are filled in from their neighbours over the surface, or from ``field``; see `fill_unseen`. Colours are
    blended as they are encoded: one view dominates nearly everywhere, so linear light would change little (measured
    on scans: at most 0.1 dB, mostly worse).
    """
    normals = mesh.vertex_normals()
    total = torch.zeros_like(mesh.vertices)
    weight = torch.zeros_like(mesh.vertices[:, :1])
    for i in range(len(views)):
        colors, quality = Sight.of(mesh, views[[i]]).look(mesh.vertices, normals)
        share = quality[:, None] ** SHARPNESS
        total += share * colors
        weight += share
        progress("colour", (i + 1) / len(views))
    seen = weight[:, 0] > 0
    colors = torch.where(seen[:, None], total / weight.clamp(min=torch.finfo(weight.dtype).tiny), 0)
    filled = fill_unseen(mesh, colors, seen, ask(field, mesh.vertices))
    return Mesh(mesh.vertices, mesh.faces, filled.clamp(0, 1))


@dataclass(frozen=True, eq=False)
class Sight:
    """What one view sees of a mesh.

    ``nearest_z``: depth along the viewing axis of the nearest surface, and of the nearest in the pixels around, at
    ``finer`` samples a pixel side; infinite where there is none. ``belief``: how far to believe each pixel, 0 to 1:
    the IoU of the mesh with the silhouette, less at outlines.
    """

    view: Views
    nearest_z: Float[Tensor, "1 2 samples_high samples_wide"]
    finer: int
    belief: Float[Tensor, "1 1 height width"]

    @classmethod
    def of(cls, mesh: Mesh, view: Views) -> "Sight":
        height, width = view.images.shape[2:]
        finer = -(-_VISIBILITY_PX // max(height, width))
        fragments = rasterize(mesh.vertices, mesh.faces, view.cameras, height * finer, width * finer)
        occluder = torch.where(fragments.face_ids >= 0, fragments.depth_z, torch.inf)[:, None]
        nearest_around = -max_pool2d(-occluder, 2 * finer + 1, stride=1, padding=finer)
        mask = avg_pool2d((fragments.face_ids >= 0)[:, None].float(), finer) >= 0.5
        silhouette = view.alpha >= 0.5
        intersection = (mask & silhouette & (view.seen > 0)).sum()
        union = ((mask | silhouette) & (view.seen > 0)).sum()
        alpha_around = -max_pool2d(-view.alpha, 2 * _EDGE_PX + 1, stride=1, padding=_EDGE_PX)
        belief = alpha_around.clamp(_EDGE_QUALITY, 1) * intersection / union.clamp(min=1)
        return cls(view, torch.cat([occluder, nearest_around], dim=1), finer, belief)

    def look(
        self, points: Float[Tensor, "points 3"], normals: Float[Tensor, "points 3"]
    ) -> tuple[Float[Tensor, "points 3"], Float[Tensor, " points"]]:
        """Colour (sRGB) of points of the surface, and how well they are seen: 0 is not at all."""
        view = self.view
        uv, depth_z = (value[0] for value in view.cameras.project(points))
        in_picture = (depth_z > 0) & (uv >= 0).all(1) & (uv * _canvas_px(view) <= view.sizes_px[0].flip(0)).all(1)
        cos = (normals * normalize(view.cameras.positions - points, dim=1)).sum(1)
        # Bilinear lookup of colour times coverage: divided by the coverage, it is free of the white background.
        covered = torch.cat([view.images - (1 - view.alpha), view.alpha, self.belief], dim=1)
        premultiplied, alpha, belief = look_up(covered, uv).split([3, 1, 1], dim=1)
        magnification = view.cameras.intrinsics[0, 1] / depth_z
        quality = cos * magnification * self._unoccluded(uv, depth_z, cos) * belief[:, 0]
        usable = in_picture & (cos > _GRAZING_COS) & (alpha[:, 0] > 0.5)
        quality = torch.where(usable & (quality > _LEAST_QUALITY), quality, 0)
        return (premultiplied / alpha.clamp(min=0.5)).clamp(0, 1), quality

    def _unoccluded(
        self, uv: Float[Tensor, "points 2"], depth_z: Float[Tensor, " points"], cos: Float[Tensor, " points"]
    ) -> Float[Tensor, " points"]:
        """1 for points in plain view, 0 behind something and in the pixels beside it, which may show it."""
        behind = depth_z[:, None] - look_up(self.nearest_z, uv, mode="nearest")
        pixel = depth_z / (self.view.cameras.intrinsics[0, 1] * self.nearest_z.shape[2])
        slope = (1 - cos * cos).clamp(min=0).sqrt() / cos.clamp(min=_GRAZING_COS)
        hidden = behind[:, 0] > pixel * _DEPTH_SLACK_PX * (1 + slope)
        beside = behind[:, 1] > pixel * (self.finer + 1) * _DEPTH_SLACK_PX * (1 + slope)
        return torch.where(hidden | beside, 0.0, 1.0)


def _canvas_px(view: Views) -> Float[Tensor, "2"]:
    height, width = view.images.shape[2:]
    return torch.tensor([width, height]).to(view.images)


def look_up(
    picture: Float[Tensor, "1 channels height width"], uv: Float[Tensor, "points 2"], mode: str = "bilinear"
) -> Float[Tensor, "points channels"]:
    """A picture's values at picture coordinates ``uv``; its border goes on outside."""
    lookup = (uv.nan_to_num() * 2 - 1)[None, None]
    return grid_sample(picture, lookup, mode=mode, padding_mode="border", align_corners=False)[0, :, 0].T


def ask(field: Field | None, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
    """A field's colours in bounded memory; grey without a field."""
    if field is None:
        return torch.full_like(points, 0.5)
    return torch.cat([field(part) for part in points.split(_POINTS_AT_ONCE)])


def surface_field(mesh: Mesh) -> Field | None:
    """The colours of a mesh's surface, carried on into space from the nearest point; None if it has none."""
    if not mesh.has_colors:
        return None
    from scipy.spatial import cKDTree

    points, face, weights = mesh.sample_surface(_SURFACE_SAMPLES)
    if mesh.texture is not None:
        assert mesh.uv is not None
        assert mesh.uv_faces is not None
        colors = sample_texture(mesh.texture, (mesh.uv[mesh.uv_faces[face]] * weights[:, :, None]).sum(1))
    else:
        assert mesh.vertex_colors is not None
        colors = (mesh.vertex_colors[mesh.faces[face]] * weights[:, :, None]).sum(1)
    tree = cKDTree(points.cpu().numpy())
    return lambda asked: colors[torch.from_numpy(tree.query(asked.cpu().numpy())[1]).to(colors.device)]


def fill_unseen(
    mesh: Mesh,
    known: Float[Tensor, "vertices 3"],
    seen: Bool[Tensor, " vertices"],
    expected: Float[Tensor, "vertices 3"],
) -> Float[Tensor, "vertices 3"]:
    """``known`` where ``seen``, elsewhere what is ``expected``, moved towards what is known around it.

    The membrane of Perez et al. 2003, "Poisson image editing". Where nothing at all is seen it is the expected.
    """
    if not bool(seen.any()):
        return expected
    return expected + spread_colors(mesh, known - expected, seen)


def spread_colors(
    mesh: Mesh, colors: Float[Tensor, "vertices 3"], seen: Bool[Tensor, " vertices"]
) -> Float[Tensor, "vertices 3"]:
    """Colours for unseen vertices: from the seen ones inwards ring by ring, then averaged with their neighbours.

    Parts of the mesh that nobody sees take the mean colour.
    """
    unseen = (~seen).nonzero()[:, 0]
    if len(unseen) == 0:
        return colors
    edges, _ = mesh.unique_edges()
    starts, ends = torch.cat([edges, edges.flip(1)]).unbind(1)
    row = torch.full_like(seen, -1, dtype=torch.long).index_copy(0, unseen, torch.arange(len(unseen)).to(unseen))
    wanted = row[starts] >= 0
    index = torch.stack([row[starts[wanted]], ends[wanted]]).cpu().numpy()
    # SciPy's sparse product: seven times faster than torch's COO, and torch's CSR is not settled.
    neighbours = csr_array((np.ones(index.shape[1], np.float32), index), shape=(len(unseen), len(colors)))
    known = torch.cat([colors * seen[:, None], seen[:, None].to(colors)], dim=1)
    mean = colors[seen].mean(0) if bool(seen.any()) else colors.new_full((3,), 0.5)

    def around() -> Float[Tensor, "unseen 4"]:
        return torch.from_numpy(neighbours @ known.cpu().numpy()).to(known)

    while True:
        near = around()
        fresh = (near[:, 3] > 0) & (known[unseen, 3] == 0)
        if not bool(fresh.any()):
            break
        known[unseen[fresh]] = near[fresh] / near[fresh, 3:]
    known[known[:, 3] == 0] = torch.cat([mean, mean.new_ones(1)])
    for _ in range(_RELAXATIONS):
        near = around()
        known[unseen] = torch.where(near[:, 3:] > 0, near / near[:, 3:].clamp(min=1), known[unseen])
    return known[:, :3]
