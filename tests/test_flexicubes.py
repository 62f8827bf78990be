"""FlexiCubes against the published numbers, against a plain twin, and against its own laws.

golden/flexicubes.npz: fields on a 16^3 and a 6x8x10 grid with what InstantMesh's FlexiCubes makes of them.  To save
space it holds every fifth row of the gradients, and of the training triangulation only what the other has not.
Its tables_* are look-up tables of nv-tlabs/FlexiCubes at 4cc7d6c (Apache-2.0).
"""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.losses import sdf_entropy
from meshwright.mesh import Mesh
from meshwright.shape import marching_cubes
from meshwright.shape.flexicubes import (
    _tables,
    extract,
    flexicubes,
    grid,
    grid_axes,
    repair_empty,
    surface_cubes,
)

GOLDEN = {
    name: torch.from_numpy(array)
    for name, array in np.load(Path(__file__).parent / "golden" / "flexicubes.npz").items()
}
FIELDS = ("sphere", "torus", "gyroid", "noise", "noisequant", "sphereplain", "aniso")
EDGES = ((0, 1), (1, 5), (4, 5), (0, 4), (2, 3), (3, 7), (6, 7), (2, 6), (2, 0), (3, 1), (7, 5), (6, 4))


def published_input(field):
    """Resolution, positions, field values and raw weights of a golden."""
    if field == "aniso":
        weights = [GOLDEN[f"aniso_{name}"] for name in ("beta", "alpha", "gamma")]
        return (6, 8, 10), grid((6, 8, 10), 1.0, published_rounding=True), GOLDEN["aniso_s"], weights
    unit = grid(16, 1.0)
    if field == "sphereplain":
        return (16, 16, 16), unit * 2.1, GOLDEN["sphereplain_s"], [None, None, None]
    weights = [GOLDEN[name] for name in ("beta", "alpha", "gamma")]
    return (16, 16, 16), unit * 2.1 + GOLDEN["deform"], GOLDEN[f"{field}_s"], weights


def quads_that_start_at_zero(s, resolution):
    """How many quads belong to edges with s_a = 0 and s_b < 0: the published code winds these inwards."""
    s = s.reshape([cells + 1 for cells in resolution])
    x = (s[:-1] == 0) & (s[1:] < 0)
    y = (s[:, 1:] == 0) & (s[:, :-1] < 0)
    z = (s[:, :, :-1] == 0) & (s[:, :, 1:] < 0)
    return int(x[:, 1:-1, 1:-1].sum() + y[1:-1, :, 1:-1].sum() + z[1:-1, 1:-1].sum())


def assert_published_faces(faces, golden, faces_per_quad, inward_quads):
    """Equal with order, except that quads which the published code winds inwards are the same ones turned over."""
    ours, theirs = faces.reshape(-1, faces_per_quad, 3), golden.long().reshape(-1, faces_per_quad, 3)
    assert ours.shape == theirs.shape
    differ = (ours != theirs).flatten(1).any(dim=1)
    assert differ.sum() == inward_quads
    for quad, other in zip(ours[differ].tolist(), theirs[differ].flip(2).tolist(), strict=True):
        assert sorted(map(from_lowest, quad)) == sorted(map(from_lowest, other))


def from_lowest(face):
    first = face.index(min(face))
    return face[first:] + face[:first]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("field", FIELDS)
def test_vertices_faces_and_deviation_are_the_published_ones(field, training):
    resolution, x, s, weights = published_input(field)
    vertices, faces, L_dev = flexicubes(x, s, resolution, *weights, training=training)
    golden = GOLDEN[f"{field}_eval_vertices"]
    if training:
        golden = torch.cat([golden, GOLDEN[f"{field}_train_middles"]])
    torch.testing.assert_close(vertices, golden, atol=2e-6, rtol=0)
    torch.testing.assert_close(L_dev, GOLDEN[f"{field}_eval_L_dev"], atol=2e-6, rtol=0)
    golden_faces = GOLDEN[f"{field}_{'train' if training else 'eval'}_faces"]
    assert_published_faces(faces, golden_faces, 4 if training else 2, quads_that_start_at_zero(s, resolution))


@pytest.mark.parametrize("which", ["eval_grad", "eval_gradL", "train_grad"])
@pytest.mark.parametrize("field", FIELDS)
def test_gradients_are_the_published_ones(field, which):
    resolution, x, s, weights = published_input(field)
    leaves = {"x": x, "s": s, "beta": weights[0], "alpha": weights[1], "gamma": weights[2]}
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in leaves.items() if leaf is not None}
    weights = [leaves.get(name) for name in ("beta", "alpha", "gamma")]
    vertices, _, L_dev = flexicubes(leaves["x"], leaves["s"], resolution, *weights, training=which == "train_grad")
    loss = L_dev.sum() if which == "eval_gradL" else (vertices**2).sum()
    loss.backward()
    for name, leaf in leaves.items():
        if name == "gamma" and which != "train_grad":
            assert leaf.grad is None
            continue
        golden = GOLDEN[f"{field}_{which}_{name}"]
        torch.testing.assert_close(leaf.grad[::5], golden, atol=1e-5 * golden.abs().max().item(), rtol=0)


def test_tables_derived_from_the_cube_are_the_published_ones():
    tables = _tables(torch.device("cpu"))
    for case in range(256):
        patches = [patch.nonzero()[:, 0].tolist() for patch in tables.patches[case]]
        golden = [[e for e in row if e >= 0] for row in GOLDEN["tables_dmc_table"][case].tolist()]
        assert patches == golden
        direction = tables.ambiguous_direction[case].tolist()
        check = [1, *direction, 255 - case] if any(direction) else [0] * 5
        assert check == GOLDEN["tables_check_table"][case].tolist()
    assert tables.patch_count.tolist() == GOLDEN["tables_num_vd_table"].tolist()


def test_every_crossed_edge_lies_in_one_patch():
    tables = _tables(torch.device("cpu"))
    a, b = torch.tensor(EDGES).unbind(1)
    case = torch.arange(256)[:, None]
    crossed = (case >> a & 1) != (case >> b & 1)
    assert torch.equal(tables.patches.sum(dim=1), crossed.long())


# --- the twin ---------------------------------------------------------------------------------------------------


def flexicubes_twin(x, s, resolution, beta, alpha, gamma, training):
    """The paper cube by cube and edge by edge, with the published tables and no thought for speed."""
    nx, ny, nz = resolution
    cubes = list(product(range(nx), range(ny), range(nz)))
    points = {
        cube: [
            ((cube[0] + (c & 1)) * (ny + 1) + cube[1] + (c >> 1 & 1)) * (nz + 1) + cube[2] + (c >> 2) for c in range(8)
        ]
        for cube in cubes
    }
    case = {cube: sum(2**c for c in range(8) if s[points[cube][c]] < 0) for cube in cubes}

    def resolved(cube):
        flag, dx, dy, dz, other = GOLDEN["tables_check_table"][case[cube]].tolist()
        neighbour = case.get((cube[0] + dx, cube[1] + dy, cube[2] + dz), 0)
        return other if flag and GOLDEN["tables_check_table"][neighbour][0] else case[cube]

    vertices, deviations, vertex_gamma, around = [], [], [], {}
    for count in (1, 2, 3, 4):
        for number, cube in enumerate(cubes):
            if GOLDEN["tables_num_vd_table"][resolved(cube)] != count:
                continue
            for patch in GOLDEN["tables_dmc_table"][resolved(cube)][:count].tolist():
                crossings, plain_crossings, weights = [], [], []
                for edge in (e for e in patch if e >= 0):
                    corner_a, corner_b = EDGES[edge]
                    a, b = points[cube][corner_a], points[cube][corner_b]
                    s_a = s[a] * (1 + 0.5 * alpha[number, corner_a].tanh())
                    s_b = s[b] * (1 + 0.5 * alpha[number, corner_b].tanh())
                    crossings.append((x[a] * s_b - x[b] * s_a) / (s_b - s_a))
                    plain_crossings.append((x[a] * s[b] - x[b] * s[a]) / (s[b] - s[a]))
                    weights.append(1 + 0.5 * beta[number, edge].tanh())
                    around.setdefault((a, b), []).append((number, len(vertices)))
                vertex = sum(w * u for w, u in zip(weights, crossings, strict=True)) / sum(weights)
                distances = [(vertex - u).norm() for u in plain_crossings]
                mean = sum(distances) / len(distances)
                vertices.append(vertex)
                deviations += [(d - mean).abs() for d in distances]
                vertex_gamma.append(0.25 + 0.5 * gamma[number].sigmoid())

    quads = []
    for a, b in sorted(around, key=lambda edge: (not s[edge[0]] > 0, edge)):
        if len(around[a, b]) == 4:
            q = [vertex for _, vertex in sorted(around[a, b])]
            quads.append((q[0], q[1], q[3], q[2]) if s[b] < 0 else (q[2], q[3], q[1], q[0]))
    faces = []
    for q0, q1, q2, q3 in quads:
        g02, g13 = vertex_gamma[q0] * vertex_gamma[q2], vertex_gamma[q1] * vertex_gamma[q3]
        if training:
            v0, v1, v2, v3 = (vertices[q] for q in (q0, q1, q2, q3))
            middle = len(vertices)
            vertices.append((g02 * (v0 + v2) / 2 + g13 * (v1 + v3) / 2) / (g02 + g13))
            faces += [(q0, q1, middle), (q1, q2, middle), (q2, q3, middle), (q3, q0, middle)]
        else:
            faces += [(q0, q1, q2), (q0, q2, q3)] if g02 > g13 else [(q0, q1, q3), (q3, q1, q2)]
    return torch.stack(vertices), torch.tensor(faces), torch.stack(deviations)


def random_input(resolution, seed, quantised=False):
    """Noise for everything, in double precision, ready for gradients."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    nx, ny, nz = resolution
    cubes = nx * ny * nz
    x = grid(resolution, 2.0).double()
    x = x + normal(*x.shape) / max(resolution) / 6
    s = normal(len(x))
    if quantised:
        s = (2 * s).round() / 2
    return [tensor.requires_grad_() for tensor in (x, s, normal(cubes, 12), normal(cubes, 8), normal(cubes))]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("quantised", [False, True])
def test_equals_its_plain_twin_in_value_and_gradient(training, quantised):
    resolution = (5, 4, 6)
    leaves = random_input(resolution, seed=5, quantised=quantised)
    results = []
    for function in (flexicubes, flexicubes_twin):
        vertices, faces, L_dev = function(leaves[0], leaves[1], resolution, *leaves[2:], training)
        weight = torch.linspace(-1, 1, vertices.numel(), dtype=torch.float64).reshape(vertices.shape)
        loss = (vertices * weight).sum() + (L_dev**2).sum()
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
        results.append((vertices, faces, L_dev, gradients))
    fast, plain = results
    torch.testing.assert_close(fast[0], plain[0], atol=1e-7, rtol=0)  # the published 1e-8 under the middles' quotient
    assert torch.equal(fast[1], plain[1])
    torch.testing.assert_close(fast[2], plain[2], atol=1e-12, rtol=0)
    for fast_gradient, plain_gradient in zip(fast[3], plain[3], strict=True):
        torch.testing.assert_close(fast_gradient, plain_gradient, atol=1e-6, rtol=0)


def test_gradients_are_the_derivatives():
    resolution = (2, 2, 3)
    x, s, *weights = random_input(resolution, seed=2)
    surface = surface_cubes(s.detach(), resolution)
    assert len(surface.cubes) == 12, "the weights of every cube must count"

    def vertices_and_deviation(x, s, *weights):
        vertices, _, L_dev = flexicubes(x, s, resolution, *weights, training=True)
        return vertices, L_dev

    assert torch.autograd.gradcheck(vertices_and_deviation, (x, s, *weights), fast_mode=True)


# --- laws -------------------------------------------------------------------------------------------------------


def noise(resolution, seed, quantised):
    generator = torch.Generator().manual_seed(seed)
    s = torch.randn(*[cells + 1 for cells in resolution], generator=generator)
    return (2 * s).round() / 2 if quantised else s


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.booleans(), st.booleans(), st.integers(3, 7), st.integers(3, 7), st.integers(3, 7))
def test_any_field_that_ends_in_the_grid_gives_a_closed_outward_surface(seed, quantised, training, nx, ny, nz):
    """Noise holds every case, the ambiguous ones and exact zeros included."""
    resolution = (nx, ny, nz)
    s = noise(resolution, seed, quantised)
    s = torch.where(torch.nn.functional.pad(torch.zeros_like(s[1:-1, 1:-1, 1:-1]), (1,) * 6, value=1.0) > 0, s.abs(), s)
    vertices, faces, _ = flexicubes(grid(resolution, 2.0), s, resolution, training=training)
    if len(faces) == 0:
        assert (s >= 0).all()
        return
    mesh = Mesh(vertices, faces)
    assert mesh.is_watertight()
    assert mesh.volume() > 0


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_vertices_move_with_the_grid(seed):
    """Vertices are affine combinations of grid points, so any affine map of the grid maps the mesh."""
    x, s, *weights = random_input((3, 4, 3), seed)
    map_ = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    vertices, faces, _ = flexicubes(x, s, (3, 4, 3), *weights, training=True)
    moved, moved_faces, _ = flexicubes(x @ map_[:3] + map_[3], s, (3, 4, 3), *weights, training=True)
    assert torch.equal(faces, moved_faces)
    # 1e-7: the published quotient of the middles has 1e-8 added below, so that their weights do not quite sum to 1.
    torch.testing.assert_close(moved, vertices @ map_[:3] + map_[3], atol=1e-6, rtol=0)


@settings(max_examples=15, deadline=None)
@given(st.tuples(st.integers(-2, 2), st.integers(-2, 2), st.integers(-2, 2)))
def test_a_field_moved_by_whole_cells_gives_the_same_mesh_moved(step):
    inner = noise((4, 4, 4), 3, False)
    fields = [torch.ones(12, 12, 12), torch.ones(12, 12, 12)]
    for field, start in zip(fields, ((3, 3, 3), tuple(3 + d for d in step)), strict=True):
        i, j, k = start
        field[i : i + 5, j : j + 5, k : k + 5] = inner
    x = grid(11, 11.0)
    (vertices, faces, L_dev), (moved, moved_faces, moved_L_dev) = (flexicubes(x, field, 11) for field in fields)
    assert torch.equal(faces, moved_faces)
    torch.testing.assert_close(moved, vertices + torch.tensor(step), atol=2e-6, rtol=0)
    torch.testing.assert_close(moved_L_dev, L_dev, atol=2e-6, rtol=0)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.floats(-0.3, 0.3))
def test_a_plane_is_met_exactly(seed, offset):
    """Without alpha every crossing of a linear field lies on its plane, and so does every mean of them."""
    x, _, beta, _, gamma = random_input((4, 5, 3), seed)
    normal = torch.nn.functional.normalize(beta[0, :3].detach(), dim=0)
    vertices, faces, _ = flexicubes(x, x @ normal - offset, (4, 5, 3), beta, None, gamma, training=True)
    assert len(faces) > 0
    torch.testing.assert_close(vertices @ normal, torch.full_like(vertices[:, 0], offset), atol=1e-7, rtol=0)


def sphere(x):
    return x.norm(dim=1) - 0.7


def torus(x):
    return torch.hypot(torch.hypot(x[:, 0], x[:, 1]) - 0.6, x[:, 2]) - 0.25


@pytest.mark.parametrize(
    ("shape", "genus", "volume"), [(sphere, 0, 4 / 3 * np.pi * 0.7**3), (torus, 1, 2 * np.pi**2 * 0.6 * 0.25**2)]
)
def test_known_solids_have_their_handles_and_their_volume_to_second_order(shape, genus, volume):
    """Means of crossings lie inside a convex surface by a part of the cell that is quadratic in the cell."""
    errors = []
    for cells in (20, 40):
        x = grid(cells, 2.0)
        vertices, faces, _ = flexicubes(x, shape(x), cells)
        mesh = Mesh(vertices.double(), faces)
        assert mesh.genus() == genus
        errors.append(volume - mesh.volume().item())
    assert 0 < errors[1] < errors[0] < 0.08 * volume
    assert errors[0] / errors[1] == pytest.approx(4, abs=0.4)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("training", [False, True])
def test_a_field_without_a_surface_gives_nothing_and_no_gradient(sign, training):
    x = grid(4, 2.0).requires_grad_()
    s = torch.full((125,), float(sign)).requires_grad_()
    vertices, faces, L_dev = flexicubes(x, s, 4, training=training)
    assert vertices.shape == (0, 3)
    assert faces.shape == (0, 3)
    assert L_dev.shape == (0,)
    (vertices.sum() + L_dev.sum()).backward()
    assert not x.grad.any()
    assert not s.grad.any()


# --- what is needed where ---------------------------------------------------------------------------------------


def test_surface_cubes_are_those_with_both_signs():
    resolution = (6, 8, 10)
    _, x, s, weights = published_input("aniso")
    surface = surface_cubes(s, resolution)
    inside = s < 0
    index = torch.arange(len(s)).reshape(7, 9, 11)
    corners = torch.stack(
        [index[dx : dx + 6, dy : dy + 8, dz : dz + 10].flatten() for dz, dy, dx in product((0, 1), repeat=3)], dim=1
    )
    expected = (inside[corners].any(1) & ~inside[corners].all(1)).nonzero()[:, 0]
    assert torch.equal(surface.cubes, expected)
    assert torch.equal(surface.points, corners[expected].unique())
    assert torch.equal(surface.points[surface.corners], corners[expected])
    assert torch.equal(surface.positions(grid_axes(resolution, 1.0, True)), x[surface.points])
    assert torch.equal(surface.sdf, s[surface.points])

    sparse = extract(surface, x[surface.points], *(weight[surface.cubes] for weight in weights), training=True)
    everywhere = [torch.full_like(weight, torch.nan) for weight in weights]
    for weight, dense in zip(weights, everywhere, strict=True):
        dense[surface.cubes] = weight[surface.cubes]
    for ours, theirs in zip(sparse, flexicubes(x, s, resolution, *everywhere, training=True), strict=True):
        assert torch.equal(ours, theirs), "nothing but the surface cubes may matter"


def test_grid_is_the_published_one():
    utils = np.load(Path(__file__).parent / "golden" / "utils.npz")
    for scale, name in ((1.0, "grid_axis_128_unit"), (2.1, "grid_axis_128")):
        for axis in grid_axes(128, scale, published_rounding=True):
            assert np.array_equal(axis.numpy(), utils[name])
    exact = torch.arange(129, dtype=torch.float64) / 128 * 2.1 - 1.05
    torch.testing.assert_close(grid_axes(128, 2.1)[0].double(), exact, atol=2e-7, rtol=0)


def test_grid_counts_z_fastest_and_may_differ_by_axis():
    points = grid((1, 2, 3), (1.0, 4.0, 12.0))
    assert points.shape == (2 * 3 * 4, 3)
    expected = torch.tensor([[-0.5, -2.0, -6.0], [-0.5, -2.0, -2.0], [-0.5, 0.0, -6.0], [0.5, -2.0, -6.0]])
    torch.testing.assert_close(points[[0, 1, 4, 12]], expected)


# --- fields -----------------------------------------------------------------------------------------------------


def test_repair_of_empty_fields_is_the_published_one():
    healthy = GOLDEN["small_mesh_sdf"]
    for name, shift in (("allpos", 100.0), ("allneg", -100.0)):
        repaired, empty, reg_sdf = repair_empty((healthy + shift)[None], 16)
        assert empty.tolist() == [True]
        torch.testing.assert_close(repaired[0], GOLDEN[f"small_mesh_{name}_sdf"], atol=3e-5, rtol=0)
        torch.testing.assert_close(reg_sdf, GOLDEN[f"small_mesh_{name}_reg_sdf"], atol=3e-5, rtol=0)
        assert len(surface_cubes(repaired[0], 16).cubes) > 0


def test_repair_leaves_healthy_fields_and_their_gradients_alone():
    fields = torch.stack([GOLDEN["small_mesh_sdf"], GOLDEN["small_mesh_sdf"] + 100]).requires_grad_()
    repaired, empty, reg_sdf = repair_empty(fields, 16)
    assert empty.tolist() == [False, True]
    assert torch.equal(repaired[0], fields[0])
    assert reg_sdf[0] == 0
    (gradient,) = torch.autograd.grad(repaired.sum(), fields)
    assert (gradient[0] == 1).all()
    assert (gradient[1] == 0).all(), "a repaired field must not pull at the network"


def test_entropy_is_the_published_one():
    torch.testing.assert_close(
        sdf_entropy(GOLDEN["small_mesh_sdf"].view(17, 17, 17)), GOLDEN["small_mesh_sdf_entropy"], atol=2e-6, rtol=0
    )


def test_entropy_equals_its_plain_twin():
    shape = (3, 4, 5)
    s = noise((2, 3, 4), 7, True).double().requires_grad_()

    def cross_entropy(logit, positive):
        return torch.nn.functional.softplus(-logit if positive else logit)

    terms = []
    for index in np.ndindex(shape):
        for axis in range(3):
            other = tuple(i + (a == axis) for a, i in enumerate(index))
            if other[axis] < shape[axis] and s[index].sign() != s[other].sign():
                terms.append(cross_entropy(s[index], s[other] > 0) + cross_entropy(s[other], s[index] > 0))
    plain = torch.stack(terms).mean()
    fast = sdf_entropy(s)
    torch.testing.assert_close(fast, plain)
    torch.testing.assert_close(torch.autograd.grad(fast, s), torch.autograd.grad(plain, s))


def test_entropy_without_sign_changes_is_zero():
    assert sdf_entropy(torch.ones(3, 3, 3)) == 0


# --- marching cubes ---------------------------------------------------------------------------------------------


def test_marching_cubes_looks_outward_and_lands_in_its_box():
    axes = grid_axes((40, 60, 80), (2.0, 3.0, 4.0))
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    distance = ((x - 0.2) ** 2 + (y + 0.3) ** 2 + (z - 0.4) ** 2).sqrt()
    mesh = marching_cubes(distance, 0.6, (2.0, 3.0, 4.0))
    assert mesh.is_watertight()
    assert mesh.genus() == 0
    assert mesh.volume().item() == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=1e-2)
    centre = torch.tensor([0.2, -0.3, 0.4])
    radius = (mesh.vertices - centre).norm(dim=1)
    torch.testing.assert_close(radius, torch.full_like(radius, 0.6), atol=1e-3, rtol=0)


def test_marching_cubes_of_a_negated_density_at_its_negated_level_is_its_surface():
    density = 20 * torch.exp(-4 * (grid(24, 2.0) ** 2).sum(1)).reshape(25, 25, 25)
    mesh = marching_cubes(-density, -10.0)
    assert mesh.is_watertight()
    assert mesh.volume() > 0
