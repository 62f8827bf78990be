"""Compiled loops over pixels on the CPU.

Every kernel writes into arrays that its caller made, divides its work over rows of pictures, and gives the same bits
whatever the number of threads. ``@no_type_check`` keeps the shape checker of the test run away from code that Numba
compiles.
"""

import functools
import threading
from collections.abc import Callable
from typing import Any, no_type_check

import numba
import numpy as np
from numba import prange

SUBPIXEL_BITS = 12
"""Vertices are rounded to 1/4096 of a pixel before coverage is decided, in integers."""
OUTSIDE = -(2**31)
"""Stands in a rounded x where a vertex is too near or too far aside; its faces come clipped instead."""
NEAR_Z = 1e-3
"""Nothing nearer to the camera plane than this (world units) is seen."""

_ONE = 1 << SUBPIXEL_BITS
_HALF = _ONE >> 1
_INF = np.float32(np.inf)

# Numba's fallback threading layer aborts the process when two Python threads enter it at once.
_LOCK = threading.Lock()


def cpu_kernel(function: Callable[..., None]) -> Callable[..., None]:
    """Compile a loop with Numba for all cores; calls from several threads take turns."""
    compiled = _jit(function, parallel=True)

    @functools.wraps(function)
    def call(*arguments: Any) -> None:
        with _LOCK:
            compiled(*arguments)

    return call


def _jit(function: Callable[..., Any], parallel: bool = False) -> Callable[..., Any]:
    try:
        return numba.njit(cache=True, nogil=True, parallel=parallel)(function)
    except RuntimeError:  # nowhere to keep compiled code: a read-only install without a home folder
        return numba.njit(nogil=True, parallel=parallel)(function)


@_jit
@no_type_check
def pixel_weights(projected, view, a, b, c, x, y):
    """Perspective-correct barycentric coordinates and depth_z of face (a, b, c) at the point (x, y), in pixels.

    Edge functions in homogeneous coordinates (Olano and Greer 1997, "Triangle scan conversion using 2D homogeneous
    coordinates"), taken about the point itself, so that nothing cancels. Never outside the face.
    """
    az, bz, cz = projected[view, a, 2], projected[view, b, 2], projected[view, c, 2]
    ax, ay = projected[view, a, 0] - x * az, projected[view, a, 1] - y * az
    bx, by = projected[view, b, 0] - x * bz, projected[view, b, 1] - y * bz
    cx, cy = projected[view, c, 0] - x * cz, projected[view, c, 1] - y * cz
    wa, wb, wc = bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx
    if wa + wb + wc < 0:
        wa, wb, wc = -wa, -wb, -wc
    # Coverage is decided on rounded vertices: a pixel centre may lie a hair outside the true face.
    wa, wb, wc = max(wa, 0.0), max(wb, 0.0), max(wc, 0.0)
    total = wa + wb + wc
    if not total > 0:
        wa, wb, wc, total = 1.0, 1.0, 1.0, 3.0
    return wa / total, wb / total, wc / total, max((wa * az + wb * bz + wc * cz) / total, NEAR_Z)


@_jit
@no_type_check
def _fill(corners, first_row, end_row, projected, view, faces, face, face_ids, depth_z):
    """Write ``face`` where it is the nearest so far, in rows first_row to end_row; equal depths go to the lower id."""
    ax, ay, bx, by, cx, cy = corners
    first_row = max((min(ay, by, cy) - _HALF + _ONE - 1) >> SUBPIXEL_BITS, first_row)
    last_row = min((max(ay, by, cy) - _HALF) >> SUBPIXEL_BITS, end_row - 1)
    first_col = max((min(ax, bx, cx) - _HALF + _ONE - 1) >> SUBPIXEL_BITS, 0)
    last_col = min((max(ax, bx, cx) - _HALF) >> SUBPIXEL_BITS, face_ids.shape[2] - 1)
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    if first_row > last_row or first_col > last_col or area == 0:
        return
    if area < 0:
        bx, by, cx, cy = cx, cy, bx, by
    x, y = first_col * _ONE + _HALF, first_row * _ONE + _HALF
    # Top-left rule: a centre exactly on an edge belongs to the face only if that is a left or a top edge.
    row_a = (cx - bx) * (y - by) - (cy - by) * (x - bx) - (not (cy < by or (cy == by and cx > bx)))
    row_b = (ax - cx) * (y - cy) - (ay - cy) * (x - cx) - (not (ay < cy or (ay == cy and ax > cx)))
    row_c = (bx - ax) * (y - ay) - (by - ay) * (x - ax) - (not (by < ay or (by == ay and bx > ax)))
    a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
    for row in range(first_row, last_row + 1):
        edge_a, edge_b, edge_c = row_a, row_b, row_c
        for col in range(first_col, last_col + 1):
            if (edge_a | edge_b | edge_c) >= 0:
                z = np.float32(pixel_weights(projected, view, a, b, c, col + 0.5, row + 0.5)[3])
                nearest = depth_z[view, row, col]
                if z < nearest or (z == nearest and face < face_ids[view, row, col]):
                    depth_z[view, row, col] = z
                    face_ids[view, row, col] = face
            edge_a -= (cy - by) * _ONE
            edge_b -= (ay - cy) * _ONE
            edge_c -= (by - ay) * _ONE
        row_a += (cx - bx) * _ONE
        row_b += (ax - cx) * _ONE
        row_c += (bx - ax) * _ONE


@cpu_kernel
@no_type_check
def rasterize(
    snapped, projected, faces, clipped_view, clipped_face, clipped_corners, bands, face_ids, weights, depth_z
):
    """Fill ``face_ids``, ``weights`` (barycentric) and ``depth_z``; every view is cut into ``bands`` bands of rows."""
    views, height, width = face_ids.shape
    for item in prange(views * bands):
        view, band = item // bands, item % bands
        first_row, end_row = band * height // bands, (band + 1) * height // bands
        face_ids[view, first_row:end_row] = -1
        depth_z[view, first_row:end_row] = _INF
        for face in range(faces.shape[0]):
            a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
            ax, bx, cx = np.int64(snapped[view, a, 0]), np.int64(snapped[view, b, 0]), np.int64(snapped[view, c, 0])
            ay, by, cy = np.int64(snapped[view, a, 1]), np.int64(snapped[view, b, 1]), np.int64(snapped[view, c, 1])
            if ax != OUTSIDE and bx != OUTSIDE and cx != OUTSIDE:
                corners = (ax, ay, bx, by, cx, cy)
                _fill(corners, first_row, end_row, projected, view, faces, face, face_ids, depth_z)
        for i in range(clipped_view.shape[0]):
            if clipped_view[i] == view:
                q = clipped_corners[i]
                corners = (q[0, 0], q[0, 1], q[1, 0], q[1, 1], q[2, 0], q[2, 1])
                _fill(corners, first_row, end_row, projected, view, faces, clipped_face[i], face_ids, depth_z)
        for row in range(first_row, end_row):
            for col in range(width):
                face = face_ids[view, row, col]
                if face < 0:
                    depth_z[view, row, col] = 0
                    weights[view, row, col] = 0
                    continue
                a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
                wa, wb, wc, _ = pixel_weights(projected, view, a, b, c, col + 0.5, row + 0.5)
                weights[view, row, col, 0] = wa
                weights[view, row, col, 1] = wb
                weights[view, row, col, 2] = wc
