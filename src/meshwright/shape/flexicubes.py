"""FlexiCubes: from a signed field on a grid to a triangle mesh, differentiable in the field and in the grid.

The method is Shen et al. 2023, "Flexible Isosurface Extraction for Gradient-Based Mesh Optimization"
(arXiv 2308.05371), numbers and orders as in the published InstantMesh weights.  Its letters:

    s, x      field value and position of a grid point; s < 0 is inside, exactly 0 is outside
    alpha     one weight per cube corner: moves the crossing along an edge (section 4.2)
    beta      one weight per cube edge: moves the dual vertex between the crossings (section 4.2)
    gamma     one weight per cube: chooses or weighs the diagonals of a quad (section 4.3)
    L_dev     how unevenly far a dual vertex lies from the crossings of its patch (equation 8)

A grid of ``resolution`` (nx, ny, nz) cubes has (nx+1)(ny+1)(nz+1) points; both are numbered with z fastest.
Bit 0 of a cube's corner number says +x, bit 1 +y, bit 2 +z.  A cube's case is the sum of 2^corner over its inside
corners.

Only the cubes that the surface crosses take part (2-5 % at 128^3).  A caller whose weights are costly asks
`surface_cubes` which these are, evaluates what it needs there, and calls `extract`; `flexicubes` does both for
arrays on the whole grid.
"""

from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

# The edges of a cube as corner pairs (a, b): x and z edges run upwards, y edges downwards.
_EDGES = ((0, 1), (1, 5), (4, 5), (0, 4), (2, 3), (3, 7), (6, 7), (2, 6), (2, 0), (3, 1), (7, 5), (6, 4))
_WEIGHT_SCALE = 0.5  # how far alpha and beta may stray from 1; fixed by the published weights

Resolution = int | tuple[int, int, int]
Scale = float | tuple[float, float, float]
Number = TypeVar("Number", int, float)


# --- the grid ---------------------------------------------------------------------------------------------------


def grid_axes(
    resolution: Resolution, scale: Scale, published_rounding: bool = False, device: torch.device | str = "cpu"
) -> tuple[Float[Tensor, " x"], Float[Tensor, " y"], Float[Tensor, " z"]]:
    """World coordinates of the grid points along x, y and z: a box of side ``scale`` around the origin.

    ``published_rounding``: round each place in the unit box to 1e-5, as the grid of the published weights is.
    """
    axes = []
    for cells, side in zip(_triple(resolution), _triple(scale), strict=True):
        unit = torch.arange(cells + 1, device=device) / cells
        if published_rounding:
            unit = torch.round(unit * 1e5) / 1e5
        axes.append((unit - 0.5) * side)
    return axes[0], axes[1], axes[2]


def grid(
    resolution: Resolution, scale: Scale, published_rounding: bool = False, device: torch.device | str = "cpu"
) -> Float[Tensor, "grid_points 3"]:
    """World positions of all grid points, z fastest (see `grid_axes`)."""
    return torch.cartesian_prod(*grid_axes(resolution, scale, published_rounding, device))


def _triple(value: Number | tuple[Number, Number, Number]) -> tuple[Number, Number, Number]:
    return value if isinstance(value, tuple) else (value, value, value)


def _point_shape(resolution: tuple[int, int, int]) -> tuple[int, int, int]:
    nx, ny, nz = resolution
    return nx + 1, ny + 1, nz + 1


def _strides(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    return shape[1] * shape[2], shape[2], 1


def grid_index(flat: Int[Tensor, " n"], shape: tuple[int, int, int]) -> Int[Tensor, "n 3"]:
    """Places (i, j, k) in a grid of this shape of its points or cubes numbered with z fastest."""
    x_stride, y_stride, _ = _strides(shape)
    return torch.stack([flat // x_stride, flat // y_stride % shape[1], flat % y_stride], dim=1)


# --- what the surface crosses -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SurfaceCubes:
    """The cubes with corners on both sides of the surface, and the grid points they touch.

    ``cubes``: their numbers in the grid, ascending.  ``cases``: after the ambiguous ones have been resolved.
    ``points``: numbers in the grid of all corners of these cubes, ascending.  ``corners``: indices into ``points``.
    ``sdf``: field values at ``points``, with the gradient of the field they were taken from.
    """

    resolution: tuple[int, int, int]
    cubes: Int[Tensor, " cubes"]
    cases: Int[Tensor, " cubes"]
    points: Int[Tensor, " points"]
    corners: Int[Tensor, "cubes 8"]
    sdf: Float[Tensor, " points"]

    def positions(
        self, axes: tuple[Float[Tensor, " x"], Float[Tensor, " y"], Float[Tensor, " z"]]
    ) -> Float[Tensor, "points 3"]:
        """World positions of ``points`` on the undeformed grid with these axes."""
        index = grid_index(self.points, _point_shape(self.resolution))
        return torch.stack([axis[index[:, i]] for i, axis in enumerate(axes)], dim=1)


def surface_cubes(sdf: Float[Tensor, "*grid"], resolution: Resolution) -> SurfaceCubes:
    """Find the cubes that the surface of a field on the whole grid (flat or 3-D) crosses.

    Two neighbours in case C16 or C19 that face each other would share an edge with four faces; both take the
    complementary case instead (supplement of the paper, section 1.3).
    """
    shape = _triple(resolution)
    point_shape = _point_shape(shape)
    all_cases = _all_cases(sdf.detach().reshape(point_shape) < 0)
    cubes = ((all_cases > 0) & (all_cases < 255)).reshape(-1).nonzero()[:, 0]
    corner_index = grid_index(cubes, shape)[:, None] + _tables(sdf.device).corner_offset
    corners = (corner_index * torch.tensor(_strides(point_shape), device=sdf.device)).sum(dim=2)

    point_count = sdf.numel()
    touched = torch.zeros(point_count, dtype=torch.bool, device=sdf.device)
    touched[corners.reshape(-1)] = True
    points = touched.nonzero()[:, 0]
    rank = torch.empty(point_count, dtype=torch.int32, device=sdf.device)  # read only where written
    rank[points] = torch.arange(len(points), dtype=torch.int32, device=sdf.device)
    return SurfaceCubes(
        resolution=shape,
        cubes=cubes,
        cases=_resolve_ambiguous(cubes, all_cases, shape),
        points=points,
        corners=rank[corners].long(),
        sdf=sdf.reshape(-1)[points],
    )


def _all_cases(inside: Bool[Tensor, "x y z"]) -> UInt8[Tensor, "nx ny nz"]:
    bits = inside.to(torch.uint8)
    bits = bits[:-1] + 2 * bits[1:]
    bits = bits[:, :-1] + 4 * bits[:, 1:]
    return bits[:, :, :-1] + 16 * bits[:, :, 1:]


def _resolve_ambiguous(
    cubes: Int[Tensor, " cubes"], all_cases: UInt8[Tensor, "nx ny nz"], shape: tuple[int, int, int]
) -> Int[Tensor, " cubes"]:
    direction_of_case = _tables(all_cases.device).ambiguous_direction
    cases = all_cases.reshape(-1)[cubes].long()
    ambiguous = direction_of_case[cases].any(dim=1).nonzero()[:, 0]
    neighbour = grid_index(cubes[ambiguous], shape) + direction_of_case[cases[ambiguous]]
    exists = ((neighbour >= 0) & (neighbour < torch.tensor(shape, device=cubes.device))).all(dim=1)
    ambiguous, neighbour = ambiguous[exists], neighbour[exists]
    neighbour_case = all_cases[tuple(neighbour.unbind(1))].long()
    facing = ambiguous[direction_of_case[neighbour_case].any(dim=1)]
    return cases.index_copy(0, facing, 255 - cases[facing])


# --- the mesh ---------------------------------------------------------------------------------------------------


def flexicubes(
    vertices: Float[Tensor, "grid_points 3"],
    sdf: Float[Tensor, "*grid"],
    resolution: Resolution,
    beta: Float[Tensor, "grid_cubes 12"] | None = None,
    alpha: Float[Tensor, "grid_cubes 8"] | None = None,
    gamma: Float[Tensor, " grid_cubes"] | None = None,
    training: bool = False,
) -> tuple[Float[Tensor, "vertices 3"], Int[Tensor, "faces 3"], Float[Tensor, " pairs"]]:
    """Mesh of a field whose grid positions and raw weights are given on the whole grid: see `extract`."""
    surface = surface_cubes(sdf, resolution)
    beta, alpha, gamma = (None if weight is None else weight[surface.cubes] for weight in (beta, alpha, gamma))
    return extract(surface, vertices[surface.points], beta, alpha, gamma, training)


def extract(
    surface: SurfaceCubes,
    positions: Float[Tensor, "points 3"],
    beta: Float[Tensor, "cubes 12"] | None = None,
    alpha: Float[Tensor, "cubes 8"] | None = None,
    gamma: Float[Tensor, " cubes"] | None = None,
    training: bool = False,
) -> tuple[Float[Tensor, "vertices 3"], Int[Tensor, "faces 3"], Float[Tensor, " pairs"]]:
    """Mesh of the surface with (deformed) ``positions`` of ``surface.points``, and L_dev.

    Faces are counter-clockwise seen from outside; the mesh is closed except where the surface leaves the grid.
    Everything returned is differentiable in positions, field and weights.  The weights are raw numbers, squashed
    here; without them all weights are 1.  L_dev has one number for each pair of a vertex and a crossing of its patch;
    its mean is the regulariser.  ``training`` adds a vertex in the middle of each quad, weighted by gamma
    (four faces); otherwise gamma chooses the diagonal (two faces).
    """
    beta = None if beta is None else beta.tanh() * _WEIGHT_SCALE + 1
    alpha = None if alpha is None else alpha.tanh() * _WEIGHT_SCALE + 1
    dual = _number_dual_vertices(surface)
    vertices, L_dev = _place_dual_vertices(surface, dual, positions, beta, alpha)
    if gamma is None:
        vertex_gamma = torch.ones_like(vertices[:, 0])
    else:
        vertex_gamma = (gamma.sigmoid() * _WEIGHT_SCALE + (1 - _WEIGHT_SCALE) / 2)[dual.cube_of_vertex]
    quads = _quads(surface, dual)
    g02 = vertex_gamma[quads[:, 0]] * vertex_gamma[quads[:, 2]]
    g13 = vertex_gamma[quads[:, 1]] * vertex_gamma[quads[:, 3]]
    if not training:
        return vertices, _split_at_diagonal(quads, g02 > g13), L_dev
    middles = _weighted_middles(vertices, quads, g02, g13)
    return torch.cat([vertices, middles]), _split_at_middle(quads, len(vertices)), L_dev


@dataclass(frozen=True, eq=False)
class _DualVertices:
    """One vertex per patch of each surface cube: cubes with one patch come first, then those with two, ..."""

    first_of_cube: Int[Tensor, " cubes"]
    cube_of_vertex: Int[Tensor, " vertices"]
    patch_of_vertex: Int[Tensor, " vertices"]


def _number_dual_vertices(surface: SurfaceCubes) -> _DualVertices:
    count = _tables(surface.cases.device).patch_count[surface.cases]
    order = torch.argsort(count, stable=True)
    count_in_order = count[order]
    first = torch.empty_like(count)
    first[order] = count_in_order.cumsum(0) - count_in_order
    cube = order.repeat_interleave(count_in_order)
    return _DualVertices(first, cube, torch.arange(len(cube), device=cube.device) - first[cube])


def _place_dual_vertices(
    surface: SurfaceCubes,
    dual: _DualVertices,
    positions: Float[Tensor, "points 3"],
    beta: Float[Tensor, "cubes 12"] | None,
    alpha: Float[Tensor, "cubes 8"] | None,
) -> tuple[Float[Tensor, "vertices 3"], Float[Tensor, " pairs"]]:
    """Vertices as beta-weighted means of their patch's crossings, and L_dev for each such pair."""
    tables = _tables(positions.device)
    patches = tables.patches[surface.cases[dual.cube_of_vertex], dual.patch_of_vertex]
    vertex, edge = patches.nonzero(as_tuple=True)
    cube = dual.cube_of_vertex[vertex]
    corner_a, corner_b = tables.edges[edge].unbind(1)
    a, b = surface.corners[cube, corner_a], surface.corners[cube, corner_b]
    x_a, x_b = positions[a], positions[b]
    s_a, s_b = surface.sdf[a], surface.sdf[b]
    plain = _crossing(x_a, x_b, s_a, s_b)
    crossing = plain if alpha is None else _crossing(x_a, x_b, s_a * alpha[cube, corner_a], s_b * alpha[cube, corner_b])
    weight = torch.ones_like(s_a) if beta is None else beta[cube, edge]

    count = len(dual.cube_of_vertex)
    total = _sum_by(vertex, crossing * weight[:, None], count)
    vertices = total / _sum_by(vertex, weight[:, None], count)
    # Distances are to the crossings without alpha: that is what the published L_dev measures.
    distance = (vertices[vertex] - plain).norm(dim=1)
    mean = _sum_by(vertex, distance[:, None], count)[:, 0] / patches.sum(dim=1)
    return vertices, (distance - mean[vertex]).abs()


def _crossing(
    x_a: Float[Tensor, "pairs 3"],
    x_b: Float[Tensor, "pairs 3"],
    s_a: Float[Tensor, " pairs"],
    s_b: Float[Tensor, " pairs"],
) -> Float[Tensor, "pairs 3"]:
    """Where the field interpolated between a and b is zero."""
    return (x_a * s_b[:, None] - x_b * s_a[:, None]) / (s_b - s_a)[:, None]


def _sum_by(
    group: Int[Tensor, " pairs"], values: Float[Tensor, "pairs channels"], count: int
) -> Float[Tensor, "groups channels"]:
    zeros = values.new_zeros(count, values.shape[1])
    return zeros.scatter_add(0, group[:, None].expand_as(values), values)


def _quads(surface: SurfaceCubes, dual: _DualVertices) -> Int[Tensor, "quads 4"]:
    """The dual vertices around each crossed edge with four cubes, outward, in the published order.

    Each such edge belongs to exactly one cube as an edge that starts at the cube's lowest corner, so walking
    over the surface cubes finds every edge once and nothing has to be made unique.  One thing differs: the published
    code winds the quad of an edge that starts at exactly 0 inwards, which leaves closed surfaces inconsistent.
    """
    tables = _tables(surface.cubes.device)
    inside = surface.sdf.detach()[surface.corners] < 0
    crossed = inside[:, :1] != inside[:, [1, 2, 4]]
    at_border = grid_index(surface.cubes, surface.resolution) == 0
    has_four_cubes = at_border.sum(dim=1, keepdim=True) == at_border.long()  # at no border but its own axis's
    own_cube, axis = (crossed & has_four_cubes).nonzero(as_tuple=True)
    start = surface.corners[own_cube, tables.start_corner[axis]]

    strides = torch.tensor(_strides(surface.resolution), device=axis.device)
    to_cubes_around = -(tables.corner_offset[tables.corners_around] * strides).sum(dim=2)
    cube = torch.searchsorted(surface.cubes, surface.cubes[own_cube, None] + to_cubes_around[axis])
    quads = dual.first_of_cube[cube] + tables.patch_of_edge[surface.cases[cube], tables.edges_around[axis]]

    s_start = surface.sdf.detach()[start]
    quads = torch.where((s_start >= 0)[:, None], quads[:, [0, 1, 3, 2]], quads[:, [2, 3, 1, 0]])
    # The published order lists edges that start at s > 0 first, then those that start at s <= 0.
    behind_all = 3 * (surface.points[-1:] + 1)
    order = 3 * surface.points[start] + tables.rank_at_start[axis] + (s_start <= 0) * behind_all
    return quads[torch.argsort(order)]


def _split_at_diagonal(quads: Int[Tensor, "quads 4"], cut_02: Bool[Tensor, " quads"]) -> Int[Tensor, "faces 3"]:
    faces = torch.where(cut_02[:, None], quads[:, [0, 1, 2, 0, 2, 3]], quads[:, [0, 1, 3, 3, 1, 2]])
    return faces.reshape(-1, 3)


def _split_at_middle(quads: Int[Tensor, "quads 4"], first_middle: int) -> Int[Tensor, "faces 3"]:
    middle = first_middle + torch.arange(len(quads), device=quads.device)
    return torch.stack([quads, quads.roll(-1, dims=1), middle[:, None].expand(-1, 4)], dim=2).reshape(-1, 3)


def _weighted_middles(
    vertices: Float[Tensor, "vertices 3"],
    quads: Int[Tensor, "quads 4"],
    g02: Float[Tensor, " quads"],
    g13: Float[Tensor, " quads"],
) -> Float[Tensor, "quads 3"]:
    """The middles of both diagonals, weighted by gamma."""
    v0, v1, v2, v3 = vertices[quads].unbind(1)
    weighted = g02[:, None] * (v0 + v2) / 2 + g13[:, None] * (v1 + v3) / 2
    return weighted / (g02 + g13 + 1e-8)[:, None]


# --- fields -----------------------------------------------------------------------------------------------------


def repair_empty(
    sdf: Float[Tensor, "batch grid_points"], resolution: Resolution
) -> tuple[Float[Tensor, "batch grid_points"], Bool[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Give fields without a surface one, as the published mesh model does.

    A field is empty if its interior samples are all <= 0 or all >= 0.  Then the sample after the centre becomes
    1 - min and the two outermost layers -1 - max, over the batch: one of them differs in sign from the rest.
    Returned are the fields (repaired ones detached), which were empty, and mean |sdf| of these (0 for the others).
    """
    nx, ny, nz = shape = _triple(resolution)
    grids = sdf.detach().reshape(-1, *_point_shape(shape))
    interior = grids[:, 1:-1, 1:-1, 1:-1].flatten(1)
    empty = ~((interior > 0).any(dim=1) & (interior < 0).any(dim=1))
    # Extremes of the whole batch, healthy fields included: what the published weights were trained with.
    centre_value, shell_value = 1 - grids.min(), -1 - grids.max()
    repaired = grids.clone()
    shell = torch.ones(_point_shape(shape), dtype=torch.bool, device=sdf.device)
    shell[2:-2, 2:-2, 2:-2] = False
    if centre_value != 0:
        repaired[:, nx // 2 + 1, ny // 2 + 1, nz // 2 + 1] = centre_value
    if shell_value != 0:
        repaired = torch.where(shell, shell_value, repaired)
    fields = torch.where(empty[:, None], repaired.reshape(sdf.shape), sdf)
    return fields, empty, torch.where(empty, sdf.abs().mean(dim=1), 0.0)


# --- the 256 cases ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Tables:
    """What holds for each of the 256 cases, derived from the cube's edges and faces alone.

    ``patches``: which edges the j-th connected piece of surface crosses.  ``ambiguous_direction``: for C16 and C19,
    where the neighbour is that shares the one ambiguous face; (0, 0, 0) for all other cases.

    For a grid edge along each axis: ``corners_around`` and ``edges_around`` tell which corner its low end is and which
    edge it is in the four cubes around it, in the order of these cubes; ``start_corner`` is the corner a of the edge in
    the last of them; ``rank_at_start`` orders the edges that start at one grid point by where they end.
    """

    corner_offset: Int[Tensor, "8 3"]
    edges: Int[Tensor, "12 2"]
    corners_around: Int[Tensor, "3 4"]
    edges_around: Int[Tensor, "3 4"]
    start_corner: Int[Tensor, "3"]
    rank_at_start: Int[Tensor, "3"]
    patches: Bool[Tensor, "256 4 12"]
    patch_count: Int[Tensor, "256"]
    patch_of_edge: Int[Tensor, "256 12"]
    ambiguous_direction: Int[Tensor, "256 3"]


@cache
def _tables(device: torch.device) -> _Tables:
    patches = torch.zeros(256, 4, 12, dtype=torch.bool)
    direction = torch.zeros(256, 3, dtype=torch.long)
    for case in range(256):
        inside = [bool(case >> corner & 1) for corner in range(8)]
        crossed_on_face = _crossed_edges(inside)
        patches_of_case = _patches(inside, crossed_on_face)
        for number, patch in enumerate(patches_of_case):
            patches[case, number, sorted(patch)] = True
        ambiguous = [face for face, crossed in enumerate(crossed_on_face) if len(crossed) == 4]
        if len(patches_of_case) == 1 and len(ambiguous) == 1:
            axis, side = divmod(ambiguous[0], 2)
            direction[case, axis] = 2 * side - 1
    corners_around = [(6, 2, 4, 0), (5, 1, 4, 0), (3, 1, 2, 0)]
    edge_number = {frozenset(edge): number for number, edge in enumerate(_EDGES)}
    edges_around = [
        [edge_number[frozenset((low, low + 2**axis))] for low in corners] for axis, corners in enumerate(corners_around)
    ]
    return _Tables(
        corner_offset=torch.tensor([[corner >> axis & 1 for axis in range(3)] for corner in range(8)], device=device),
        edges=torch.tensor(_EDGES, device=device),
        corners_around=torch.tensor(corners_around, device=device),
        edges_around=torch.tensor(edges_around, device=device),
        start_corner=torch.tensor([0, 2, 0], device=device),
        rank_at_start=torch.tensor([2, 0, 1], device=device),  # -y, +z, +x
        patches=patches.to(device),
        patch_count=patches.any(dim=2).sum(dim=1).to(device),
        patch_of_edge=patches.to(torch.uint8).argmax(dim=1).to(device),
        ambiguous_direction=direction.to(device),
    )


def _crossed_edges(inside: list[bool]) -> list[list[int]]:
    """The edges that the surface crosses on each face: -x, +x, -y, +y, -z, +z."""
    crossed = [e for e, (a, b) in enumerate(_EDGES) if inside[a] != inside[b]]
    return [
        [e for e in crossed if all(corner >> axis & 1 == side for corner in _EDGES[e])]
        for axis in range(3)
        for side in range(2)
    ]


def _patches(inside: list[bool], crossed_on_face: list[list[int]]) -> list[set[int]]:
    """Sets of edges joined by the lines in which the surface meets the faces, in the published order.

    On an ambiguous face each of the two lines cuts off one of the two inside corners.
    """
    inside_end = [a if inside[a] else b for a, b in _EDGES]
    lines = [
        (e, f)
        for crossed in crossed_on_face
        for e, f in combinations(crossed, 2)
        if len(crossed) == 2 or inside_end[e] == inside_end[f]
    ]
    inside_corners = [(corner, corner) for corner in range(8) if inside[corner]]
    solids = _connected(inside_corners + [(a, b) for a, b in _EDGES if inside[a] and inside[b]])

    def published_rank(patch: set[int]) -> tuple[int, int]:
        corners = {corner for e in patch for corner in _EDGES[e]}
        lowest_of_solid = min(min(solid) for solid in solids if solid & corners)
        return lowest_of_solid, min(corner for corner in corners if not inside[corner])

    return sorted(_connected(lines), key=published_rank)


def _connected(links: list[tuple[int, int]]) -> list[set[int]]:
    """The sets of numbers that the links join."""
    pieces: list[set[int]] = []
    for a, b in links:
        touching = [piece for piece in pieces if a in piece or b in piece]
        pieces = [piece for piece in pieces if piece not in touching] + [{a, b}.union(*touching)]
    return pieces
