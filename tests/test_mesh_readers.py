"""Readers of mesh files against trimesh's, which are not ours, and forms that only some programs write."""

import base64
import json
import struct

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.errors import InputError
from meshwright.mesh_files import load_mesh
from meshwright.mesh_files.read_obj import read_obj
from meshwright.mesh_files.read_ply import read_ply

QUAD = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)


def _soup(vertices, faces):
    """Sorted triangles that each begin with their least corner: equal for equal surfaces of equal winding."""
    corners = np.asarray(vertices, np.float64)[np.asarray(faces)].round(5) + 0.0
    turned = []
    for triangle in corners.tolist():
        at = triangle.index(min(triangle))
        turned.append(triangle[at:] + triangle[:at])
    return sorted(turned)


def _in_world(solid):
    vertices = np.asarray(solid.vertices)
    return np.stack([vertices[:, 0], -vertices[:, 2], vertices[:, 1]], axis=1)


WRITTEN = [("stl", {}), ("stl_ascii", {}), ("obj", {}), ("glb", {}), ("ply", {}), ("ply", {"encoding": "ascii"})]


@pytest.mark.parametrize("options", WRITTEN, ids=str)
def test_what_trimesh_writes_is_read_as_trimesh_reads_it(tmp_path, options):
    kind, more = options
    rng = np.random.default_rng(0)
    solid = trimesh.creation.icosphere(subdivisions=2)
    solid.vertices += rng.normal(0, 0.05, solid.vertices.shape)
    solid.visual.vertex_colors = rng.integers(0, 255, (len(solid.vertices), 4), dtype=np.uint8)
    path = tmp_path / f"a.{kind.split('_')[0]}"
    solid.export(path, file_type=kind, **more)
    theirs = trimesh.load_mesh(path, process=False)
    ours = load_mesh(path)
    assert _soup(ours.vertices, ours.faces) == _soup(_in_world(theirs).astype(np.float32), theirs.faces)
    if kind in ("ply", "obj"):
        places = map(tuple, _in_world(theirs).round(4).tolist())
        by_place = dict(zip(places, theirs.visual.vertex_colors / 255, strict=True))
        for place, color in zip(ours.vertices.numpy().astype(float).round(4).tolist(), ours.vertex_colors, strict=True):
            np.testing.assert_allclose(color, by_place[tuple(place)][:3], atol=1e-3)


def test_obj_polygons_negative_indices_and_continued_lines(tmp_path):
    text = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf -4 \\\n-3 -2 -1\nv 0 0 1\nf 1//1 2//1 -1//1\n"
    (tmp_path / "a.obj").write_text(text)
    (part,) = read_obj(tmp_path / "a.obj")
    assert part.faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 4]]


@pytest.mark.parametrize("index", ["0", "-5", "6", "99999999999", "1.5", "x"])
def test_obj_indices_without_a_vertex_are_refused(tmp_path, index):
    (tmp_path / "a.obj").write_text(f"v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1 2 {index}\n")
    with pytest.raises(InputError, match="a\\.obj"):
        load_mesh(tmp_path / "a.obj")


def _ply(order, faces, count_type="uchar"):
    form = {"<": "binary_little_endian", ">": "binary_big_endian"}[order]
    head = f"ply\nformat {form} 1.0\nelement vertex 4\nproperty double x\nproperty float y\nproperty float z\n"
    head += f"element face {len(faces)}\nproperty list {count_type} uint vertex_index\nproperty uchar red\n"
    head += "property uchar green\nproperty uchar blue\nend_header\n"
    body = b"".join(struct.pack(f"{order}dff", *corner) for corner in QUAD.tolist())
    code = {"uchar": "B", "uint": "I"}[count_type]
    for face in faces:
        body += struct.pack(f"{order}{code}{len(face)}I3B", len(face), *face, 255, 0, 51)
    return head.encode() + body


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("faces", [[(0, 1, 2), (0, 2, 3)], [(0, 1, 2, 3)], [(0, 1, 2), (0, 1, 2, 3), ()]])
@pytest.mark.parametrize("count_type", ["uchar", "uint"])
def test_ply_of_both_byte_orders_with_even_and_uneven_faces_and_colours_of_faces(tmp_path, order, faces, count_type):
    (tmp_path / "a.ply").write_bytes(_ply(order, faces, count_type))
    (part,) = read_ply(tmp_path / "a.ply")
    assert part.vertices.tolist() == QUAD.tolist()
    expected = [(face[0], face[i], face[i + 1]) for face in faces for i in range(1, len(face) - 1)]
    assert [tuple(face) for face in part.faces.tolist()] == expected
    used = part.colors[np.unique(part.faces)]
    np.testing.assert_allclose(used, np.tile([1, 0, 0.2], (len(used), 1)))


def _gltf(tmp_path, indices, mode, **node):
    corners, numbers = QUAD.tobytes(), np.array(indices, np.uint16).tobytes()
    tree = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, **node}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1, "mode": mode}]}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 4, "type": "VEC3"},
            {"bufferView": 1, "componentType": 5123, "count": len(indices), "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteLength": 48},
            {"buffer": 0, "byteOffset": 48, "byteLength": len(numbers)},
        ],
        "buffers": [
            {
                "byteLength": 48 + len(numbers),
                "uri": "data:application/octet-stream;base64," + base64.b64encode(corners + numbers).decode(),
            }
        ],
    }
    (tmp_path / "a.gltf").write_text(json.dumps(tree))
    return load_mesh(tmp_path / "a.gltf")


@pytest.mark.parametrize(("indices", "mode"), [([0, 1, 2, 0, 2, 3], 4), ([1, 2, 0, 3], 5), ([0, 1, 2, 3], 6)])
def test_lists_strips_and_fans_of_triangles_are_one_surface(tmp_path, indices, mode):
    mesh = _gltf(tmp_path, indices, mode)
    assert float(mesh.area()) == pytest.approx(1.0)
    # All corners of the file run counter-clockwise seen from its +z, the world's -y.
    torch.testing.assert_close(mesh.vertex_normals(), torch.tensor([[0.0, -1.0, 0.0]]).expand(4, 3))


def test_a_nodes_turn_and_its_matrix_mean_the_same(tmp_path):
    T = trimesh.transformations.compose_matrix(scale=[1, 2, 3], angles=[0.3, 0.4, 0.5], translate=[7, 8, 9])
    w, x, y, z = trimesh.transformations.quaternion_from_matrix(trimesh.transformations.euler_matrix(0.3, 0.4, 0.5))
    by_parts = _gltf(tmp_path, [0, 1, 2, 0, 2, 3], 4, scale=[1, 2, 3], rotation=[x, y, z, w], translation=[7, 8, 9])
    by_matrix = _gltf(tmp_path, [0, 1, 2, 0, 2, 3], 4, matrix=T.T.reshape(-1).tolist())
    torch.testing.assert_close(by_parts.vertices, by_matrix.vertices)
    expected = np.c_[QUAD, np.ones(4)] @ T.T
    torch.testing.assert_close(
        by_matrix.vertices, torch.from_numpy(np.stack([expected[:, 0], -expected[:, 2], expected[:, 1]], 1)).float()
    )


@pytest.mark.parametrize("scale", [1e13, 1e30])
def test_what_is_beyond_all_measure_is_refused(tmp_path, scale):
    with pytest.raises(InputError, match="beyond 1e"):
        _gltf(tmp_path, [0, 1, 2, 0, 2, 3], 4, scale=[scale] * 3)


def test_a_vertex_far_from_the_others_is_refused(tmp_path):
    solid = trimesh.creation.icosphere(subdivisions=1)
    solid.vertices[3] *= 1e7
    solid.export(tmp_path / "a.stl")
    with pytest.raises(InputError, match="farther out"):
        load_mesh(tmp_path / "a.stl")


@pytest.mark.parametrize("name", ["../box.png", "/etc/passwd", "http://a/b.png", "file:box.png", "C:\\box.png", ""])
def test_textures_outside_the_folder_are_refused(tmp_path, name):
    (tmp_path / "a.mtl").write_text(f"newmtl m\nmap_Kd {name}\n" if name else "newmtl m\nmap_Kd ..\n")
    (tmp_path / "a.obj").write_text(
        "mtllib a.mtl\nusemtl m\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\n"
    )
    with pytest.raises(InputError, match="outside its folder"):
        load_mesh(tmp_path / "a.obj")


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(["obj", "ply", "stl", "gltf", "glb"]),
    at=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=0, max_size=5)), min_size=1, max_size=4
    ),
)
def test_a_file_changed_anywhere_is_a_mesh_or_one_error(tmp_path_factory, kind, at):
    path = tmp_path_factory.getbasetemp() / f"changed.{kind}"
    if kind not in _WHOLE:
        solid = trimesh.creation.icosphere(subdivisions=0)
        written = solid.export(file_type=kind)
        written = written["model.gltf"] if kind == "gltf" else written
        _WHOLE[kind] = written.encode() if isinstance(written, str) else written
    content = bytearray(_WHOLE[kind])
    for where, new in at:
        place = int(where * len(content))
        content[place : place + len(new)] = new
    path.write_bytes(content)
    try:
        mesh = load_mesh(path)
    except InputError as error:
        if "TypeCheckError" in str(error):
            raise
        return
    assert bool(torch.isfinite(mesh.vertices).all())
    assert len(mesh.faces) == 0 or int(mesh.faces.max()) < len(mesh.vertices)


_WHOLE: dict[str, bytes] = {}
