"""How well pictures agree about what each of them shows at a depth, and the depths at which they agree best."""

from typing import no_type_check

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter

from meshwright.compiled import compiled
from meshwright.shape.carve.grid import Scene, project, reduced, trilinear
from meshwright.views import Views

_SIDE_PX = 128  # pictures are compared in this size
_BLUR_PX = 0.7  # against noise and aliasing
COVERED = 0.6  # coverage from which a pixel is the object's
COST_LIMIT = 0.3  # differences of colour above this say no more: the other picture sees something else
UNKNOWN = 2.0  # cost of a depth outside the hull: never chosen
INSIDE = 0.2  # cells: depths so far outside the hull are still looked at
FRONT = 0.1  # cost of the last depth over the first: where colours say nothing, the surface is the hull's
SMALL_STEP, LARGE_STEP = 0.03, 0.2  # costs of depths that differ by one, and by more, from pixel to pixel
_MOST_PARTNERS = 5  # nearest other pictures that a picture is compared with


def pictures_to_match(views: Views) -> Float[np.ndarray, "views height width 4"]:
    """Premultiplied colours and coverage, small and a little blurred."""
    premultiplied, alpha = reduced(views, _SIDE_PX)
    pictures = np.concatenate([premultiplied, alpha[..., None]], axis=3)
    pictures = np.stack([gaussian_filter(picture, (_BLUR_PX, _BLUR_PX, 0)) for picture in pictures])
    return np.ascontiguousarray(pictures, np.float64)


def depth_range(scene: Scene, view: int) -> tuple[float, int]:
    """The first depth in cells from a camera that may lie in the hull, and how many there are, one cell apart."""
    depth = (np.argwhere(scene.hull < 0) - scene.centres[view]) @ -scene.backward[view]
    first = max(depth.min() - 1, 1e-3)
    return first, int(depth.max() - first) + 2


def partners_of(scene: Scene) -> list[np.ndarray]:
    """For each picture the others that look from the most similar directions."""
    middle = np.argwhere(scene.hull < 0).mean(axis=0)
    towards = scene.centres - middle
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    cosine = towards @ towards.T
    np.fill_diagonal(cosine, -np.inf)
    order = np.argsort(-cosine, axis=1, kind="stable")
    return [row[: min(_MOST_PARTNERS, len(row) - 1)].astype(np.int64) for row in order]


@compiled
@no_type_check
def matching_costs(view, partners, first, hull, projections, pictures, mask, cost):
    """`matching_cost` of each pixel and depth inside the hull, each point's colours being compared only once.

    ``partners`` int64 (others,); ``hull`` float32 (nx, ny, nz); ``projections`` float64 (views, 3, 4); ``pictures``
    float64 (views, height, width, 4), premultiplied; ``mask`` bool (height, width); ``cost`` float32 (height, width,
    depths) is written where a depth lies inside the hull. Depth k is ``first + k`` cells.
    """
    height, width, count = cost.shape
    axes, centre = rays_of(projections[view])
    inside = np.zeros(cost.shape, np.bool_)
    patches = np.zeros(cost.shape, np.bool_)  # inside, or beside a pixel that is at this depth
    for row in range(height):
        for column in range(width):
            if not mask[row, column]:
                continue
            for k in range(count):
                x, y, z = point_at(axes, centre, (column + 0.5) / width, (row + 0.5) / height, first + k)
                if trilinear(hull, x, y, z, 3.0) <= INSIDE:
                    inside[row, column, k] = True
                    patches[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2, k] = True
    best, second = np.full(cost.shape, np.inf, np.float32), np.full(cost.shape, np.inf, np.float32)
    differences, shown = np.zeros(cost.shape, np.float32), np.zeros(cost.shape, np.bool_)
    color, own = np.empty(4), np.empty(3)
    for other in partners:
        for row in range(height):
            for column in range(width):
                if not mask[row, column]:
                    continue
                own[:] = pictures[view, row, column, :3] / pictures[view, row, column, 3]
                for k in range(count):
                    if patches[row, column, k]:
                        difference = _difference(
                            row, column, first + k, axes, centre, projections[other], pictures[other], own, color
                        )
                        shown[row, column, k] = difference >= 0
                        differences[row, column, k] = difference
        for row in range(height):
            for column in range(width):
                for k in range(count):
                    if not inside[row, column, k]:
                        continue
                    total, number = 0.0, 0
                    for patch_row in range(max(row - 1, 0), min(row + 2, height)):
                        for patch_column in range(max(column - 1, 0), min(column + 2, width)):
                            if shown[patch_row, patch_column, k]:
                                total += differences[patch_row, patch_column, k]
                                number += 1
                    if number > 0:
                        error = total / number
                        if error < best[row, column, k]:
                            best[row, column, k], second[row, column, k] = error, best[row, column, k]
                        elif error < second[row, column, k]:
                            second[row, column, k] = error
    for row in range(height):
        for column in range(width):
            for k in range(count):
                if inside[row, column, k]:
                    two = second[row, column, k] < np.inf
                    cost[row, column, k] = 0.5 * (best[row, column, k] + second[row, column, k]) if two else COST_LIMIT


@compiled
@no_type_check
def _difference(row, column, depth, axes, centre, projection, picture, own, color):
    """Distance of colour ``own`` to what ``picture`` shows at a pixel's ``depth``, at most `COST_LIMIT`; -1: no object.

    ``color`` float64 (4) is scratch; the rest as in `matching_costs`.
    """
    height, width = picture.shape[:2]
    x, y, z = point_at(axes, centre, (column + 0.5) / width, (row + 0.5) / height, depth)
    u, v, other_depth = project(projection, x, y, z)
    if other_depth <= 0:
        return -1.0
    _bilinear(picture, u * width, v * height, color)
    if color[3] < 0.5:
        return -1.0
    square = 0.0
    for c in range(3):
        square += (color[c] / color[3] - own[c]) ** 2
    return min(np.sqrt(square), COST_LIMIT)


@compiled
@no_type_check
def rays_of(projection):
    """``axes`` and ``centre`` of a camera: the point at depth d of pixel (u, v) is d * (axes @ (u, v, 1)) + centre."""
    axes = np.linalg.inv(projection[:, :3].copy())
    return axes, -axes @ projection[:, 3].copy()


@compiled
@no_type_check
def point_at(axes, centre, u, v, depth):
    x = centre[0] + depth * (axes[0, 0] * u + axes[0, 1] * v + axes[0, 2])
    y = centre[1] + depth * (axes[1, 0] * u + axes[1, 1] * v + axes[1, 2])
    z = centre[2] + depth * (axes[2, 0] * u + axes[2, 1] * v + axes[2, 2])
    return x, y, z


@compiled
@no_type_check
def matching_cost(view, row, column, depth, axes, centre, partners, projections, pictures, mask):
    """Mean colour difference of the 3 x 3 patch about a pixel, at ``depth``, to the two pictures that fit best.

    `COST_LIMIT` where fewer than two of the ``partners`` show the object there. Arrays as in `matching_costs`.
    """
    height, width = mask.shape
    color, own = np.empty(4), np.empty(3)
    best, second = np.inf, np.inf
    for other in partners:
        total, count = 0.0, 0
        for patch_row in range(max(row - 1, 0), min(row + 2, height)):
            for patch_column in range(max(column - 1, 0), min(column + 2, width)):
                if not mask[patch_row, patch_column]:
                    continue
                own[:] = pictures[view, patch_row, patch_column, :3] / pictures[view, patch_row, patch_column, 3]
                difference = _difference(
                    patch_row, patch_column, depth, axes, centre, projections[other], pictures[other], own, color
                )
                if difference >= 0:
                    total += difference
                    count += 1
        if count > 0:
            error = total / count
            if error < best:
                best, second = error, best
            elif error < second:
                second = error
    return COST_LIMIT if second == np.inf else 0.5 * (best + second)


@compiled
@no_type_check
def _bilinear(picture, x, y, out):
    """``picture`` float64 (height, width, channels) at (x, y) in pixels from its corner, into ``out``."""
    height, width = picture.shape[:2]
    x, y = min(max(x - 0.5, 0.0), width - 1.001), min(max(y - 0.5, 0.0), height - 1.001)
    j, i = int(x), int(y)
    fx, fy = x - j, y - i
    for c in range(len(out)):
        upper = (1 - fx) * picture[i, j, c] + fx * picture[i, j + 1, c]
        lower = (1 - fx) * picture[i + 1, j, c] + fx * picture[i + 1, j + 1, c]
        out[c] = (1 - fy) * upper + fy * lower


@compiled
@no_type_check
def aggregate(cost, mask, total):
    """Add up, for each pixel and depth, the least costs of four paths that end there (Hirschmuller's equation 13).

    ``cost`` and ``total`` float32 (height, width, depths); ``mask`` bool (height, width): paths begin anew beyond it.
    """
    height, width, count = cost.shape
    path, following = np.empty(count, np.float32), np.empty(count, np.float32)
    for direction in range(4):
        lines, length = (height, width) if direction < 2 else (width, height)
        for line in range(lines):
            running = False
            for at in range(length):
                along = at if direction % 2 == 0 else length - 1 - at
                row, column = (line, along) if direction < 2 else (along, line)
                if not mask[row, column]:
                    running = False
                    continue
                if not running:
                    path[:] = cost[row, column]
                    running = True
                else:
                    least = path.min()
                    for k in range(count):
                        step = min(path[k], least + np.float32(LARGE_STEP))
                        if k > 0:
                            step = min(step, path[k - 1] + np.float32(SMALL_STEP))
                        if k < count - 1:
                            step = min(step, path[k + 1] + np.float32(SMALL_STEP))
                        following[k] = cost[row, column, k] + step - least
                    path[:] = following
                total[row, column] += path
