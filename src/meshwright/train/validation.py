"""How good a model in training is on objects that it is not trained on."""

import dataclasses
from collections.abc import Sequence

import torch

from meshwright.curate import Batch, ObjectSource, SampleOptions, Samples
from meshwright.evaluate import psnr, silhouette_iou, ssim
from meshwright.model import InstantMesh, InstantNeRF
from meshwright.train import stage1, stage2
from meshwright.train.prediction import Prediction

_CHAMFER_POINTS = 20_000
_VIEWS_SEED = 0


def held_out_batches(source: ObjectSource, options: SampleOptions, objects: int) -> list[Batch]:
    """``objects`` of ``source``, one a batch, as they are: whole pictures of views that are no inputs.

    The views are the same every time.
    """
    side = options.render_px[1]
    plain = dataclasses.replace(
        options, supervise_inputs=False, targets=max(options.targets, 1), crop_px=side, render_px=(side, side),
        background="white", rotate_z=False, scale_probability=0.0, camera_noise=0.0,
    )  # fmt: skip
    samples = Samples(source, plain, _VIEWS_SEED)
    return [samples[number] for number in range(min(objects, len(samples)))]


@torch.no_grad()
def measure(model: InstantNeRF | InstantMesh, batches: Sequence[Batch]) -> dict[str, float]:
    """Means over objects of PSNR, SSIM and mask IoU of the target views, and of the distance of the surface.

    ``chamfer`` is one-sided: from what the targets' depth shows to the nearest point of the extracted mesh, in world
    units. What no target sees does not count. It is left out where no mesh or no depth is to be had.
    """
    device = next(model.parameters()).device
    scores: dict[str, list[float]] = {"psnr": [], "ssim": [], "iou": [], "chamfer": []}
    for batch in batches:
        batch = batch.to(device)
        prediction = predict(model, batch)
        truth = batch.target_images.flatten(0, 1)
        rgb = prediction.rgb.flatten(0, 1).clamp(0, 1)
        scores["psnr"].append(float(psnr(rgb, truth).mean()))
        scores["ssim"].append(float(ssim(rgb, truth).mean()))
        opaque, true = (alpha.flatten(0, 1) > 0.5 for alpha in (prediction.alpha, batch.target_alpha))
        scores["iou"].append(float(silhouette_iou(opaque.float(), true.float()).mean()))
        mesh = model.extract_mesh(model.planes(batch.input_images, batch.input_cameras))[0]
        shown = visible_points(batch)
        if len(mesh.faces) and len(shown):
            scores["chamfer"].append(_distance(shown, mesh.sample_surface(_CHAMFER_POINTS)[0]))
    return {name: sum(values) / len(values) for name, values in scores.items() if values}


def predict(model: InstantNeRF | InstantMesh, batch: Batch) -> Prediction:
    """The target views of a batch, without gradients; the same picture every time."""
    with torch.no_grad():
        triplane = model.planes(batch.input_images, batch.input_cameras)
        if isinstance(model, InstantMesh):
            return stage2.render_targets(model, triplane, model.geometry(triplane), batch)
        return stage1.render_targets(model, triplane, batch)


def visible_points(batch: Batch) -> torch.Tensor:
    """World points (points, 3) that the first object's target depth shows."""
    rays = batch.target_rays()
    forward = -batch.target_T_world_camera[0, :, :3, 2]
    depth_z = batch.target_depth[0, :, 0]
    distance = depth_z / torch.einsum("vhwc,vc->vhw", rays.directions[0], forward)
    points = rays.origins[0] + distance[..., None] * rays.directions[0]
    return points[depth_z > 0]


def _distance(points: torch.Tensor, surface: torch.Tensor) -> float:
    from scipy.spatial import cKDTree

    distances, _ = cKDTree(surface.cpu().numpy()).query(points.cpu().numpy())
    return float(distances.mean())
