"""Mesh files: every format must put the same point, winding and colour in the same place, read by us and by others."""

import json
import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from meshwright import InputError, Mesh
from meshwright.mesh_files import load_mesh, save_mesh

FORMATS = ["glb", "obj", "ply", "stl"]
# A box that no axis swap or mirror maps to itself; its corners are numbered by (x, y, z) bits.
BOX = torch.tensor([[-0.2, 0.5], [-0.4, 0.3], [-0.1, 0.9]])
BOX_FACES = [[0, 2, 3, 1], [4, 5, 7, 6], [0, 1, 5, 4], [2, 6, 7, 3], [0, 4, 6, 2], [1, 3, 7, 5]]


def plain_box() -> Mesh:
    corners = [[BOX[0, i >> 2], BOX[1, i >> 1 & 1], BOX[2, i & 1]] for i in range(8)]
    # Quads listed clockwise from outside for x-low first; split and turned so that the volume is positive.
    quads = torch.tensor([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    return Mesh(torch.tensor(corners), torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]))


def colored_box() -> Mesh:
    return plain_box().replace(vertex_colors=torch.rand(8, 3, generator=torch.Generator().manual_seed(1)))


def textured_box() -> Mesh:
    """Six charts of 4 x 4 texels in a texture of 16 x 8 texels, all texels different; corners at texel centres."""
    mesh = plain_box()
    texture = torch.rand(3, 8, 16, generator=torch.Generator().manual_seed(2))
    texture = (texture * 255).round() / 255
    corner = torch.tensor([[0.5, 0.5], [3.5, 0.5], [3.5, 3.5], [0.5, 3.5]])  # counted from the lower left
    chart = torch.tensor([[4.0 * (i % 3), 4.0 * (i // 3)] for i in range(6)])
    uv = ((chart[:, None] + corner) / torch.tensor([16.0, 8.0])).reshape(-1, 2)
    quads = torch.arange(24).reshape(6, 4)
    uv_faces = torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    return mesh.replace(uv=uv, uv_faces=uv_faces, texture=texture)


def texels(texture: torch.Tensor, uv: torch.Tensor) -> torch.Tensor:
    """The texel under each uv, v upwards, row 0 of the texture on top."""
    height, width = texture.shape[1:]
    column = (uv[:, 0] * width).floor().long()
    row = ((1 - uv[:, 1]) * height).floor().long()
    return texture[:, row, column].T


def corner_rows(mesh: Mesh) -> np.ndarray:
    """Each face corner's place and colour, in face order."""
    parts = [mesh.vertices[mesh.faces.reshape(-1)]]
    if mesh.vertex_colors is not None:
        parts.append(mesh.vertex_colors[mesh.faces.reshape(-1)])
    if mesh.texture is not None:
        parts.append(texels(mesh.texture, mesh.uv[mesh.uv_faces.reshape(-1)]))
    return torch.cat(parts, dim=1).numpy()


def read_by_trimesh(path: Path) -> trimesh.Trimesh:
    (solid,) = trimesh.load_scene(path, process=False).geometry.values()
    return solid


def linear_from_srgb(value: np.ndarray) -> np.ndarray:
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("make", [plain_box, colored_box, textured_box])
def test_what_is_saved_is_loaded_back_in_the_same_place_with_the_same_winding_and_colour(make, suffix, tmp_path):
    mesh = make()
    save_mesh(mesh, tmp_path / f"box.{suffix}")
    loaded = load_mesh(tmp_path / f"box.{suffix}")
    saved_rows, loaded_rows = corner_rows(mesh), corner_rows(loaded)
    if suffix == "stl" or (suffix == "ply" and mesh.texture is not None):  # tested on its own below
        saved_rows, loaded_rows = saved_rows[:, :3], loaded_rows[:, :3]
    np.testing.assert_array_equal(loaded_rows[:, :3], saved_rows[:, :3])
    np.testing.assert_allclose(loaded_rows[:, 3:], saved_rows[:, 3:], atol=0.5001 / 255)
    assert loaded.is_watertight()
    assert float(loaded.volume()) == pytest.approx(0.7 * 0.7 * 1.0)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("make", [plain_box, colored_box, textured_box])
def test_other_programs_find_y_up_and_the_same_winding_and_colour(make, suffix, tmp_path):
    mesh = make()
    save_mesh(mesh, tmp_path / f"box.{suffix}")
    solid = read_by_trimesh(tmp_path / f"box.{suffix}")
    expected = corner_rows(mesh)
    x, y, z = expected[:, :3].T
    corners = np.asarray(solid.faces).reshape(-1)
    np.testing.assert_allclose(solid.vertices[corners], np.stack([x, z, -y], axis=1), atol=1e-7)
    assert solid.volume == pytest.approx(0.49, abs=1e-6)
    if mesh.texture is not None and suffix in ("glb", "obj"):
        found = solid.visual.material.to_color(solid.visual.uv)[corners, :3] / 255
        np.testing.assert_allclose(found, expected[:, 3:], atol=0.5001 / 255)
    elif mesh.vertex_colors is not None and suffix == "glb":
        color = solid.visual.vertex_attributes["color"][corners]
        assert color.dtype == np.uint16
        assert (color[:, 3] == 65535).all()
        np.testing.assert_allclose(color[:, :3] / 65535, linear_from_srgb(expected[:, 3:]), atol=0.5001 / 65535)
    elif mesh.vertex_colors is not None and suffix in ("obj", "ply"):
        np.testing.assert_allclose(solid.visual.vertex_colors[corners, :3] / 255, expected[:, 3:], atol=0.5001 / 255)


def test_glb_keeps_all_256_grey_levels_apart_where_8_linear_bits_would_not(tmp_path):
    grey = (torch.arange(256) / 255)[:, None].expand(256, 3)
    line = torch.linspace(-1, 1, 256)
    mesh = Mesh(torch.stack([line, line**2, line**3], dim=1), torch.arange(255).reshape(85, 3), vertex_colors=grey)
    save_mesh(mesh, tmp_path / "ramp.glb")
    loaded = load_mesh(tmp_path / "ramp.glb").vertex_colors
    np.testing.assert_allclose(loaded * 255, grey * 255, atol=0.03)
    assert len(np.unique(np.round(linear_from_srgb(grey.numpy()) * 255))) < 190


def test_the_picture_beside_an_obj_stands_upright(tmp_path):
    """The png's first row is the texture's first row: the top, v = 1."""
    mesh = textured_box()
    save_mesh(mesh, tmp_path / "box.obj")
    pixels = np.asarray(Image.open(tmp_path / "box.png"))
    np.testing.assert_array_equal(pixels, (mesh.texture.permute(1, 2, 0) * 255).round().byte().numpy())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["box.mtl", "box.obj", "box.png"]


def test_glb_normals_are_the_meshs_own_turned_y_up(tmp_path):
    mesh = colored_box()
    save_mesh(mesh, tmp_path / "box.glb")
    solid = read_by_trimesh(tmp_path / "box.glb")
    x, y, z = mesh.vertex_normals().T.numpy()
    np.testing.assert_allclose(solid.vertex_normals, np.stack([x, z, -y], axis=1), atol=1e-6)


@pytest.mark.parametrize("make", [plain_box, colored_box, textured_box])
def test_a_glb_is_built_as_the_specification_says(make, tmp_path):
    """glTF 2.0, section 4.4: a header, then chunks whose lengths are multiples of four; 3.6.2.2: who is normalized."""
    save_mesh(make(), tmp_path / "box.glb")
    data = (tmp_path / "box.glb").read_bytes()
    assert struct.unpack("<4sII", data[:12]) == (b"glTF", 2, len(data))
    start, kinds = 12, []
    while start < len(data):
        length, kind = struct.unpack("<I4s", data[start : start + 8])
        assert length % 4 == 0
        kinds.append(kind)
        start += 8 + length
    assert (start, kinds) == (len(data), [b"JSON", b"BIN\0"])
    tree = glb_tree(tmp_path / "box.glb")
    attributes = tree["meshes"][0]["primitives"][0]["attributes"]
    for name, accessor in attributes.items():
        assert tree["accessors"][accessor].get("normalized", False) is (name == "COLOR_0")
    for accessor in tree["accessors"]:
        size = {5126: 4, 5125: 4, 5123: 2}[accessor["componentType"]]
        width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}[accessor["type"]]
        view = tree["bufferViews"][accessor["bufferView"]]
        assert view["byteLength"] == accessor["count"] * width * size
        assert view["byteOffset"] % size == 0


def test_colours_beyond_the_range_are_saturated(tmp_path):
    mesh = textured_box()
    save_mesh(mesh.replace(texture=mesh.texture * 4 - 1.5), tmp_path / "box.glb")
    np.testing.assert_allclose(
        load_mesh(tmp_path / "box.glb").texture, (mesh.texture * 4 - 1.5).clamp(0, 1), atol=0.5001 / 255
    )


def test_a_coloured_glb_is_unlit_and_a_plain_one_is_lit(tmp_path):
    for mesh, unlit in ((colored_box(), True), (textured_box(), True), (plain_box(), False)):
        save_mesh(mesh, tmp_path / "box.glb")
        material = glb_tree(tmp_path / "box.glb")["materials"][0]
        assert ("KHR_materials_unlit" in material.get("extensions", {})) is unlit
        assert material["pbrMetallicRoughness"]["metallicFactor"] == 0


def test_ply_takes_its_vertex_colours_from_a_texture(tmp_path):
    """Corners of the box lie at texel centres, so each vertex has the colour of one of its three texels."""
    mesh = textured_box()
    save_mesh(mesh, tmp_path / "box.ply")
    loaded = load_mesh(tmp_path / "box.ply")
    at_corner = texels(mesh.texture, mesh.uv[mesh.uv_faces.reshape(-1)])
    for vertex, color in enumerate(loaded.vertex_colors):
        candidates = at_corner[mesh.faces.reshape(-1) == vertex]
        assert float((candidates - color).abs().amax(1).min()) < 1e-6


def test_a_ply_says_how_many_pictures_see_each_vertex_where_that_is_known(tmp_path):
    mesh = colored_box()
    counts = torch.arange(len(mesh.vertices)) * 100
    save_mesh(mesh.replace(view_counts=counts), tmp_path / "box.ply")
    save_mesh(mesh, tmp_path / "plain.ply")
    read = trimesh.load(tmp_path / "box.ply", process=False).metadata["_ply_raw"]["vertex"]["data"]
    assert read["view_count"].ravel().tolist() == counts.tolist()
    assert b"view_count" not in (tmp_path / "plain.ply").read_bytes()
    torch.testing.assert_close(load_mesh(tmp_path / "box.ply").vertices, load_mesh(tmp_path / "plain.ply").vertices)


def test_save_is_a_method_of_the_mesh(tmp_path):
    colored_box().save(str(tmp_path / "box.PLY"))
    assert load_mesh(tmp_path / "box.PLY").vertex_colors is not None


def test_a_vertex_split_at_a_seam_is_one_vertex_again(tmp_path):
    mesh = textured_box()
    save_mesh(mesh, tmp_path / "box.glb")
    assert glb_tree(tmp_path / "box.glb")["accessors"][0]["count"] == 24
    assert len(load_mesh(tmp_path / "box.glb").vertices) == 8


def test_faces_that_use_a_vertex_twice_are_not_written_to_glb(tmp_path):
    mesh = plain_box()
    save_mesh(mesh.replace(faces=torch.cat([mesh.faces, torch.tensor([[0, 0, 1]])])), tmp_path / "box.glb")
    assert len(load_mesh(tmp_path / "box.glb").faces) == 12


# ------------------------------------------------------------------------------------------- other programs' files


def test_nodes_of_a_scene_are_merged_with_their_transforms(tmp_path):
    box = trimesh.creation.box((1, 2, 3))
    turn = trimesh.transformations.rotation_matrix(np.pi / 2, [0, 1, 0], [0.3, 0, 0])
    mirror = np.diag([-1.0, 1, 1, 1])
    mirror[0, 3] = 7
    scene = trimesh.Scene()
    scene.add_geometry(box, node_name="parent", transform=turn)
    scene.add_geometry(box, node_name="child", parent_node_name="parent", transform=mirror)
    scene.export(tmp_path / "scene.glb")
    mesh = load_mesh(tmp_path / "scene.glb")
    by_hand = [box.copy().apply_transform(T).vertices for T in (turn, turn @ mirror)]
    expected = np.concatenate(by_hand)[:, [0, 2, 1]] * [1, -1, 1]  # file (x, y, z) is world (x, -z, y)
    np.testing.assert_allclose(np.sort(mesh.vertices.numpy(), 0), np.sort(expected, 0), atol=1e-5)
    assert float(mesh.volume()) == pytest.approx(12, abs=1e-4)
    assert mesh.is_watertight()


def textured_quad(picture: Image.Image, uv: list[list[float]], x: float = 0.0, **material: object) -> trimesh.Trimesh:
    vertices = np.array([[x, 0, 0], [x + 1, 0, 0], [x + 1, 1, 0], [x, 1, 0]], dtype=float)
    visual = trimesh.visual.TextureVisuals(
        uv=np.array(uv, dtype=float),
        material=trimesh.visual.material.PBRMaterial(baseColorTexture=picture, **material),
    )
    return trimesh.Trimesh(vertices, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False)


def random_picture(width: int, height: int, seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


UNIT_SQUARE = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]


def color_on_quad(mesh: Mesh, x: float, y: float) -> torch.Tensor:
    """The nearest texel at the point (x, y, 0) of the file, found by barycentric coordinates."""
    corners = mesh.vertices[mesh.faces][:, :, [0, 2]].double()  # world x and z are the file's x and y
    a, b, c = corners.unbind(1)
    weights = torch.linalg.solve(torch.stack([b - a, c - a], dim=2), torch.tensor([x, y]).double() - a)
    inside = (weights > 0).all(1) & (weights.sum(1) < 1)
    assert int(inside.sum()) == 1
    s, t = weights[inside][0]
    uv = mesh.uv[mesh.uv_faces[inside][0]].double()
    return texels(mesh.texture, ((1 - s - t) * uv[0] + s * uv[1] + t * uv[2])[None])[0]


def test_several_textures_become_one_and_each_point_keeps_its_texel(tmp_path):
    pictures = [random_picture(6, 4, 1), random_picture(16, 10, 2), random_picture(3, 3, 3)]
    scene = trimesh.Scene([textured_quad(p, UNIT_SQUARE, 2.0 * i) for i, p in enumerate(pictures)])
    scene.export(tmp_path / "three.glb")
    mesh = load_mesh(tmp_path / "three.glb")
    for number, picture in enumerate(pictures):
        for row in range(picture.height):
            for column in range(picture.width):
                x, y = (column + 0.52) / picture.width, 1 - (row + 0.47) / picture.height
                found = color_on_quad(mesh, 2.0 * number + x, y) * 255
                assert found.round().tolist() == list(picture.getpixel((column, row)))


def test_a_part_without_a_texture_has_its_mean_colour_beside_one_that_has(tmp_path):
    picture = random_picture(6, 4, 1)
    plain = trimesh.Trimesh(
        [[5, 0, 0], [6, 0, 0], [6, 1, 0], [5, 1, 0]],
        [[0, 1, 2], [0, 2, 3]],
        vertex_colors=[[200, 100, 50, 255]] * 4,
        process=False,
    )
    trimesh.Scene([textured_quad(picture, UNIT_SQUARE), plain]).export(tmp_path / "both.glb")
    mesh = load_mesh(tmp_path / "both.glb")
    assert len(mesh.faces) == len(mesh.uv_faces) == 4
    linear = np.array([200, 100, 50]) / 255  # trimesh writes its colours as they are; glTF's are linear
    srgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(color_on_quad(mesh, 5.6, 0.3), srgb, atol=1.01 / 255)
    assert (color_on_quad(mesh, 0.5 / 6, 0.5 / 4) * 255).round().tolist() == list(picture.getpixel((0, 3)))


def test_pictures_too_large_to_stand_side_by_side_are_made_smaller(tmp_path, monkeypatch):
    monkeypatch.setattr("meshwright.mesh_files.textures.MAX_TEXTURE_PX", 128)
    pictures = [Image.new("RGB", (100, 60), color) for color in ("red", "lime", "blue")]
    scene = trimesh.Scene([textured_quad(p, UNIT_SQUARE, 2.0 * i) for i, p in enumerate(pictures)])
    scene.export(tmp_path / "three.glb")
    mesh = load_mesh(tmp_path / "three.glb")
    assert max(mesh.texture.shape[1:]) <= 128
    for number, color in enumerate(torch.eye(3)):
        assert torch.equal(color_on_quad(mesh, 2.0 * number + 0.9, 0.2), color)


def test_a_repeating_texture_is_written_out(tmp_path):
    picture = random_picture(5, 4, 4)
    uv = [[-0.5, 0.25], [2.5, 0.25], [2.5, 1.25], [-0.5, 1.25]]
    textured_quad(picture, uv).export(tmp_path / "tiles.glb")
    mesh = load_mesh(tmp_path / "tiles.glb")
    assert 0 <= float(mesh.uv.min()) <= float(mesh.uv.max()) <= 1
    generator = np.random.default_rng(0)
    for x, y in generator.uniform(0.01, 0.99, (200, 2)):
        u, v = (-0.5 + 3 * x) % 1, (0.25 + y) % 1
        if min(abs(u * 5 - round(u * 5)), abs(v * 4 - round(v * 4))) < 0.01:
            continue  # too near to a border between texels
        expected = picture.getpixel((int(u * 5), int((1 - v) * 4)))
        assert (color_on_quad(mesh, x, y) * 255).round().tolist() == list(expected)


def test_a_materials_colour_tints_its_texture_in_linear_light(tmp_path):
    picture = Image.new("RGB", (2, 2), (188, 188, 188))
    textured_quad(picture, UNIT_SQUARE, baseColorFactor=[0.5, 1.0, 0.0, 1.0]).export(tmp_path / "tint.glb")
    found = color_on_quad(load_mesh(tmp_path / "tint.glb"), 0.5, 0.2)
    # 188/255 is half of full linear light, and half of that again is 137/255.
    np.testing.assert_allclose(found * 255, [137, 188, 0], atol=1)


def test_a_materials_colour_alone_colours_the_vertices(tmp_path):
    box = trimesh.creation.box()
    box.visual = trimesh.visual.TextureVisuals(
        material=trimesh.visual.material.PBRMaterial(baseColorFactor=[255, 55, 0, 255])
    )
    box.export(tmp_path / "red.glb")
    colors = load_mesh(tmp_path / "red.glb").vertex_colors * 255
    np.testing.assert_allclose(colors, np.tile([255, 128, 0], (8, 1)), atol=1)


def test_an_obj_without_its_picture_is_a_plain_mesh(tmp_path):
    save_mesh(textured_box(), tmp_path / "box.obj")
    (tmp_path / "box.png").unlink()
    (tmp_path / "box.mtl").unlink()
    mesh = load_mesh(tmp_path / "box.obj")
    assert mesh.texture is None
    assert mesh.vertex_colors is None
    assert mesh.is_watertight()


# ----------------------------------------------------------------------------------------------------- bad input


def glb_tree(path: Path) -> dict:
    data = path.read_bytes()
    return json.loads(data[20 : 20 + struct.unpack("<I", data[12:16])[0]])


def glb_with(tmp_path: Path, change) -> Path:
    """A good textured GLB whose JSON has been tampered with."""
    path = tmp_path / "tampered.glb"
    save_mesh(textured_box(), path)
    data = path.read_bytes()
    length = struct.unpack("<I", data[12:16])[0]
    tree = json.loads(data[20 : 20 + length])
    change(tree)
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    rest = data[20 + length :]
    path.write_bytes(
        struct.pack("<4sIIII", b"glTF", 2, 20 + len(text) + len(rest), len(text), 0x4E4F534A) + text + rest
    )
    return path


def one_line(error: pytest.ExceptionInfo[InputError], name: str) -> None:
    assert name in str(error.value)
    assert "\n" not in str(error.value)


GLB_CHANGES = {
    "a trillion vertices": lambda tree: tree["accessors"][0].update(count=10**12),
    "a count of zeros without data": lambda tree: tree["accessors"][0].pop("bufferView"),
    "a node for every star": lambda tree: tree["nodes"].extend([{"mesh": 0}] * 10_000),
    "the same mesh drawn too often": lambda tree: (
        tree["accessors"][0].update(count=20_000_000),
        tree["nodes"].extend([{"mesh": 0}] * 10),
    ),
    "a view beyond the buffer": lambda tree: tree["bufferViews"][0].update(byteOffset=10**9),
    "a mesh that is not there": lambda tree: tree["nodes"][0].update(mesh=7),
    "draco": lambda tree: tree.update(extensionsUsed=["KHR_draco_mesh_compression"]),
    "moved texture coordinates": lambda tree: tree.update(extensionsUsed=["KHR_texture_transform"]),
    "packed positions": lambda tree: tree["accessors"][0].update(componentType=5122),
    "a second set of texture coordinates": lambda tree: tree["materials"][0]["pbrMetallicRoughness"][
        "baseColorTexture"
    ].update(texCoord=1),
    "a picture that is not there": lambda tree: tree["images"].__setitem__(0, {"uri": "gone.png"}),
    "a picture outside the folder": lambda tree: tree["images"].__setitem__(0, {"uri": "../../../etc/hostname"}),
    "no triangles": lambda tree: tree["meshes"][0]["primitives"][0].update(mode=0),
    "lists in place of numbers": lambda tree: tree["accessors"][0].update(count=[3]),
    "a node that holds itself": lambda tree: tree["nodes"][0].update(children=[0]),
    "a chain of nodes": lambda tree: tree.update(nodes=[{"mesh": 0, "children": [i + 1]} for i in range(99)] + [{}]),
}


@pytest.mark.parametrize("change", GLB_CHANGES.values(), ids=GLB_CHANGES.keys())
def test_a_tampered_glb_is_refused_in_one_line(change, tmp_path):
    path = glb_with(tmp_path, change)
    with pytest.raises(InputError) as error:
        load_mesh(path)
    one_line(error, "tampered.glb")


def test_a_texture_of_20000_pixels_is_refused_before_it_is_decoded(tmp_path):
    save_mesh(textured_box(), tmp_path / "box.obj")
    Image.new("1", (20000, 8)).save(tmp_path / "box.png")
    with pytest.raises(InputError, match=r"box\.obj.*larger than 8192"):
        load_mesh(tmp_path / "box.obj")


BAD_FILES = {
    "empty.glb": b"",
    "text.glb": b"this is no mesh at all, sorry",
    "empty.obj": b"",
    "points.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\n",
    "range.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n",
    "nan.obj": b"v 0 0 nan\nv 1 0 0\nv 0 1 0\nf 1 2 3\n",
    "words.obj": b"v a b c\nf 1 2 3\n",
    "empty.ply": b"",
    "points.ply": b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
    b"end_header\n0 0 0\n",
    "lies.ply": b"ply\nformat binary_little_endian 1.0\nelement vertex 99999999999\nproperty float x\n"
    b"property float y\nproperty float z\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n\0\0",
    "range.ply": b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
    b"element face 1\nproperty list uchar int vertex_indices\nend_header\n0 0 0\n3 0 1 2\n",
    "empty.stl": b"",
    "lies.stl": b"\0" * 80 + struct.pack("<I", 4_000_000_000) + b"\0" * 50,
    "deep.gltf": b'{"a":' + b"[" * 100_000,
    "list.gltf": b"[]",
    "mesh.fbx": b"Kaydara FBX Binary",
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_in_one_line(name, tmp_path):
    (tmp_path / name).write_bytes(BAD_FILES[name])
    with pytest.raises(InputError) as error:
        load_mesh(tmp_path / name)
    one_line(error, name)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_cut_off_anywhere_is_refused(suffix, tmp_path):
    path = tmp_path / f"box.{suffix}"
    save_mesh(colored_box(), path)
    data = path.read_bytes()
    for length in range(0, len(data), max(1, len(data) // 40)):
        path.write_bytes(data[:length])
        if suffix == "obj" and b"\nf " in data[:length]:
            continue  # text has no length to check: the lines that are left are a mesh
        with pytest.raises(InputError) as error:
            load_mesh(path)
        one_line(error, path.name)


def test_missing_files_unknown_suffixes_and_empty_meshes_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_mesh(tmp_path / "gone.glb")
    with pytest.raises(InputError, match=r"mesh\.fbx.*\.glb"):
        save_mesh(plain_box(), tmp_path / "mesh.fbx")
    with pytest.raises(InputError, match="no faces"):
        save_mesh(Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long)), tmp_path / "mesh.glb")
    with pytest.raises(InputError, match="not numbers"):
        save_mesh(plain_box().replace(vertices=torch.full((8, 3), torch.nan)), tmp_path / "mesh.glb")
    with pytest.raises(InputError, match="cannot write"):
        save_mesh(plain_box(), tmp_path / "no folder" / "mesh.glb")
    assert list(tmp_path.iterdir()) == []


def test_an_obj_that_cannot_be_finished_leaves_the_old_files_as_they_were(tmp_path, monkeypatch):
    save_mesh(textured_box(), tmp_path / "box.obj")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("meshwright.mesh_files.obj._write_rows", full_disk)
    with pytest.raises(InputError, match="no space left"):
        save_mesh(textured_box(), tmp_path / "box.obj")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


# --------------------------------------------------------------------------------------------- Khronos validator

VALIDATOR = "gltf-validator@2.0.0-dev.3.10"
RUN_VALIDATOR = """
const validator = require('gltf-validator'), fs = require('fs');
Promise.all(process.argv.slice(1).map(f => validator.validateBytes(new Uint8Array(fs.readFileSync(f)))))
  .then(reports => console.log(JSON.stringify(reports.map(r => r.issues))));
"""


@pytest.fixture(scope="module")
def validator_folder() -> Path:
    """The npm package, kept between runs outside the source tree."""
    folder = Path(tempfile.gettempdir()) / f"meshwright-{VALIDATOR}-{os.getuid()}"
    if not (folder / "node_modules" / "gltf-validator").is_dir():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "package.json").write_text('{"private": true}')
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", VALIDATOR], cwd=folder, check=True, timeout=300)
    return folder


@pytest.mark.node
def test_the_khronos_validator_finds_nothing_to_say(validator_folder, tmp_path):
    sphere = trimesh.creation.icosphere(subdivisions=3)
    ball = Mesh(torch.from_numpy(sphere.vertices).float(), torch.from_numpy(sphere.faces).long())
    lonely = torch.cat([plain_box().vertices, torch.tensor([[0.0, 0.0, 5.0], [0.0, 0.0, 5.0], [0.0, 0.0, 5.0]])])
    meshes = {
        "plain": plain_box(),
        "colored": colored_box(),
        "textured": textured_box(),
        "ball": ball.replace(vertex_colors=ball.vertices.abs()),
        "no normals": plain_box().replace(vertices=lonely),
        "collapsed": plain_box().replace(
            vertices=lonely, faces=torch.cat([plain_box().faces, torch.tensor([[8, 9, 10], [0, 0, 1]])])
        ),
        "tiny": plain_box().replace(vertices=plain_box().vertices * 1e-6),
        "odd picture": textured_box().replace(texture=torch.rand(3, 7, 5)),
    }
    for name, mesh in meshes.items():
        save_mesh(mesh, tmp_path / f"{name}.glb")
    files = [str(tmp_path / f"{name}.glb") for name in meshes]
    printed = subprocess.run(
        ["node", "-e", RUN_VALIDATOR, *files], cwd=validator_folder, capture_output=True, text=True, check=True
    ).stdout
    found = {
        name: [message["code"] for message in issues["messages"]]
        for name, issues in zip(meshes, json.loads(printed), strict=True)
    }
    expected = {name: [] for name in meshes}
    expected["odd picture"] = ["IMAGE_NPOT_DIMENSIONS"]  # an information: the picture's size is the user's
    assert found == expected
