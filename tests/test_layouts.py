"""Data sets in our own and in published layouts: what is written is read back, and what is malformed is named."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from meshwright.cameras import Cameras
from meshwright.curate import (
    CurateConvertOptions,
    CuratePackOptions,
    RenderedFolder,
    RenderedObject,
    SampleOptions,
    Samples,
    convert,
    open_dataset,
    pack,
    split_of,
)
from meshwright.errors import InputError
from test_dataset import rendered_ball, write


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two objects in our own layout."""
    dataset = tmp_path_factory.mktemp("ours") / "set"
    write(dataset / "objects" / "ball", rendered_ball("ball"), split="train")
    other = rendered_ball("other", views=7)
    write(dataset / "objects" / "other", other, split="validation")
    return dataset


def converted(source: Path, out: Path, layout: str) -> Path:
    assert convert(CurateConvertOptions(source, out, layout)) == 2  # type: ignore[arg-type]
    return out


def test_instantmesh_round_trip(ours: Path, tmp_path: Path) -> None:
    there = converted(ours, tmp_path / "there", "instantmesh")
    back = converted(there, tmp_path / "back", "meshwright")
    original, foreign, again = (open_dataset(path).read("ball") for path in (ours, there, back))
    for other in (foreign, again):
        assert torch.equal(other.rgba, original.rgba)
        assert torch.allclose(other.cameras.embedding(), original.cameras.embedding(), atol=1e-5)
        seen = original.depth_z > 0
        assert torch.equal(other.depth_z > 0, seen)
        assert (other.depth_z - original.depth_z).abs().max() <= 6.0 / 255 / 2 + 1e-3
        assert torch.allclose(other.normals, original.normals, atol=2 / 127.5)  # each writing rounds anew
    # A second time around nothing changes any more.
    assert torch.equal(
        foreign.depth_z, open_dataset(converted(back, tmp_path / "2", "instantmesh")).read("ball").depth_z
    )


def test_instantmesh_files_are_what_the_description_says(ours: Path, tmp_path: Path) -> None:
    folder = converted(ours, tmp_path / "there", "instantmesh") / "rendering_random_32views" / "ball"
    listed = json.loads((tmp_path / "there" / "filtered_obj_name.json").read_text())
    assert listed == {"good_objs": ["ball", "other"]}
    original = open_dataset(ours).read("ball")
    with np.load(folder / "cameras.npz") as arrays:
        poses = torch.from_numpy(arrays["cam_poses"])
    assert poses.shape == (8, 3, 4)
    assert torch.allclose(poses, original.cameras.T_camera_world[:, :3], atol=1e-6)
    depth = np.asarray(Image.open(folder / "003_depth.png"))
    assert depth.dtype == np.uint8
    assert np.abs(depth / 255 * 6.0 - original.depth_z[3, 0].numpy()).max() < 0.013
    normal = np.asarray(Image.open(folder / "003_normal.png"))
    assert normal.shape == (64, 64, 4)
    seen = original.depth_z[3, 0].numpy() > 0
    assert (normal[~seen] == 0).all()
    assert np.abs(normal[seen][:, :3] / 127.5 - 1 - original.normals[3].permute(1, 2, 0).numpy()[seen]).max() < 0.01


def test_mindone_round_trip(ours: Path, tmp_path: Path) -> None:
    there = converted(ours, tmp_path / "there", "mindone")
    original, foreign = open_dataset(ours).read("ball"), open_dataset(there).read("ball")
    assert torch.equal(foreign.rgba, original.rgba)
    assert torch.allclose(foreign.cameras.embedding(), original.cameras.embedding(), atol=1e-5)
    assert not foreign.depth_z.any()
    assert not foreign.normals.any()
    back = open_dataset(converted(there, tmp_path / "back", "meshwright")).read("ball", [4])
    assert torch.equal(back.rgba[0], original.rgba[4])


def test_mindone_lens_is_that_of_the_file(tmp_path: Path) -> None:
    """A set made by hand after the description, with a lens of its own and a pickled list."""
    folder = tmp_path / "any_name" / "uid-1"
    folder.mkdir(parents=True)
    cameras = Cameras.orbit(16, elevation_deg=30.0, radius=1.5, fov_deg=40.0)
    poses = cameras.T_camera_world[:, :3].double().numpy()
    K = np.array([[100.0, 0, 32], [0, 110.0, 30], [0, 0, 1]])
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    (folder / "meta.pkl").write_bytes(pickle.dumps([K, angles, np.full(16, 0.5), np.full(16, 1.5), poses]))
    for i in range(16):
        Image.fromarray(np.full((64, 64, 4), i, dtype=np.uint8)).save(folder / f"{i:03d}.png")
    (tmp_path / "uid_set.pkl").write_bytes(pickle.dumps(["uid-1"]))
    source = open_dataset(tmp_path)
    rendered = source.read("uid-1", [15, 3])
    assert source.view_count("uid-1") == 16
    assert rendered.rgba[:, 0, 0, 0].tolist() == [15, 3]
    expected = torch.tensor([100 / 64, 110 / 64, 0.5, 30 / 64])
    assert torch.allclose(rendered.cameras.intrinsics, expected.repeat(2, 1))
    assert torch.allclose(rendered.cameras.T_world_camera, cameras.T_world_camera[[15, 3]], atol=1e-5)
    (tmp_path / "uid_set.txt").write_text("uid-1\n")
    assert open_dataset(tmp_path).names == ("uid-1",)


def test_shards_hold_the_very_bytes_and_are_read_by_the_same_reader(ours: Path, tmp_path: Path) -> None:
    shards = pack(CuratePackOptions(ours, tmp_path / "shards", shard_mib=1))
    again = pack(CuratePackOptions(ours, tmp_path / "again", shard_mib=1))
    assert [path.read_bytes() for path in shards] == [path.read_bytes() for path in again]
    for with_index in (True, False):
        if not with_index:
            for index in (tmp_path / "shards").glob("*.json"):
                index.unlink()
        folder, packed = open_dataset(ours), open_dataset(tmp_path / "shards")
        assert packed.names == folder.names
        one, other = folder.read("other", [6, 0]), packed.read("other", [6, 0])
        assert torch.equal(one.rgba, other.rgba)
        assert torch.equal(one.depth_z, other.depth_z)
        assert torch.equal(one.normals, other.normals)
        assert torch.equal(one.cameras.T_world_camera, other.cameras.T_world_camera)
    assert open_dataset(tmp_path / "shards", "validation").names == ("other",)
    options = SampleOptions(inputs=2, targets=1, crop_px=32, render_px=(32, 64))
    assert torch.equal(Samples(folder, options)[1].target_images, Samples(packed, options)[1].target_images)


def test_the_webdataset_library_reads_the_shards(ours: Path, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    shards = pack(CuratePackOptions(ours, tmp_path / "shards"))
    samples = list(webdataset.WebDataset([str(path) for path in shards], shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == ["ball", "other"]
    folder = ours / "objects" / "ball"
    names = {path.name for path in folder.iterdir()}
    assert names <= samples[0].keys()
    assert all(samples[0][name] == (folder / name).read_bytes() for name in names)


def test_splits_come_from_records_or_else_from_names(ours: Path, tmp_path: Path) -> None:
    assert open_dataset(ours, "train").names == ("ball",)
    there = converted(ours, tmp_path / "there", "mindone")
    parts = {split: names(there, split) for split in ("train", "validation", "test")}
    assert sorted(name for part in parts.values() for name in part) == ["ball", "other"]
    many = [split_of(f"object {i}") for i in range(4000)]
    assert 0.04 < many.count("test") / 4000 < 0.06
    assert 0.04 < many.count("validation") / 4000 < 0.06
    assert many != [split_of(f"object {i}", seed=1) for i in range(4000)]


def names(path: Path, split: str) -> tuple[str, ...]:
    try:
        return open_dataset(path, split).names  # type: ignore[arg-type]
    except InputError:
        return ()


def test_a_layout_without_place_for_the_lens_says_so(tmp_path: Path) -> None:
    ball = rendered_ball("ball")
    narrow = Cameras(ball.cameras.T_world_camera, ball.cameras.intrinsics * torch.tensor([2.0, 2.0, 1.0, 1.0]))
    write(
        tmp_path / "set" / "objects" / "ball",
        RenderedObject("ball", ball.rgba, ball.depth_z, ball.normals, narrow),
    )
    with pytest.raises(InputError, match="one lens, 50 degrees"):
        convert(CurateConvertOptions(tmp_path / "set", tmp_path / "out", "instantmesh"))
    assert not (tmp_path / "out").exists()


def edit_transforms(folder: Path, change: Callable[[dict], None]) -> None:
    content = json.loads((folder / "transforms.json").read_text())
    change(content)
    (folder / "transforms.json").write_text(json.dumps(content))


def nan_pose(folder: Path) -> None:
    edit_transforms(folder, lambda content: content["frames"][2]["transform_matrix"][0].__setitem__(1, float("nan")))


def skewed_pose(folder: Path) -> None:
    edit_transforms(folder, lambda content: content["frames"][1]["transform_matrix"][0].__setitem__(1, 0.5))


def no_lens(folder: Path) -> None:
    edit_transforms(folder, lambda content: content["frames"][0].pop("fl_x"))


def cut(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return damage


def replaced(name: str, pixels: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: Image.fromarray(pixels).save(folder / name)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing view": (lambda folder: (folder / "004.png").unlink(), "004.png"),
    "missing depth": (lambda folder: (folder / "004_depth.png").unlink(), "004_depth.png"),
    "missing cameras": (lambda folder: (folder / "transforms.json").unlink(), "transforms.json"),
    "no lens": (no_lens, "transforms.json: is not what"),
    "NaN pose": (nan_pose, "camera 2 is not a rotation"),
    "skewed pose": (skewed_pose, "camera 1 is not a rotation"),
    "truncated png": (cut("003_normal.png"), "003_normal.png: the picture is damaged"),
    "truncated json": (cut("transforms.json"), "transforms.json: is not what"),
    "three channels": (replaced("001.png", np.zeros((64, 64, 3), np.uint8)), "001.png: is a picture of kind RGB"),
    "coloured depth": (replaced("001_depth.png", np.zeros((64, 64, 3), np.uint8)), "kind RGB, not I;16"),
    "other size": (replaced("005.png", np.zeros((32, 64, 4), np.uint8)), "005.png: is 64x32 px, not 64x64"),
    "grey normals": (replaced("000_normal.png", np.full((64, 64, 3), 128, np.uint8)), "have not the length 1"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_object_is_named_in_one_line(ours: Path, tmp_path: Path, name: str) -> None:
    damage, expected = DAMAGES[name]
    shutil.copytree(ours, tmp_path / "set")
    damage(tmp_path / "set" / "objects" / "ball")
    source = RenderedFolder(tmp_path / "set")
    with pytest.raises(InputError) as caught:
        source.read("ball")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(source.read("other")) == 7


CODE = b"cos\nsystem\n(S'true'\ntR."

FOREIGN_DAMAGES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "view": ("instantmesh", lambda folder: (folder / "004.png").unlink(), "004.png"),
    "depth": ("instantmesh", replaced("001_depth.png", np.zeros((64, 64, 3), np.uint8)), "kind RGB, not L"),
    "normals": ("instantmesh", replaced("001_normal.png", np.zeros((64, 64, 3), np.uint8)), "kind RGB, not RGBA"),
    "npz": ("instantmesh", cut("cameras.npz"), "cameras.npz"),
    "nan": ("instantmesh", lambda f: np.savez(f / "cameras.npz", cam_poses=np.full((8, 3, 4), np.nan)), "NaN"),
    "pickle": ("mindone", cut("meta.pkl"), "meta.pkl"),
    "short": ("mindone", lambda f: (f / "meta.pkl").write_bytes(pickle.dumps([np.eye(3)])), "meta.pkl"),
    "code": (
        "mindone",
        lambda f: (f / "meta.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR."),
        "do not trust this file",
    ),
}


@pytest.mark.parametrize("name", FOREIGN_DAMAGES)
def test_a_damaged_foreign_object_is_named_in_one_line(ours: Path, tmp_path: Path, name: str) -> None:
    layout, damage, expected = FOREIGN_DAMAGES[name]
    root = converted(ours, tmp_path / "set", layout)
    damage(next(root.glob("*/ball")))
    source = open_dataset(root)
    with pytest.raises(InputError) as caught:
        source.read("ball")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("uid", ["../elsewhere", "a/b", "", "*", 7])
def test_lists_lead_nowhere_outside_the_set(ours: Path, tmp_path: Path, uid: object) -> None:
    root = converted(ours, tmp_path / "set", "instantmesh")
    (root / "filtered_obj_name.json").write_text(json.dumps({"good_objs": [uid]}))
    with pytest.raises(InputError, match="no name of an object"):
        open_dataset(root)


@pytest.mark.parametrize("with_index", [True, False])
def test_a_shard_that_was_cut_off_is_named(ours: Path, tmp_path: Path, with_index: bool) -> None:
    (shard,) = pack(CuratePackOptions(ours, tmp_path / "shards"))
    data = shard.read_bytes()
    shard.write_bytes(data[: len(data) * 2 // 3])
    if not with_index:
        shard.with_suffix(".index.json").unlink()
    with pytest.raises(InputError, match=r"shard-000000.tar: the shard is (damaged or )?cut off"):
        open_dataset(tmp_path / "shards").read("other")


def test_what_is_no_data_set_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such data set"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no data set that is known"):
        open_dataset(tmp_path)
