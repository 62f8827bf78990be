"""Atlas: no texel twice, gutters, one scale, nothing mirrored; decimation that keeps closed meshes closed."""

import functools
from collections.abc import Callable

import numpy as np
import pytest
import scipy.ndimage
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright import InputError, Mesh
from meshwright.color.atlas import unwrap
from meshwright.color.atlas.charts import covered_samples, face_neighbors
from meshwright.mesh_files import load_mesh, save_mesh
from meshwright.shape.simplify import decimate, part_glued_sheets

TEXTURE_PX = 512
GUTTER_PX = 8


def mesh_of(vertices: np.ndarray, faces: np.ndarray) -> Mesh:
    return Mesh(torch.from_numpy(np.array(vertices)).float(), torch.from_numpy(np.array(faces)).long())


def box() -> Mesh:
    solid = trimesh.creation.box((1, 2, 3), transform=trimesh.transformations.rotation_matrix(0.4, [1, 2, 3]))
    return mesh_of(solid.vertices, solid.faces)


def ball(bumps: float = 0.0, noise: float = 0.0) -> Mesh:
    solid = trimesh.creation.icosphere(subdivisions=4)
    x, y, z = solid.vertices.T
    radius = 1 + bumps * np.sin(5 * x) * np.sin(6 * y + 1) * np.sin(4 * z)
    radius += noise * np.random.default_rng(0).normal(size=len(x))
    return mesh_of(solid.vertices * radius[:, None], solid.faces)


def torus() -> Mesh:
    solid = trimesh.creation.torus(1.0, 0.3)
    return mesh_of(solid.vertices, solid.faces)


def ramp() -> Mesh:
    """Three turns of a spiral ramp: connected, all its normals nearly up, and above itself three times."""
    turn, across = np.meshgrid(np.linspace(0, 6 * np.pi, 300), np.linspace(0.4, 1, 6), indexing="ij")
    vertices = np.stack([across * np.cos(turn), across * np.sin(turn), 0.05 * turn], axis=2).reshape(-1, 3)
    corner = (np.arange(299)[:, None] * 6 + np.arange(5)).reshape(-1)
    faces = np.concatenate(
        [np.stack([corner, corner + 6, corner + 7], 1), np.stack([corner, corner + 7, corner + 1], 1)]
    )
    return mesh_of(vertices, faces[:, ::-1] if mesh_of(vertices, faces).face_normals()[:, 2].sum() < 0 else faces)


def soup() -> Mesh:
    """Triangles that know nothing of each other."""
    return mesh_of(np.random.default_rng(0).normal(size=(300, 3)), np.arange(300).reshape(-1, 3))


def tangle() -> Mesh:
    """Few vertices, many faces: edges with any number of faces, slivers, copies, faces with one vertex twice."""
    generator = np.random.default_rng(0)
    return mesh_of(generator.normal(size=(20, 3)), generator.integers(0, 20, (200, 3)))


def flat_spots() -> Mesh:
    """A ball some of whose vertices coincide, so that faces without area hang between the others."""
    mesh = ball()
    vertices = mesh.vertices.clone()
    vertices[mesh.faces[::17, 1]] = vertices[mesh.faces[::17, 0]]
    return mesh.replace(vertices=vertices)


SHAPES = {
    "box": box,
    "ball": ball,
    "bumpy ball": lambda: ball(bumps=0.2),
    "noisy ball": lambda: ball(noise=0.02),
    "torus": torus,
    "spiral ramp": ramp,
    "soup": soup,
    "tangle": tangle,
    "flat spots": flat_spots,
}


@functools.cache
def unwrapped(make: Callable[[], Mesh]) -> Mesh:
    return unwrap(make(), TEXTURE_PX, GUTTER_PX)


every_shape = pytest.mark.parametrize("make", SHAPES.values(), ids=SHAPES.keys())


def corners_px(mesh: Mesh, texture_px: int = TEXTURE_PX) -> np.ndarray:
    return mesh.uv[mesh.uv_faces].double().numpy() * texture_px


def signed_areas(corners: np.ndarray) -> np.ndarray:
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) / 2


def chart_of_face(mesh: Mesh) -> np.ndarray:
    """Faces that share a point of the texture are of one chart."""
    return Mesh(torch.zeros(len(mesh.uv), 3), mesh.uv_faces).components().numpy()


def chart_of_texel(mesh: Mesh) -> np.ndarray:
    """The chart at each texel's centre, -1 where there is none."""
    face, row, column = covered_samples(corners_px(mesh))
    picture = np.full((TEXTURE_PX, TEXTURE_PX), -1)
    picture[row, column] = chart_of_face(mesh)[face]
    return picture


@every_shape
def test_no_texel_is_covered_twice(make):
    mesh = unwrapped(make)
    _, row, column = covered_samples(corners_px(mesh))
    _, times = np.unique(row * TEXTURE_PX + column, return_counts=True)
    assert times.max() == 1


@every_shape
def test_charts_keep_the_gutter_from_each_other_and_half_of_it_from_the_border(make):
    mesh = unwrapped(make)
    picture = chart_of_texel(mesh)
    # No square of GUTTER_PX texels holds texels of two charts.
    highest = scipy.ndimage.maximum_filter(picture, GUTTER_PX)
    lowest = scipy.ndimage.minimum_filter(np.where(picture < 0, 1 << 30, picture), GUTTER_PX)
    assert ((highest < 0) | (highest == lowest)).all()
    assert float(mesh.uv.min()) * TEXTURE_PX >= GUTTER_PX / 2 - 1e-3
    assert float(mesh.uv.max()) * TEXTURE_PX <= TEXTURE_PX - GUTTER_PX / 2 + 1e-3


@every_shape
def test_no_chart_is_mirrored_and_a_texel_has_one_size_up_to_the_projection(make):
    mesh = unwrapped(make)
    area = mesh.face_normals().norm(dim=1).double().numpy() / 2
    solid = area > 1e-6 * area.sum()
    shrunk = signed_areas(corners_px(mesh))[solid] / area[solid]
    assert shrunk.min() > 0
    assert shrunk.min() / shrunk.max() > 0.25  # the cosine of the steepest angle admitted


@every_shape
def test_faces_keep_their_order_and_uv_points_belong_to_one_vertex(make):
    before, mesh = make(), unwrapped(make)
    places, found = before.vertices[before.faces].numpy(), mesh.vertices[mesh.faces].numpy()
    position = 0
    for triangle in found:  # a subsequence: some faces may have been left out, none moved
        while (places[position] != triangle).any():
            position += 1
        position += 1
    owner = torch.full((len(mesh.uv),), -1)
    owner[mesh.uv_faces.reshape(-1)] = mesh.faces.reshape(-1)
    assert torch.equal(owner[mesh.uv_faces], mesh.faces)


def test_a_box_has_six_charts_with_the_areas_of_its_sides():
    mesh = unwrapped(box)
    area = signed_areas(corners_px(mesh))
    charts = np.sort(np.bincount(chart_of_face(mesh), area))
    np.testing.assert_allclose(charts / charts[0], [1, 1, 1.5, 1.5, 3, 3], rtol=1e-5)
    assert mesh.is_watertight()


def test_a_ball_has_fourteen_charts_and_fills_most_of_what_boxes_can():
    mesh = unwrapped(ball)
    assert chart_of_face(mesh).max() + 1 == 14
    assert (chart_of_texel(mesh) >= 0).mean() > 0.45


def test_a_ramp_above_itself_is_taken_apart():
    assert chart_of_face(unwrapped(ramp)).max() + 1 >= 3


def test_needles_that_are_long_for_their_area_take_no_more_time_or_memory():
    generator = np.random.default_rng(0)
    start, end = generator.normal(size=(2, 300, 3))
    aside = end + 1e-9 * generator.normal(size=(300, 3))
    mesh = Mesh(
        torch.from_numpy(np.stack([start, end, aside], axis=1).reshape(-1, 3)), torch.arange(900).reshape(-1, 3)
    )
    assert bool(torch.isfinite(unwrap(mesh, TEXTURE_PX).uv).all())


def test_the_same_mesh_always_has_the_same_atlas():
    first, second = unwrap(ball(noise=0.02)), unwrap(ball(noise=0.02))
    assert torch.equal(first.uv, second.uv)
    assert torch.equal(first.uv_faces, second.uv_faces)


def test_an_unwrapped_mesh_is_closed_again_after_a_textured_glb(tmp_path):
    mesh = unwrap(ball(bumps=0.2), TEXTURE_PX).replace(texture=torch.rand(3, 64, 64))
    save_mesh(mesh, tmp_path / "ball.glb")
    assert load_mesh(tmp_path / "ball.glb").is_watertight()


def test_copies_and_collapsed_faces_are_left_out():
    mesh = box()
    more = torch.cat([mesh.faces, mesh.faces[:3], mesh.faces[:2].flip(1), torch.tensor([[0, 0, 1]])])
    assert torch.equal(unwrap(mesh.replace(faces=more)).faces, mesh.faces)


def test_meshes_that_cannot_have_an_atlas_are_refused():
    with pytest.raises(InputError, match="no area"):
        unwrap(Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]])))
    with pytest.raises(InputError, match="no area"):
        unwrap(Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long)))
    with pytest.raises(InputError, match="100 charts"):
        unwrap(soup(), texture_px=64)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_covered_samples_equal_their_slow_twin(seed):
    generator = np.random.default_rng(seed)
    corners = generator.uniform(-2, 9, (5, 3, 2))
    expected = set()
    for face, (a, b, c) in enumerate(corners):
        for row in range(-3, 10):
            for column in range(-3, 10):
                p = np.array([column + 0.5, row + 0.5])
                sides = [(e - s)[0] * (p - s)[1] - (e - s)[1] * (p - s)[0] for s, e in ((a, b), (b, c), (c, a))]
                if min(sides) > 0:
                    expected.add((face, row, column))
    assert set(zip(*(list(x) for x in covered_samples(corners)), strict=True)) == expected


def test_neighbours_are_mutual_and_end_at_edges_that_are_not_manifold():
    faces = box().faces.numpy()
    neighbors = face_neighbors(faces)
    for face in range(12):
        assert all(face in neighbors[other] for other in neighbors[face])
    fin = np.array([[0, 1, 2], [1, 0, 3], [0, 1, 4]])
    assert (face_neighbors(fin) == -1).all()
    assert face_neighbors(fin[:2]).tolist() == [[1, -1, -1], [0, -1, -1]]


# ----------------------------------------------------------------------------------------------------- decimation


def voxel_surface(filled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The boundary of unit cubes, outward, vertices shared wherever cubes touch, be it in an edge or a corner."""
    filled = np.pad(filled, 1)
    quads = []
    for axis in range(3):
        for sign in (1, -1):
            for cell in np.argwhere(filled & ~np.roll(filled, -sign, axis)):
                u, v = np.eye(3, dtype=int)[[(axis + 1) % 3, (axis + 2) % 3]]
                start = cell + (np.eye(3, dtype=int)[axis] if sign == 1 else 0)
                ring = [start, start + u, start + u + v, start + v]
                quads.append(ring if sign == 1 else ring[::-1])
    vertices, index = np.unique(np.array(quads).reshape(-1, 3), axis=0, return_inverse=True)
    index = index.reshape(-1, 4)
    return vertices.astype(float), np.concatenate([index[:, [0, 1, 2]], index[:, [0, 2, 3]]])


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_the_surface_of_any_cubes_becomes_a_manifold_of_the_same_volume(seed):
    generator = np.random.default_rng(seed)
    filled = generator.random((3, 3, 3)) < generator.uniform(0.1, 0.9)
    filled[1, 1, 1] = True
    mesh = mesh_of(*part_glued_sheets(*voxel_surface(filled)))
    assert mesh.is_watertight()
    assert float(mesh.volume()) == pytest.approx(filled.sum(), rel=0.02)


def test_two_cubes_that_touch_along_an_edge_part_there():
    filled = np.zeros((2, 2, 1), dtype=bool)
    filled[0, 0], filled[1, 1] = True, True
    mesh = mesh_of(*part_glued_sheets(*voxel_surface(filled)))
    assert mesh.is_watertight()
    assert int(mesh.components().max()) == 1
    assert len(mesh.vertices) == 16
    # Each cube drew back from the edge, towards its own middle.
    assert float(mesh.volume()) < 2


def test_a_manifold_is_left_as_it_is():
    mesh = torus()
    vertices, faces = part_glued_sheets(mesh.vertices.double().numpy(), mesh.faces.numpy())
    assert len(faces) == len(mesh.faces)
    np.testing.assert_array_equal(vertices[faces], mesh.vertices.double().numpy()[mesh.faces.numpy()])


def test_faces_back_to_back_vanish_and_the_odd_one_stays():
    mesh = box()
    fin = torch.tensor([[0, 5, 7], [7, 5, 0], [0, 5, 7]])
    vertices = mesh.vertices.double().numpy()
    assert len(part_glued_sheets(vertices, torch.cat([mesh.faces, fin[:2]]).numpy())[1]) == 12
    left = mesh_of(*part_glued_sheets(vertices, torch.cat([mesh.faces, fin]).numpy()))
    fin_area = float(Mesh(mesh.vertices, fin[:1]).area())
    assert float(left.area()) == pytest.approx(float(mesh.area()) + fin_area, rel=1e-2)


@pytest.mark.parametrize("face_count", [2000, 500, 100])
@pytest.mark.parametrize(("make", "genus"), [(torus, 1), (ball, 0), (lambda: ball(noise=0.02), 0)])
def test_decimation_keeps_a_closed_mesh_closed_and_its_volume(make, genus, face_count):
    mesh = make()
    small = decimate(mesh, face_count)
    assert 0.9 * min(face_count, len(mesh.faces)) <= len(small.faces) <= 1.05 * face_count
    assert small.is_watertight()
    assert small.genus() == genus
    assert float(small.volume()) == pytest.approx(float(mesh.volume()), rel=0.12)


def test_thin_sheets_that_the_collapse_glues_together_stay_closed():
    """Without the parting this mesh comes back with edges of four faces."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, 40)] * 3, indexing="ij")
    gyroid = np.sin(7 * x) * np.cos(7 * y) + np.sin(7 * y) * np.cos(7 * z) + np.sin(7 * z) * np.cos(7 * x)
    filled = (np.abs(gyroid) < 0.3) & (x**2 + y**2 + z**2 < 0.9)
    mesh = mesh_of(*part_glued_sheets(*voxel_surface(filled)))
    assert mesh.is_watertight()
    assert decimate(mesh, 2000).is_watertight()


def test_decimation_takes_colours_from_the_nearest_vertices_and_leaves_small_meshes_alone():
    mesh = ball()
    mesh = mesh.replace(vertex_colors=(mesh.vertices + 1) / 2)
    small = decimate(mesh, 1000)
    np.testing.assert_allclose(small.vertex_colors, (small.vertices + 1) / 2, atol=0.06)
    assert decimate(small, len(small.faces)) is small
