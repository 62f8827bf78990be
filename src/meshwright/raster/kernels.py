"""Compiled loops over pixels on the CPU.

A kernel fills a range of rows or points of arrays that its caller made, and releases Python's lock, so that plain
threads run it in parallel: no threading layer of Numba's, which compiles slowly and may not be entered from two
threads at once. Results have the same bits whatever the number of threads (`kernel_threads`).

``@no_type_check`` keeps the shape checker of the test run away from code that Numba compiles. Shapes and types of all
arrays are listed here instead; V views, P vertices, F faces, H rows, W columns, C channels:

    projected    (V, P, 3)  float64  (x_px * depth_z, y_px * depth_z, depth_z), see `Fragments`
    snapped      (V, P, 2)  int32    (x_px, y_px) in 1/4096 px, x = OUTSIDE where there is none
    screen       (V, P, 3)  float64  (x_px, y_px, depth_z)
    faces        (F, 3)     int64    numbers of vertices
    uv_faces     (F, 3)     int64    numbers of rows of ``uv``
    partners     (F, 3)     int64    half edges 3 face + edge, see `edge_partners`
    face_ids     (V, H, W)  int64    -1 where nothing is
    weights      (V, H, W, 3)  float32  barycentric, 0 where nothing is
    depth_z      (V, H, W)  float32  0 where nothing is
    edges        (2, V, H, W)  int32  half edges between a pixel and the next in its row (0) or column (1), or -1
    uv           (N, 2)     float32  texture coordinates, v upwards
    texels       (T, C)     float32  the texels of all mip levels, one after the other, row by row
    sizes        (levels, 3)  int64  (height, width, number of the first texel) of each level
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, no_type_check

import numpy as np
from torch import Tensor

from meshwright.compiled import compiled
from meshwright.threads import kernel_threads

SUBPIXEL_BITS = 12
"""Vertices are rounded to 1/4096 of a pixel before coverage is decided, in integers."""
GUARD_PX = 2**17
"""How far from the picture's corner rounded coordinates may lie; products of them stay below 2^62."""
OUTSIDE = -(2**31)
"""Stands in a rounded x where a vertex is too near or too far aside; its faces come clipped instead."""
NEAR_Z = 1e-5
"""Nothing nearer to the camera plane than this (world units) is seen: far less than the distance to an object of 0.001
units, and far more than float32 rounds depths of a few units by."""
MOST_STEPS = 64
"""Faces that a silhouette search crosses between two pixel centres before it gives up."""

_ONE = 1 << SUBPIXEL_BITS
_HALF = _ONE >> 1
_INF = np.float32(np.inf)
_F1 = np.float32(1)  # Numba makes integer times float32 a float64
_FAR = 1e9  # pixels or texels
_NO_EDGE = -1  # in ``edges``: no silhouette passes here
_REACHES_GOAL = -2  # of a walk: one surface from pixel to pixel
_CANDIDATE = -2  # in ``edges``, for a while: some edge passes here at which a surface turns back

_SHARES = 8  # into how many sums a scattered gradient is divided; fixed, so that rounding is too


def trusted(faces: Tensor, points: int) -> np.ndarray:
    """Faces as an array that a kernel can use without looking at every index.

    Raises:
        IndexError: a face names a point that does not exist.
    """
    if faces.numel():
        low, high = faces.aminmax()
        if low < 0 or high >= points:
            raise IndexError(f"faces name points {int(low)} to {int(high)}, but there are {points} points")
    return faces.long().contiguous().numpy()


def over_rows(kernel: Callable[..., None], views: int, height: int, *arguments: Any) -> None:
    """Call ``kernel(view, first_row, end_row, *arguments)`` until all rows of all views are done."""
    bands = -(-2 * kernel_threads() // max(views, 1))
    _in_parallel(kernel, ((view, *rows) for view in range(views) for rows in _ranges(height, bands)), arguments)


def over_points(kernel: Callable[..., None], count: int, *arguments: Any) -> None:
    """Call ``kernel(first, end, *arguments)`` until all points are done."""
    _in_parallel(kernel, _ranges(count, 4 * kernel_threads()), arguments)


def summed_over_rows(kernel: Callable[..., None], shape: tuple[int, ...], height: int, *arguments: Any) -> np.ndarray:
    """Call ``kernel(view, first_row, end_row, sums, *arguments)``; ``sums`` of one call adds to that of the others.

    ``shape`` of the sums starts with the number of views, to whose parts the kernel keeps.
    """
    views = shape[0]
    bands = -(-_SHARES // max(views, 1))
    sums = np.zeros((bands, *shape))
    items = ((view, *rows, sums[i]) for view in range(views) for i, rows in enumerate(_ranges(height, bands)))
    _in_parallel(kernel, items, arguments)
    return sums.sum(0)


def summed_over_points(kernel: Callable[..., None], shape: tuple[int, ...], count: int, *arguments: Any) -> np.ndarray:
    """Call ``kernel(first, end, sums, *arguments)``; ``sums`` of one call adds to that of the others."""
    sums = np.zeros((_SHARES, *shape), np.float32)
    _in_parallel(kernel, ((*points, sums[i]) for i, points in enumerate(_ranges(count, _SHARES))), arguments)
    return sums.sum(0)


def _ranges(count: int, parts: int) -> list[tuple[int, int]]:
    return [(i * count // parts, (i + 1) * count // parts) for i in range(parts)]


def _in_parallel(kernel: Callable[..., None], items: Iterable[tuple[Any, ...]], arguments: tuple[Any, ...]) -> None:
    # The pool lives for one call: threads start in 0.1 ms, and none is left for a forked process to miss.
    with ThreadPoolExecutor(kernel_threads()) as pool:
        for _ in pool.map(lambda item: kernel(*item, *arguments), items):
            pass


@compiled
@no_type_check
def snap(first, end, projected, snapped):
    """Fill ``snapped`` with rounded picture coordinates, or OUTSIDE; ``projected`` (N, 3) and ``snapped`` (N, 2) have
    one row a vertex and view."""
    for i in range(first, end):
        snapped[i, 0], snapped[i, 1] = OUTSIDE, OUTSIDE
        z = projected[i, 2]
        if z >= NEAR_Z:
            x, y = projected[i, 0] / z, projected[i, 1] / z
            if abs(x) <= GUARD_PX and abs(y) <= GUARD_PX:
                snapped[i, 0], snapped[i, 1] = int(np.rint(x * _ONE)), int(np.rint(y * _ONE))


@compiled
@no_type_check
def _corners(projected, view, faces, face):
    """The nine numbers of a face's corners in ``projected``, corner by corner."""
    a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
    return (
        projected[view, a, 0],
        projected[view, a, 1],
        projected[view, a, 2],
        projected[view, b, 0],
        projected[view, b, 1],
        projected[view, b, 2],
        projected[view, c, 0],
        projected[view, c, 1],
        projected[view, c, 2],
    )


@compiled
@no_type_check
def _edge_functions(corners, x, y):
    """Homogeneous edge functions at the point (x, y), in pixels (Olano and Greer 1997, "Triangle scan conversion
    using 2D homogeneous coordinates"), taken about the point itself, so that nothing cancels; and the corners there.
    """
    ax, ay, az, bx, by, bz, cx, cy, cz = corners
    ax, ay, bx, by, cx, cy = ax - x * az, ay - y * az, bx - x * bz, by - y * bz, cx - x * cz, cy - y * cz
    return bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx, ax, ay, bx, by, cx, cy


@compiled
@no_type_check
def _pixel_weights(corners, x, y):
    """Perspective-correct barycentric coordinates and depth_z at the point (x, y); never outside the face."""
    wa, wb, wc = _edge_functions(corners, x, y)[:3]
    if wa + wb + wc < 0:
        wa, wb, wc = -wa, -wb, -wc
    # Coverage is decided on rounded vertices: a pixel centre may lie a hair outside the true face.
    wa, wb, wc = max(wa, 0.0), max(wb, 0.0), max(wc, 0.0)
    total = wa + wb + wc
    if not total > 0:
        wa, wb, wc, total = 1.0, 1.0, 1.0, 3.0
    inverse = 1.0 / total
    depth_z = (wa * corners[2] + wb * corners[5] + wc * corners[8]) * inverse
    return wa * inverse, wb * inverse, wc * inverse, max(depth_z, NEAR_Z)


@compiled
@no_type_check
def _fill(corners, first_row, end_row, projected, view, faces, face, face_ids, depth_z):
    """Write ``face`` where it is the nearest so far, in rows first_row to end_row; equal depths go to the lower id.

    ``corners``: (ax, ay, bx, by, cx, cy), int64 in 1/4096 px, of the face or of a piece of it.
    """
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
    true_corners = _corners(projected, view, faces, face)
    # No point of the face is nearer than its nearest corner; the margin is for rounding.
    least_z = min(true_corners[2], true_corners[5], true_corners[8]) * (1 - 1e-6)
    for row in range(first_row, last_row + 1):
        edge_a, edge_b, edge_c = row_a, row_b, row_c
        for col in range(first_col, last_col + 1):
            nearest = depth_z[view, row, col]
            if (edge_a | edge_b | edge_c) >= 0 and least_z <= nearest:
                z = np.float32(_pixel_weights(true_corners, col + 0.5, row + 0.5)[3])
                if z < nearest or (z == nearest and face < face_ids[view, row, col]):
                    depth_z[view, row, col] = z
                    face_ids[view, row, col] = face
            edge_a -= (cy - by) * _ONE
            edge_b -= (ay - cy) * _ONE
            edge_c -= (by - ay) * _ONE
        row_a += (cx - bx) * _ONE
        row_b += (ax - cx) * _ONE
        row_c += (bx - ax) * _ONE


@compiled
@no_type_check
def rasterize(
    view,
    first_row,
    end_row,
    snapped,
    projected,
    faces,
    clipped_view,
    clipped_face,
    clipped_corners,
    face_ids,
    weights,
    depth_z,
):
    """Fill ``face_ids``, ``weights`` and ``depth_z``.

    Faces with corners OUTSIDE come as N pieces: ``clipped_view`` (N), ``clipped_face`` (N) and ``clipped_corners``
    (N, 3, 2), in 1/4096 px, all int64.
    """
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
        for col in range(face_ids.shape[2]):
            face = face_ids[view, row, col]
            if face < 0:
                depth_z[view, row, col] = 0
                weights[view, row, col] = 0
                continue
            wa, wb, wc, _ = _pixel_weights(_corners(projected, view, faces, face), col + 0.5, row + 0.5)
            weights[view, row, col, 0] = wa
            weights[view, row, col, 1] = wb
            weights[view, row, col, 2] = wc


@compiled
@no_type_check
def rasterize_backward(view, first_row, end_row, sums, projected, faces, face_ids, grad_weights, grad_depth_z):
    """Add to ``sums`` (V, P, 3; float64) the gradient with respect to ``projected``: that of _pixel_weights.

    ``grad_weights`` (V, H, W, 3) and ``grad_depth_z`` (V, H, W): float32.
    """
    for row in range(first_row, end_row):
        for col in range(face_ids.shape[2]):
            face = face_ids[view, row, col]
            if face < 0:
                continue
            x, y = col + 0.5, row + 0.5
            corners = _corners(projected, view, faces, face)
            az, bz, cz = corners[2], corners[5], corners[8]
            wa, wb, wc, ax, ay, bx, by, cx, cy = _edge_functions(corners, x, y)
            total = wa + wb + wc
            # Where the weights were held within the face they do not follow the vertices.
            if total == 0 or wa * total < 0 or wb * total < 0 or wc * total < 0:
                continue
            inverse = 1.0 / total
            wa, wb, wc = wa * inverse, wb * inverse, wc * inverse
            gz = grad_depth_z[view, row, col]
            ga = grad_weights[view, row, col, 0] + gz * az
            gb = grad_weights[view, row, col, 1] + gz * bz
            gc = grad_weights[view, row, col, 2] + gz * cz
            mean = ga * wa + gb * wb + gc * wc
            ga, gb, gc = (ga - mean) * inverse, (gb - mean) * inverse, (gc - mean) * inverse
            a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
            gx, gy = by * gc - cy * gb, cx * gb - bx * gc
            sums[view, a, 0] += gx
            sums[view, a, 1] += gy
            sums[view, a, 2] += gz * wa - x * gx - y * gy
            gx, gy = cy * ga - ay * gc, ax * gc - cx * ga
            sums[view, b, 0] += gx
            sums[view, b, 1] += gy
            sums[view, b, 2] += gz * wb - x * gx - y * gy
            gx, gy = ay * gb - by * ga, bx * ga - ax * gb
            sums[view, c, 0] += gx
            sums[view, c, 1] += gy
            sums[view, c, 2] += gz * wc - x * gx - y * gy


@compiled
@no_type_check
def interpolate(first, end, face_ids, weights, faces, attributes, out):
    """Fill ``out`` (N, C; float32) from ``attributes`` (points, C; float32).

    ``face_ids`` (N) and ``weights`` (N, 3) have one row a pixel; ``faces`` numbers the rows of ``attributes``.
    """
    channels = attributes.shape[1]
    for i in range(first, end):
        if face_ids[i] < 0:
            for k in range(channels):
                out[i, k] = 0
            continue
        a, b, c = faces[face_ids[i], 0], faces[face_ids[i], 1], faces[face_ids[i], 2]
        for k in range(channels):
            out[i, k] = (
                weights[i, 0] * attributes[a, k] + weights[i, 1] * attributes[b, k] + weights[i, 2] * attributes[c, k]
            )


@compiled
@no_type_check
def interpolate_backward(first, end, sums, face_ids, weights, faces, attributes, grad_out, grad_weights):
    """Add to ``sums`` the gradient with respect to ``attributes``, of its shape, and fill ``grad_weights`` (N, 3).

    Arrays as in `interpolate`; ``grad_out`` has the shape of its ``out``. All float32.
    """
    channels = attributes.shape[1]
    for i in range(first, end):
        ga, gb, gc = np.float32(0), np.float32(0), np.float32(0)
        if face_ids[i] >= 0:
            a, b, c = faces[face_ids[i], 0], faces[face_ids[i], 1], faces[face_ids[i], 2]
            for k in range(channels):
                g = grad_out[i, k]
                sums[a, k] += weights[i, 0] * g
                sums[b, k] += weights[i, 1] * g
                sums[c, k] += weights[i, 2] * g
                ga += attributes[a, k] * g
                gb += attributes[b, k] * g
                gc += attributes[c, k] * g
        grad_weights[i, 0] = ga
        grad_weights[i, 1] = gb
        grad_weights[i, 2] = gc


@compiled
@no_type_check
def mip_levels(view, first_row, end_row, projected, faces, face_ids, weights, uv, uv_faces, size, out):
    """Fill ``out`` (V, H, W; float32) with log2 of texels per pixel; ``size`` is the texture's (width, height)."""
    for row in range(first_row, end_row):
        for col in range(face_ids.shape[2]):
            out[view, row, col] = 0
            face = face_ids[view, row, col]
            if face < 0:
                continue
            total = 0.0
            dx_u, dx_v, dx_w, dy_u, dy_v, dy_w = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            mean_u, mean_v = 0.0, 0.0
            for i in range(3):
                # The edge function of corner i: q x r, where q and r move by -z per pixel.
                q, r = faces[face, (i + 1) % 3], faces[face, (i + 2) % 3]
                qz, rz = projected[view, q, 2], projected[view, r, 2]
                qx, qy = projected[view, q, 0] - (col + 0.5) * qz, projected[view, q, 1] - (row + 0.5) * qz
                rx, ry = projected[view, r, 0] - (col + 0.5) * rz, projected[view, r, 1] - (row + 0.5) * rz
                dx, dy = qy * rz - ry * qz, rx * qz - qx * rz
                u, v = uv[uv_faces[face, i], 0] * size[0], uv[uv_faces[face, i], 1] * size[1]
                total += qx * ry - qy * rx
                dx_u, dx_v, dx_w = dx_u + dx * u, dx_v + dx * v, dx_w + dx
                dy_u, dy_v, dy_w = dy_u + dy * u, dy_v + dy * v, dy_w + dy
                mean_u, mean_v = mean_u + weights[view, row, col, i] * u, mean_v + weights[view, row, col, i] * v
            if total != 0:
                across = (dx_u - mean_u * dx_w) ** 2 + (dx_v - mean_v * dx_w) ** 2
                down = (dy_u - mean_u * dy_w) ** 2 + (dy_v - mean_v * dy_w) ** 2
                out[view, row, col] = 0.5 * np.log2(max(max(across, down) / (total * total), 1e-20))


@compiled
@no_type_check
def _blend_of_levels(level, levels):
    """The finer of the two levels to blend, and the coarser one's share."""
    level = min(level, np.float32(levels - 1)) if level > 0 else np.float32(0)  # NaN goes to 0 as well
    lower = min(int(level), max(levels - 2, 0))
    return lower, level - np.float32(lower)


@compiled
@no_type_check
def _wrap(index, size, repeat):
    if 0 <= index < size:
        return index
    return index % size if repeat else min(max(index, 0), size - 1)


@compiled
@no_type_check
def _whole(number):
    """A whole float as an integer; 0 for what no integer is (NaN, infinity): compiled code does not say so."""
    return int(number) if abs(number) < _FAR else 0


@compiled
@no_type_check
def _texel_corner(u, v, height, width, offset, repeat):
    """The four texels around (u, v), upper left, upper right, lower left, lower right, and (u, v) among them."""
    x, y = u * np.float32(width) - np.float32(0.5), (_F1 - v) * np.float32(height) - np.float32(0.5)
    col, row = np.floor(x), np.floor(y)
    right, down = x - col, y - row
    first_col, first_row = _whole(col), _whole(row)
    left_col, right_col = _wrap(first_col, width, repeat), _wrap(first_col + 1, width, repeat)
    upper, lower = (
        offset + _wrap(first_row, height, repeat) * width,
        offset + _wrap(first_row + 1, height, repeat) * width,
    )
    return upper + left_col, upper + right_col, lower + left_col, lower + right_col, right, down


@compiled
@no_type_check
def sample_texture(first, end, texels, sizes, repeat, uv, levels, out):
    """Fill ``out`` (N, C) with the texture at ``uv`` (N, 2), blended between two ``levels`` (N); all float32."""
    for i in range(first, end):
        for k in range(texels.shape[1]):
            out[i, k] = 0
        lower, share = _blend_of_levels(levels[i], sizes.shape[0])
        for step in range(2):
            weight = share if step else _F1 - share
            if weight == 0:
                continue
            height, width, offset = sizes[lower + step]
            p, q, r, s, right, down = _texel_corner(uv[i, 0], uv[i, 1], height, width, offset, repeat)
            for k in range(texels.shape[1]):
                above = texels[p, k] + right * (texels[q, k] - texels[p, k])
                below = texels[r, k] + right * (texels[s, k] - texels[r, k])
                out[i, k] += weight * (above + down * (below - above))


@compiled
@no_type_check
def sample_texture_grad_uv(first, end, texels, sizes, repeat, uv, levels, grad_out, grad_uv):
    """Fill ``grad_uv`` (N, 2) from ``grad_out`` (N, C); the others as in `sample_texture`."""
    for i in range(first, end):
        grad_u, grad_v = np.float32(0), np.float32(0)
        lower, share = _blend_of_levels(levels[i], sizes.shape[0])
        for step in range(2):
            weight = share if step else _F1 - share
            if weight == 0:
                continue
            height, width, offset = sizes[lower + step]
            p, q, r, s, right, down = _texel_corner(uv[i, 0], uv[i, 1], height, width, offset, repeat)
            for k in range(texels.shape[1]):
                g = weight * grad_out[i, k]
                across = (texels[q, k] - texels[p, k]) * (_F1 - down) + (texels[s, k] - texels[r, k]) * down
                along = (texels[r, k] - texels[p, k]) * (_F1 - right) + (texels[s, k] - texels[q, k]) * right
                grad_u += g * across * np.float32(width)
                grad_v -= g * along * np.float32(height)
        grad_uv[i, 0] = grad_u
        grad_uv[i, 1] = grad_v


@compiled
@no_type_check
def sample_texture_grad_texels(sizes, repeat, uv, levels, grad_out, grad_texels):
    """Add to ``grad_texels`` (T, C); one thread, since any point may touch any texel."""
    for i in range(uv.shape[0]):
        lower, share = _blend_of_levels(levels[i], sizes.shape[0])
        any_gradient = False
        for k in range(grad_out.shape[1]):
            any_gradient = any_gradient or grad_out[i, k] != 0
        for step in range(2):
            weight = share if step else _F1 - share
            if weight == 0 or not any_gradient:
                continue
            height, width, offset = sizes[lower + step]
            p, q, r, s, right, down = _texel_corner(uv[i, 0], uv[i, 1], height, width, offset, repeat)
            for k in range(grad_out.shape[1]):
                g = weight * grad_out[i, k]
                grad_texels[p, k] += g * (_F1 - right) * (_F1 - down)
                grad_texels[q, k] += g * right * (_F1 - down)
                grad_texels[r, k] += g * (_F1 - right) * down
                grad_texels[s, k] += g * right * down


@compiled
@no_type_check
def _crossing(screen, view, p, q, axis, line):
    """Where the edge from p to q crosses a row or column of pixel centres."""
    v = screen[view, p, 1 - axis]
    fraction = (line - v) / (screen[view, q, 1 - axis] - v)
    return screen[view, p, axis] + fraction * (screen[view, q, axis] - screen[view, p, axis])


@compiled
@no_type_check
def _side(screen, view, p, q, tip):
    """Positive where ``tip`` lies to one side of the edge from p to q in the picture, negative to the other."""
    qx, qy = screen[view, q, 0] - screen[view, p, 0], screen[view, q, 1] - screen[view, p, 1]
    return qx * (screen[view, tip, 1] - screen[view, p, 1]) - qy * (screen[view, tip, 0] - screen[view, p, 0])


@compiled
@no_type_check
def _turns_back(screen, view, faces, partners, face, edge):
    """Whether the surface turns back or ends at an edge, seen from the camera; not if part of it is behind that."""
    p, q, tip = faces[face, edge], faces[face, (edge + 1) % 3], faces[face, (edge + 2) % 3]
    partner = partners[face, edge]
    next_tip = faces[partner // 3, (partner % 3 + 2) % 3]
    if min(min(screen[view, p, 2], screen[view, q, 2]), min(screen[view, tip, 2], screen[view, next_tip, 2])) < NEAR_Z:
        return False
    if partner // 3 == face:
        return True
    return _side(screen, view, p, q, tip) * _side(screen, view, p, q, next_tip) > 0


@compiled
@no_type_check
def _crosses(screen, view, p, q, axis, line):
    """Whether the edge from p to q crosses a row (axis 0) or column (axis 1) of pixel centres."""
    return (screen[view, p, 1 - axis] >= line) != (screen[view, q, 1 - axis] >= line)


@compiled
@no_type_check
def _exit_edge(screen, view, faces, face, axis, start, line, direction):
    """The edge by which the line of pixel centres leaves a face; -1 if it misses the face or that is behind us."""
    exit_edge, reach = -1, 0.0
    for edge in range(3):
        p, q = faces[face, edge], faces[face, (edge + 1) % 3]
        if screen[view, p, 2] < NEAR_Z:
            return -1
        if _crosses(screen, view, p, q, axis, line):
            crossing = (_crossing(screen, view, p, q, axis, line) - start) * direction
            if exit_edge < 0 or crossing > reach:
                exit_edge, reach = edge, crossing
    return exit_edge


@compiled
@no_type_check
def _walk(screen, view, faces, partners, face, goal, axis, start, line, direction):
    """Follow the surface from face to face along a row or column, from one pixel centre towards the next.

    Returns the half edge (3 face + edge) where the surface turns back or ends; _NO_EDGE if it goes on beyond the next
    centre or behind the camera; _REACHES_GOAL if it leads to the face ``goal``.
    """
    edge = _exit_edge(screen, view, faces, face, axis, start, line, direction)
    if edge < 0:
        return _NO_EDGE
    for _ in range(MOST_STEPS):
        p, q = faces[face, edge], faces[face, (edge + 1) % 3]
        if (_crossing(screen, view, p, q, axis, line) - start) * direction >= 1:
            return _NO_EDGE
        if _turns_back(screen, view, faces, partners, face, edge):
            return 3 * face + edge
        face, entry = partners[face, edge] // 3, partners[face, edge] % 3
        if face == goal:
            return _REACHES_GOAL
        # Out through the other edge that the line crosses: from the tip to the end of the entry on its far side.
        far, tip = faces[face, (entry + 1) % 3], faces[face, (entry + 2) % 3]
        if screen[view, tip, 2] < NEAR_Z:
            return _NO_EDGE
        edge = (entry + 1) % 3 if _crosses(screen, view, far, tip, axis, line) else (entry + 2) % 3
    return _NO_EDGE


@compiled
@no_type_check
def _mark(screen, view, p, q, axis, first_row, end_row, edges):
    """Write _CANDIDATE into ``edges`` for the pairs of pixel centres between which the edge from p to q passes."""
    height, width = edges.shape[2:]
    v, v_other = screen[view, p, 1 - axis], screen[view, q, 1 - axis]
    if not (abs(v) < _FAR and abs(v_other) < _FAR):
        return
    first, end = int(np.ceil(min(v, v_other) - 0.5)), int(np.ceil(max(v, v_other) - 0.5))
    first, end = (max(first, first_row), min(end, end_row)) if axis == 0 else (max(first, 0), min(end, width))
    for line in range(first, end):
        u = _crossing(screen, view, p, q, axis, line + 0.5) - 0.5
        if axis == 0 and 0 <= u < width - 1:
            edges[0, view, line, int(u)] = _CANDIDATE
        elif axis == 1 and first_row <= u < min(end_row, height - 1):
            edges[1, view, int(u), line] = _CANDIDATE


@compiled
@no_type_check
def _mark_turning_edges(screen, view, faces, partners, first_row, end_row, edges):
    """Mark the pairs of pixels between which an edge passes where the surface turns back or ends."""
    turned = np.empty(faces.shape[0], np.bool_)
    for face in range(faces.shape[0]):
        turned[face] = _side(screen, view, faces[face, 0], faces[face, 1], faces[face, 2]) > 0
    for face in range(faces.shape[0]):
        for edge in range(3):
            next_face, entry = partners[face, edge] // 3, partners[face, edge] % 3
            if next_face > face and partners[next_face, entry] == 3 * face + edge:
                continue  # two faces meet here and the other one answers for both
            # Cheap test first: neighbours wound alike turn back where one shows its front and the other its back.
            same_direction = faces[next_face, entry] == faces[face, edge]
            if (turned[face] == turned[next_face]) != same_direction:
                continue
            if _turns_back(screen, view, faces, partners, face, edge):
                p, q = faces[face, edge], faces[face, (edge + 1) % 3]
                for axis in range(2):
                    _mark(screen, view, p, q, axis, first_row, end_row, edges)


@compiled
@no_type_check
def _silhouette_between(screen, view, faces, partners, face_ids, depth_z, axis, row, col):
    """The half edge where the surface seen in a pixel ends before the centre of the next along the axis, or -1."""
    next_row, next_col = row + axis, col + 1 - axis
    here, there = face_ids[view, row, col], face_ids[view, next_row, next_col]
    if here == there:
        return _NO_EDGE
    line, start = (col + 0.5, row + 0.5) if axis else (row + 0.5, col + 0.5)
    # From the nearer of the two first: its outline hides the other surface.
    here_first = there < 0 or (here >= 0 and depth_z[view, row, col] <= depth_z[view, next_row, next_col])
    for attempt in range(2):
        found = _NO_EDGE
        if here_first == (attempt == 0):
            if here >= 0:
                found = _walk(screen, view, faces, partners, here, there, axis, start, line, 1)
        elif there >= 0:
            found = _walk(screen, view, faces, partners, there, here, axis, start + 1, line, -1)
        if found == _REACHES_GOAL:
            return _NO_EDGE
        if found != _NO_EDGE:
            return found
    return _NO_EDGE


@compiled
@no_type_check
def find_silhouettes(view, first_row, end_row, screen, faces, partners, face_ids, depth_z, edges):
    """Fill ``edges[axis]`` with the half edge of the silhouette between a pixel and the next along the axis, or -1.

    Edges where the surface turns back point out the few pairs of pixels to look at; the walk makes sure that one of
    the two sees the surface that ends there.
    """
    edges[:, view, first_row:end_row] = _NO_EDGE
    _mark_turning_edges(screen, view, faces, partners, first_row, end_row, edges)
    for axis in range(2):
        for row in range(first_row, end_row):
            for col in range(face_ids.shape[2]):
                if edges[axis, view, row, col] == _CANDIDATE:
                    edges[axis, view, row, col] = _silhouette_between(
                        screen, view, faces, partners, face_ids, depth_z, axis, row, col
                    )
