"""Views out of files: every layout with its exact cameras, and every kind of bad input with one clear line."""

import io
import json
import math
import os
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from drawn_orbits import angles_deg, draw
from meshwright.cameras import Cameras
from meshwright.capture import load as capture_load
from meshwright.capture import load_views
from meshwright.capture.rigs import split_sheet
from meshwright.errors import InputError
from meshwright.images import write_video
from meshwright.options import ViewOptions
from meshwright.views import Views

GOLDEN = np.load(Path(__file__).parent / "golden" / "utils.npz")
SIZE = 48
AN_EVEN_TURN = {"elevation_deg": 0.0, "clockwise": False, "turn": "even"}  # nothing is left to estimate


def load(path: Path, **options):
    return load_views(path, ViewOptions(**options))


def disc(i: int, size: int = SIZE, alpha: bool = True, width: int | None = None) -> np.ndarray:
    """A coloured disc, off centre by its number; RGBA, or RGB on white."""
    width = size if width is None else width
    y, x = np.mgrid[:size, :width] + 0.5
    distance = np.hypot(x - width / 2 - i, y - size / 2)
    coverage = np.clip(min(size, width) / 4 - distance + 0.5, 0, 1)[..., None]
    colour = np.array([0.8, 0.2, 0.05 * i])
    if alpha:
        return (
            (np.concatenate([np.broadcast_to(colour, (size, width, 3)), coverage], axis=2) * 255).round().astype("u1")
        )
    return ((colour * coverage + 1 - coverage) * 255).round().astype("u1")


def write_discs(folder: Path, count: int, name: str = "{}.png", **options) -> None:
    for i in range(count):
        Image.fromarray(disc(i, **options)).save(folder / name.format(i))


def transforms(cameras: Cameras, name: str = "{}.png") -> dict:
    frames = [
        {"file_path": name.format(i), "transform_matrix": T.tolist()} for i, T in enumerate(cameras.T_world_camera)
    ]
    return {"camera_angle_x": 2 * math.atan(0.5 / cameras.intrinsics[0, 0].item()), "frames": frames}


def write_transforms(folder: Path, content: object) -> None:
    (folder / "transforms.json").write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture
def posed(tmp_path):
    """A folder with six RGBA pictures and the contents of a transforms.json that fits them."""
    write_discs(tmp_path, 6)
    return tmp_path, transforms(Cameras.zero123plus())


def assert_same_cameras(actual: Cameras, expected: Cameras) -> None:
    torch.testing.assert_close(actual.T_world_camera, expected.T_world_camera, atol=1e-6, rtol=0)
    torch.testing.assert_close(actual.intrinsics, expected.intrinsics, atol=1e-6, rtol=0)


# --- arrays ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", ["opengl", "opencv"])
def test_arrays_make_the_views_that_files_make(posed, axes):
    folder, content = posed
    content["frames"][2]["transform_matrix"][0][3] += 0.25
    del content["camera_angle_x"]
    write_transforms(folder, content | {"fl_x": 80.0, "fl_y": 90.0, "cx": 30.0, "cy": 33.0, "w": SIZE, "h": SIZE})
    from_files = load_views(folder)
    pictures = np.stack([disc(i) for i in range(6)])
    T = np.array([frame["transform_matrix"] for frame in content["frames"]])
    if axes == "opencv":
        T = T * [1, -1, -1, 1]
    cameras = Cameras.from_matrices(T, np.array([[80.0, 0, 30], [0, 90, 33], [0, 0, 1]]), SIZE, SIZE, axes)
    for given in (pictures, pictures.astype(np.float32) / 255):
        views = Views.from_rgba(given, cameras, from_files.names)
        for field in ("images", "alpha", "sizes_px"):
            assert torch.equal(getattr(views, field), getattr(from_files, field))
        assert_same_cameras(views.cameras, from_files.cameras)
        assert (views.names, views.rig) == (from_files.names, from_files.rig)


def test_a_world_far_away_keeps_its_digits():
    T = Cameras.zero123plus().T_world_camera.double().numpy()
    K = np.diag([100.0, 100.0, 1.0])
    assert Cameras.from_matrices(T, K, 64, 64).positions.dtype == torch.float32
    T[:, :3, 3] += 5e5
    assert Cameras.from_matrices(T, K, 64, 64).positions.dtype == torch.float64


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda a: a.update(T=2 * a["T"]), "camera 0: the camera matrix is not a rotation"),
        (lambda a: a.update(K=-a["K"]), "camera 0: its focal lengths must be positive"),
        (lambda a: a.update(rgba=a["rgba"][:5]), "5 pictures, 6 cameras and 0 names"),
        (lambda a: a.update(rgba=a["rgba"].astype(np.float32)), "divide them by 255"),
        (lambda a: a.update(rgba=a["rgba"] * np.array([1, 1, 1, 0], np.uint8)), "no picture shows anything"),
    ],
    ids=["scaled", "focal", "count", "floats", "empty"],
)
def test_arrays_that_make_no_views_are_refused(change, complaint):
    a = {
        "T": Cameras.zero123plus().T_world_camera.numpy(),
        "K": np.diag([100.0, 100.0, 1.0]),
        "rgba": np.stack([disc(i) for i in range(6)]),
    }
    change(a)
    with pytest.raises(InputError, match=complaint):
        Views.from_rgba(a["rgba"], Cameras.from_matrices(a["T"], a["K"], SIZE, SIZE))


# --- transforms.json -------------------------------------------------------------------------------------------------


def test_transforms_json_gives_back_the_cameras_it_was_written_from(posed):
    folder, content = posed
    write_transforms(folder, content)
    for path in (folder, folder / "transforms.json"):
        views = load_views(path)
        assert_same_cameras(views.cameras, Cameras.zero123plus())
        assert (views.rig, views.names[0], views.assumptions) == ("posed", "0.png", ())
    expected = torch.from_numpy(disc(2)).permute(2, 0, 1).float() / 255
    torch.testing.assert_close(views.alpha[2], expected[3:])
    torch.testing.assert_close(views.images[2], expected[:3] * expected[3:] + 1 - expected[3:])


def test_a_posed_folder_may_hold_one_view(posed):
    folder, content = posed
    write_transforms(folder, content | {"frames": content["frames"][3:4]})
    assert_same_cameras(load_views(folder).cameras, Cameras.zero123plus()[3:4])


def test_blenders_names_without_suffix_are_found(posed):
    folder, content = posed
    (folder / "train").mkdir()
    write_discs(folder / "train", 6, "r_{}.png")
    for i, frame in enumerate(content["frames"]):
        frame["file_path"] = f"./train/r_{i}"
    write_transforms(folder, content)
    assert load_views(folder).names[5] == "r_5.png"


def test_intrinsics_in_pixels_per_file_and_per_frame(posed):
    folder, content = posed
    del content["camera_angle_x"]
    content |= {"fl_x": 100.0, "fl_y": 90.0, "cx": 30.0, "cy": 20.0, "w": 2 * SIZE, "h": 2 * SIZE}
    content["frames"][1] |= {"fl_x": 50.0, "fl_y": 60.0, "cx": 25.0}
    content["frames"][2] |= {"camera_angle_x": 2 * math.atan(0.25)}
    write_transforms(folder, content)
    intrinsics = load_views(folder).cameras.intrinsics * 2 * SIZE
    torch.testing.assert_close(intrinsics[0], torch.tensor([100.0, 90.0, 30.0, 20.0]))
    torch.testing.assert_close(intrinsics[1], torch.tensor([50.0, 60.0, 25.0, 20.0]))
    torch.testing.assert_close(intrinsics[2], torch.tensor([4.0 * SIZE, 4.0 * SIZE, 30.0, 20.0]))


def test_one_angle_means_square_pixels(tmp_path):
    write_discs(tmp_path, 1, width=2 * SIZE)
    write_transforms(tmp_path, transforms(Cameras.orbit(1, aspect=2.0)))
    assert_same_cameras(load_views(tmp_path).cameras, Cameras.orbit(1, aspect=2.0))


def test_matrices_of_three_rows_and_small_rounding_errors_are_mended(posed):
    folder, content = posed
    for frame in content["frames"]:
        frame["transform_matrix"] = np.round(frame["transform_matrix"], 4).tolist()[:3]
    write_transforms(folder, content)
    R = load_views(folder).cameras.T_world_camera[:, :3, :3]
    torch.testing.assert_close(R @ R.mT, torch.eye(3).expand(6, 3, 3), atol=1e-6, rtol=0)


def test_masks_and_depths_come_along(posed):
    folder, content = posed
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[10:30, 12:20] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    Image.fromarray(np.full((2 * SIZE, 2 * SIZE), 4000, np.uint16)).save(folder / "depth.png")
    Image.fromarray(disc(0)[..., :3]).save(folder / "0.png")
    content["frames"][0] |= {"mask_path": "mask.png", "depth_file_path": "depth.png"}
    write_transforms(folder, content)
    views = load_views(folder)
    assert torch.equal(views.alpha[0, 0], torch.from_numpy(mask) / 255)
    assert views.depth_z is not None
    assert (views.depth_z[0] == 4).all()
    assert (views.depth_z[1] == 0).all()


def test_mixed_sizes_share_a_canvas_and_keep_their_rays(posed):
    folder, content = posed
    Image.fromarray(disc(1, 30, width=80)).save(folder / "1.png")
    write_transforms(folder, content)
    views = load_views(folder)
    assert views.images.shape == (6, 3, SIZE, 80)
    assert views.sizes_px.tolist()[:2] == [[SIZE, SIZE], [30, 80]]
    assert views.alpha[1, 0, 30:].sum() == 0
    assert (views.images[0, :, :, SIZE:] == 1).all()
    alone = Cameras.zero123plus()[1:2].cropped(0.0, 0.0, 1.0, 30 / 80)  # fov is across the width; square pixels
    alone = Cameras(
        alone.T_world_camera, alone.intrinsics * torch.tensor([1.0, 1.0, 1.0, 0.0]) + torch.tensor([0, 0, 0, 0.5])
    )
    expected = alone.rays(30, 80).directions[0]
    torch.testing.assert_close(views.cameras[1:2].rays(SIZE, 80).directions[0, :30], expected, atol=1e-6, rtol=0)


def spoil(content: dict, path: str, value: object) -> dict:
    """Set ``a.3.b`` in nested dicts and lists."""
    owner = content
    *way, last = path.split(".")
    for step in way:
        owner = owner[int(step)] if isinstance(owner, list) else owner[step]
    owner[int(last) if isinstance(owner, list) else last] = value
    return content


NAN_MATRIX = [[float("nan"), 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("frames.3.transform_matrix", NAN_MATRIX, "frame 3: the camera matrix holds NaN"),
        ("frames.3.transform_matrix", np.zeros((4, 4)).tolist(), "frame 3: .* not a rotation"),
        ("frames.3.transform_matrix", np.diag([2.0, 2, 2, 1]).tolist(), "frame 3: .* not a rotation"),
        ("frames.3.transform_matrix", np.diag([-1.0, 1, 1, 1]).tolist(), "frame 3: .* not a rotation"),
        ("frames.3.transform_matrix", np.ones((4, 4)).tolist(), "frame 3: .* not a rotation"),
        ("frames.3.transform_matrix", [*np.eye(4).tolist()[:3], [0, 0, 1, 1]], "row 0 0 0 1"),
        ("frames.3.transform_matrix", [[1, 2], [3]], "not a 4x4 matrix"),
        ("frames.3.transform_matrix", "identity", "not a 4x4 matrix"),
        ("frames.3.transform_matrix", None, "not a 4x4 matrix"),
        ("frames.3.file_path", "7.png", "there is no picture"),
        ("frames.3.file_path", None, "has no file_path"),
        ("frames.3.file_path", "../../secret\0.png", "has no file_path"),
        ("frames.3.mask_path", "nowhere.png", "nowhere.png"),
        ("frames.3.fl_x", "wide", "fl_x is not a finite number"),
        ("frames.3.fl_x", -5.0, "focal length is not positive"),
        ("frames.3.w", 3000, "correct width and height"),
        ("frames.3.h", 0, "width and height"),
        ("camera_angle_x", float("inf"), "camera_angle_x is not a finite number"),
        ("camera_angle_x", 4.0, "impossible"),
        ("camera_angle_x", None, "neither camera_angle_x nor fl_x"),
        ("camera_model", "EQUIRECTANGULAR", "neither a pinhole nor a fisheye"),
        ("k1", -1e5, "next to nothing"),
        ("frames.2.p1", float("nan"), "p1 is not a finite number"),
        ("frames.2.k2", 1e7, "frame 2: k2 is 1e[+]07, not between"),
        ("frames", [], "no list of frames"),
        ("frames", {"0": {}}, "no list of frames"),
        ("frames", [7], "no list of frames"),
    ],
)
def test_a_bad_transforms_json_is_one_clear_line(posed, path, value, message):
    folder, content = posed
    write_transforms(folder, spoil(content, path, value))
    with pytest.raises(InputError, match=message) as caught:
        load_views(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", '{"frames": ' + "[" * 100_000, b"\xff\xfe\x00\xd8"])
def test_invalid_json_is_one_clear_line(posed, text):
    folder, _ = posed
    (folder / "transforms.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=r"transforms\.json"):
        load_views(folder)


# --- published training layouts --------------------------------------------------------------------------------------


def world_to_camera(cameras: Cameras) -> np.ndarray:
    return np.linalg.inv(cameras.T_world_camera.double().numpy())[:, :3]


CV = np.diag([1.0, -1.0, -1.0, 1.0])
TABLES = {
    "OpenGL world-to-camera": world_to_camera,
    "OpenGL camera-to-world": lambda cameras: cameras.T_world_camera.numpy(),
    "OpenCV camera-to-world": lambda cameras: cameras.T_world_camera.double().numpy() @ CV,
    "OpenCV world-to-camera": lambda cameras: (CV @ np.linalg.inv(cameras.T_world_camera.double().numpy()))[:, :3],
}


@pytest.mark.parametrize("convention", TABLES)
def test_cameras_npz_is_read_whichever_convention_wrote_it(tmp_path, convention):
    cameras = Cameras.spherical([10.0, 100.0, 200.0], [30.0, -15.0, 70.0], 2.5, 50.0)
    write_discs(tmp_path, 3, "{:03d}.png")
    write_discs(tmp_path, 3, "{:03d}_normal.png")
    np.savez(tmp_path / "cameras.npz", cam_poses=TABLES[convention](cameras))
    views = load_views(tmp_path)
    assert_same_cameras(views.cameras, cameras)
    assert views.names == ("000.png", "001.png", "002.png")
    assert convention in views.assumptions[0]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_mindones_meta_pkl_is_read_at_every_protocol(tmp_path, protocol):
    cameras = Cameras.spherical([10.0, 100.0], [30.0, -15.0], 2.5, 40.0)
    write_discs(tmp_path, 2, "{:03d}.png")
    meta = [
        np.eye(3),
        np.zeros(2),
        np.float32(1) * np.ones(2, "f4"),
        np.ones(2),
        world_to_camera(cameras),
        np.float64(1),
    ]
    (tmp_path / "meta.pkl").write_bytes(pickle.dumps(meta, protocol))
    assert_same_cameras(load(tmp_path, fov_deg=40.0).cameras, cameras)


def test_too_few_cameras_for_the_pictures(tmp_path):
    write_discs(tmp_path, 3, "{:03d}.png")
    np.savez(tmp_path / "cameras.npz", cam_poses=world_to_camera(Cameras.orbit(2)))
    with pytest.raises(InputError, match=r"2 cameras, too few for 002\.png"):
        load_views(tmp_path)


class RunsCode:
    def __reduce__(self):
        return os.system, ("echo run > ran.txt",)


class Persistent(pickle.Pickler):
    def persistent_id(self, obj):
        return "elsewhere" if obj == "x" else None


def persistent_pickle() -> bytes:
    stream = io.BytesIO()
    Persistent(stream).dump(["x"])
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(RunsCode()), "wants to run .*system"),
        (pickle.dumps([1, 2, 3, 4, RunsCode()]), "wants to run .*system"),
        (b"cbuiltins\neval\n(S'1/0'\ntR.", "wants to run builtins.eval"),
        (b"cnumpy\nload\n(S'x'\ntR.", "wants to run numpy.load"),
        (pickle.dumps(np.array([print], dtype=object)), "not numbers"),
        (pickle.dumps([0, 0, 0, 0, np.zeros((4, 4))]), "shape"),
        (pickle.dumps({"poses": 1}), "no camera poses"),
        (pickle.dumps(None), "shape"),
        (persistent_pickle(), "no pickle of numbers"),
        (b"", "no pickle of numbers"),
        (b"\x80\x05X\xff\xff\xff\x7f", "no pickle of numbers"),
        (pickle.dumps([0, 0, 0, 0, np.full((2, 3, 4), np.nan)]), "NaN"),
    ],
)
def test_a_hostile_pickle_runs_nothing_and_is_one_clear_line(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    write_discs(tmp_path, 2, "{:03d}.png")
    (tmp_path / "meta.pkl").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_views(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran.txt").exists()


def npz_with(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def zip_bomb() -> bytes:
    """A few kilobytes that promise to be an array of 100 MB."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cam_poses.npy", npy_header((1_000_000, 3, 4)) + bytes(100_000_000))
    return stream.getvalue()


def lying_header() -> bytes:
    """An array whose header promises a petabyte."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("cam_poses.npy", npy_header((10**13, 3, 4)) + bytes(96))
    return stream.getvalue()


def npy_header(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zip_bomb(), "unpacks to more than 64 MiB"),
        (lying_header(), "cannot be read"),
        (npz_with(poses=np.zeros(3)), "no array cam_poses"),
        (npz_with(cam_poses=np.array([RunsCode()], dtype=object)), "cannot be read"),
        (npz_with(cam_poses=np.zeros((0, 3, 4))), "shape"),
        (npz_with(cam_poses=np.array(["a"])), "cannot be read"),
        (b"PK\x03\x04", "cannot be read"),
    ],
)
def test_a_hostile_npz_is_one_clear_line(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    write_discs(tmp_path, 2, "{:03d}.png")
    (tmp_path / "cameras.npz").write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_views(tmp_path)
    assert not (tmp_path / "ran.txt").exists()


# --- orbits ----------------------------------------------------------------------------------------------------------


def write_orbit(path: Path, count: int, size: int = 64) -> None:
    frames = [torch.from_numpy(disc(i % 8, size, alpha=False)).permute(2, 0, 1).float() / 255 for i in range(count)]
    write_video(frames, path)


def test_a_film_is_an_sv3d_orbit(tmp_path):
    write_orbit(tmp_path / "orbit.mp4", 7)
    views = load(tmp_path / "orbit.mp4", **AN_EVEN_TURN | {"elevation_deg": 10.0})
    assert_same_cameras(views.cameras, Cameras.sv3d(7, 10.0))
    assert views.rig == "sv3d"
    (assumption,) = views.assumptions
    assert "field of view 33.8 deg" in assumption


def test_a_rig_that_was_named_is_not_assumed(tmp_path):
    write_orbit(tmp_path / "orbit.mp4", 5)
    views = load(tmp_path / "orbit.mp4", rig="sv3d", **AN_EVEN_TURN | {"clockwise": True})
    assert_same_cameras(views.cameras, Cameras.sv3d(5, clockwise=True))
    assert views.assumptions == ()


def test_thinned_out_films_keep_the_azimuths_of_their_frames(tmp_path):
    write_orbit(tmp_path / "orbit.mp4", 12)
    views = load(tmp_path / "orbit.mp4", max_views=4, **AN_EVEN_TURN)
    assert views.names == ("frame 000", "frame 004", "frame 008")
    assert_same_cameras(views.cameras, Cameras.sv3d(12)[[0, 4, 8]])
    assert "uses 3 of 12" in views.assumptions[-1]


def test_a_folder_of_pictures_is_read_in_natural_order(tmp_path):
    write_discs(tmp_path, 11)
    (tmp_path / ".hidden.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("no picture")
    views = load(tmp_path, rig="orbit", fov_deg=40.0, radius=3.0, **AN_EVEN_TURN)
    assert views.names == tuple(f"{i}.png" for i in range(11))
    assert_same_cameras(views.cameras, Cameras.orbit(11, 0.0, 3.0, 40.0))


def test_thinned_out_pictures_are_spread_over_the_whole_folder(tmp_path):
    write_discs(tmp_path, 11)
    views = load(tmp_path, rig="orbit", max_views=4, **AN_EVEN_TURN)
    assert views.names == ("0.png", "2.png", "5.png", "8.png")
    assert_same_cameras(views.cameras, Cameras.orbit(11)[[0, 2, 5, 8]])


def test_an_orbit_frames_the_unit_cube_the_same_way_whatever_the_lens(tmp_path):
    write_discs(tmp_path, 3)
    for fov_deg in (15.0, 33.8, 60.0):
        uv, _ = load(tmp_path, rig="orbit", fov_deg=fov_deg, **AN_EVEN_TURN).cameras.project(
            torch.tensor([[0.0, 0.0, 1.0]])
        )
        torch.testing.assert_close(uv[:, 0, 1], torch.full((3,), 0.5 - 0.5 / (4 * math.tan(math.radians(15)))))


def test_wide_and_tall_pictures_keep_the_vertical_field_of_view(tmp_path):
    for i, width in enumerate((SIZE, 2 * SIZE, SIZE // 2)):
        Image.fromarray(disc(0, width=width)).save(tmp_path / f"{i}.png")
    views = load(tmp_path, rig="sv3d", **AN_EVEN_TURN)
    uv, _ = views.cameras.project(torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.5]]))
    torch.testing.assert_close(uv[:, 0, 0] * 2 * SIZE, torch.tensor([SIZE / 2, SIZE, SIZE / 4]))
    assert uv[:, 1, 1].unique().numel() == 1


def test_large_pictures_are_made_smaller_with_the_same_cameras(tmp_path):
    write_discs(tmp_path, 3, size=100)
    views = load(tmp_path, rig="sv3d", max_size_px=40, **AN_EVEN_TURN)
    assert views.images.shape == (3, 3, 40, 40)
    assert_same_cameras(views.cameras, Cameras.sv3d(3))


def test_masks_in_a_folder_beside_the_pictures_are_used(tmp_path):
    write_discs(tmp_path, 3, alpha=False)
    (tmp_path / "masks").mkdir()
    for i in range(3):
        Image.fromarray(np.full((2 * SIZE, 2 * SIZE), 255, np.uint8)).save(tmp_path / "masks" / f"{i}.jpg")
    assert (load(tmp_path, rig="sv3d", **AN_EVEN_TURN).alpha == 1).all()
    (tmp_path / "masks" / "1.jpg").unlink()
    with pytest.raises(InputError, match=r"no mask for 1\.png"):
        load(tmp_path, rig="sv3d", **AN_EVEN_TURN)


def half_masks(folder: Path, names: list[str]) -> None:
    """Masks that tell the pictures apart: white in the first row of number ``i``, ``i`` + 1 ..., black elsewhere."""
    for i, name in enumerate(names):
        mask = np.zeros((SIZE, SIZE), np.uint8)
        mask[: i + 1] = 255
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(folder / name)


def test_pictures_of_one_name_in_several_folders_have_masks_of_their_own(tmp_path):
    names = [f"{folder}/{i}.png" for folder in ("left", "right") for i in range(2)]
    for i, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(disc(i, alpha=False)).save(tmp_path / name)
    content = transforms(Cameras.zero123plus()[:4])
    for frame, name in zip(content["frames"], names, strict=True):
        frame["file_path"] = name
    write_transforms(tmp_path, content)
    half_masks(tmp_path / "masks", names)
    views = load_views(tmp_path)
    assert views.names == tuple(names)
    assert views.alpha.sum(dim=(1, 2, 3)).tolist() == [SIZE, 2 * SIZE, 3 * SIZE, 4 * SIZE]
    (tmp_path / "masks" / "right" / "1.png").unlink()
    with pytest.raises(InputError, match=r"no mask for right/1\.png"):
        load_views(tmp_path)


def test_masks_beside_a_camera_file_are_used_whether_the_folder_or_the_file_is_named(posed):
    folder, content = posed
    write_discs(folder, 6, alpha=False)
    write_transforms(folder, content)
    half_masks(folder / "masks", [f"{i}.png" for i in range(6)])
    for path in (folder, folder / "transforms.json"):
        assert load_views(path).alpha.sum(dim=(1, 2, 3)).tolist() == [(i + 1) * SIZE for i in range(6)]


def test_pictures_on_white_are_cut_out(tmp_path):
    write_discs(tmp_path, 3, alpha=False)
    views = load(tmp_path, rig="sv3d", **AN_EVEN_TURN)
    expected = torch.stack([torch.from_numpy(disc(i)[..., 3:]).permute(2, 0, 1) / 255 for i in range(3)])
    assert (views.alpha - expected).abs().max() < 0.05


# --- what an orbit leaves open ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clockwise_clip(tmp_path_factory):
    """A film of one clockwise turn at 20 degrees, and its cameras."""
    true = Cameras.sv3d(12, 20.0, clockwise=True)
    path = tmp_path_factory.mktemp("clip") / "orbit.mp4"
    write_video(draw(true).images, path)
    return path, true


@pytest.mark.parametrize(
    ("rig", "given"), [("auto", {}), ("sv3d", {"elevation_deg": 20.0}), ("auto", {"clockwise": True})]
)
def test_what_is_not_said_of_an_orbit_is_read_off_its_pictures(clockwise_clip, rig, given):
    path, true = clockwise_clip
    views = load(path, rig=rig, **given)
    assert angles_deg(views.cameras, true).max() < 4
    said = " ".join(views.assumptions)
    assert ("clockwise" in said) == ("clockwise" not in given)
    assert ("elevation" in said) == ("elevation_deg" not in given)


def test_what_is_said_of_an_orbit_is_kept_even_if_it_is_wrong(clockwise_clip):
    path, _ = clockwise_clip
    positions = load(path, elevation_deg=-5.0).cameras.positions
    elevations_deg = torch.rad2deg(torch.asin(positions[:, 2] / positions.norm(dim=1)))
    torch.testing.assert_close(elevations_deg, torch.full((12,), -5.0), atol=1e-3, rtol=0)
    positions = load(path, clockwise=False, turn="even").cameras.positions
    steps_deg = torch.rad2deg(torch.atan2(positions[:, 1], positions[:, 0])).diff() % 360
    torch.testing.assert_close(steps_deg, torch.full((11,), 30.0), atol=1e-3, rtol=0)


@pytest.mark.parametrize("option", [{"elevation_deg": 10.0}, {"clockwise": False}, {"turn": "even"}])
@pytest.mark.parametrize("kind", ["transforms", "npz", "six pictures", "sheet"])
def test_options_of_an_orbit_have_no_place_elsewhere(tmp_path, kind, option):
    path = other_input(tmp_path, kind)
    with pytest.raises(InputError, match=f"`{next(iter(option))}`: has no effect on"):
        load(path, **option)


@pytest.mark.parametrize(
    ("kind", "option"), [("transforms", {"fov_deg": 40.0}), ("transforms", {"radius": 3.0}), ("npz", {"radius": 3.0})]
)
def test_cameras_of_a_file_are_not_changed_by_options(tmp_path, kind, option):
    with pytest.raises(InputError, match="which holds the cameras"):
        load(other_input(tmp_path, kind), **option)


def other_input(folder: Path, kind: str) -> Path:
    """Something that is no orbit."""
    write_discs(folder, 6, "{:03d}.png")
    if kind == "transforms":
        write_transforms(folder, transforms(Cameras.zero123plus(), "{:03d}.png"))
    elif kind == "npz":
        np.savez(folder / "cameras.npz", cam_poses=world_to_camera(Cameras.zero123plus()))
    elif kind == "sheet":
        cells = [disc(i, alpha=False) for i in range(6)]
        rows = [np.concatenate(cells[row : row + 2], axis=1) for row in (0, 2, 4)]
        Image.fromarray(np.concatenate(rows)).save(folder / "sheet.png")
        return folder / "sheet.png"
    return folder


# --- sheets ----------------------------------------------------------------------------------------------------------


def test_a_sheet_is_cut_into_the_published_views():
    sheet = (torch.from_numpy(GOLDEN["sheet"]) * 255).round().to(torch.uint8)
    expected = (torch.from_numpy(GOLDEN["sheet_views"]) * 255).round().to(torch.uint8)
    pictures, cameras = split_sheet(sheet, Cameras.zero123plus(), 3, 2)
    assert torch.equal(torch.stack(pictures), expected)
    assert_same_cameras(cameras, Cameras.zero123plus())


@pytest.mark.parametrize(("rows", "columns"), [(3, 2), (2, 3)])
@pytest.mark.parametrize("rig", ["auto", "zero123plus", "zero123plus-v1.1"])
def test_a_sheet_is_six_views_row_by_row(tmp_path, rows, columns, rig):
    cells = [disc(i, alpha=False) for i in range(6)]
    sheet = np.concatenate([np.concatenate(cells[columns * r : columns * (r + 1)], axis=1) for r in range(rows)])
    Image.fromarray(sheet).save(tmp_path / "sheet.png")
    views = load(tmp_path / "sheet.png", rig=rig)
    expected = Cameras.zero123plus("1.1" if rig.endswith("v1.1") else "1.2")
    assert_same_cameras(views.cameras, expected)
    assert len(views.assumptions) == (rig == "auto")
    for i in range(6):
        assert (views.alpha[i, 0] - torch.from_numpy(disc(i)[..., 3]) / 255).abs().max() < 0.05


@pytest.mark.parametrize(("height", "width"), [(640, 427), (601, 403), (200, 301)])
def test_sheets_that_cannot_be_divided_keep_every_ray(height, width):
    rows, columns = (3, 2) if height > width else (2, 3)
    ramp = torch.stack(
        (*torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), torch.zeros(height, width))
    )
    exact = Cameras.zero123plus()
    pictures, cameras = split_sheet((ramp % 256).to(torch.uint8), exact, rows, columns)
    points = torch.tensor([[0.3, -0.2, 0.1], [-0.4, 0.5, -0.3]])
    uv_exact, _ = exact.project(points)
    uv, _ = cameras.project(points)
    for i, picture in enumerate(pictures):
        h, w = picture.shape[1:]
        top, left = picture[0, 0, 0].item(), picture[1, 0, 0].item()
        column_px = (i % columns + uv_exact[i, :, 0]) * width / columns
        row_px = (i // columns + uv_exact[i, :, 1]) * height / rows
        torch.testing.assert_close((left + uv[i, :, 0] * w) % 256, column_px % 256, atol=2e-3, rtol=0)
        torch.testing.assert_close((top + uv[i, :, 1] * h) % 256, row_px % 256, atol=2e-3, rtol=0)
    assert len({tuple(picture.shape) for picture in pictures}) == 1


# --- bad input -------------------------------------------------------------------------------------------------------


def test_a_missing_path(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        load_views(tmp_path / "nothing.mp4")


def test_an_empty_folder(tmp_path):
    with pytest.raises(InputError, match="holds no pictures"):
        load_views(tmp_path)


def test_an_unknown_suffix(tmp_path):
    (tmp_path / "model.obj").write_text("v 0 0 0")
    with pytest.raises(InputError, match="neither a picture nor a video"):
        load_views(tmp_path / "model.obj")


def test_an_unknown_rig(tmp_path):
    with pytest.raises(InputError, match="no such rig"):
        load(tmp_path, rig="spiral")


@pytest.mark.parametrize(("rig", "message"), [("auto", "neither a film nor"), ("sv3d", "no turn around")])
def test_one_picture_is_no_orbit(tmp_path, rig, message):
    write_discs(tmp_path, 1)
    with pytest.raises(InputError, match=message):
        load(tmp_path / "0.png", rig=rig)


def test_two_pictures_are_no_orbit(tmp_path):
    write_discs(tmp_path, 2)
    with pytest.raises(InputError, match="too few"):
        load_views(tmp_path)


def test_a_rig_of_six_wants_six(tmp_path):
    write_discs(tmp_path, 5)
    with pytest.raises(InputError, match="has six"):
        load(tmp_path, rig="zero123plus")


def test_a_posed_rig_wants_cameras(tmp_path):
    write_discs(tmp_path, 5)
    with pytest.raises(InputError, match="holds no cameras"):
        load(tmp_path, rig="posed")


@pytest.mark.parametrize("option", [{"fov_deg": 0.0}, {"fov_deg": 180.0}, {"radius": 0.0}, {"radius": float("nan")}])
def test_impossible_lenses(tmp_path, option):
    write_discs(tmp_path, 5)
    with pytest.raises(InputError, match="impossible"):
        load(tmp_path, rig="orbit", **option, **AN_EVEN_TURN)


@pytest.mark.parametrize("size", [1, 15])
def test_pictures_too_small_to_show_anything(tmp_path, size):
    for i in range(3):
        Image.fromarray(np.zeros((size, size, 3), np.uint8)).save(tmp_path / f"{i}.png")
    with pytest.raises(InputError, match=r"0\.png: is \d+x\d+ pixels, too small"):
        load_views(tmp_path)


def test_views_that_see_nothing(posed):
    folder, content = posed
    empty = disc(4)
    empty[..., 3] = 0
    Image.fromarray(empty).save(folder / "4.png")
    write_transforms(folder, content)
    with pytest.raises(InputError, match=r"4\.png: shows no object"):
        load_views(folder)


def test_opaque_pictures_without_a_flat_background(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 4), dtype=np.uint8)
    noise[..., 3] = 255
    for i in range(3):
        Image.fromarray(noise).save(tmp_path / f"{i}.png")
    with pytest.raises(InputError, match=r"0\.png: the object does not stand before a background of one colour"):
        load(tmp_path, rig="orbit")
    pytest.importorskip("pycolmap", reason="the extra sfm is not installed")
    with pytest.raises(InputError, match=r"taken for photos, .*: only 0 of 3 pictures could be placed"):
        load(tmp_path)


def test_rembg_is_an_extra_that_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rembg", None)
    write_discs(tmp_path, 3, alpha=False)
    with pytest.raises(InputError, match=r"pip install 'meshwright\[rembg\]'"):
        load(tmp_path, background="rembg")


def test_pictures_with_alpha_need_no_rembg(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rembg", None)
    write_discs(tmp_path, 3)
    assert len(load(tmp_path, background="rembg", **AN_EVEN_TURN)) == 3


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("camera_angle_x", 10**400, "not a finite number"),
        ("k1", 10**400, "not a finite number"),
        ("frames.1.cx", 1e300, "looks past its picture"),
        ("frames.1.fl_x", 1e-300, "field of view"),
        ("frames.1.fl_x", 1e7, "field of view"),
        ("camera_angle_x", 0.00101, "field of view"),
        ("camera_angle_x", 3.139, "field of view"),
        ("frames.2.transform_matrix.0.3", 1e12, "from the origin"),
        ("frames.2.transform_matrix.0.3", 1e300, "from the origin"),
        ("frames.2.transform_matrix.0.3", 1e6, "camera 2 stands 10000 times farther"),
        ("w", 1e300, "correct width and height"),
        ("depth_unit_scale_factor", -1.0, "depth_unit_scale_factor"),
        ("depth_unit_scale_factor", 1e308, "depth_unit_scale_factor"),
        ("frames.1.mask_path", "/etc/hostname", "outside its folder"),
        ("frames.1.file_path", "../0.png", "outside its folder"),
        ("frames.1.file_path", "http://localhost/0.png", "outside its folder"),
    ],
)
def test_numbers_beyond_all_measure_and_names_outside_are_refused(posed, path, value, message):
    folder, content = posed
    write_transforms(folder, spoil(content, path, value))
    with pytest.raises(InputError, match=message) as caught:
        load_views(folder)
    assert "\n" not in str(caught.value)


OUTSIDE = (
    "/etc/hostname", "//etc/hostname", "../0.png", "a/../../0.png", "C:/0.png", r"\\host\share\0.png", r"..\0.png",
    "file:///etc/hostname", "http://localhost/0.png",
)  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("role", ["file_path", "mask_path", "depth_file_path"])
def test_no_role_of_a_picture_leads_out_of_the_folder(posed, role, name):
    folder, content = posed
    Image.new("L", (4, 4)).save(folder.parent / "0.png")
    write_transforms(folder, spoil(content, f"frames.1.{role}", name))
    with pytest.raises(InputError, match="outside its folder"):
        load_views(folder)


def _large_disc(folder):
    """A picture of few bytes and a million pixels."""
    Image.new("L", (1000, 1000), 255).save(folder / "large.png")


@pytest.mark.parametrize("role", ["file_path", "mask_path", "depth_file_path"])
def test_a_capture_of_too_many_pixels_is_refused_by_its_headers(posed, monkeypatch, role):
    folder, content = posed
    _large_disc(folder)
    for frame in content["frames"]:
        frame[role] = "large.png"
    write_transforms(folder, content)
    decoded = []
    read = capture_load.read_image
    monkeypatch.setattr(capture_load, "read_image", lambda path, *most: decoded.append(path.name) or read(path, *most))
    monkeypatch.setattr("meshwright.capture.budget.MAX_CAPTURE_PIXELS", 5_999_999)
    with pytest.raises(InputError, match=r"more than 5 million pixels.*max_views"):
        load_views(folder)
    assert "large.png" not in decoded


def test_a_capture_of_too_many_bytes_is_refused(posed, monkeypatch):
    folder, _ = posed
    size = sum(path.stat().st_size for path in folder.glob("*.png"))
    monkeypatch.setattr("meshwright.capture.budget.MAX_CAPTURE_BYTES", size)
    assert len(load_views(folder)) == 6
    monkeypatch.setattr("meshwright.capture.budget.MAX_CAPTURE_BYTES", size - 1)
    with pytest.raises(InputError, match="in all; make them smaller"):
        load_views(folder)


def test_what_cannot_be_held_at_once_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    """Reduced pictures share one canvas: one high and one wide picture make all of them large."""
    write_discs(tmp_path, 3)
    Image.new("RGBA", (SIZE, 4 * SIZE)).save(tmp_path / "3.png")
    Image.new("RGBA", (4 * SIZE, SIZE)).save(tmp_path / "4.png")
    monkeypatch.setattr(capture_load, "read_image", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr("meshwright.images._MAX_HELD_PIXELS", 5 * (4 * SIZE) ** 2 - 1)
    with pytest.raises(InputError, match=rf"5 pictures on a canvas of {4 * SIZE}x{4 * SIZE}"):
        load(tmp_path)


def test_frames_that_cannot_be_held_at_once_are_refused(tmp_path, monkeypatch):
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "green", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    monkeypatch.setattr("meshwright.images._MAX_HELD_PIXELS", 3 * 400 - 1)
    with pytest.raises(InputError, match="3 pictures on a canvas of 20x20"):
        load(tmp_path / "a.gif")


def test_cameras_of_any_unit_are_taken(posed):
    folder, content = posed
    for scale in (1e-6, 1e6):
        scaled = json.loads(json.dumps(content))
        for frame in scaled["frames"]:
            for row in frame["transform_matrix"][:3]:
                row[3] *= scale
        write_transforms(folder, scaled)
        assert len(load_views(folder)) == len(content["frames"])


_BOMBS = {
    "an endless memo": b"\x80\x04]r\xff\xff\xff\x7f.",
    "lists of lists of the same": b"\x80\x04]q\x00(" + b"K\x01" * 100 + b"e" + b"".join(
        b"]q%c(" % (i + 1) + b"h%c" % i * 100 + b"e" for i in range(6)
    ) + b".",
    "copies of a long text": b"\x80\x02X\x00\x00\x10\x00" + b"a" * 0x100000 + b"q\x00" + b"X\x06\x00\x00\x00latin1q\x01"
    b"c_codecs\nencode\nq\x02]q\x03(" + b"h\x02h\x00h\x01\x86R" * 200 + b"e.",
    "many empty lists": b"\x80\x04](" + b"]" * 3_000_000 + b"e.",
}  # fmt: skip


@pytest.mark.parametrize("content", _BOMBS.values(), ids=_BOMBS.keys())
def test_a_pickle_that_grows_is_refused(tmp_path, content, monkeypatch):
    monkeypatch.setattr("meshwright.capture.camera_files.numbers_pickle._MOST_PARTS", 10_000)
    Image.new("RGBA", (32, 32)).save(tmp_path / "000.png")
    (tmp_path / "meta.pkl").write_bytes(content)
    with pytest.raises(InputError, match=r"meta\.pkl: (holds too much|is damaged)"):
        load_views(tmp_path)
