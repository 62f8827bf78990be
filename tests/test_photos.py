"""Photos without cameras: structure from motion, the object in clutter, exposures, which way is up."""

import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from meshwright import InputError, ViewOptions, load_views
from meshwright.cameras import Cameras
from meshwright.capture import pose, sfm
from meshwright.capture.gains import apply_gains, exposure_gains
from meshwright.capture.segmentation import Segmented, segment_together, together
from meshwright.capture.segmentation.colors import ColorModel
from meshwright.capture.segmentation.cut import smallest_cut
from meshwright.capture.segmentation.table import Ground, TablePicture
from meshwright.capture.sfm import count_supported
from meshwright.capture.upright import Plane, level_world, meeting_point, moved_cameras, support_plane
from meshwright.evaluate import Scored, silhouette_iou, write_report
from meshwright.images import read_focal_35mm, read_frames, write_video
from meshwright.srgb import linear_from_srgb, srgb_from_linear
from meshwright.views import ObjectFrame, Outlines
from small_objects import colored_ball
from small_scene import TABLE_Z, Scene, aligned_differences, draw_scene

# ------------------------------------------------------------------------------- cuts


def test_cut_of_a_line_is_the_best_of_all():
    rng = np.random.default_rng(0)
    for _ in range(20):
        cost = rng.normal(size=(1, 9)).astype(np.float32)
        weight = rng.uniform(0.05, 1.5, size=(1, 9)).astype(np.float32)
        found = smallest_cut(cost, weight, cost < 0) > 0.5

        def energy(mask, cost=cost, weight=weight):
            mask = np.asarray(mask, float)
            return (cost[0] * mask).sum() + (weight[0, :-1] * np.abs(np.diff(mask))).sum()

        best = min(energy(mask) for mask in itertools.product((0, 1), repeat=9))
        assert energy(found[0]) <= best + 1e-3


def test_cut_removes_specks_and_keeps_a_disc():
    y, x = np.mgrid[:60, :60]
    disc = (x - 30) ** 2 + (y - 30) ** 2 < 15**2
    noise = np.random.default_rng(0).normal(size=disc.shape)
    cost = np.where(disc, -1.0, 1.0) + 1.5 * noise
    found = smallest_cut(cost.astype(np.float32), np.full(disc.shape, 2.0, np.float32), cost < 0) > 0.5
    assert ((cost < 0) != disc).mean() > 0.2
    assert (found != disc).mean() < 0.02


def test_color_model_is_a_density_and_tells_clusters_apart():
    rng = np.random.default_rng(0)
    colors = np.concatenate([rng.normal(0.3, 0.05, (900, 3)), rng.normal(0.7, 0.05, (900, 3))])
    model = ColorModel.fit(colors, 2, rng)
    assert model.means[:, 0].round(1).tolist() in ([0.3, 0.7], [0.7, 0.3])
    inside = rng.uniform(0, 1, (40_000, 3))
    assert np.exp(model.log_density(inside)).mean() == pytest.approx(1, abs=0.1)
    assert model.log_density(np.array([0.3, 0.3, 0.3])) > model.log_density(np.array([0.5, 0.5, 0.5])) + 3


# ------------------------------------------------------------------------------- exposures


def test_light_to_srgb_and_back():
    values = torch.linspace(0, 1, 101)
    torch.testing.assert_close(srgb_from_linear(linear_from_srgb(values)), values, atol=1e-5, rtol=0)


def test_gains_are_found_despite_highlights():
    rng = np.random.default_rng(0)
    true = torch.from_numpy(rng.uniform(0.8, 1.2, (6, 3))).float()
    light = torch.from_numpy(rng.uniform(0.1, 0.6, (1, 3, 40, 40))).float().repeat(6, 1, 1, 1)
    light = torch.nn.functional.avg_pool2d(light, 5, 1, 2, count_include_pad=False)
    shining = light.clone()
    for i in range(6):
        shining[i, :, 6 * i : 6 * i + 8] *= 1.5  # another place in each picture
    images = srgb_from_linear(shining * true[:, :, None, None]).clamp(0, 1)
    uv = torch.from_numpy(rng.uniform(0.05, 0.95, (300, 2))).float()
    point, view = np.repeat(np.arange(300), 6), np.tile(np.arange(6), 300)
    gains = exposure_gains(images, uv[torch.from_numpy(point)], view, point)
    expected = 1 / true
    expected = expected / expected.log().mean(0).exp()
    assert float((gains / expected - 1).abs().max()) < 0.02
    assert float(gains.log().mean()) == pytest.approx(0, abs=1e-5)
    even = linear_from_srgb(apply_gains(images, gains))[:, :, 38, 38]
    assert float((even / even.mean(0) - 1).abs().max()) < 0.03


def test_gains_are_one_where_nothing_tells():
    black = torch.zeros(3, 3, 8, 8)
    assert bool((exposure_gains(black, torch.rand(9, 2), np.arange(9) % 3, np.arange(9) // 3) == 1).all())


# ------------------------------------------------------------------------------- up


def _similarity(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    T = np.eye(4)
    T[:3, :3] = rng.uniform(0.2, 5) * Rotation.random(random_state=seed).as_matrix()
    T[:3, 3] = rng.uniform(-5, 5, 3)
    return T


def _room_points(rng: np.random.Generator) -> np.ndarray:
    on_table = np.column_stack([rng.uniform(-2, 2, (150, 2)), rng.normal(-0.5, 0.003, 150)])
    on_lid = np.column_stack([rng.uniform(-0.5, 0.5, (260, 2)), rng.normal(0.5, 0.003, 260)])  # more than the table's
    ring = rng.uniform(0, 2 * np.pi, 300)
    on_floor = np.column_stack([3 * np.cos(ring), 3 * np.sin(ring), rng.normal(-1.5, 0.003, 300)])  # around the table
    return np.concatenate([on_table, on_lid, on_floor, rng.uniform([-7, -7, 0], [7, 7, 14], (200, 3))])


def test_the_plane_is_the_table_whatever_the_world():
    rng = np.random.default_rng(0)
    points, T = _room_points(rng), draw_scene(8, 16).cameras.T_world_camera.double().numpy()
    for seed in range(3):
        S = _similarity(seed)
        moved = points @ S[:3, :3].T + S[:3, 3]
        plane = support_plane(moved, moved_cameras(T, S))
        assert plane is not None
        back = plane.moved(np.linalg.inv(S))
        assert back.normal @ [0, 0, 1] > 0.9999
        assert back.height == pytest.approx(-0.5, abs=0.01)


def test_a_table_with_few_points_under_a_tin_with_many():
    """A tin's wall holds planes with more points than a dull table, and none of these has nothing below it."""
    rng = np.random.default_rng(1)
    on_table = np.column_stack([rng.uniform(-1.8, 1.8, (60, 2)), rng.normal(-0.5, 0.003, 60)])
    around, up = rng.uniform(0, 2 * np.pi, 900), rng.uniform(-0.4, 0.4, 900)
    on_wall = np.column_stack([0.9 * np.cos(around), 0.9 * np.sin(around), up])
    T = draw_scene(8, 16).cameras.T_world_camera.double().numpy()
    for seed in range(2):
        plane = support_plane(np.concatenate([on_table, on_wall]), T, seed)
        assert plane is not None
        assert plane.normal @ [0, 0, 1] > 0.9999
        assert plane.height == pytest.approx(-0.5, abs=0.01)


def test_no_plane_in_a_cloud():
    points = np.random.default_rng(0).normal(size=(60, 3))
    assert support_plane(points, draw_scene(8, 16).cameras.T_world_camera.double().numpy()) is None


def test_levelled_worlds_of_one_capture_are_one():
    T = draw_scene(8, 16).cameras.T_world_camera.double().numpy()
    plane = Plane(np.array([0.0, 0.0, 1.0]), -0.5)
    level = moved_cameras(T, level_world(T, plane))
    S = _similarity(1)
    again = moved_cameras(T, S)
    np.testing.assert_allclose(moved_cameras(again, level_world(again, plane.moved(S))), level, atol=1e-9)
    np.testing.assert_allclose(meeting_point(level), 0, atol=1e-9)
    assert np.median(np.linalg.norm(level[:, :3, 3], axis=1)) == pytest.approx(4)
    assert level[0, 1, 3] == pytest.approx(0, abs=1e-9)
    assert level[0, 0, 3] > 0


# ------------------------------------------------------------------------------- the object among other things


@pytest.fixture(scope="module")
def box_scene() -> Scene:
    return draw_scene(12, 320)


def test_the_table_from_above_is_its_pattern(box_scene):
    free = 1 - box_scene.alpha
    picture = TablePicture.of(box_scene.images, box_scene.cameras, free, TABLE_Z, (0.0, 0.0), 1.5)
    outside = box_scene.alpha[0, 0] == 0
    difference, agreeing = picture.difference(box_scene.images[0], box_scene.cameras[[0]])
    known = (agreeing > 0) & outside
    assert float(known.float().mean()) > 0.2
    assert float(difference[known].quantile(0.95)) < 0.04
    # Half a unit higher lies no plane: the pictures agree on much less.
    wrong = TablePicture.of(box_scene.images, box_scene.cameras, free, TABLE_Z + 0.5, (0.0, 0.0), 1.5)
    assert float((wrong.layers[0, 6] > 0).float().mean()) < 0.5 * float((picture.layers[0, 6] > 0).float().mean())


@pytest.mark.parametrize("plain", [False, True])
def test_the_object_is_found_among_other_things(plain):
    scene = draw_scene(10, 160, plain=plain)
    plane = Plane(np.array([0.0, 0.0, 1.0]), TABLE_Z)
    found = segment_together(scene.images, scene.cameras, torch.ones_like(scene.alpha), plane)
    iou = silhouette_iou(found.alpha, scene.alpha)
    assert float(iou.mean()) > 0.95
    assert float(iou.min()) > 0.88
    assert found.disagreeing == []
    assert found.doubts == []


@pytest.mark.slow
def test_what_the_first_start_does_not_find_is_found_from_outside(monkeypatch):
    """22 s: paring all that the cameras look at takes its time."""

    def nothing(*_: object) -> None:
        raise InputError("no object stands out")

    monkeypatch.setattr(together, "_first_shape", nothing)
    ball = colored_ball(radius=0.8, rounds=4)
    lower = ball.faces[ball.vertices[ball.faces].mean(dim=1)[:, 2] < 0]
    bowl = ball.replace(
        vertices=ball.vertices * torch.tensor([1.0, 1.0, 0.75]) + torch.tensor([0.0, 0.0, TABLE_Z + 0.6]),
        faces=lower,
        vertex_colors=torch.tensor([[0.8, 0.35, 0.1]]).repeat(len(ball.vertices), 1),
    )
    scene = draw_scene(16, 160, thing=bowl, by_hand=True)
    plane = Plane(np.array([0.0, 0.0, 1.0]), TABLE_Z)
    found = segment_together(scene.images, scene.cameras, torch.ones_like(scene.alpha), plane)
    assert float(silhouette_iou(found.alpha, scene.alpha).min()) > 0.9


def test_what_an_object_stands_on_shows_no_table(box_scene):
    """Where an even wall meets the table all views agree on its colour, but that is none of the table's."""
    square = Ground(torch.ones(4, 6, dtype=torch.bool), torch.tensor([0.75, -0.45]), 0.15)
    given = (box_scene.images, box_scene.cameras, torch.ones_like(box_scene.alpha), TABLE_Z, (0.0, 0.0), 1.5)
    camera, size = box_scene.cameras[[0]], box_scene.images.shape[2:]
    uv, _ = camera.project(torch.tensor([[1.0, 0.0, TABLE_Z], [1.0, 0.35, TABLE_Z], [1.0, 0.6, TABLE_Z]]))
    column, row = (uv[0] * torch.tensor([size[1], size[0]])).long().T
    seen, bare = (
        TablePicture.of(*given, stood_on=ground).difference(box_scene.images[0], camera)[1] for ground in (None, square)
    )
    assert bare[row, column].tolist() == [0, 0, seen[row[2], column[2]]]
    assert seen[row, column].min() > 0
    assert (bare > 0).sum() < (seen > 0).sum() < 1.5 * (bare > 0).sum()


def test_a_shadow_under_what_hangs_over_is_table():
    """The outlines of nearly all views hide it from the table's picture; only what stands above the foot may."""
    scene = draw_scene(10, 160, plain=True, shadow=True)
    plane = Plane(np.array([0.0, 0.0, 1.0]), TABLE_Z)
    found = segment_together(scene.images, scene.cameras, torch.ones_like(scene.alpha), plane)
    assert float(silhouette_iou(found.alpha, scene.alpha).min()) > 0.94


@pytest.mark.parametrize(
    ("agreement", "unexplained", "cut_off", "said"),
    [
        ([0.97] * 6, 0.0, 0.0, None),
        ([0.9] * 5 + [0.3], 0.0, 0.0, "agrees by 0.80"),
        ([0.97] * 6, 0.4, 0.0, "40 % more than the outlines hold"),
        ([0.97] * 6, 0.0, 0.9, "edge of 90 % of the pictures"),
    ],
)
def test_outlines_that_cannot_be_right_say_so(agreement, unexplained, cut_off, said):
    doubts = Segmented(torch.zeros(6, 1, 4, 4), torch.tensor(agreement), unexplained, cut_off).doubts
    assert (said is None and doubts == []) or (len(doubts) == 1 and said in doubts[0])


def test_the_report_says_how_well_outlines_agree(tmp_path):
    views = load_views(Path(__file__).parent.parent / "examples" / "demo" / "posed", ViewOptions(max_size_px=64))
    outlines = Outlines(0.9, 0.7, ("a.jpg",), ("the outline reaches the edge of 50 % of the pictures",))
    for told in (None, outlines):
        scored = Scored.of(colored_ball(), replace(views, outlines=told)[[0, 1]].to("cpu"))
        write_report(tmp_path / "report.json", scored, scored, None, [], {}, [], ObjectFrame.of(views))
        said = json.loads((tmp_path / "report.json").read_text())["input"]["outlines"]
        assert said == (None if told is None else {
            "agreement": 0.9, "least_agreement": 0.7, "disagreeing": ["a.jpg"],
            "doubts": ["the outline reaches the edge of 50 % of the pictures"],
        })  # fmt: skip


@pytest.mark.slow
def test_a_picture_of_something_else_is_named(box_scene):
    images = torch.nn.functional.interpolate(box_scene.images, size=(120, 160), mode="area")
    images[3] = images[3].mean(dim=(1, 2), keepdim=True)  # a finger before the lens
    plane = Plane(np.array([0.0, 0.0, 1.0]), TABLE_Z)
    found = segment_together(images, box_scene.cameras, torch.ones_like(images[:, :1]), plane)
    assert found.disagreeing == [3]


def test_cameras_that_look_elsewhere_are_refused(box_scene):
    turned = Cameras.look_at(box_scene.cameras.positions, 20.0, target=torch.tensor([0.0, 0.0, 50.0]))
    turned = Cameras.cat([turned[[0, 1, 2]], box_scene.cameras[[3, 4, 5]]])
    with pytest.raises(InputError, match="do not look at one place"):
        segment_together(box_scene.images[:6], turned, torch.ones(6, 1, *box_scene.images.shape[2:]), None)


# ------------------------------------------------------------------------------- structure from motion


def test_a_model_counts_as_far_as_its_matches_go():
    """A mapper that places all pictures, but a part of them elsewhere, places fewer than it says."""
    pycolmap = pytest.importorskip("pycolmap", reason="the extra sfm is not installed")
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_frames_per_rig, options.num_points3D = 1, 10, 60
    pycolmap.set_random_seed(0)
    model = pycolmap.synthesize_dataset(options)
    shown = {i: {p.point3D_id: k for k, p in enumerate(image.points2D)} for i, image in model.images.items()}
    pairs = [
        (i, j, np.array([[shown[i][p], shown[j][p]] for p in shown[i] if p in shown[j] and p in model.points3D]))
        for i, j in itertools.combinations(sorted(shown), 2)
    ]
    (camera_id,) = model.cameras
    focal_px = model.cameras[camera_id].focal_length
    assert count_supported(model, pairs, {camera_id: focal_px}) == 10
    assert count_supported(model, pairs, {camera_id: 2 * focal_px}) == 0
    for number in sorted(shown)[:3]:
        frame = model.images[number].frame
        turn = pycolmap.Rotation3d(Rotation.from_rotvec([0, 0, 0.5]).as_quat())
        frame.rig_from_world = frame.rig_from_world * pycolmap.Rigid3d(turn, np.zeros(3))
    assert count_supported(model, pairs, {}) == 7


@pytest.mark.slow
def test_a_model_that_its_matches_contradict_is_refused(photos, tmp_path, monkeypatch):
    pytest.importorskip("pycolmap", reason="the extra sfm is not installed")
    monkeypatch.setattr(sfm, "count_supported", lambda *_: 5)
    with pytest.raises(InputError, match="contradict each other: only 5 of 12 stand where their matches say"):
        pose(photos, tmp_path / "out")


@pytest.mark.slow
def test_what_is_too_faint_is_tried_once_more(box_scene, tmp_path, monkeypatch):
    """A twentieth of the contrast: SIFT as COLMAP has it finds next to nothing."""
    pytest.importorskip("pycolmap", reason="the extra sfm is not installed")
    scene = replace(box_scene, images=0.5 + 0.05 * (box_scene.images - 0.5))
    tried, extract = [], sfm._extract

    def noted(*given: object) -> None:
        tried.append(given[-1])
        extract(*given)

    monkeypatch.setattr(sfm, "_extract", noted)
    posed = pose(_write(scene, tmp_path / "faint"), tmp_path / "out")
    assert tried == [False, True]
    assert len(posed.views) == 12


def _write(scene: Scene, folder: Path) -> Path:
    folder.mkdir()
    for i, image in enumerate(scene.images):
        exif = Image.Exif()
        diagonal = np.hypot(4, 3)
        exif.get_ifd(0x8769)[0xA405] = round(0.5 / np.tan(np.deg2rad(45 / 2)) * 3 / diagonal * np.hypot(36, 24))
        pixels = (image.permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(pixels).save(folder / f"IMG_{i:02d}.jpg", quality=95, exif=exif)
    return folder


@pytest.fixture(scope="module")
def photos(box_scene, tmp_path_factory) -> Path:
    return _write(box_scene, tmp_path_factory.mktemp("photos") / "in")


@pytest.fixture(scope="module")
def posed(photos) -> Path:
    pytest.importorskip("pycolmap", reason="the extra sfm is not installed")
    out = photos.parent / "posed"
    pose(photos, out)
    return out


@pytest.mark.slow
def test_photos_become_a_cut_out_capture(photos, box_scene):
    pytest.importorskip("pycolmap", reason="the extra sfm is not installed")
    views = load_views(photos)
    assert len(views) == 12
    assert views.rig == "posed"
    turned, moved = aligned_differences(views.cameras, box_scene.cameras)
    assert float(turned.max()) < 0.3
    assert float(moved.max()) < 0.05
    said = " ".join(views.assumptions)
    assert "cameras of 12 of 12 pictures" in said
    assert "found in 12 pictures together" in said
    smaller = torch.nn.functional.interpolate(box_scene.alpha, size=views.alpha.shape[2:], mode="bilinear")
    assert float(silhouette_iou(views.alpha, smaller).mean()) > 0.93  # but for the lens's last pixels
    assert views.capture is not None
    assert not views.capture.own_axes
    assert views.outlines is not None
    assert views.outlines.agreement > 0.87
    assert views.outlines.doubts == ()


@pytest.mark.slow
def test_pose_writes_what_is_read_again(posed):
    from_transforms, from_colmap = (
        load_views(path, ViewOptions(background="multiview"))
        for path in (posed / "transforms.json", posed / "sparse/0")
    )
    assert len(from_transforms) == len(from_colmap) == 12
    turned, _ = from_transforms.cameras.difference(from_colmap.cameras)
    assert float(turned.max()) < 1e-4
    torch.testing.assert_close(from_transforms.cameras.positions, from_colmap.cameras.positions, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(from_transforms.cameras.intrinsics, from_colmap.cameras.intrinsics)


@pytest.mark.slow
def test_pose_writes_a_model_that_colmap_reads(posed):
    pycolmap = pytest.importorskip("pycolmap", reason="the extra sfm is not installed")
    model = pycolmap.Reconstruction(posed / "sparse" / "0")
    assert model.num_reg_images() == 12
    assert model.num_points3D() > 100
    model.update_point_3d_errors()
    assert model.compute_mean_reprojection_error() < 1.0


def test_pictures_that_do_not_fit_together_are_named(photos, tmp_path):
    pytest.importorskip("pycolmap", reason="the extra sfm is not installed")
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name in ("IMG_00.jpg", "IMG_06.jpg"):
        (folder / name).write_bytes((photos / name).read_bytes())
    Image.new("RGB", (320, 240), (90, 90, 90)).save(folder / "grey.jpg")
    Image.new("RGB", (320, 240), (10, 90, 90)).save(folder / "teal.jpg")
    with pytest.raises(InputError, match=r"only \d of 4 pictures could be placed .*grey.jpg: only 0 features"):
        load_views(folder, ViewOptions(rig="photos"))


def test_pycolmap_is_an_extra_that_is_named(photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(InputError, match=r"pip install 'meshwright\[sfm\]'"):
        load_views(photos)


def test_even_pictures_of_a_camera_are_photos(tmp_path):
    """A dull table fills the border like a backdrop; EXIF tells them from pictures that were made for a rig."""
    for i in range(8):
        pixels = np.full((48, 48, 3), 128, np.uint8)
        pixels[16:32, 16 + i : 32] = 20
        exif = Image.Exif()
        exif[0x0110] = "phone"
        Image.fromarray(pixels).save(tmp_path / f"{i}.jpg", quality=95, exif=exif)
    with pytest.raises(InputError, match="taken for photos"):
        load_views(tmp_path)
    for i in range(8):
        Image.open(tmp_path / f"{i}.jpg").save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.jpg").unlink()
    assert load_views(tmp_path, ViewOptions(turn="even", elevation_deg=0.0)).rig == "sv3d"


def test_options_of_orbits_have_no_effect_on_photos(photos):
    with pytest.raises(InputError, match="elevation_deg"):
        load_views(photos, ViewOptions(rig="photos", elevation_deg=10))


# ------------------------------------------------------------------------------- pictures and options


def test_exif_tells_the_lens(photos, tmp_path):
    focal_mm, device = read_focal_35mm(photos / "IMG_00.jpg")
    assert focal_mm == 31
    assert device == ""
    Image.new("RGB", (8, 8)).save(tmp_path / "none.png")
    assert read_focal_35mm(tmp_path / "none.png") == (None, "")


def test_the_sharpest_frames_of_a_film_are_taken(tmp_path):
    rng = np.random.default_rng(0)
    sharp = torch.from_numpy(rng.uniform(0, 1, (3, 64, 64))).float()
    soft = torch.nn.functional.avg_pool2d(sharp, 5, 1, 2)
    write_video([sharp if i % 4 == 1 else soft for i in range(24)], tmp_path / "film.mp4")
    frames = read_frames(tmp_path / "film.mp4", max_frames=6, sharpest=True)
    assert frames.indices == (1, 5, 9, 13, 17, 21)
    assert frames.count == 24


@pytest.mark.parametrize("box", ["1,2,3", "a,b,c,d", "5,5,1,9", "-1,0,4,4", "0,0,nan,4"])
def test_a_box_that_is_none(box):
    with pytest.raises(InputError, match="is no box"):
        ViewOptions(box=box)


@pytest.mark.slow
def test_a_box_keeps_the_rest_of_the_first_picture_out(posed):
    options = ViewOptions(background="multiview", box="100,40,180,200")
    views = load_views(posed / "transforms.json", options)
    assert float(views.alpha[0, :, :, 190:].max()) == 0
    with pytest.raises(InputError, match="reaches beyond"):
        load_views(posed / "transforms.json", replace(options, box="0,0,3000,20"))
