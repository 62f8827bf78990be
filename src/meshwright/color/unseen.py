"""Colours for the parts of a surface that no view sees."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.sparse import csr_array
from torch import Tensor

from meshwright.mesh import Mesh

_RELAXATIONS = 100  # averaging steps that smooth the colours of what no view sees


def fill_unseen(
    mesh: Mesh,
    known: Float[Tensor, "vertices 3"],
    seen: Bool[Tensor, " vertices"],
    expected: Float[Tensor, "vertices 3"],
) -> Float[Tensor, "vertices 3"]:
    """``known`` where ``seen``, elsewhere what is ``expected``, moved towards what is known around it.

    The membrane of Perez et al. 2003, "Poisson image editing". Where nothing at all is seen it is the expected.
    """
    if not bool(seen.any()):
        return expected
    return expected + spread_colors(mesh, known - expected, seen)


def spread_colors(
    mesh: Mesh, colors: Float[Tensor, "vertices 3"], seen: Bool[Tensor, " vertices"]
) -> Float[Tensor, "vertices 3"]:
    """Colours for unseen vertices: from the seen ones inwards ring by ring, then averaged with their neighbours.

    Parts of the mesh that nobody sees take the mean colour.
    """
    unseen = (~seen).nonzero()[:, 0]
    if len(unseen) == 0:
        return colors
    edges, _ = mesh.unique_edges()
    starts, ends = torch.cat([edges, edges.flip(1)]).unbind(1)
    row = torch.full_like(seen, -1, dtype=torch.long).index_copy(0, unseen, torch.arange(len(unseen)).to(unseen))
    wanted = row[starts] >= 0
    index = torch.stack([row[starts[wanted]], ends[wanted]]).cpu().numpy()
    # SciPy's sparse product: seven times faster than torch's COO, and torch's CSR is not settled.
    neighbours = csr_array((np.ones(index.shape[1], np.float32), index), shape=(len(unseen), len(colors)))
    known = torch.cat([colors * seen[:, None], seen[:, None].to(colors)], dim=1)
    mean = colors[seen].mean(0) if bool(seen.any()) else colors.new_full((3,), 0.5)

    def neighbour_sums() -> Float[Tensor, "unseen 4"]:
        return torch.from_numpy(neighbours @ known.cpu().numpy()).to(known)

    while True:
        near = neighbour_sums()
        fresh = (near[:, 3] > 0) & (known[unseen, 3] == 0)
        if not bool(fresh.any()):
            break
        known[unseen[fresh]] = near[fresh] / near[fresh, 3:]
    known[known[:, 3] == 0] = torch.cat([mean, mean.new_ones(1)])
    for _ in range(_RELAXATIONS):
        near = neighbour_sums()
        known[unseen] = torch.where(near[:, 3:] > 0, near / near[:, 3:].clamp(min=1), known[unseen])
    return known[:, :3]
