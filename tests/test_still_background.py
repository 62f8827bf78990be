"""An object that turns before a camera that stands still."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from scipy.spatial.transform import Rotation

from meshwright.cameras import Cameras
from meshwright.capture import load_views, sfm
from meshwright.capture.sfm import Photo
from meshwright.capture.still_background import cut_out_moving, find_moving
from meshwright.evaluate import psnr, silhouette_iou
from meshwright.mesh import Mesh
from meshwright.options import ColorOptions, FitOptions
from meshwright.raster import render
from meshwright.reconstruct import reconstruct
from meshwright.views import Views
from small_objects import textured_box
from small_scene import aligned_differences, draw_scene, table, walls
from test_turn import speckled

COUNT = 20


def box(sides: tuple[float, float, float], color: tuple[float, float, float] | None = None) -> Mesh:
    mesh = textured_box(sides)
    mesh = mesh.replace(vertices=mesh.vertices + torch.tensor([0.12, 0.07, 0.0]))  # not quite on the axis
    if color is None:
        return mesh
    return Mesh(mesh.vertices, mesh.faces, torch.tensor(color).repeat(len(mesh.vertices), 1))


def turntable(thing: Mesh, width_px: int = 160, count: int = COUNT, plain: bool = False) -> Views:
    """Pictures with their background, true coverage, and the cameras beside the object."""
    rng = np.random.default_rng(0)
    size = width_px * 3 // 4, width_px
    camera = Cameras.spherical([20.0], [22.0], 3.2, 42.0, aspect=4 / 3)
    behind = torch.full((1, 3, *size), 0.6)
    for mesh in () if plain else (walls(rng), table(rng)):
        drawn = render(mesh, camera, *size)
        behind = drawn.rgb - (1 - drawn.alpha) + (1 - drawn.alpha) * behind
    images, alpha, poses = [], [], []
    for i in range(count):
        angle = 2 * math.pi * i / count
        turned = torch.eye(4)
        turned[:2, :2] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        drawn = render(thing.replace(vertices=thing.vertices @ turned[:3, :3].T), camera, *size)
        noise = torch.from_numpy(rng.normal(0, 0.004, (1, 3, *size))).float()
        exposure = 1 + 0.03 * math.sin(3 * i)
        picture = drawn.rgb - (1 - drawn.alpha) + (1 - drawn.alpha) * behind
        images.append((picture * exposure + noise).clamp(0, 1))
        alpha.append(drawn.alpha)
        poses.append(turned.T @ camera.T_world_camera[0])
    cameras = Cameras(torch.stack(poses), camera.intrinsics.repeat(count, 1))
    names = tuple(f"{i:02d}.png" for i in range(count))
    return Views(torch.cat(images), torch.cat(alpha), cameras, torch.tensor([size] * count), names)


def pixels(images: torch.Tensor) -> list[torch.Tensor]:
    return list((images * 255).round().to(torch.uint8))


def found(views: Views) -> torch.Tensor:
    masks = find_moving(pixels(views.images))
    assert masks is not None
    return torch.stack(masks).float() / 255


def test_what_turns_is_found():
    views = turntable(box((0.9, 0.6, 1.0)))
    ious = silhouette_iou(found(views), views.alpha)
    assert ious.mean() > 0.93
    assert ious.min() > 0.88


def test_the_commonest_colour_is_not_always_the_background():
    # A board of one colour hides what is beside its edge in most pictures.
    views = turntable(box((1.1, 0.3, 1.0), (0.9, 0.8, 0.2)), count=30)
    ious = silhouette_iou(found(views), views.alpha)
    assert ious.mean() > 0.65  # with the commonest colours it is 0.2


@pytest.mark.parametrize("what", ["a camera that walks", "an even background", "nothing moves", "sizes"])
def test_nothing_is_found_where_nothing_turns_before_a_still_background(what):
    if what == "a camera that walks":
        images = pixels(draw_scene(12, 200).images)
    else:
        images = pixels(turntable(box((0.9, 0.6, 1.0)), plain=what == "an even background").images)
    if what == "nothing moves":
        images = [images[0]] * len(images)
    if what == "sizes":
        images[3] = images[3][:, 2:]
    assert find_moving(images) is None


def test_with_cameras_all_pictures_mend_the_mask_of_one():
    views = turntable(box((0.9, 0.6, 1.0)))
    spoiled = views.alpha.clone()
    spoiled[4, :, 30:90, 95:150] = 1
    spoiled[9, :, 50:70, 72:88] = 0
    cut = cut_out_moving(Views(views.images, spoiled, views.cameras, views.sizes_px, views.names))
    assert silhouette_iou(spoiled, views.alpha).min() < 0.8
    ious = silhouette_iou(cut.alpha, views.alpha)
    assert ious.min() > 0.95
    # The edge is soft as in the pictures, and exposures are those of the background.
    assert (cut.alpha - views.alpha).abs().mean() < 0.006


def test_features_are_only_looked_for_in_what_moves(tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    views = turntable(speckled(), 320, 2)
    given = [Photo(picture, f"{i}", moving=(mask * 255).byte()) for i, (picture, mask) in
             enumerate(zip(pixels(views.images), views.alpha, strict=True))]  # fmt: skip
    names = sfm._write_copies(given, tmp_path / "images", tmp_path / "masks")
    sfm._extract(pycolmap, given, names, tmp_path / "database.db", tmp_path / "images", False)
    database = pycolmap.Database.open(tmp_path / "database.db")
    well_inside = ndimage.binary_erosion(views.alpha[:, 0].numpy() > 0.5, np.ones((1, 3, 3)), iterations=2)
    for name, mask in zip(names, well_inside, strict=True):
        points = database.read_keypoints(database.read_image_with_name(name).image_id)[:, :2].astype(int)
        assert len(points) > 30
        assert mask[points[:, 1].clip(0, 239), points[:, 0].clip(0, 319)].all()
    database.close()


def labelled_box() -> Mesh:
    """Opposite sides have the same label, as boxes of sugar have."""
    mesh = box((0.9, 0.7, 1.3))
    blobs = np.random.default_rng(1).uniform(0, 1, (2, 3, 128, 128))
    labels = [
        ndimage.gaussian_filter(label, (0, 1.5, 1.5)) + 0.7 * ndimage.gaussian_filter(label, (0, 4, 4))
        for label in blobs
    ]
    labels = [(label - label.min()) / np.ptp(label) for label in labels]
    texture = torch.from_numpy(np.concatenate(labels, axis=2)).float() * torch.tensor([1.0, 0.9, 0.3])[:, None, None]
    side = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 1, 1])  # of each triangle: +-x, +-y, top and bottom
    corners = mesh.uv[mesh.uv_faces] * torch.tensor([0.48, 1.0]) + torch.tensor([0.01, 0.0])
    corners = corners + side[:, None, None] * torch.tensor([0.5, 0.0])
    return mesh.replace(uv=corners.flatten(0, 1), uv_faces=torch.arange(36).view(12, 3), texture=texture)


def write_turntable(views: Views, folder: Path, focal_px: float) -> Path:
    folder.mkdir()
    height, width = views.images.shape[2:]
    for picture, name in zip(pixels(views.images), views.names, strict=True):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0xA405] = round(focal_px * math.hypot(36, 24) / math.hypot(height, width))
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / name, exif=exif)
    return folder


@pytest.mark.slow
def test_a_turn_before_a_still_background_becomes_a_mesh(tmp_path):
    """40 s. Opposite sides are alike: where pictures of all sides are matched, the turn is folded up."""
    pytest.importorskip("pycolmap", reason="the extra sfm is not installed")
    true = turntable(labelled_box(), 480, 24)
    views = load_views(write_turntable(true, tmp_path / "photos", float(true.cameras.intrinsics[0, 0]) * 480))
    assert "the background stands still" in " ".join(views.assumptions)
    assert len(views) == 24
    turned, moved = aligned_differences(views.cameras, true.cameras)
    assert float(turned.max()) < 0.5
    assert float(moved.max()) < 0.02
    assert silhouette_iou(views.alpha, true.alpha).mean() > 0.98
    mesh = reconstruct(views, fit=FitOptions(refine="off"), color=ColorOptions(vertex_colors=True))
    drawn = render(mesh, views.cameras, *true.alpha.shape[2:])
    assert silhouette_iou(drawn.alpha, true.alpha).mean() > 0.97
    assert psnr(drawn.rgb, true.images * true.alpha + 1 - true.alpha).mean() > 18


def test_a_turn_that_is_folded_up_is_seen_by_its_axis():
    """Cameras of one turn see its axis in one direction; of a turn that a mapper folded up they do not."""
    turn = Cameras.spherical([15.0 * i for i in range(24)], [25.0] * 24, 3.0, 40.0)
    R_camera_world = turn.T_world_camera[:, :3, :3].transpose(1, 2).double().numpy()
    assert sfm.on_one_axis(R_camera_world).all()
    elsewhere = [3, 4, 17]
    R_camera_world[elsewhere] = Rotation.from_rotvec([0.0, 0.0, 0.15]).as_matrix() @ R_camera_world[elsewhere]
    assert np.flatnonzero(~sfm.on_one_axis(R_camera_world)).tolist() == elsewhere
