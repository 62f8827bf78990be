"""Captures with cameras, a format at a time: the same cameras come out as went in, and bad files get one clear line."""

import dataclasses
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from meshwright.cameras import Cameras
from meshwright.capture import load_views
from meshwright.capture.camera_files import read_camera_file
from meshwright.capture.lens import Brown, Lens
from meshwright.capture.undistort import pinhole_of
from meshwright.errors import InputError
from meshwright.options import ViewOptions

WIDTH, HEIGHT = 60, 48
CV = np.diag([1.0, -1.0, -1.0, 1.0])


def some_cameras(count: int = 5) -> Cameras:
    """Not on any rig, with rolled pictures; the world is any."""
    generator = torch.Generator().manual_seed(3)
    positions = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    positions = 5 * torch.nn.functional.normalize(positions, dim=1) + torch.tensor([7.0, -2.0, 3.0])
    cameras = Cameras.look_at(positions, 40.0, torch.tensor([7.0, -2.0, 3.0]), WIDTH / HEIGHT)
    roll = torch.eye(4, dtype=torch.float64)
    roll[:2, :2] = torch.tensor([[0.8, -0.6], [0.6, 0.8]])
    return Cameras(cameras.T_world_camera @ roll, cameras.intrinsics)


def opencv_world_to_camera(cameras: Cameras) -> np.ndarray:
    return np.linalg.inv(cameras.T_world_camera.double().numpy() @ CV)


def disc(i: int, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    y, x = np.mgrid[:height, :width] + 0.5
    inside = np.hypot(x - width / 2 - i, y - height / 2) < height / 4
    return Image.fromarray(np.dstack([np.full((height, width), 200 - 30 * i), x, y, 255 * inside]).astype(np.uint8))


def write_pictures(folder: Path, names: list[str], width: int = WIDTH, height: int = HEIGHT) -> None:
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        disc(i, width, height).save(folder / name)


def assert_same_cameras(actual: Cameras, expected: Cameras) -> None:
    torch.testing.assert_close(actual.T_world_camera.double(), expected.T_world_camera.double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(actual.intrinsics.double(), expected.intrinsics.double(), atol=1e-5, rtol=0)


NAMES = [f"shot {i}.png" for i in range(5)]

# --- COLMAP ----------------------------------------------------------------------------------------------------------

COLMAP_MODELS = {
    "SIMPLE_PINHOLE": [60.0, 30.0, 24.0],
    "PINHOLE": [60.0, 61.0, 31.0, 23.5],
    "SIMPLE_RADIAL": [60.0, 30.0, 24.0, -0.1],
    "RADIAL": [60.0, 30.0, 24.0, -0.1, 0.02],
    "OPENCV": [60.0, 61.0, 30.0, 24.0, -0.1, 0.02, 0.001, -0.002],
    "OPENCV_FISHEYE": [60.0, 61.0, 30.0, 24.0, -0.05, 0.02, 0.001, -0.002],
    "FULL_OPENCV": [60.0, 61.0, 30.0, 24.0, -0.1, 0.02, 0.001, -0.002, 0.01, 0.02, 0.01, 0.005],
    "FOV": [60.0, 61.0, 30.0, 24.0, 0.6],
    "SIMPLE_RADIAL_FISHEYE": [60.0, 30.0, 24.0, 0.05],
    "RADIAL_FISHEYE": [60.0, 30.0, 24.0, 0.05, -0.01],
    "THIN_PRISM_FISHEYE": [60.0, 61.0, 30.0, 24.0, -0.05, 0.02, 0.001, -0.002, 0.01, 0.005, 0.002, 0.001],
    "RAD_TAN_THIN_PRISM_FISHEYE": [60.0, 61.0, 30.0, 24.0, *[0.01] * 6, 0.001, -0.002, *[0.002] * 4],
    "SIMPLE_DIVISION": [60.0, 30.0, 24.0, -0.1],
    "DIVISION": [60.0, 61.0, 30.0, 24.0, -0.1],
    "SIMPLE_FISHEYE": [60.0, 30.0, 24.0],
    "FISHEYE": [60.0, 61.0, 30.0, 24.0],
    "EUCM": [60.0, 61.0, 30.0, 24.0, 0.3, 1.0],
}
SCALED = {"SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE"}


def write_colmap(folder: Path, cameras: Cameras, names: list[str], models: list[str], suffix: str = "bin") -> None:
    """A sparse model as pycolmap writes it: the pictures' cameras in turn from ``models``."""
    pycolmap = pytest.importorskip("pycolmap")
    folder.mkdir(parents=True, exist_ok=True)
    model = pycolmap.Reconstruction()
    for number, name in enumerate(models, start=1):
        camera = pycolmap.Camera.create_from_model_name(number, name, 60.0, WIDTH, HEIGHT)
        camera.params = np.array(COLMAP_MODELS[name])
        model.add_camera_with_trivial_rig(camera)
    for i, (name, T) in enumerate(zip(names, opencv_world_to_camera(cameras), strict=True)):
        image = pycolmap.Image(name=name, camera_id=1 + i % len(models), image_id=i + 1)
        image.points2D = [pycolmap.Point2D(np.array([i + 1.0, 2.0])) for _ in range(i)]
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(T[:3]))
    for point in POINTS:
        model.add_point3D(point, pycolmap.Track(), np.zeros(3, np.uint8))
    (model.write_binary if suffix == "bin" else model.write_text)(str(folder))


POINTS = np.random.default_rng(1).normal(size=(7, 3))


@pytest.mark.parametrize("suffix", ["bin", "txt"])
@pytest.mark.parametrize("layout", ["sparse/0", "sparse", "", "colmap/sparse/0"])
def test_a_workspace_of_colmap_gives_back_its_cameras(tmp_path, suffix, layout):
    cameras = some_cameras()
    write_pictures(tmp_path / "images", NAMES)
    write_colmap(tmp_path / layout, cameras, NAMES, ["PINHOLE"], suffix)
    views = load_views(tmp_path)
    expected = torch.tensor([60 / WIDTH, 61 / HEIGHT, 31 / WIDTH, 23.5 / HEIGHT], dtype=torch.float64).repeat(5, 1)
    assert_same_cameras(views.cameras, Cameras(cameras.T_world_camera, expected))
    assert views.names == tuple(NAMES)
    assert views.rig == "posed"
    np.testing.assert_allclose(read_camera_file(tmp_path).points, POINTS)


@pytest.mark.parametrize("suffix", ["bin", "txt"])
def test_every_camera_model_of_colmap_projects_as_colmap_does(tmp_path, suffix):
    """Several cameras in one model; where COLMAP sees a direction, the lens that was read sees it too."""
    pycolmap = pytest.importorskip("pycolmap")
    names = [f"{model}.png" for model in sorted(COLMAP_MODELS)]
    cameras = some_cameras(len(names))
    write_pictures(tmp_path / "images", names)
    write_colmap(tmp_path / "sparse/0", cameras, names, sorted(COLMAP_MODELS), suffix)
    files = read_camera_file(tmp_path)
    directions = np.random.default_rng(0).uniform(-0.4, 0.4, (50, 2))
    for picture in files.pictures:
        model = picture.path.stem
        camera = pycolmap.Camera.create_from_model_name(1, model, 60.0, WIDTH, HEIGHT)
        camera.params = np.array(COLMAP_MODELS[model])
        expected = camera.img_from_cam(np.c_[directions, np.ones(50)])
        np.testing.assert_allclose(picture.lens.project(directions), expected, rtol=0, atol=1e-6)
    assert len(load_views(tmp_path)) == len(names)


def test_colmaps_pose_and_lens_put_points_where_colmap_puts_them(tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    cameras = some_cameras()
    write_pictures(tmp_path / "images", NAMES)
    write_colmap(tmp_path / "sparse/0", cameras, NAMES, ["OPENCV"])
    model = pycolmap.Reconstruction(str(tmp_path / "sparse/0"))
    points = np.random.default_rng(2).normal(size=(20, 3)) * 0.5 + [7, -2, 3]
    files = read_camera_file(tmp_path)
    uv, _ = files.cameras.project(torch.from_numpy(points))
    for i, picture in enumerate(files.pictures):
        theirs = model.find_image_with_name(picture.path.name)
        in_camera = theirs.cam_from_world() * points
        expected = model.cameras[theirs.camera_id].img_from_cam(in_camera)
        pinhole = pinhole_of(picture.lens)
        directions = uv[i].numpy() * (pinhole.width_px, pinhole.height_px)
        directions = (directions - (pinhole.cx_px, pinhole.cy_px)) / (pinhole.fx_px, pinhole.fy_px)
        np.testing.assert_allclose(picture.lens.project(directions), expected, rtol=0, atol=1e-6)


def test_masks_of_colmap_are_called_like_pictures_or_with_one_more_suffix(tmp_path):
    names = ["a/0.png", "a/1.png", "b/0.png"]
    write_pictures(tmp_path / "images", names)
    for name in names:  # no alpha in the pictures
        Image.open(tmp_path / "images" / name).convert("RGB").save(tmp_path / "images" / name)
    write_colmap(tmp_path / "sparse/0", some_cameras(3), names, ["PINHOLE"])
    for name, rows in (("a/0.png.png", 10), ("a/1.png", 20), ("b/0.jpg", 30)):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[:rows] = 255
        (tmp_path / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(tmp_path / "masks" / name, quality=100)
    views = load_views(tmp_path)
    assert [float(alpha.sum()) / WIDTH for alpha in views.alpha] == pytest.approx([10, 20, 30], abs=0.1)


def test_a_mask_is_undistorted_with_its_picture(tmp_path):
    """The picture's red disc and its mask stay on each other, and both become larger (a barrel is taken out)."""
    write_pictures(tmp_path / "images", NAMES)
    before = 0
    for name in NAMES:
        red = np.array(Image.open(tmp_path / "images" / name))
        inside = red[..., 3] > 0
        before += inside.sum()
        red = np.where(inside[..., None], [255, 0, 0], [0, 255, 0]).astype(np.uint8)
        Image.fromarray(red).save(tmp_path / "images" / name)
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray((255 * inside).astype(np.uint8)).save(tmp_path / "masks" / name)
    write_colmap(tmp_path / "sparse/0", some_cameras(), NAMES, ["FISHEYE"])
    views = load_views(tmp_path)
    assert views.alpha.sum() > 1.02 * before
    inside = views.alpha > 0.9
    red = views.images[:, :1] - views.images[:, 1:2]
    assert red[inside].min() > 0.6
    assert (red[inside] > 0.95).float().mean() > 0.9
    assert_same_cameras(views.cameras, read_camera_file(tmp_path).cameras)


def test_pictures_that_a_phone_stored_sideways_come_upright_with_their_cameras(tmp_path):
    """COLMAP poses the stored pixels; the same rays must pass through the same colours after turning."""
    for orientation, turns in ((1, 0), (3, 2), (6, 3), (8, 1)):
        folder = tmp_path / str(orientation)
        (folder / "images").mkdir(parents=True)
        stored = disc(3)
        exif = stored.getexif()
        exif[0x0112] = orientation
        stored.save(folder / "images" / "0.png", exif=exif)
        write_colmap(folder / "sparse/0", some_cameras(1), ["0.png"], ["PINHOLE"])
        views = load_views(folder)
        expected = torch.rot90(torch.from_numpy(np.array(stored)).permute(2, 0, 1), turns, (1, 2))
        assert torch.equal(views.alpha[0], (expected[3:] / 255).float())
        plain = Cameras(
            some_cameras(1).T_world_camera,
            torch.tensor([[60 / WIDTH, 61 / HEIGHT, 31 / WIDTH, 23.5 / HEIGHT]], dtype=torch.float64),
        )
        rays = torch.rot90(plain.rays(HEIGHT, WIDTH).directions[0], turns, (0, 1))
        found = views.cameras.rays(*expected.shape[1:]).directions[0]
        torch.testing.assert_close(found.double(), rays, atol=1e-5, rtol=0)


def test_dense_maps_of_colmap_are_depths(tmp_path):
    write_pictures(tmp_path / "images", NAMES)
    write_colmap(tmp_path / "sparse", some_cameras(), NAMES, ["PINHOLE"])
    folder = tmp_path / "stereo" / "depth_maps"
    folder.mkdir(parents=True)
    for kind, depth in (("photometric", 9.0), ("geometric", 2.5)):
        content = np.full((HEIGHT, WIDTH), depth, np.float32).tobytes()
        (folder / f"{NAMES[1]}.{kind}.bin").write_bytes(f"{WIDTH}&{HEIGHT}&1&".encode() + content)
    views = load_views(tmp_path)
    assert (views.depth_z[1] == 2.5).all()
    assert (views.depth_z[0] == 0).all()


def test_of_several_models_the_largest_is_read_and_missing_pictures_are_noted(tmp_path):
    write_pictures(tmp_path / "images", NAMES[:4])
    write_colmap(tmp_path / "sparse/0", some_cameras(2), NAMES[:2], ["PINHOLE"])
    write_colmap(tmp_path / "sparse/1", some_cameras(5), NAMES, ["PINHOLE"])
    views = load_views(tmp_path)
    assert len(views) == 4
    assert any("1 of 5 pictures are not there, such as shot 4.png" in note for note in views.assumptions)


def test_smaller_copies_of_the_pictures_are_taken_where_only_these_are(tmp_path):
    write_pictures(tmp_path / "images_2", NAMES, WIDTH // 2, HEIGHT // 2)
    write_colmap(tmp_path / "sparse/0", some_cameras(), NAMES, ["PINHOLE"])
    views = load_views(tmp_path)
    assert views.images.shape[2:] == (HEIGHT // 2, WIDTH // 2)
    assert views.cameras.intrinsics[0, 0] == pytest.approx(1.0)


CAMERA_LINE = "1 PINHOLE 60 48 60 61 31 23.5"
IMAGE_LINE = "1 1 0 0 0 0 0 4 1 shot 0.png"


@pytest.mark.parametrize(
    ("camera", "image", "message"),
    [
        ("1 PINHOLE 60 48 60 61 31", IMAGE_LINE, "PINHOLE has 4 parameters, not 3"),
        ("1 PINHOLE 60 48 60 61 31 x", IMAGE_LINE, "are no numbers"),
        ("1 PINHOLE 60 48 60 nan 31 24", IMAGE_LINE, "not a finite number"),
        ("1 PINHOLE 60 48 -60 61 31 24", IMAGE_LINE, "focal length is not positive"),
        ("1 PINHOLE 0 48 60 61 31 24", IMAGE_LINE, "impossible"),
        ("1 PINHOLE 480 60 60 61 31 24", IMAGE_LINE, "says 480x60 but shot 0.png is 60x48"),
        ("1 PINHOLE 60 48 1e-5 1e-5 31 24", IMAGE_LINE, "field of view"),
        ("1 OPENCV 60 48 60 61 31 24 -1e5 0 0 0", IMAGE_LINE, "next to nothing"),
        ("1 OPENCV 60 48 60 61 31 24 1e9 0 0 0", IMAGE_LINE, "coefficient"),
        ("1 EQUIRECTANGULAR 60 48", IMAGE_LINE, "shows all around"),
        ("1 TELEPATHY 60 48 1 2", IMAGE_LINE, "TELEPATHY is unknown"),
        ("one PINHOLE 60 48 60 61 31 24", IMAGE_LINE, "no number of a camera"),
        ("1 PINHOLE", IMAGE_LINE, "is no camera"),
        ("", IMAGE_LINE, "its camera 1 is not in cameras"),
        (CAMERA_LINE, "", "none of its 0 pictures"),
        (CAMERA_LINE, "1 0 0 0 0 0 0 4 1 shot 0.png", "no rotation and position"),
        (CAMERA_LINE, "1 1 0 0 0 0 0 inf 1 shot 0.png", "no rotation and position"),
        (CAMERA_LINE, "1 1 0 0 0 0 0 1e30 1 shot 0.png", "from the origin"),
        (CAMERA_LINE, "1 1 0 0 0 0 0 4 2 shot 0.png", "its camera 2 is not in cameras"),
        (CAMERA_LINE, "1 1 0 0 0 0 0 4 1", "is no image"),
        (CAMERA_LINE, "1 1 0 0 0 0 0 4 1 nowhere.png", "none of its 1 pictures such as nowhere.png is there"),
        (CAMERA_LINE, "1 1 0 0 0 0 0 4 1 ../0.png", "outside its folder"),
        (CAMERA_LINE, "1 1 0 0 0 0 0 4 1 /etc/passwd", "outside its folder"),
        (CAMERA_LINE, "1 1 0 0 0 0 0 4 1 sparse/0/cameras.txt", "none of its 1 pictures"),
    ],
)
def test_a_bad_text_model_is_one_clear_line(tmp_path, camera, image, message):
    write_pictures(tmp_path / "images", NAMES[:1])
    model = tmp_path / "sparse" / "0"
    model.mkdir(parents=True)
    (model / "cameras.txt").write_text(f"# a comment\n{camera}\n")
    (model / "images.txt").write_text(f"# a comment\n{image}\n\n")
    with pytest.raises(InputError, match=message) as caught:
        load_views(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
def test_a_binary_model_cut_anywhere_is_one_clear_line(tmp_path, name):
    write_pictures(tmp_path / "images", NAMES)
    write_colmap(tmp_path / "sparse/0", some_cameras(), NAMES, ["PINHOLE"])
    file = tmp_path / "sparse/0" / name
    whole = file.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 23)):
        file.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"breaks off or is damaged|none of its"):
            load_views(tmp_path)


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
def test_counts_beyond_the_bytes_are_not_believed(tmp_path, name):
    write_pictures(tmp_path / "images", NAMES)
    write_colmap(tmp_path / "sparse/0", some_cameras(), NAMES, ["PINHOLE"])
    file = tmp_path / "sparse/0" / name
    for count in (2**63, 2**32, 10**6):
        file.write_bytes(struct.pack("<Q", count) + file.read_bytes()[8:])
        with pytest.raises(InputError, match="breaks off or is damaged"):
            load_views(tmp_path)


# --- transforms.json with distortion ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fisheye", ["", "OPENCV_FISHEYE", "is_fisheye"])
def test_distortion_in_transforms_json_is_taken_out(tmp_path, fisheye):
    import json

    cameras = some_cameras()
    write_pictures(tmp_path, NAMES)
    frames = [
        {"file_path": name, "transform_matrix": T.tolist()}
        for name, T in zip(NAMES, cameras.T_world_camera, strict=True)
    ]
    frames[2]["k1"] = 0.05
    content = {"fl_x": 70.0, "fl_y": 71.0, "cx": 29.0, "cy": 25.0, "w": WIDTH, "h": HEIGHT, "frames": frames}
    content |= {"k1": -0.1, "k2": 0.02, "p1": 0.001, "p2": -0.002}
    content |= {"is_fisheye": True} if fisheye == "is_fisheye" else {"camera_model": fisheye or "OPENCV"}
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    files = read_camera_file(tmp_path / "transforms.json")
    brown = Brown((-0.1, 0.02, 0.0, 0.0), tangential=(0.001, -0.002), fisheye=bool(fisheye))
    lens = Lens(60.0, 48.0, 70.0, 71.0, 29.0, 25.0, brown)
    assert files.pictures[0].lens == lens
    assert files.pictures[2].lens == dataclasses.replace(
        lens, distortion=dataclasses.replace(brown, radial=(0.05, 0.02, 0.0, 0.0))
    )
    views = load_views(tmp_path, ViewOptions())
    pinhole = pinhole_of(lens)
    expected = torch.tensor(pinhole.intrinsics, dtype=torch.float64)
    height, width = views.sizes_px[0].tolist()
    assert (width, height) == (pinhole.width_px, pinhole.height_px)
    canvas = torch.tensor([width, height] * 2) / torch.tensor([views.images.shape[3], views.images.shape[2]] * 2)
    torch.testing.assert_close(views.cameras.intrinsics[0].double(), expected * canvas, atol=1e-5, rtol=0)
    assert views.assumptions == ()
