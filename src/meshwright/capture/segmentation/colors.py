"""Colour models: mixtures of Gaussians over sRGB, fitted by expectation and maximisation."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

_SAMPLES = 4000  # of which a model is fitted
_ROUNDS = 8
_FLOOR = 0.02**2  # variance: colours nearer than that are not told apart
_OUTLIERS = 0.02  # share of colours that a model has never seen, spread over the cube of colours


@dataclass(frozen=True, eq=False)
class ColorModel:
    """A density over colours in [0, 1]^3."""

    log_weights: Float[ndarray, " parts"]
    means: Float[ndarray, "parts 3"]
    whitening: Float[ndarray, "parts 3 3"]
    """Takes offsets from the mean to independent normal ones."""

    @classmethod
    def fit(cls, colors: Float[ndarray, "samples 3"], parts: int, rng: np.random.Generator) -> "ColorModel":
        """Fit ``parts`` Gaussians to colours, of which there is at least one."""
        if len(colors) > _SAMPLES:
            colors = colors[rng.choice(len(colors), _SAMPLES, replace=False)]
        colors = colors.astype(np.float64)
        parts = min(parts, len(colors))
        model = cls.of_clusters(colors, _farthest_points(colors, parts, rng))
        for _ in range(_ROUNDS):
            logs = model._log_parts(colors)
            share = np.exp(logs - logs.max(axis=1, keepdims=True))
            model = cls.of_clusters(colors, share / share.sum(axis=1, keepdims=True))
        return model

    @classmethod
    def of_clusters(cls, colors: Float[ndarray, "samples 3"], share: Float[ndarray, "samples parts"]) -> "ColorModel":
        total = share.sum(axis=0) + 1e-6
        means = share.T @ colors / total[:, None]
        products = (colors[:, :, None] * colors[:, None, :]).reshape(len(colors), 9)
        covariances = (share.T @ products / total[:, None]).reshape(-1, 3, 3) - means[:, :, None] * means[:, None, :]
        covariances += _FLOOR * np.eye(3)
        whitening = np.linalg.inv(np.linalg.cholesky(covariances))
        return cls(np.log(total / total.sum()), means, whitening)

    def log_density(self, colors: Float[ndarray, "*any 3"]) -> Float[ndarray, "*any"]:
        flat = colors.reshape(-1, 3)
        result = np.empty(len(flat))
        for first in range(0, len(flat), 1 << 16):
            logs = self._log_parts(flat[first : first + (1 << 16)])
            result[first : first + (1 << 16)] = np.exp(logs).sum(axis=1)
        return np.log((1 - _OUTLIERS) * result + _OUTLIERS).reshape(colors.shape[:-1])

    def _log_parts(self, colors: Float[ndarray, "samples 3"]) -> Float[ndarray, "samples parts"]:
        logs = np.empty((len(colors), len(self.means)))
        for part, (mean, whitening) in enumerate(zip(self.means, self.whitening, strict=True)):
            squared = (((colors - mean) @ whitening.T) ** 2).sum(axis=1)
            determinant = np.log(np.abs(np.diag(whitening))).sum()
            logs[:, part] = self.log_weights[part] + determinant - 0.5 * squared - 1.5 * np.log(2 * np.pi)
        return logs


def _farthest_points(
    colors: Float[ndarray, "samples 3"], parts: int, rng: np.random.Generator
) -> Float[ndarray, "samples parts"]:
    """Which of some colours far apart each colour is nearest to (k-means++, Arthur & Vassilvitskii 2007)."""
    chosen = [colors[rng.integers(len(colors))]]
    squared = ((colors - chosen[0]) ** 2).sum(axis=1)
    for _ in range(parts - 1):
        total = squared.sum()
        index = rng.choice(len(colors), p=squared / total) if total > 0 else rng.integers(len(colors))
        chosen.append(colors[index])
        squared = np.minimum(squared, ((colors - colors[index]) ** 2).sum(axis=1))
    nearest = ((colors[:, None] - np.stack(chosen)) ** 2).sum(axis=2).argmin(axis=1)
    return np.eye(parts)[nearest]
