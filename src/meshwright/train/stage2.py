"""Stage 2: a mesh learns to look like the pictures (Xu et al. 2024, arXiv 2404.07191, section 3.4).

The surface is extracted by FlexiCubes and rasterised; whole pictures are compared, with depth and normals too. The
model starts from a stage 1 model, its sdf from that one's density (`meshwright.weights.start_from`).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

from meshwright.curate import Batch
from meshwright.mesh import Mesh
from meshwright.model import Geometry, InstantMesh, Triplane
from meshwright.raster import antialias, interpolate, rasterize
from meshwright.train.config import LossWeights
from meshwright.train.losses import normal_error, opacity_from_sdf
from meshwright.train.perceptual import Lpips
from meshwright.train.prediction import Prediction
from meshwright.train.stage1 import picture_terms

_SURFACE_DENSITY = 10.0  # raw density at which the sdf starts as 0
_FREE_SPACE_RAYS = 4096  # of an object; MeshLRM (arXiv 2404.12385) takes one point a ray as well
_FREE_SPACE_LENGTH = 2 / 128  # world units: a step of the volume renderer, 128 samples over a box of side 2


def stage2_losses(
    model: InstantMesh,
    batch: Batch,
    seeds: Sequence[int],
    weights: LossWeights,
    perceptual: Lpips | None = None,
    recompute: bool = False,
    unsigned_normals: bool = False,
) -> tuple[dict[str, Tensor], Prediction]:
    """The unweighted loss terms of a batch by name, those whose weight is not 0, and the renders they come from.

    ``seeds``, one an object, decide where free space is looked at.
    """
    triplane = model.planes(batch.input_images, batch.input_cameras, recompute=recompute)
    with torch.autocast(triplane.planes.device.type, enabled=False):
        return mesh_terms(model, triplane, batch, seeds, weights, perceptual, unsigned_normals)


def mesh_terms(
    model: InstantMesh,
    triplane: Triplane,
    batch: Batch,
    seeds: Sequence[int],
    weights: LossWeights,
    perceptual: Lpips | None = None,
    unsigned_normals: bool = False,
) -> tuple[dict[str, Tensor], Prediction]:
    """`stage2_losses` from the planes on."""
    geometry = model.geometry(triplane, training=True)
    prediction = render_targets(model, triplane, geometry, batch)
    terms = picture_terms(prediction, batch, weights, perceptual)
    if weights.normal:
        assert prediction.normals is not None
        terms["normal"] = normal_error(prediction.normals, batch.target_normals, batch.target_alpha, unsigned_normals)
    if weights.entropy:
        terms["entropy"] = geometry.sdf_entropy
    if weights.deviation:
        terms["deviation"] = geometry.reg_surface
    if weights.cube_weight:
        terms["cube_weight"] = geometry.reg_weight
    if weights.free_space:
        objects = [_free_space(model, planes, batch, i, seeds[i]) for i, planes in enumerate(triplane.planes)]
        terms["free_space"] = torch.stack(objects).mean()
    if weights.empty:
        terms["empty"] = geometry.reg_empty.mean()
    return terms, prediction


def render_targets(model: InstantMesh, triplane: Triplane, geometry: Geometry, batch: Batch) -> Prediction:
    """The target views of a batch: colours of the field where the surface is seen, smoothed at silhouettes."""
    views = [
        _render_object(model, planes, mesh, batch, i)
        for i, (planes, mesh) in enumerate(zip(triplane.planes, geometry.meshes, strict=True))
    ]
    rgb, alpha, depth_z, normals = (torch.stack(maps) for maps in zip(*views, strict=True))
    return Prediction(rgb, alpha, depth_z, normals)


def _render_object(
    model: InstantMesh, planes: Float[Tensor, "3 channels size size"], mesh: Mesh, batch: Batch, number: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    height, width = batch.target_images.shape[3:]
    fragments = rasterize(mesh.vertices, mesh.faces, batch.target_cameras(number), height, width)
    seen = fragments.face_ids >= 0
    places = seen.nonzero(as_tuple=True)
    positions = interpolate(fragments, mesh.faces, mesh.vertices)[places]
    if torch.is_grad_enabled():
        colors = checkpoint(
            lambda planes, points: model.color_field(planes)(points), planes, positions, use_reentrant=False
        )
    else:
        colors = model.color_field(planes)(positions)
    picture = batch.background[number].expand(*seen.shape, 3).index_put(places, colors)
    covered = antialias(torch.cat([picture, seen[..., None].to(picture)], dim=3), fragments, mesh.faces)
    normals = normalize(interpolate(fragments, mesh.faces, mesh.vertex_normals()), dim=3)
    rgb, alpha = covered.split([3, 1], dim=3)
    return (
        rgb.permute(0, 3, 1, 2),
        alpha.permute(0, 3, 1, 2),
        fragments.depth_z[:, None],
        normals.permute(0, 3, 1, 2),
    )


def _free_space(
    model: InstantMesh, planes: Float[Tensor, "3 channels size size"], batch: Batch, number: int, seed: int
) -> Float[Tensor, ""]:
    """Mean opacity at one point of each of some rays, between the camera and what the true picture shows there.

    After MeshLRM's ray opacity loss (Wei et al. 2024, arXiv 2404.12385, section 3.3), as we understand its text: a
    mesh's gradients reach only its surface, so nothing else removes pieces that float in front of it. Rays that miss
    the object are empty all along.
    """
    generator = torch.Generator().manual_seed(seed)
    alpha, depth = batch.target_alpha[number].flatten(), batch.target_depth[number].flatten()
    rays = batch.target_rays()[number]
    forward = -batch.target_T_world_camera[number, :, :3, 2]
    cosine = torch.einsum("vhwc,vc->vhw", rays.directions, forward).flatten()
    chosen = torch.randint(len(alpha), (_FREE_SPACE_RAYS,), generator=generator).to(alpha.device)
    share = torch.rand(_FREE_SPACE_RAYS, generator=generator).to(alpha.device)
    origins, directions = rays.origins.flatten(0, 2)[chosen], rays.directions.flatten(0, 2)[chosen]
    # From where the ray is nearest to the origin by a box's half diagonal: outside the box nothing can float.
    middle = -(origins * directions).sum(1)
    start, end = middle - 3**0.5, middle + 3**0.5
    on_object = alpha[chosen] > 0
    end = torch.where(on_object, depth[chosen] / cosine[chosen] - 2 * _FREE_SPACE_LENGTH, end)
    points = origins + (start + share * (end - start))[:, None] * directions
    inside = (points.abs().amax(1) < 1) & ((depth[chosen] > 0) | ~on_object) & (end > start)
    sdf = model.sdf_field(planes)(points[inside])
    return opacity_from_sdf(sdf, _SURFACE_DENSITY, _FREE_SPACE_LENGTH).sum() / max(int(inside.sum()), 1)
