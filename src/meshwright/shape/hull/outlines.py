"""Outlines of silhouettes: signed distances to them in a picture, at sub-pixel precision."""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from meshwright.compiled import compiled
from meshwright.threads import kernel_threads


def outline_distances_px(
    alpha: Float[Tensor, "views 1 height width"], sizes_px: Int[Tensor, "views 2"]
) -> Float[Tensor, "views 1 height width"]:
    """Signed distance in pixels from each pixel centre to the line where alpha passes 0.5, negative inside.

    The line is traced through the bilinear interpolant of alpha (marching squares), so it is as exact as alpha
    is soft. Without a line in the picture all distances are the picture's diagonal, signed.
    """
    level = alpha[:, 0].float().cpu().numpy() - np.float32(0.5)
    distances = np.zeros_like(level)

    def trace(view: int) -> None:
        height, width = sizes_px[view].tolist()
        distances[view, :height, :width] = _outline_distance(np.ascontiguousarray(level[view, :height, :width]))

    with ThreadPoolExecutor(max_workers=kernel_threads()) as pool:  # the kernel lets go of the interpreter
        list(pool.map(trace, range(len(level))))
    return torch.from_numpy(distances)[:, None].to(alpha.device)


# Arrays of the kernels, pixel centres at whole numbers:
# ``level`` float32 (height, width): alpha - 0.5; 0 is the outline, 0 or more is inside.
# ``segments`` float32 (segments, 6): cell row, cell column, start y, start x, dy, dx, one piece of the outline a row.
# ``squared`` float32 (height, width): squared distance to the nearest segment known so far.
# ``nearest`` int32 (height, width): the row of that segment, -1 if none is known.


@compiled
@no_type_check
def _outline_distance(level):
    """Distance transform by propagating the nearest outline segment (Danielsson 1980): float32 (height, width)."""
    height, width = level.shape
    segments = _outline_segments(level)
    diagonal = np.float32(math.hypot(height, width))
    squared = np.full((height, width), diagonal * diagonal, np.float32)
    nearest = np.full((height, width), -1, np.int32)
    for number in range(len(segments)):
        row, column = int(segments[number, 0]), int(segments[number, 1])
        for i in range(max(row, 0), min(row + 2, height)):
            for j in range(max(column, 0), min(column + 2, width)):
                _keep_if_nearer(squared, nearest, segments, i, j, number)
    for i in range(height):
        for j in range(width):
            _propagate(squared, nearest, segments, i, j, i - 1, j - 1)
            _propagate(squared, nearest, segments, i, j, i - 1, j)
            _propagate(squared, nearest, segments, i, j, i - 1, j + 1)
            _propagate(squared, nearest, segments, i, j, i, j - 1)
        for j in range(width - 2, -1, -1):
            _propagate(squared, nearest, segments, i, j, i, j + 1)
    for i in range(height - 1, -1, -1):
        for j in range(width - 1, -1, -1):
            _propagate(squared, nearest, segments, i, j, i + 1, j - 1)
            _propagate(squared, nearest, segments, i, j, i + 1, j)
            _propagate(squared, nearest, segments, i, j, i + 1, j + 1)
            _propagate(squared, nearest, segments, i, j, i, j + 1)
        for j in range(1, width):
            _propagate(squared, nearest, segments, i, j, i, j - 1)
    return np.where(level < 0, np.sqrt(squared), -np.sqrt(squared))


@compiled
@no_type_check
def _propagate(squared, nearest, segments, i, j, from_i, from_j):
    """Offer pixel (i, j) the nearest segment of its neighbour (from_i, from_j), which may lie outside the picture."""
    if from_i < 0 or from_i >= squared.shape[0] or from_j < 0 or from_j >= squared.shape[1]:
        return
    number = nearest[from_i, from_j]
    if number >= 0 and number != nearest[i, j]:
        _keep_if_nearer(squared, nearest, segments, i, j, number)


@compiled
@no_type_check
def _keep_if_nearer(squared, nearest, segments, i, j, number):
    """Take segment ``number`` for pixel (i, j) if it is nearer than the one known so far."""
    dy, dx = segments[number, 4], segments[number, 5]
    y, x = np.float32(i) - segments[number, 2], np.float32(j) - segments[number, 3]
    along = y * dy + x * dx
    if along > 0:
        t = min(along / (dy * dy + dx * dx), np.float32(1))
        y, x = y - t * dy, x - t * dx
    distance = y * y + x * x
    if distance < squared[i, j]:
        squared[i, j] = distance
        nearest[i, j] = number


@compiled
@no_type_check
def _outline_segments(level):
    """All segments of the outline, by marching squares over the cells between four pixel centres."""
    height, width = level.shape
    cell = np.empty((2, 6), np.float32)
    count = 0
    for i in range(height - 1):
        for j in range(width - 1):
            count += _cell_segments(level, i, j, cell)
    segments = np.empty((count, 6), np.float32)
    count = 0
    for i in range(height - 1):
        for j in range(width - 1):
            found = _cell_segments(level, i, j, cell)
            segments[count : count + found] = cell[:found]
            count += found
    return segments


@compiled
@no_type_check
def _cell_segments(level, i, j, out):
    """Segments in the cell right of and below pixel (i, j), written to ``out``, float32 (2, 6); returns how many."""
    rows, columns = (i, i, i + 1, i + 1), (j, j + 1, j + 1, j)  # the corners in turn
    inside = 0
    for corner in range(4):
        inside += level[rows[corner], columns[corner]] >= 0
    if inside == 0 or inside == 4:
        return 0
    crossing_y, crossing_x = np.empty(4, np.float32), np.empty(4, np.float32)
    count = 0
    for corner in range(4):
        after = (corner + 1) % 4
        a, b = level[rows[corner], columns[corner]], level[rows[after], columns[after]]
        if (a >= 0) != (b >= 0):
            t = a / (a - b)
            crossing_y[count] = rows[corner] + t * (rows[after] - rows[corner])
            crossing_x[count] = columns[corner] + t * (columns[after] - columns[corner])
            count += 1
    # Four crossings are a saddle: the sign at the middle says which two opposite corners are cut off.
    middle = level[i, j] + level[i, j + 1] + level[i + 1, j + 1] + level[i + 1, j]
    first = 0 if count == 2 or (middle >= 0) == (level[i, j] >= 0) else 1
    for piece in range(count // 2):
        start, end = (first + 2 * piece) % count, (first + 2 * piece + 1) % count
        out[piece, 0], out[piece, 1] = i, j
        out[piece, 2], out[piece, 3] = crossing_y[start], crossing_x[start]
        out[piece, 4], out[piece, 5] = crossing_y[end] - crossing_y[start], crossing_x[end] - crossing_x[start]
    return count // 2
