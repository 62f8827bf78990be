"""Fewer faces for the same shape, still closed if it was closed."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from meshwright.mesh import Mesh

# How far the copies of a vertex that was split stand apart, as a share of the way to their own faces' centres.
APART = 1e-3


def decimate(mesh: Mesh, face_count: int) -> Mesh:
    """About ``face_count`` faces by collapsing edges of least quadric error (Garland and Heckbert 1997).

    A closed mesh stays closed: where the collapse has glued sheets together along an edge or in a vertex, they are
    parted again, for which a few faces may be added. Vertex colours are those of the nearest old vertex; a texture
    does not survive. A mesh that is small enough is returned as it is.
    """
    if len(mesh.faces) <= face_count:
        return mesh
    import fast_simplification

    old_vertices = mesh.vertices.detach().cpu().numpy()
    vertices, faces = fast_simplification.simplify(
        old_vertices, mesh.faces.cpu().numpy().astype(np.int32), target_count=face_count
    )
    vertices, faces = part_glued_sheets(np.asarray(vertices, dtype=np.float64), np.asarray(faces, dtype=np.int64))
    colors = None
    if mesh.vertex_colors is not None:
        from scipy.spatial import cKDTree

        nearest = torch.from_numpy(cKDTree(old_vertices).query(vertices)[1])
        colors = mesh.vertex_colors[nearest.to(mesh.vertex_colors.device)]
    return Mesh(torch.from_numpy(vertices).to(mesh.vertices), torch.from_numpy(faces).to(mesh.faces), colors)


def part_glued_sheets(
    vertices: Float[np.ndarray, "vertices 3"], faces: Int[np.ndarray, "faces 3"]
) -> tuple[Float[np.ndarray, "new_vertices 3"], Int[np.ndarray, "new_faces 3"]]:
    """A manifold with the same faces, but for pairs that lie back to back, which vanish.

    At an edge of more than two faces each is joined to the one across the solid between them (Gueziec et al. 2001,
    "Cutting and stitching"); corners that are still joined around a vertex share it, all others get a copy of their
    own. Where two joined pairs keep both ends of their edge in common, each edge gets a middle of its own.
    """
    faces = _without_back_to_back(faces.astype(np.int64))
    partner = _partners(vertices, faces)
    corners = _joined_corners(faces, partner)
    count = int(corners.max()) + 1
    source = np.empty(count, dtype=np.int64)
    source[corners.reshape(-1)] = faces.reshape(-1)
    centers = vertices[faces].mean(axis=1)
    uses = np.bincount(corners.reshape(-1), minlength=count)[:, None]
    middle = np.stack([np.bincount(corners.reshape(-1), np.repeat(centers[:, k], 3), count) for k in range(3)], 1)
    is_copy = (np.bincount(source, minlength=len(vertices))[source] > 1)[:, None]
    placed = vertices[source] + np.where(is_copy, APART * (middle / uses - vertices[source]), 0.0)
    return _split_double_edges(placed, corners, partner)


def _without_back_to_back(faces: Int[np.ndarray, "faces 3"]) -> Int[np.ndarray, "left 3"]:
    """Faces with the same corners cancel if they look opposite ways; collapsed ones go too."""
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    lowest = faces.argmin(axis=1)[:, None]
    turned = np.take_along_axis(faces, (lowest + np.arange(3)) % 3, axis=1)  # the lowest corner first
    looks_up = turned[:, 1] < turned[:, 2]  # one of the two ways in which three corners can be wound
    _, corners = np.unique(np.sort(faces, axis=1), axis=0, return_inverse=True)
    corners = corners.reshape(-1)
    up, down = np.bincount(corners, looks_up), np.bincount(corners, ~looks_up)
    # Of each set of corners as many faces stay as one way outnumbers the other: the last of them.
    majority = np.where(looks_up, (up > down)[corners], (down > up)[corners])
    surplus = np.abs(up - down)[corners]
    return faces[majority & (_rank_from_last(corners, majority) < surplus)]


def _rank_from_last(group: Int[np.ndarray, " items"], member: Bool[np.ndarray, " items"]) -> Int[np.ndarray, " items"]:
    """For each item the number of members of its group that come after it."""
    order = np.argsort(group, kind="stable")
    after = np.cumsum(member[order][::-1])[::-1] - member[order]  # members behind it, those of later groups too
    last = np.searchsorted(group[order], group[order], side="right") - 1
    rank = np.empty(len(group), dtype=np.int64)
    rank[order] = after - after[last]
    return rank


def _partners(
    vertices: Float[np.ndarray, "vertices 3"], faces: Int[np.ndarray, "faces 3"]
) -> Int[np.ndarray, " sides"]:
    """For side 3 f + k of the faces, from corner k to k + 1, the side it is joined to; -1 at a border."""
    start, end = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
    edge = np.minimum(start, end) * len(vertices) + np.maximum(start, end)
    order = np.argsort(edge, kind="stable")
    first = np.flatnonzero(np.diff(edge[order], prepend=-1))
    uses = np.diff(np.append(first, len(edge)))
    partner = np.full(len(edge), -1)
    one, other = order[first[uses == 2]], order[first[uses == 2] + 1]
    one, other = one[start[one] != start[other]], other[start[one] != start[other]]
    partner[one], partner[other] = other, one
    for begin, size in zip(first[uses > 2], uses[uses > 2], strict=True):
        around = _in_turn(vertices, faces, order[begin : begin + size])
        forward = start[around] < end[around]
        # Seen along the edge, the solid lies between a forward side and the backward side before it in the turn.
        for _ in range(size):
            meeting = np.flatnonzero(forward & ~np.roll(forward, 1))
            if len(meeting) == 0:
                break
            one, other = around[meeting], around[meeting - 1]
            partner[one], partner[other] = other, one
            left = np.ones(len(around), dtype=bool)
            left[meeting], left[meeting - 1] = False, False
            around, forward = around[left], forward[left]
    return partner


def _in_turn(
    vertices: Float[np.ndarray, "vertices 3"], faces: Int[np.ndarray, "faces 3"], sides: Int[np.ndarray, " some"]
) -> Int[np.ndarray, " some"]:
    """Sides of one edge by the angle of their faces around it, counter-clockwise seen against the edge's direction."""
    face, k = np.divmod(sides, 3)
    a, b = np.sort(faces[face[0], [k[0], (k[0] + 1) % 3]])
    along = vertices[b] - vertices[a]
    away = vertices[faces[face, (k + 2) % 3]] - vertices[a]
    x_axis = np.cross(along, np.eye(3)[np.abs(along).argmin()])
    return sides[
        np.argsort(np.arctan2(away @ np.cross(along, x_axis) / max(np.linalg.norm(along), 1e-30), away @ x_axis))
    ]


def _joined_corners(
    faces: Int[np.ndarray, "faces 3"], partner: Int[np.ndarray, " sides"]
) -> Int[np.ndarray, "faces 3"]:
    """Numbers for the sets of corners that are joined around a vertex."""
    side = np.flatnonzero(partner >= 0)
    face, k = np.divmod(side, 3)
    next_corner = 3 * face + (k + 1) % 3
    # The start of a side is the end of its partner.
    pairs = coo_array((np.ones(len(side), dtype=np.int8), (next_corner, partner[side])), shape=(faces.size,) * 2)
    return connected_components(pairs, directed=False)[1].astype(np.int64).reshape(-1, 3)


def _split_double_edges(
    vertices: Float[np.ndarray, "vertices 3"], faces: Int[np.ndarray, "faces 3"], partner: Int[np.ndarray, " sides"]
) -> tuple[Float[np.ndarray, "new_vertices 3"], Int[np.ndarray, "new_faces 3"]]:
    """A middle vertex on each of several edges that have the same ends, and the faces beside it halved."""
    start, end = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
    edge = np.minimum(start, end) * len(vertices) + np.maximum(start, end)
    _, inverse, uses = np.unique(edge, return_inverse=True, return_counts=True)
    new_vertices, new_faces = list(vertices), []
    middles: dict[int, int] = {}
    split = (uses[inverse] > 2).reshape(-1, 3)
    for face in np.flatnonzero(split.any(axis=1)):
        polygon = []
        for k in range(3):
            polygon.append(int(faces[face, k]))
            if split[face, k]:
                side = int(3 * face + k)
                joined = side if partner[side] < 0 else min(side, int(partner[side]))
                if joined not in middles:
                    middles[joined] = len(new_vertices)
                    new_vertices.append((vertices[start[side]] + vertices[end[side]]) / 2)
                polygon.append(middles[joined])
        # A fan from a middle: no triangle of it has all its corners on one side of the face.
        first = next(i for i, number in enumerate(polygon) if number >= len(vertices))
        polygon = polygon[first:] + polygon[:first]
        new_faces += [[polygon[0], polygon[i], polygon[i + 1]] for i in range(1, len(polygon) - 1)]
    kept = faces[~split.any(axis=1)]
    return np.array(new_vertices), np.concatenate([kept, np.array(new_faces, dtype=np.int64).reshape(-1, 3)])
