"""What can be asked of a mesh, against trimesh and by laws of geometry."""

import numpy as np
import pytest
import torch
import trimesh

from meshwright.mesh import Mesh, subdivide


def of(solid: trimesh.Trimesh) -> Mesh:
    return Mesh(torch.tensor(np.array(solid.vertices), dtype=torch.float32), torch.tensor(np.array(solid.faces)))


BALL, BOX, RING = (
    trimesh.creation.icosphere(2, 0.8),
    trimesh.creation.box((1, 2, 3)).apply_translation((0.3, -5, 2)),
    trimesh.creation.torus(0.7, 0.2, 12, 9),
)
TWO = trimesh.util.concatenate([BALL, RING.copy().apply_translation((4, 0, 0))])


@pytest.mark.parametrize("solid", [BALL, BOX, RING, TWO])
def test_area_volume_edges_and_normals_are_trimeshs(solid):
    mesh = of(solid)
    assert float(mesh.area()) == pytest.approx(solid.area, rel=1e-5)
    assert float(mesh.volume()) == pytest.approx(solid.volume, rel=1e-4)
    edges, counts = mesh.unique_edges()
    assert {tuple(edge) for edge in edges.tolist()} == {tuple(edge) for edge in solid.edges_unique.tolist()}
    assert (counts == 2).all()
    # The area-weighted mean of the faces' normals, one face after the other.
    expected = np.zeros((len(solid.vertices), 3))
    for face, normal, area in zip(solid.faces, solid.face_normals, solid.area_faces, strict=True):
        expected[face] += normal * area
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(mesh.vertex_normals(), expected, atol=1e-5)
    smaller = mesh.replace(vertices=mesh.vertices * 1e-4)
    np.testing.assert_allclose(smaller.vertex_normals(), expected, atol=1e-4)


def test_a_vertex_without_faces_has_the_normal_up():
    mesh = of(BOX)
    mesh = mesh.replace(vertices=torch.cat([mesh.vertices, torch.zeros(1, 3)]))
    assert mesh.vertex_normals()[-1].tolist() == [0, 0, 1]


@pytest.mark.parametrize(("solid", "genus", "parts"), [(BALL, 0, 1), (BOX, 0, 1), (RING, 1, 1), (TWO, 1, 2)])
def test_closed_meshes_and_their_handles(solid, genus, parts):
    mesh = of(solid)
    assert mesh.is_watertight()
    assert mesh.genus() == genus
    assert len(torch.unique(mesh.components())) == parts


def test_what_is_open_or_wound_in_two_ways_or_twice_there_is_not_watertight():
    mesh = of(BOX)
    inverted = mesh.faces.clone()
    inverted[0] = inverted[0].flip(0)
    both_sides = torch.cat([mesh.faces[:1], mesh.faces[:1].flip(1)])
    for faces in (mesh.faces[:-1], inverted, torch.cat([mesh.faces, mesh.faces]), mesh.faces[:0]):
        assert not mesh.replace(faces=faces).is_watertight()
    assert mesh.replace(faces=both_sides).is_watertight()  # a sheet with two sides is closed
    with pytest.raises(ValueError, match="watertight"):
        mesh.replace(faces=mesh.faces[:-1]).genus()


def test_components_are_numbered_from_the_largest():
    mesh = of(TWO)
    number = mesh.components()
    ball, ring = len(BALL.faces), len(RING.faces)
    larger_first = [0, 1] if ball > ring else [1, 0]
    assert number.tolist() == [larger_first[0]] * ball + [larger_first[1]] * ring


def test_kept_faces_lie_where_they_lay_without_unused_vertices():
    mesh = of(BALL)
    mesh = mesh.replace(vertex_colors=(mesh.vertices + 1) / 2)
    keep = mesh.vertices[mesh.faces].mean(1)[:, 2] > 0.2
    half = mesh.keep_faces(keep)
    assert torch.equal(half.vertices[half.faces], mesh.vertices[mesh.faces[keep]])
    assert torch.equal(half.vertex_colors, (half.vertices + 1) / 2)
    assert len(torch.unique(half.faces)) == len(half.vertices) < len(mesh.vertices)


def test_samples_lie_on_their_faces_as_many_as_the_faces_are_large():
    mesh = of(BOX)
    points, face, barycentric = mesh.sample_surface(2000, seed=3)
    assert (barycentric >= 0).all()
    torch.testing.assert_close(barycentric.sum(1), torch.ones(2000))
    torch.testing.assert_close((mesh.vertices[mesh.faces[face]] * barycentric[:, :, None]).sum(1), points)
    share = mesh.face_normals().norm(dim=1) / mesh.face_normals().norm(dim=1).sum()
    assert ((torch.bincount(face, minlength=12) - 2000 * share).abs() <= 2).all()  # stratified: off by the two ends
    # Uniform within a triangle: the mean is its middle, the mean square of a coordinate 1/6.
    torch.testing.assert_close(barycentric.mean(0), torch.full((3,), 1 / 3), atol=0.02, rtol=0)
    torch.testing.assert_close(barycentric.square().mean(0), torch.full((3,), 1 / 6), atol=0.02, rtol=0)
    assert torch.equal(mesh.sample_surface(2000, seed=3)[0], points)
    assert not torch.equal(mesh.sample_surface(2000, seed=4)[0], points)


@pytest.mark.parametrize("solid", [BALL, RING])
def test_subdivision_keeps_the_surface_and_quarters_its_faces(solid):
    mesh = of(solid)
    vertices, faces = subdivide(mesh.vertices, mesh.faces)
    finer = Mesh(vertices, faces)
    assert len(faces) == 4 * len(mesh.faces)
    assert torch.equal(vertices[: len(mesh.vertices)], mesh.vertices)
    assert len(vertices) == len(mesh.vertices) + len(mesh.unique_edges()[0])
    assert finer.is_watertight()
    torch.testing.assert_close(finer.area(), mesh.area())
    torch.testing.assert_close(finer.volume(), mesh.volume())
    torch.testing.assert_close(finer.face_normals()[: len(mesh.faces)] * 4, mesh.face_normals(), atol=1e-6, rtol=1e-4)


def test_moving_to_a_device_and_replacing_keep_the_rest():
    mesh = of(BOX).replace(vertex_colors=torch.rand(8, 3))
    moved = mesh.to("meta")
    assert moved.vertices.is_meta
    assert moved.vertex_colors.is_meta
    assert moved.texture is None
    assert mesh.has_colors
    assert not mesh.replace(vertex_colors=None).has_colors
