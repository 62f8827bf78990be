"""Cutting a surface into charts that a parallel projection flattens without folds.

Every face is labelled with one of fourteen directions: the one its normal follows, unless its neighbours agree on
another (a Potts model, solved by mean field). Connected faces of one label are a chart, which is projected along the
mean of its normals. What lies behind another part of its chart, seen that way, becomes a chart of its own.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

# Axes and cube diagonals: no normal is farther than 36 degrees from the nearest; projection keeps 0.8 of its length.
DIRECTIONS = np.array(
    [[sign * (axis == k) for k in range(3)] for axis in range(3) for sign in (1.0, -1.0)]
    + [[x / 3**0.5, y / 3**0.5, z / 3**0.5] for x in (1.0, -1.0) for y in (1.0, -1.0) for z in (1.0, -1.0)]
)
# No face is projected at more than 75 degrees: it would have hardly any texels.
LEAST_COSINE = 0.2588
SMOOTHING_ROUNDS = 8
AGREEMENT = 0.08  # what an edge between two labels costs, where 1 - cosine is what a label costs its face
TEMPERATURE = 0.02
MEAN_FIELD_ROUNDS = 30
# A chart smaller than this share of the surface is joined to a neighbour that may take it.
SMALL_SHARE = 2e-3
# Overlaps are looked for on a grid with about this many covered samples, in no more than this many rows of faces.
SAMPLES = 1 << 21
SAMPLE_ROWS = 1 << 21
MOST_SEPARATIONS = 32


def find_charts(
    vertices: Float[np.ndarray, "vertices 3"], faces: Int[np.ndarray, "faces 3"]
) -> tuple[Int[np.ndarray, " faces"], Float[np.ndarray, "faces 3 2"]]:
    """A chart for every face, and its corners on the chart's plane in world units, none mirrored and none folded."""
    a, b, c = vertices[faces].transpose(1, 0, 2)
    cross = np.cross(b - a, c - a)
    areas = np.linalg.norm(cross, axis=1) / 2
    normals = cross / np.maximum(2 * areas, 1e-30)[:, None]
    lengths = np.linalg.norm(np.stack([b - a, c - b, a - c], axis=1), axis=2)
    neighbors = face_neighbors(faces)
    smooth = _smoothed(normals, areas, neighbors)
    labels = _labels(smooth, normals, areas, neighbors)
    charts = _connected(labels, neighbors)
    directions = _directions(charts, labels, smooth, normals, areas)
    charts = _join_small(charts, directions, normals, areas, lengths, neighbors)
    directions = directions[charts]
    corners, depths = _project(vertices[faces], directions)
    for _ in range(MOST_SEPARATIONS):
        layers = _layers(corners, depths, charts)
        if not layers.any():
            break
        charts = _connected(charts * (layers.max() + 1) + layers, neighbors)
    return np.unique(charts, return_inverse=True)[1], corners


def face_neighbors(faces: Int[np.ndarray, "faces 3"]) -> Int[np.ndarray, "faces 3"]:
    """The face across the edge from corner k to corner k + 1; -1 at borders and where an edge is not manifold."""
    start, end = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
    vertices = int(faces.max()) + 1
    key, opposite = start * vertices + end, end * vertices + start
    order = np.argsort(key, kind="stable")
    found = order[np.minimum(np.searchsorted(key, opposite, sorter=order), len(key) - 1)]
    _, inverse, uses = np.unique(np.minimum(key, opposite), return_inverse=True, return_counts=True)
    joined = (key[found] == opposite) & (uses[inverse] == 2)
    return np.where(joined, found // 3, -1).reshape(-1, 3)


def _smoothed(
    normals: Float[np.ndarray, "faces 3"], areas: Float[np.ndarray, " faces"], neighbors: Int[np.ndarray, "faces 3"]
) -> Float[np.ndarray, "faces 3"]:
    """Normals without noise but with their creases: neighbours count the less the more they turn away."""
    smooth = normals
    weight_of_neighbor = np.where(neighbors >= 0, areas[neighbors], 0.0)
    for _ in range(SMOOTHING_ROUNDS):
        around = smooth[neighbors]
        alike = np.maximum((around * smooth[:, None]).sum(axis=2), 0) ** 2
        # A face without area has no normal of its own and takes that of the faces around it.
        alike = np.where(areas[:, None] > 0, alike, 1.0)
        total = smooth * areas[:, None] + (around * (weight_of_neighbor * alike)[:, :, None]).sum(axis=1)
        smooth = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-30)
    return smooth


def _labels(
    smooth: Float[np.ndarray, "faces 3"],
    normals: Float[np.ndarray, "faces 3"],
    areas: Float[np.ndarray, " faces"],
    neighbors: Int[np.ndarray, "faces 3"],
) -> Int[np.ndarray, " faces"]:
    """The direction of each face, of those from which the face itself is not seen edge-on."""
    allowed = (normals @ DIRECTIONS.T >= LEAST_COSINE) | (areas == 0)[:, None]
    cost = np.where(allowed, 1 - smooth @ DIRECTIONS.T, 1e3).astype(np.float32)
    joined = _graph(neighbors >= 0, neighbors).astype(np.float32)
    belief = _softmin(cost)
    for _ in range(MEAN_FIELD_ROUNDS):
        belief = _softmin(cost - AGREEMENT * (joined @ belief))
    return belief.argmax(axis=1)


def _softmin(energy: Float[np.ndarray, "faces labels"]) -> Float[np.ndarray, "faces labels"]:
    belief = np.exp((energy.min(axis=1, keepdims=True) - energy) / TEMPERATURE)
    return belief / belief.sum(axis=1, keepdims=True)


def _graph(chosen: Bool[np.ndarray, "faces 3"], neighbors: Int[np.ndarray, "faces 3"]) -> csr_array:
    """The graph of faces with an edge for each chosen side."""
    face, side = np.nonzero(chosen)
    return coo_array((np.ones(len(face)), (face, neighbors[face, side])), shape=(len(neighbors),) * 2).tocsr()


def _connected(labels: Int[np.ndarray, " faces"], neighbors: Int[np.ndarray, "faces 3"]) -> Int[np.ndarray, " faces"]:
    """Numbers from 0 for the connected regions of equal labels."""
    graph = _graph((neighbors >= 0) & (labels[neighbors] == labels[:, None]), neighbors)
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _directions(
    charts: Int[np.ndarray, " faces"],
    labels: Int[np.ndarray, " faces"],
    smooth: Float[np.ndarray, "faces 3"],
    normals: Float[np.ndarray, "faces 3"],
    areas: Float[np.ndarray, " faces"],
) -> Float[np.ndarray, "charts 3"]:
    """From where each chart is projected: the mean of its normals, or its label if that sees a face edge-on."""
    count = int(charts.max()) + 1
    weighted = smooth * areas[:, None]
    mean = np.stack([np.bincount(charts, weighted[:, k], minlength=count) for k in range(3)], axis=1)
    mean = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-30)
    worst = np.full(count, np.inf)
    solid = areas > 0
    np.minimum.at(worst, charts[solid], (normals[solid] * mean[charts[solid]]).sum(axis=1))
    label_of_chart = np.empty(count, dtype=np.int64)
    label_of_chart[charts] = labels
    seen = (worst >= LEAST_COSINE) & (mean.any(axis=1))
    return np.where(seen[:, None], mean, DIRECTIONS[label_of_chart])


def _join_small(
    charts: Int[np.ndarray, " faces"],
    directions: Float[np.ndarray, "charts 3"],
    normals: Float[np.ndarray, "faces 3"],
    areas: Float[np.ndarray, " faces"],
    lengths: Float[np.ndarray, "faces 3"],
    neighbors: Int[np.ndarray, "faces 3"],
) -> Int[np.ndarray, " faces"]:
    """Give each small chart, the smallest first, to the neighbour with the longest common border that can take it."""
    area = np.bincount(charts, areas)
    order = np.argsort(charts, kind="stable")
    members = dict(enumerate(np.split(order, np.cumsum(np.bincount(charts))[:-1])))
    charts = charts.copy()
    for chart in np.argsort(area, kind="stable"):
        if area[chart] > SMALL_SHARE * area.sum():
            continue
        own = members[chart]
        around = np.where(neighbors[own] >= 0, charts[neighbors[own]], -1)
        outside = (around >= 0) & (around != chart)
        border = np.bincount(around[outside], lengths[own][outside])
        solid = own[areas[own] > 0]
        for other in np.argsort(-border, kind="stable")[: np.count_nonzero(border)]:
            if (normals[solid] @ directions[other] >= LEAST_COSINE).all():
                charts[own] = other
                members[other] = np.concatenate([members[other], own])
                area[other] += area[chart]
                break
    return charts


def _project(
    triangles: Float[np.ndarray, "faces 3 3"], directions: Float[np.ndarray, "faces 3"]
) -> tuple[Float[np.ndarray, "faces 3 2"], Float[np.ndarray, " faces"]]:
    """Corners in a right-handed frame whose third axis is the direction, and the faces' places along it."""
    least = np.eye(3)[np.abs(directions).argmin(axis=1)]
    x_axis = np.cross(least, directions)
    x_axis /= np.linalg.norm(x_axis, axis=1, keepdims=True)
    y_axis = np.cross(directions, x_axis)
    corners = np.stack([np.einsum("fcd,fd->fc", triangles, axis) for axis in (x_axis, y_axis)], axis=2)
    return corners, np.einsum("fcd,fd->f", triangles, directions) / 3


def _layers(
    corners: Float[np.ndarray, "faces 3 2"], depths: Float[np.ndarray, " faces"], charts: Int[np.ndarray, " faces"]
) -> Int[np.ndarray, " faces"]:
    """Behind how many others of its chart each face lies, where it lies deepest."""
    layers = np.zeros(len(corners), dtype=np.int64)
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]).sum() / 2
    rows = np.ptp(corners[:, :, 1], axis=1).sum()
    if area == 0:
        return layers
    face, row, column = covered_samples(corners * min(np.sqrt(SAMPLES / area), SAMPLE_ROWS / rows))
    row, column = row - row.min(initial=0), column - column.min(initial=0)
    place = (charts[face] * (row.max(initial=0) + 1) + row) * (column.max(initial=0) + 1) + column
    in_order = np.sort(place)
    shared = np.isin(place, in_order[1:][in_order[1:] == in_order[:-1]])
    face, place = face[shared], place[shared]
    order = np.lexsort((-depths[face], place))
    face, place = face[order], place[order]
    front = np.flatnonzero(np.diff(place, prepend=-1))
    behind = np.arange(len(place)) - np.repeat(front, np.diff(np.append(front, len(place))))
    np.maximum.at(layers, face, behind)
    return layers


def covered_samples(
    corners: Float[np.ndarray, "faces 3 2"],
) -> tuple[Int[np.ndarray, " samples"], Int[np.ndarray, " samples"], Int[np.ndarray, " samples"]]:
    """Face, row and column of every point (column + 1/2, row + 1/2) inside a face; on a common edge, of one at most."""
    low, high = corners[:, :, 1].min(axis=1), corners[:, :, 1].max(axis=1)
    first_row = np.ceil(low - 0.5).astype(np.int64)
    rows_of_face = np.ceil(high - 0.5).astype(np.int64) - first_row
    face, step = _spread(rows_of_face)
    row = first_row[face] + step
    # Inside means on the left of all three edges: each bounds the column from one side.
    left, right = np.full(len(face), -np.inf), np.full(len(face), np.inf)
    for k in range(3):
        start, end = corners[:, k], corners[:, (k + 1) % 3]
        rises, falls = (start[:, 1] < end[:, 1])[face], (start[:, 1] > end[:, 1])[face]
        # From the lower end for both faces at an edge: the same bound to the last bit, so no sample is in both.
        low, high = (np.where((start[:, 1] <= end[:, 1])[:, None], *ends) for ends in ((start, end), (end, start)))
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = (high[:, 0] - low[:, 0]) / (high[:, 1] - low[:, 1])
            bound = low[face, 0] + slope[face] * (row + 0.5 - low[face, 1])
        right = np.where(rises, np.minimum(right, bound), right)
        left = np.where(falls, np.maximum(left, bound), left)
    # Mirrored or flat faces have their bounds the wrong way round, and cover nothing.
    first_column = np.floor(left - 0.5) + 1
    columns = np.ceil(right - 0.5) - first_column
    columns = np.where(np.isfinite(columns), columns, 0).astype(np.int64)
    span, step = _spread(columns)
    return face[span], row[span], first_column[span].astype(np.int64) + step


def _spread(counts: Int[np.ndarray, " items"]) -> tuple[Int[np.ndarray, " spread"], Int[np.ndarray, " spread"]]:
    """Each item as often as counted, and how often it has come before: [2, 0, 1] -> [0, 0, 2], [0, 1, 0]."""
    counts = np.maximum(counts, 0)
    item = np.repeat(np.arange(len(counts)), counts)
    return item, np.arange(len(item)) - np.repeat(np.cumsum(counts) - counts, counts)
