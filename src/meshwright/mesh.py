"""Mesh: triangles with colours or a texture, and what can be asked of them."""

import dataclasses
import importlib
import os
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles in the world (right-handed, z up), counter-clockwise seen from outside.

    ``vertex_colors``: sRGB in [0, 1]. ``faces`` and ``uv_faces`` of any integer type become int64.
    ``uv``: texture coordinates, u to the right, v **upwards** from the bottom left corner of ``texture``;
    ``uv_faces`` indexes them for each face corner. ``texture``: sRGB in [0, 1], row 0 on top (v = 1).
    ``view_counts``: how many of the pictures that gave it its colours see each vertex.
    """

    vertices: Float[Tensor, "vertices 3"]
    faces: Int[Tensor, "faces 3"]
    vertex_colors: Float[Tensor, "vertices 3"] | None = None
    uv: Float[Tensor, "uv_points 2"] | None = None
    uv_faces: Int[Tensor, "faces 3"] | None = None
    texture: Float[Tensor, "3 texture_height texture_width"] | None = None
    view_counts: Int[Tensor, " vertices"] | None = None

    def __post_init__(self) -> None:
        # Numbers of edges are products of vertex numbers: in int32 they overflow from 46,341 vertices on.
        for name in ("faces", "uv_faces"):
            numbers = getattr(self, name)
            if numbers is not None and numbers.dtype != torch.int64:
                object.__setattr__(self, name, numbers.long())

    @property
    def has_colors(self) -> bool:
        return self.vertex_colors is not None or self.texture is not None

    def replace(self, **changes: Tensor | None) -> "Mesh":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def to(self, device: torch.device | str) -> "Mesh":
        moved = {
            field.name: value.to(device)
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) is not None
        }
        return dataclasses.replace(self, **moved)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a .glb, .obj, .ply or .stl file, y up; see ``meshwright.mesh_files.save_mesh``.

        Raises:
            InputError: unknown suffix, a mesh without faces, or a place that cannot be written.
        """
        # Files stand above the nouns. By name and when called, so that nothing here depends on them: a mesh can be had
        # and asked without any code for files.
        importlib.import_module("meshwright.mesh_files").save_mesh(self, path)

    def face_normals(self) -> Float[Tensor, "faces 3"]:
        """Normals whose length is twice the face's area."""
        # Not vertices[faces]: the gradient of that adds up in the order in which threads happen to run.
        a, b, c = self.vertices.index_select(0, self.faces.flatten()).view(-1, 3, 3).unbind(1)
        return torch.linalg.cross(b - a, c - a)

    def vertex_normals(self) -> Float[Tensor, "vertices 3"]:
        """Unit normals, each the area-weighted mean of its faces' normals; (0, 0, 1) where there is none."""
        total = torch.zeros_like(self.vertices)
        normals = self.face_normals()
        for corner in range(3):
            total = total.index_add(0, self.faces[:, corner], normals)
        squared = (total * total).sum(1, keepdim=True)
        none = squared <= 1e-20 * squared.detach().sum()  # of the whole, so that no unit of the world is too small
        total = torch.where(none, torch.tensor([0.0, 0.0, 1.0]).to(total), total)
        return torch.nn.functional.normalize(total, dim=1)

    def area(self) -> Float[Tensor, ""]:
        """0 without faces. Its gradient shrinks a surface to the smallest with its border."""
        return self.face_normals().norm(dim=1).sum() / 2

    def volume(self) -> Float[Tensor, ""]:
        """Signed volume; positive when a closed mesh's faces look outward."""
        a, b, c = self.vertices[self.faces].unbind(1)
        return (a * torch.linalg.cross(b, c)).sum() / 6

    def unique_edges(self) -> tuple[Int[Tensor, "edges 2"], Int[Tensor, " edges"]]:
        """Undirected edges and how many faces meet at each."""
        directed = torch.cat([self.faces[:, [0, 1]], self.faces[:, [1, 2]], self.faces[:, [2, 0]]])
        start, end = directed.sort(dim=1).values.unbind(1)
        # One number an edge: torch sorts rows twenty times slower.
        keys, counts = torch.unique(start * len(self.vertices) + end, return_counts=True)
        return torch.stack([keys // len(self.vertices), keys % len(self.vertices)], dim=1), counts

    def is_watertight(self) -> bool:
        """Every directed edge occurs once and meets its opposite: closed and consistently wound."""
        if len(self.faces) == 0:
            return False
        directed = torch.cat([self.faces[:, [0, 1]], self.faces[:, [1, 2]], self.faces[:, [2, 0]]])
        keys = directed[:, 0] * len(self.vertices) + directed[:, 1]
        opposite = directed[:, 1] * len(self.vertices) + directed[:, 0]
        keys_sorted = keys.sort().values
        return bool((keys_sorted[1:] != keys_sorted[:-1]).all()) and bool(
            torch.equal(keys_sorted, opposite.sort().values)
        )

    def components(self) -> Int[Tensor, " faces"]:
        """For each face the number of its connected component, 0 being the one with the most faces."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        faces = self.faces.cpu().numpy()
        a, b = faces[:, [0, 1]].ravel(), faces[:, [1, 2]].ravel()
        graph = coo_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(len(self.vertices),) * 2)
        _, label_of_vertex = connected_components(graph, directed=False)
        label = label_of_vertex[faces[:, 0]]
        _, first, counts = np.unique(label, return_inverse=True, return_counts=True)
        rank = np.empty(len(counts), dtype=np.int64)
        rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
        return torch.from_numpy(rank[first]).to(self.faces.device)

    def unseen_share(self) -> float | None:
        """The share of the surface that no picture sees, faces counting by their unseen corners; None if not known."""
        if self.view_counts is None:
            return None
        areas = self.face_normals().norm(dim=1)
        unseen = (self.view_counts == 0)[self.faces].to(areas).mean(1)
        return float((unseen * areas).sum() / areas.sum().clamp(min=torch.finfo(areas.dtype).tiny))

    def genus(self) -> int:
        """Handles summed over all components of a watertight mesh: V - E + F = 2 (components - genus).

        Raises:
            ValueError: the mesh is not watertight.
        """
        if not self.is_watertight():
            raise ValueError("genus is defined for watertight meshes only")
        used = torch.unique(self.faces).numel()
        euler = used - len(self.unique_edges()[0]) + len(self.faces)
        return int(self.components().max()) + 1 - euler // 2

    def keep_faces(self, keep: Tensor) -> "Mesh":
        """The mesh of the faces chosen by a mask or indices, without vertices that nothing uses."""
        faces = self.faces[keep]
        used, faces = torch.unique(faces, return_inverse=True)
        return dataclasses.replace(
            self,
            vertices=self.vertices[used],
            faces=faces,
            vertex_colors=None if self.vertex_colors is None else self.vertex_colors[used],
            uv_faces=None if self.uv_faces is None else self.uv_faces[keep],
            view_counts=None if self.view_counts is None else self.view_counts[used],
        )

    def sample_surface(
        self, count: int, seed: int = 0
    ) -> tuple[Float[Tensor, "points 3"], Int[Tensor, " points"], Float[Tensor, "points 3"]]:
        """Points spread evenly over the surface, with their face and barycentric coordinates."""
        generator = torch.Generator().manual_seed(seed)
        areas = self.face_normals().norm(dim=1).cpu().double()  # MPS has no float64
        cumulative = areas.cumsum(0)
        # Stratified: one draw in each of `count` equal shares of the area, so that the spread is even.
        draw = (torch.arange(count) + torch.rand(count, generator=generator, dtype=torch.float64)) / count
        face = torch.searchsorted(cumulative, draw * cumulative[-1]).clamp(max=len(areas) - 1)
        r = torch.rand(count, 2, generator=generator)
        root = r[:, 0].sqrt()
        barycentric = torch.stack([1 - root, root * (1 - r[:, 1]), root * r[:, 1]], dim=1).to(self.vertices)
        face = face.to(self.faces.device)
        points = (self.vertices[self.faces[face]] * barycentric[:, :, None]).sum(1)
        return points, face, barycentric


def subdivide(
    points: Float[Tensor, "points axes"], faces: Int[Tensor, "faces 3"]
) -> tuple[Float[Tensor, "more_points axes"], Int[Tensor, "more_faces 3"]]:
    """Four faces for each, on the same surface, with new points in the middle of its edges; the old points come first.

    ``points``: vertices, or the texture coordinates that ``faces`` indexes.
    """
    faces = faces.long()
    a, b, c = faces.unbind(1)
    start, end = torch.stack([faces, faces.roll(-1, 1)], dim=2).sort(dim=2).values.view(-1, 2).unbind(1)
    keys, edge_of_side = torch.unique(start * len(points) + end, return_inverse=True)
    middles = (points[keys // len(points)] + points[keys % len(points)]) / 2
    ab, bc, ca = (len(points) + edge_of_side.view(-1, 3)).unbind(1)
    corners = ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))
    return torch.cat([points, middles]), torch.cat([torch.stack(piece, dim=1) for piece in corners])
