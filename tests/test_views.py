"""Views out of files: every layout with its exact cameras, and every kind of bad input with one clear line."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from meshwright.cameras import Cameras
from meshwright.errors import InputError
from meshwright.images import write_video
from meshwright.views import load_views

SIZE = 48


def disc(i: int, size: int = SIZE, alpha: bool = True) -> np.ndarray:
    """A coloured disc, off centre by its number; RGBA, or RGB on white."""
    y, x = np.mgrid[:size, :size] + 0.5
    distance = np.hypot(x - size / 2 - i, y - size / 2)
    coverage = np.clip(size / 4 - distance + 0.5, 0, 1)[..., None]
    colour = np.array([0.8, 0.2, 0.05 * i])
    if alpha:
        return (np.concatenate([np.broadcast_to(colour, (size, size, 3)), coverage], axis=2) * 255).round().astype("u1")
    return ((colour * coverage + 1 - coverage) * 255).round().astype("u1")


def write_discs(folder, count, alpha=True, name="{}.png", size=SIZE):
    for i in range(count):
        Image.fromarray(disc(i, size, alpha)).save(folder / name.format(i))


def write_transforms(folder, cameras, **changes):
    fx = cameras.intrinsics[0, 0].item()
    frames = [
        {"file_path": f"{i}.png", "transform_matrix": matrix.tolist()}
        for i, matrix in enumerate(cameras.T_world_camera)
    ]
    content = {"camera_angle_x": 2 * np.arctan(0.5 / fx), "frames": frames, **changes}
    (folder / "transforms.json").write_text(json.dumps(content))


def test_transforms_json_gives_back_the_cameras_it_was_written_from(tmp_path):
    cameras = Cameras.zero123plus()
    write_discs(tmp_path, 6)
    write_transforms(tmp_path, cameras)
    views = load_views(tmp_path)
    torch.testing.assert_close(views.cameras.T_world_camera, cameras.T_world_camera, atol=1e-6, rtol=0)
    torch.testing.assert_close(views.cameras.intrinsics, cameras.intrinsics, atol=1e-6, rtol=0)
    assert views.rig == "posed"
    expected = torch.from_numpy(disc(2)).permute(2, 0, 1).float() / 255
    torch.testing.assert_close(views.alpha[2], expected[3:])
    torch.testing.assert_close(views.images[2], expected[:3] * expected[3:] + 1 - expected[3:])


def test_a_film_is_a_counter_clockwise_sv3d_orbit(tmp_path):
    frames = [torch.from_numpy(disc(i, 64, alpha=False)).permute(2, 0, 1).float() / 255 for i in range(7)]
    write_video(frames, tmp_path / "orbit.mp4", fps=7.0)
    views = load_views(tmp_path / "orbit.mp4", elevation_deg=10.0)
    torch.testing.assert_close(views.cameras.T_world_camera, Cameras.sv3d(7, 10.0).T_world_camera)
    assert views.rig == "sv3d"
    assert len(views.assumptions) == 1


def test_a_sheet_is_six_views_row_by_row(tmp_path):
    cells = [disc(i, alpha=False) for i in range(6)]
    sheet = np.concatenate([np.concatenate(cells[2 * r : 2 * r + 2], axis=1) for r in range(3)])
    Image.fromarray(sheet).save(tmp_path / "sheet.png")
    views = load_views(tmp_path / "sheet.png")
    assert views.rig == "zero123plus"
    torch.testing.assert_close(views.cameras.embedding(), Cameras.zero123plus().embedding())


def test_a_folder_of_pictures_is_read_in_natural_order(tmp_path):
    write_discs(tmp_path, 11)
    views = load_views(tmp_path, rig="orbit", fov_deg=40.0, radius=3.0)
    assert views.names[2] == "2.png"
    torch.testing.assert_close(views.cameras.embedding(), Cameras.orbit(11, 0.0, 3.0, 40.0).embedding())


def test_nan_in_a_matrix_is_one_clear_line(tmp_path):
    write_discs(tmp_path, 6)
    cameras = Cameras.zero123plus()
    cameras.T_world_camera[3, 0, 0] = float("nan")
    write_transforms(tmp_path, cameras)
    with pytest.raises(InputError, match="frame 3: the camera matrix holds NaN"):
        load_views(tmp_path)
