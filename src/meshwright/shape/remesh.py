"""Even triangles: split long edges, collapse short ones, flip for valence, relax in the tangent plane.

The loop of Botsch and Kobbelt 2004, "A remeshing approach to multiresolution modeling", section 4. Topology is kept:
an edge is collapsed only if its ends have exactly two neighbours in common (the link condition), and where more or
fewer than two faces meet nothing is collapsed, flipped or moved.

Arrays of the kernels, with room for more vertices than there are (``room``) and faces (2 * room); a corner is
3 * face + place:

    points   float64 (room, 3)      vertices
    corners  int64 (6 * room)       the vertex at each corner, -1 in faces that are gone
    head     int64 (room)           some corner at each vertex, -1 if there is none
    after    int64 (6 * room)       the next corner at the same vertex, -1 at the end
    size     int64 (2)              how many vertices and faces are in use, dead ones included
    fixed    bool (room)            vertices that stay where they are
    mark     int64 (room)           scratch: the last corner whose collapse looked at this vertex
"""

import math
from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from meshwright.compiled import compiled
from meshwright.mesh import Mesh

_SPLIT, _COLLAPSE = 4 / 3, 4 / 5  # of the wanted length (Botsch and Kobbelt)
_TURN = 0.3  # cosine by which a face may turn in a collapse or flip
_FLAT = 0.7  # cosine between two faces above which their edge may flip
_RELAX = 0.5  # share of the way to the middle of the neighbours
_STEP = 0.7  # from one squared length to the next when long edges are split
_CROWD = 24  # faces at a vertex beyond which it is left alone; bounds the time


def edge_length_for(vertices: Float[Tensor, "vertices 3"], faces: Int[Tensor, "faces 3"], count: int) -> float:
    """The side of equilateral triangles with which about ``count`` vertices cover the surface."""
    return math.sqrt(2 * float(Mesh(vertices, faces).area()) / (math.sqrt(3) * count))


def remesh(
    vertices: Float[Tensor, "vertices 3"], faces: Int[Tensor, "faces 3"], edge_length: float, passes: int = 5
) -> tuple[Float[Tensor, "new_vertices 3"], Int[Tensor, "new_faces 3"]]:
    """The same surface, but for the detail that goes, in nearly equilateral triangles with sides of ``edge_length``."""
    room = 4 * (len(vertices) + round(4 * _vertices_for(vertices, faces, edge_length))) + 64
    points, triangles = _remesh(
        np.ascontiguousarray(vertices.detach().cpu().double().numpy()),
        np.ascontiguousarray(faces.cpu().long().numpy()),
        _COLLAPSE * edge_length,
        _SPLIT * edge_length,
        passes,
        room,
    )
    return torch.from_numpy(points).to(vertices), torch.from_numpy(triangles).to(faces.device)


def _vertices_for(vertices: Tensor, faces: Tensor, edge_length: float) -> float:
    return (edge_length_for(vertices, faces, 1) / edge_length) ** 2


@compiled
@no_type_check
def _remesh(vertices, faces, shortest, longest, passes, room):
    points = np.zeros((room, 3))
    points[: len(vertices)] = vertices
    corners = np.full(6 * room, -1, np.int64)
    corners[: 3 * len(faces)] = faces.ravel()
    head, after = np.full(room, -1, np.int64), np.full(6 * room, -1, np.int64)
    size = np.array([len(vertices), len(faces)])
    for corner in range(3 * len(faces)):
        _link(head, after, corners[corner], corner)
    fixed = _irregular(corners, head, after, size, room)
    for _ in range(passes):
        _split_long(points, corners, head, after, size, fixed, longest)
        _collapse_short(points, corners, head, after, size, fixed, shortest, longest)
        _flip_for_valence(points, corners, head, after, size, fixed)
        _relax(points, corners, head, after, size, fixed)
    return _compact(points, corners, size)


@compiled
@no_type_check
def _link(head, after, vertex, corner):
    after[corner] = head[vertex]
    head[vertex] = corner


@compiled
@no_type_check
def _unlink(head, after, vertex, corner):
    at = head[vertex]
    if at == corner:
        head[vertex] = after[corner]
        return
    while after[at] != corner:
        at = after[at]
    after[at] = after[corner]


@compiled
@no_type_check
def _following(corner):
    return corner - 2 if corner % 3 == 2 else corner + 1


@compiled
@no_type_check
def _valence(head, after, vertex):
    """Faces at a vertex, at most _CROWD + 1."""
    count, corner = 0, head[vertex]
    while corner >= 0 and count <= _CROWD:
        count += 1
        corner = after[corner]
    return count


@compiled
@no_type_check
def _half_edge(corners, head, after, a, b):
    """The corner at a from which its face goes on to b, and how many there are."""
    found, count, corner = -1, 0, head[a]
    while corner >= 0:
        if corners[_following(corner)] == b:
            found = corner
            count += 1
        corner = after[corner]
    return found, count


@compiled
@no_type_check
def _regular(corners, head, after, a, b):
    """Half edges a to b and b to a where exactly these two faces meet, else -1, -1."""
    there, count = _half_edge(corners, head, after, a, b)
    back, count_back = _half_edge(corners, head, after, b, a)
    if count != 1 or count_back != 1:
        return -1, -1
    return there, back


@compiled
@no_type_check
def _irregular(corners, head, after, size, room):
    """Vertices at borders, where sheets meet, or with too many faces."""
    fixed = np.zeros(room, np.bool_)
    for vertex in range(size[0]):
        fixed[vertex] = _valence(head, after, vertex) > _CROWD
    for corner in range(3 * size[1]):
        a, b = corners[corner], corners[_following(corner)]
        if fixed[a] and fixed[b]:
            continue
        if _regular(corners, head, after, a, b)[0] < 0:
            fixed[a] = fixed[b] = True
    return fixed


@compiled
@no_type_check
def _squared(points, a, b):
    x, y, z = points[a, 0] - points[b, 0], points[a, 1] - points[b, 1], points[a, 2] - points[b, 2]
    return x * x + y * y + z * z


@compiled
@no_type_check
def _split_long(points, corners, head, after, size, fixed, longest):
    """Halve edges until none is too long, about the longest first: the other way round makes slivers."""
    level = 0.0
    for corner in range(3 * size[1]):
        if corners[corner] >= 0:
            level = max(level, _squared(points, corners[corner], corners[_following(corner)]))
    while level > longest * longest:
        level = max(level * _STEP, longest * longest)
        corner = 0
        while corner < 3 * size[1] and size[0] < len(points):
            a, b = corners[corner], corners[_following(corner)]
            if a >= 0 and _squared(points, a, b) > level:
                there, back = _regular(corners, head, after, a, b)
                if there >= 0:
                    points[size[0]] = (points[a] + points[b]) / 2
                    for half in (there, back):
                        _split_face(corners, head, after, size, half)
                    size[0] += 1
            corner += 1


@compiled
@no_type_check
def _split_face(corners, head, after, size, half):
    """The face (a, b, c) with half edge a to b becomes (a, middle, c), and a new one (middle, b, c)."""
    middle = size[0]
    to_b, to_c = _following(half), _following(_following(half))
    b, c = corners[to_b], corners[to_c]
    new = 3 * size[1]
    size[1] += 1
    _unlink(head, after, b, to_b)
    corners[to_b] = middle
    corners[new], corners[new + 1], corners[new + 2] = middle, b, c
    _link(head, after, middle, to_b)
    _link(head, after, middle, new)
    _link(head, after, b, new + 1)
    _link(head, after, c, new + 2)


@compiled
@no_type_check
def _collapse_short(points, corners, head, after, size, fixed, shortest, longest):
    mark = np.full(len(points), -1, np.int64)
    middle = np.empty(3)
    for corner in range(3 * size[1]):
        a = corners[corner]
        if a < 0:
            continue
        b = corners[_following(corner)]
        if fixed[a] or fixed[b] or _squared(points, a, b) >= shortest * shortest:
            continue
        there, back = _regular(corners, head, after, a, b)
        if there < 0:
            continue
        c, d = corners[_following(_following(there))], corners[_following(_following(back))]
        if _valence(head, after, c) <= 3 or _valence(head, after, d) <= 3:
            continue
        if _valence(head, after, a) + _valence(head, after, b) - 4 > _CROWD // 2:
            continue
        middle[:] = (points[a] + points[b]) / 2
        if not _may_merge(points, corners, head, after, mark, corner, a, b, middle, longest):
            continue
        _merge(corners, head, after, a, b, there // 3, back // 3)
        points[a] = middle


@compiled
@no_type_check
def _may_merge(points, corners, head, after, mark, stamp, a, b, middle, longest):
    """The link condition, no edge too long, no face turned over."""
    common = 0
    for vertex, other in ((a, b), (b, a)):
        corner = head[vertex]
        while corner >= 0:
            p, q = corners[_following(corner)], corners[_following(_following(corner))]
            if vertex == a:
                mark[p] = stamp
            elif mark[p] == stamp:
                common += 1
            if p != other and q != other:
                x, y, z = points[p, 0] - middle[0], points[p, 1] - middle[1], points[p, 2] - middle[2]
                if x * x + y * y + z * z > longest * longest or _turns(points[vertex], middle, points[p], points[q]):
                    return False
            corner = after[corner]
    return common == 2


@compiled
@no_type_check
def _normal(a, b, c):
    ux, uy, uz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    vx, vy, vz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
    return uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx


@compiled
@no_type_check
def _cosine(n, m):
    lengths = (n[0] * n[0] + n[1] * n[1] + n[2] * n[2]) * (m[0] * m[0] + m[1] * m[1] + m[2] * m[2])
    if lengths <= 0:
        return -1.0
    return (n[0] * m[0] + n[1] * m[1] + n[2] * m[2]) / math.sqrt(lengths)


@compiled
@no_type_check
def _turns(before, moved, p, q):
    """Whether the face of a vertex with p and q turns over, or loses its area, when the vertex moves."""
    return _cosine(_normal(before, p, q), _normal(moved, p, q)) < _TURN


@compiled
@no_type_check
def _merge(corners, head, after, a, b, face, other_face):
    for dead in (face, other_face):
        for corner in range(3 * dead, 3 * dead + 3):
            _unlink(head, after, corners[corner], corner)
            corners[corner] = -1
    corner = head[b]
    while corner >= 0:
        following = after[corner]
        corners[corner] = a
        _link(head, after, a, corner)
        corner = following
    head[b] = -1


@compiled
@no_type_check
def _flip_for_valence(points, corners, head, after, size, fixed):
    """Flip an edge where that brings the valences of the four vertices around it nearer to six."""
    for corner in range(3 * size[1]):
        a = corners[corner]
        if a < 0:
            continue
        b = corners[_following(corner)]
        if a > b or fixed[a] or fixed[b]:
            continue
        there, back = _regular(corners, head, after, a, b)
        if there < 0:
            continue
        to_c, to_d = _following(_following(there)), _following(_following(back))
        c, d = corners[to_c], corners[to_d]
        if (
            fixed[c]
            or fixed[d]
            or c == d
            or _half_edge(corners, head, after, c, d)[1]
            or _half_edge(corners, head, after, d, c)[1]
        ):
            continue
        before = after_flip = 0
        for vertex, change in ((a, -1), (b, -1), (c, 1), (d, 1)):
            valence = _valence(head, after, vertex)
            before += (valence - 6) ** 2
            after_flip += (valence + change - 6) ** 2
        if after_flip >= before or _valence(head, after, a) <= 3 or _valence(head, after, b) <= 3:
            continue
        n, m = _normal(points[a], points[b], points[c]), _normal(points[b], points[a], points[d])
        new_n, new_m = _normal(points[c], points[a], points[d]), _normal(points[d], points[b], points[c])
        if (
            _cosine(n, m) < _FLAT
            or min(_cosine(n, new_n), _cosine(n, new_m), _cosine(m, new_n), _cosine(m, new_m)) < _FLAT
        ):
            continue
        # (a, b, c) becomes (a, d, c), and (b, a, d) becomes (b, c, d).
        to_b, to_a = _following(there), _following(back)
        _unlink(head, after, b, to_b)
        _unlink(head, after, a, to_a)
        corners[to_b], corners[to_a] = d, c
        _link(head, after, d, to_b)
        _link(head, after, c, to_a)


@compiled
@no_type_check
def _relax(points, corners, head, after, size, fixed):
    """Move each vertex towards the middle of its neighbours, within its tangent plane."""
    moved = points.copy()
    for vertex in range(size[0]):
        corner = head[vertex]
        if corner < 0 or fixed[vertex]:
            continue
        mx = my = mz = nx = ny = nz = 0.0
        count = 0
        while corner >= 0:
            p, q = corners[_following(corner)], corners[_following(_following(corner))]
            mx, my, mz = mx + points[p, 0], my + points[p, 1], mz + points[p, 2]
            x, y, z = _normal(points[vertex], points[p], points[q])
            nx, ny, nz = nx + x, ny + y, nz + z
            count += 1
            corner = after[corner]
        square = nx * nx + ny * ny + nz * nz
        if square <= 0:
            continue
        x, y, z = mx / count - points[vertex, 0], my / count - points[vertex, 1], mz / count - points[vertex, 2]
        out = (x * nx + y * ny + z * nz) / square
        moved[vertex, 0] += _RELAX * (x - out * nx)
        moved[vertex, 1] += _RELAX * (y - out * ny)
        moved[vertex, 2] += _RELAX * (z - out * nz)
    points[:] = moved


@compiled
@no_type_check
def _compact(points, corners, size):
    number = np.full(size[0], -1, np.int64)
    used = 0
    faces = 0
    for corner in range(3 * size[1]):
        if corners[corner] >= 0 and number[corners[corner]] < 0:
            number[corners[corner]] = used
            used += 1
        faces += corners[corner] >= 0
    new_points, new_faces = np.empty((used, 3)), np.empty(faces, np.int64)
    for vertex in range(size[0]):
        if number[vertex] >= 0:
            new_points[number[vertex]] = points[vertex]
    faces = 0
    for corner in range(3 * size[1]):
        if corners[corner] >= 0:
            new_faces[faces] = number[corners[corner]]
            faces += 1
    return new_points, new_faces.reshape(-1, 3)
