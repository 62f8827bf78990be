"""Refinement against pictures drawn by the package itself."""

import pytest
import torch

from meshwright import Cameras, Mesh, Views
from meshwright.flexicubes import grid, marching_cubes
from meshwright.metrics import silhouette_iou
from meshwright.raster import render
from meshwright.refine import refine


def egg(scale: float) -> Mesh:
    field = (grid(32, 2.0) / torch.tensor([0.5, 0.4, 0.6]) / scale).norm(dim=1) - 1
    mesh = marching_cubes(field.reshape(33, 33, 33), scale=2.0)
    return mesh.replace(vertex_colors=mesh.vertices / 2 + 0.5)


@pytest.mark.slow
def test_a_shape_that_is_too_large_shrinks_to_its_silhouettes_and_stays_closed():
    cameras = Cameras.zero123plus()
    rendered = render(egg(1.0), cameras, 96, 96, samples=4)
    views = Views(rendered.rgb, rendered.alpha, cameras, torch.full((6, 2), 96), tuple("012345"))
    start = egg(1.15)
    refined = refine(start, views, time_budget_s=60.0)
    assert refined.error_after < refined.error_before
    assert refined.mesh.is_watertight()
    assert refined.mesh.genus() == 0
    before, after = (
        silhouette_iou(render(mesh, cameras, 96, 96, samples=4).alpha, views.alpha).mean()
        for mesh in (start, refined.mesh)
    )
    assert before < 0.8
    assert after > 0.97
