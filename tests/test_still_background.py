"""An object that turns before a camera that stands still."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from meshwright.cameras import Cameras
from meshwright.capture import sfm
from meshwright.capture.sfm import Photo
from meshwright.capture.still_background import cut_out_moving, find_moving
from meshwright.evaluate import silhouette_iou
from meshwright.mesh import Mesh
from meshwright.raster import render
from meshwright.views import Views
from small_objects import textured_box
from small_scene import draw_scene, table, walls
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
