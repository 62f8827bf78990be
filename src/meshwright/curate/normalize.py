"""Bringing an object into [-1, 1]^3, and back."""

import torch

from meshwright.curate.object_files import Normalization
from meshwright.curate.options import Fit
from meshwright.errors import InputError
from meshwright.mesh import Mesh


def normalization_of(mesh: Mesh, fit: Fit = "box") -> Normalization:
    """Centre of the bounding box to the origin; its longest side becomes 2 (box), or the farthest vertex lies 1 away
    (sphere).

    Raises:
        InputError: the mesh is a point, or its vertices are not numbers.
    """
    used = mesh.vertices[torch.unique(mesh.faces)].double()
    if not bool(used.isfinite().all()):
        raise InputError("the mesh has vertices that are not numbers; export it again")
    low, high = used.amin(0), used.amax(0)
    center = (low + high) / 2
    radius = float((high - low).max() / 2) if fit == "box" else float((used - center).norm(dim=1).max())
    if not 1e-20 < radius < 1e20:
        raise InputError(f"the mesh has no size that can be scaled ({radius:g}); export it again")
    x, y, z = center.tolist()
    return Normalization(fit, (x, y, z), 1 / radius)


def normalized(mesh: Mesh, normalization: Normalization) -> Mesh:
    """The mesh in [-1, 1]^3."""
    center = torch.tensor(normalization.center, dtype=torch.float64)
    vertices = (mesh.vertices.double() - center) * normalization.scale
    return mesh.replace(vertices=vertices.to(mesh.vertices.dtype))


def denormalized(mesh: Mesh, normalization: Normalization) -> Mesh:
    """The inverse of `normalized`: back to where the mesh file had it (turned z up)."""
    center = torch.tensor(normalization.center, dtype=torch.float64)
    vertices = mesh.vertices.double() / normalization.scale + center
    return mesh.replace(vertices=vertices.to(mesh.vertices.dtype))
