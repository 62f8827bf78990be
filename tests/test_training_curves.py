"""Training as training: 20 steps of each stage as they once were, and meshes that stay meshes while they learn.

The curves were made on an x86-64 CPU with torch 2.13. Other processors round otherwise, and 20 steps carry that on: the
tolerance is ten times what was seen between one and two threads, and a hundredth of what a wrong sign changes.
"""

from pathlib import Path

import pytest
import torch

from meshwright.mesh import Mesh
from meshwright.raster import rasterize
from meshwright.train.validation import held_out_batches
from meshwright.weights import save_model
from test_training import losses, run_to_end, solid_mesh_model
from training_scenes import MESHES, Source, stage1_config, stage2_config

OBJECTS = Path(__file__).parent.parent / "examples" / "train" / "objects"

STAGE1 = [
    0.48268, 0.35147, 0.35616, 0.32533, 0.31614, 0.31522, 0.5027, 0.35228, 0.3013, 0.41763,
    0.35515, 0.38856, 0.283, 0.2858, 0.32218, 0.34956, 0.43608, 0.41155, 0.37598, 0.31599,
]  # fmt: skip
STAGE2 = [
    2.09648, 1.66368, 1.6005, 1.48055, 1.50891, 1.59631, 1.54423, 1.56067, 1.52347, 1.4975,
    1.51623, 1.49299, 1.48264, 1.4436, 1.48291, 1.4761, 1.42624, 1.43277, 1.43321, 1.42124,
]  # fmt: skip


def test_twenty_steps_of_stage_1(tmp_path):
    run, _ = run_to_end(tmp_path / "run", stage1_config(steps=20))
    assert losses(run) == pytest.approx(STAGE1, rel=5e-3)


def test_twenty_steps_of_stage_2(tmp_path):
    save_model(solid_mesh_model(), tmp_path / "solid.safetensors")
    run, _ = run_to_end(tmp_path / "run", stage2_config(steps=20, start=str(tmp_path / "solid.safetensors")))
    assert losses(run) == pytest.approx(STAGE2, rel=5e-3)


def open_edges(mesh: Mesh) -> int:
    """Edges that are not between exactly two faces which run through them in opposite directions."""
    one_way = mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    count = len(mesh.vertices)
    there, back = (edges[:, 0] * count + edges[:, 1] for edges in (one_way, one_way.flip(1)))
    unique, times = torch.unique(there, return_counts=True)
    return int((times != 1).sum()) + int((~torch.isin(unique, back)).sum())


def longest_edge(mesh: Mesh) -> float:
    corners = mesh.vertices[mesh.faces]
    return float((corners - corners.roll(1, dims=1)).norm(dim=2).max())


def share_seen_from_behind(mesh: Mesh, batch) -> float:
    """Of the pixels that show the mesh, how many show the back of a face."""
    cameras = batch.target_cameras(0)
    height, width = batch.target_images.shape[3:]
    fragments = rasterize(mesh.vertices, mesh.faces, cameras, height, width)
    seen = fragments.face_ids >= 0
    normals = mesh.face_normals()[fragments.face_ids[seen]]
    behind = (normals * cameras.rays(height, width).directions[seen]).sum(1) > 0
    return float(behind.float().mean())


def test_the_measures_of_broken_meshes_notice_them():
    batch = held_out_batches(Source(["tall"]), stage2_config().data, 1)[0]
    mesh = MESHES["tall"]
    assert open_edges(mesh) == 0
    assert share_seen_from_behind(mesh, batch) == 0
    flipped = mesh.faces.clone()
    flipped[:100] = flipped[:100].flip(1)
    assert open_edges(mesh.replace(faces=flipped)) > 0
    assert share_seen_from_behind(mesh.replace(faces=flipped), batch) > 0.05
    far = mesh.vertices.clone()
    far[0] *= 10
    assert longest_edge(mesh.replace(vertices=far)) > 5 * longest_edge(mesh)
