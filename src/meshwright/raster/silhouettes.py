"""Antialiasing at silhouettes, which is also what lets a mask pull on vertices.

After Laine et al. 2020, "Modular primitives for high-performance differentiable rendering" (arXiv 2011.03277),
section 3: where a silhouette passes between the centres of two neighbouring pixels, the one it has not reached is
blended with the other by how far the edge is from half way, which is the covered area of a slab as wide as a pixel.
Two things differ. The silhouette is found by walking over the surface from the nearer pixel towards the other, so
that meshes with faces smaller than pixels keep their gradients. And every edge acts along rows and along columns by
shares that sum to one, so that its gradient does not jump where it turns through 45 degrees.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from meshwright.raster import kernels
from meshwright.raster.coverage import Fragments
from meshwright.raster.kernels import MOST_STEPS, NEAR_Z


def antialias(
    image: Float[Tensor, "views height width channels"],
    fragments: Fragments,
    faces: Int[Tensor, "faces 3"],
    partners: Int[Tensor, "faces 3"] | None = None,
) -> Float[Tensor, "views height width channels"]:
    """Smooth ``image`` where the surface seen in one pixel ends before the next pixel's centre.

    Faces of one surface must share their vertices: where copies stand side by side the surface counts as cut open.
    ``partners`` is `edge_partners(faces)`; give it where faces stay the same from call to call. Differentiable with
    respect to the image and, through the fragments, vertices and cameras: the gradient of a mask's sum is that of
    the area that the mesh covers.
    """
    partners = edge_partners(faces) if partners is None else partners
    find = _find_silhouettes_cpu if image.device.type == "cpu" else _find_silhouettes_torch
    return _blend(image, fragments.projected, faces, find(fragments, faces, partners))


def edge_partners(faces: Int[Tensor, "faces 3"]) -> Int[Tensor, "faces 3"]:
    """For edge i of each face (corner i to the next) the next half edge, as 3 face + edge, on the same two vertices.

    At a border that is the half edge itself; where three or more faces meet they form a ring.
    """
    start, end = faces.flatten(), faces.roll(-1, 1).flatten()
    keys, order = torch.sort((torch.minimum(start, end) << 32) + torch.maximum(start, end), stable=True)
    first = torch.ones_like(keys, dtype=torch.bool)
    first[1:] = keys[1:] != keys[:-1]
    begins = first.nonzero().squeeze(1)
    position = torch.arange(len(keys), device=keys.device)
    last = torch.ones_like(first)
    last[:-1] = first[1:]
    following = torch.where(last, begins[first.cumsum(0) - 1], position + 1)
    partners = torch.empty_like(order)
    partners[order] = order[following]
    return partners.view(-1, 3)


def _blend(
    image: Float[Tensor, "views height width channels"],
    projected: Float[Tensor, "views vertices 3"],
    faces: Int[Tensor, "faces 3"],
    edges: Int[Tensor, "2 views height width"],
) -> Float[Tensor, "views height width channels"]:
    """Blend pairs of pixels, neighbours along the row (edges[0]) or the column (edges[1]), that an edge separates."""
    height, width = edges.shape[2:]
    axis, view, row, col = chosen = (edges >= 0).nonzero(as_tuple=True)
    face, corner = edges[chosen].long() // 3, edges[chosen].long() % 3
    ends = torch.stack([faces[face, corner], faces[face, (corner + 1) % 3]], dim=1)
    corners = projected[view[:, None], ends]
    xy = corners[:, :, :2] / corners[:, :, 2:]
    along, across = (torch.where(axis[:, None] == i, xy[:, :, 0], xy[:, :, 1]) for i in (0, 1))
    start, line = torch.where(axis == 0, col, row) + 0.5, torch.where(axis == 0, row, col) + 0.5
    fraction = (line - across[:, 0]) / (across[:, 1] - across[:, 0])
    crossing = torch.lerp(along[:, 0], along[:, 1], fraction) - start
    extent_along, extent_across = ((ends[:, 1] - ends[:, 0]).detach().square() for ends in (along, across))
    share = extent_across / (extent_along + extent_across)
    signed_weight = (share * (crossing.clamp(0, 1) - 0.5)).to(image.dtype)

    flat = image.reshape(-1, image.shape[3])
    first = (view * height + row) * width + col
    second = first + torch.where(axis == 0, 1, width)
    target = torch.where(signed_weight > 0, second, first)
    # A pixel of which the mesh covers only a tip may be blended from three sides, by more than it has.
    total = flat.new_zeros(len(flat)).index_add(0, target, signed_weight.detach().abs())
    weight = signed_weight / total[target].clamp(min=1)
    return _AddDifferences.apply(flat, weight, target, first, second).view_as(image)


class _AddDifferences(torch.autograd.Function):
    """Rows of ``flat``; to rows ``target`` is added weight * (row ``first`` - row ``second``).

    Torch's own derivative of it goes over the whole picture six times.
    """

    @staticmethod
    def forward(ctx: Any, flat: Tensor, weight: Tensor, target: Tensor, first: Tensor, second: Tensor) -> Tensor:
        difference = flat[first] - flat[second]
        ctx.save_for_backward(weight, target, first, second, difference)
        return flat.index_add(0, target, weight[:, None] * difference)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        weight, target, first, second, difference = ctx.saved_tensors
        grad_target = grad[target]
        grad_difference = weight[:, None] * grad_target
        grad_flat = grad.index_add(0, first, grad_difference).index_add_(0, second, -grad_difference)
        return grad_flat, (grad_target * difference).sum(1), None, None, None


def _find_silhouettes_cpu(
    fragments: Fragments, faces: Int[Tensor, "faces 3"], partners: Int[Tensor, "faces 3"]
) -> Int[Tensor, "2 views height width"]:
    """For each pixel the half edge of the silhouette between it and the next, along rows and along columns, or -1."""
    views, height, width = fragments.face_ids.shape
    edges = torch.empty(2, views, height, width, dtype=torch.int32)
    kernels.over_rows(
        kernels.find_silhouettes,
        views,
        height,
        _screen(fragments).numpy(),
        kernels.trusted(faces, fragments.projected.shape[1]),
        kernels.trusted(partners, faces.numel()),
        fragments.face_ids.numpy(),
        fragments.depth_z.detach().numpy(),
        edges.numpy(),
    )
    return edges


def _screen(fragments: Fragments) -> Float[Tensor, "views vertices 3"]:
    """(x_px, y_px, depth_z) of vertices."""
    projected = fragments.projected.detach()
    return torch.cat([projected[..., :2] / projected[..., 2:], projected[..., 2:]], dim=2)


@torch.no_grad()
def _find_silhouettes_torch(
    fragments: Fragments, faces: Int[Tensor, "faces 3"], partners: Int[Tensor, "faces 3"]
) -> Int[Tensor, "2 views height width"]:
    """The torch twin of the compiled kernel."""
    ids, depth_z = fragments.face_ids, fragments.depth_z
    edges = torch.full((2, *ids.shape), -1, dtype=torch.int32, device=ids.device)
    screen = _screen(fragments)
    for axis in range(2):
        along = 2 - axis
        length = ids.shape[along] - 1
        here, there = ids.narrow(along, 0, length), ids.narrow(along, 1, length)
        z, z_there = depth_z.narrow(along, 0, length), depth_z.narrow(along, 1, length)
        pairs = torch.stack((here != there).nonzero(as_tuple=True), dim=1)
        chosen = tuple(pairs.unbind(1))
        here, there = here[chosen], there[chosen]
        here_first = (there < 0) | ((here >= 0) & (z[chosen] <= z_there[chosen]))
        found = torch.full_like(here, -1)
        for forward in (here_first, ~here_first):
            face, goal = torch.where(forward, here, there), torch.where(forward, there, here)
            open_pairs = ((found == -1) & (face >= 0)).nonzero().squeeze(1)
            found[open_pairs] = _walk(
                screen,
                faces,
                partners,
                face[open_pairs],
                goal[open_pairs],
                axis,
                pairs[open_pairs],
                forward[open_pairs],
            )
        edges[axis][chosen] = found.clamp(min=-1).int()
    return edges


def _walk(
    screen: Float[Tensor, "views vertices 3"],
    faces: Int[Tensor, "faces 3"],
    partners: Int[Tensor, "faces 3"],
    face: Int[Tensor, " pairs"],
    goal: Int[Tensor, " pairs"],
    axis: int,
    pairs: Int[Tensor, "pairs 3"],
    forward: Tensor,
) -> Int[Tensor, " pairs"]:
    """As kernels._walk, all pairs of pixels at once, one step a turn."""
    view, row, col = pairs.unbind(1)
    line, start = (row, col) if axis == 0 else (col, row)
    line, start = line + 0.5, start + torch.where(forward, 0.5, 1.5).to(screen)
    direction = torch.where(forward, 1.0, -1.0).to(screen)
    found = torch.full_like(face, -1)

    def at(pair: Tensor, vertex: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, y, z = screen[view[pair], vertex].unbind(-1)
        return (x, y, z) if axis == 0 else (y, x, z)

    def crossing(pair: Tensor, a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> Tensor:
        u = a[0] + (line[pair] - a[1]) / (b[1] - a[1]) * (b[0] - a[0])
        return (u - start[pair]) * direction[pair]

    pair = torch.arange(len(face), device=face.device)
    corners = [at(pair, faces[face, i]) for i in range(3)]
    reach = [
        torch.where((a[1] >= line) != (b[1] >= line), crossing(pair, a, b), -torch.inf)
        for a, b in zip(corners, corners[1:] + corners[:1], strict=True)
    ]
    farthest, edge = torch.stack(reach, dim=1).max(1)
    keep = farthest > -torch.inf
    pair, face, edge = pair[keep], face[keep], edge[keep]
    for _ in range(MOST_STEPS):
        if len(pair) == 0:
            break
        next_face, entry = partners[face, edge] // 3, partners[face, edge] % 3
        p, q, tip = (at(pair, faces[face, (edge + i) % 3]) for i in range(3))
        far, next_tip = (at(pair, faces[next_face, (entry + i) % 3]) for i in (1, 2))
        side, next_side = ((q[0] - p[0]) * (t[1] - p[1]) - (q[1] - p[1]) * (t[0] - p[0]) for t in (tip, next_tip))
        on = ~(crossing(pair, p, q) >= 1) & (torch.stack([p[2], q[2], tip[2], next_tip[2]]).amin(0) >= NEAR_Z)
        turns = on & ((next_face == face) | (side * next_side > 0))
        found[pair[turns]] = 3 * face[turns] + edge[turns]
        arrives = on & ~turns & (next_face == goal[pair])
        found[pair[arrives]] = -2
        on &= ~turns & ~arrives
        edge = torch.where((far[1] >= line[pair]) != (next_tip[1] >= line[pair]), entry + 1, entry + 2) % 3
        pair, face, edge = pair[on], next_face[on], edge[on]
    return found
