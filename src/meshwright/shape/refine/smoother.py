"""The preconditioner that makes steps of vertices smooth.

Nicolet, Jacobson and Jakob 2021, "Large steps in inverse rendering of geometry": vertices v are moved by steps in
u = (I + stiffness * L) v, L the combinatorial Laplacian, so that every vertex takes its neighbourhood along.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

_TOLERANCE = 1e-5  # of conjugate gradients, relative
_MOST_ITERATIONS = 500
_FAST_DECAY, _SLOW_DECAY = 0.9, 0.99


class Smoother:
    """Multiplies and divides by I + stiffness * L of one set of faces. Factorised on the CPU, else solved for."""

    def __init__(self, faces: Int[Tensor, "faces 3"], vertices: int, stiffness: float) -> None:
        faces = faces.long()
        start, end = torch.cat([faces, faces.roll(-1, 1)]).flatten(), torch.cat([faces.roll(-1, 1), faces]).flatten()
        keys = torch.unique(start * vertices + end)
        self._ends = torch.stack([keys // vertices, keys % vertices])
        self._stiffness = stiffness
        self._diagonal = 1 + stiffness * torch.bincount(self._ends[0], minlength=vertices).float()[:, None]
        self._solve = self._factorised() if faces.device.type == "cpu" else self._conjugate_gradients

    def to_latent(self, v: Float[Tensor, "vertices 3"]) -> Float[Tensor, "vertices 3"]:
        around = torch.zeros_like(v).index_add_(0, self._ends[0], v[self._ends[1]])
        return self._diagonal.to(v) * v - self._stiffness * around

    def from_latent(self, u: Float[Tensor, "vertices 3"]) -> Float[Tensor, "vertices 3"]:
        return self._solve(u)

    def _factorised(self):  # type: ignore[no-untyped-def]
        from scipy.sparse import coo_array, diags_array
        from scipy.sparse.linalg import splu

        start, end = self._ends.numpy()
        count = len(self._diagonal)
        neighbours = coo_array((np.full(len(start), -self._stiffness), (start, end)), shape=(count, count))
        matrix = (neighbours + diags_array(self._diagonal[:, 0].numpy().astype(np.float64))).tocsc()
        # Symmetric and diagonally dominant: no pivoting, and an order made for symmetric patterns.
        factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})

        def solve(u: Tensor) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(factors.solve(u.numpy().astype(np.float64)))).to(u)

        return solve

    def _conjugate_gradients(self, u: Float[Tensor, "vertices 3"]) -> Float[Tensor, "vertices 3"]:
        inverse_diagonal = 1 / self._diagonal.to(u)
        x = torch.zeros_like(u)
        residual = u.clone()
        direction = inverse_diagonal * residual
        product = (residual * direction).sum(0)
        enough = _TOLERANCE * float(product.sum()) ** 0.5
        for iteration in range(_MOST_ITERATIONS):
            if iteration % 10 == 0 and float(product.sum()) ** 0.5 <= enough:
                break
            image = self.to_latent(direction)
            step = product / (direction * image).sum(0).clamp(min=torch.finfo(u.dtype).tiny)
            x = x + step * direction
            residual = residual - step * image
            scaled = inverse_diagonal * residual
            product_next = (residual * scaled).sum(0)
            direction = scaled + product_next / product.clamp(min=torch.finfo(u.dtype).tiny) * direction
            product = product_next
        return x


class SmoothSteps:
    """Descends in the latent u by AdamUniform: Adam with one common size of step, so that directions stay."""

    def __init__(self, vertices: Float[Tensor, "vertices 3"], faces: Int[Tensor, "faces 3"], stiffness: float) -> None:
        self._smoother = Smoother(faces, len(vertices), stiffness)
        self._u = self._smoother.to_latent(vertices)
        self._mean = torch.zeros_like(vertices)
        self._square = torch.zeros_like(vertices)
        self._count = 0

    def step(self, gradient: Float[Tensor, "vertices 3"], size: float) -> Float[Tensor, "vertices 3"]:
        """The vertices after a step of about ``size`` in the latent against ``gradient`` (with respect to vertices)."""
        gradient = self._smoother.from_latent(gradient)
        self._count += 1
        self._mean = _FAST_DECAY * self._mean + (1 - _FAST_DECAY) * gradient
        self._square = _SLOW_DECAY * self._square + (1 - _SLOW_DECAY) * gradient.square()
        mean = self._mean / (1 - _FAST_DECAY**self._count)
        usual = (self._square.sum(1).mean() / (1 - _SLOW_DECAY**self._count)).sqrt()
        self._u = self._u - size * mean / usual.clamp(min=torch.finfo(mean.dtype).tiny)
        return self._smoother.from_latent(self._u)
