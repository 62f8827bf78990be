"""Lenses: where a picture shows a direction. Every distortion of the formats that are read, forward and vectorised.

A direction is (x, y) on the plane at distance 1 before the camera: x to the right, y *downwards*, as OpenCV, COLMAP and
all photogrammetry have it. A distortion moves it on that plane; focal lengths and the principal point make it pixels,
the centre of the top left pixel at (0.5, 0.5). Formulas: Brown, "Close-range camera calibration" (1971), in OpenCV's
order of coefficients; Kannala & Brandt (2006) for fisheyes; Devernay & Faugeras (2001) for FOV; Fitzgibbon (2001) for
division; Khomutenko, Garcia & Martinet (2016) for EUCM. `tests/test_lens.py` compares all with COLMAP's own.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

Points = Float[ndarray, "*points 2"]


@dataclass(frozen=True)
class Brown:
    """Radial polynomial (or a quotient of two), tangential and thin prism terms; after an equidistant fisheye or not.

    ``radial`` are k1, k2, ... of 1 + k1 r^2 + k2 r^4 + ..., ``rational`` those of the divisor, ``tangential`` p1 and p2
    as OpenCV has them, ``prism`` sx and sy of (sx r^2, sy r^2). With ``fisheye`` r is the angle from the axis.
    """

    radial: tuple[float, ...] = ()
    rational: tuple[float, ...] = ()
    tangential: tuple[float, float] = (0.0, 0.0)
    prism: tuple[float, float] = (0.0, 0.0)
    fisheye: bool = False

    @property
    def is_none(self) -> bool:
        return not (self.fisheye or any(self.radial) or any(self.rational) or any(self.tangential) or any(self.prism))

    def distort(self, points: Points) -> Points:
        if self.fisheye:
            points = _equidistant(points)
        r2 = (points**2).sum(axis=-1, keepdims=True)
        scale = _polynomial(self.radial, r2)
        if any(self.rational):
            scale = scale / _polynomial(self.rational, r2)
        moved = points * scale
        if any(self.tangential):
            moved = moved + _tangential(points, r2, *self.tangential)
        if any(self.prism):
            moved = moved + r2 * np.asarray(self.prism)
        return moved


@dataclass(frozen=True)
class RadTanThinPrism:
    """Project Aria's fisheye: six radial terms first, then tangential and four thin prism terms of what they give."""

    radial: tuple[float, ...]
    tangential: tuple[float, float]
    prism: tuple[float, float, float, float]
    is_none = False

    def distort(self, points: Points) -> Points:
        angle = _equidistant(points)
        moved = angle * _polynomial(self.radial, (angle**2).sum(axis=-1, keepdims=True))
        r2 = (moved**2).sum(axis=-1, keepdims=True)
        p0, p1 = self.tangential
        s0, s1, s2, s3 = self.prism
        prism = np.concatenate([s0 * r2 + s1 * r2**2, s2 * r2 + s3 * r2**2], axis=-1)
        return moved + _tangential(moved, r2, p1, p0) + prism


@dataclass(frozen=True)
class FieldOfView:
    """One number, the angle ``omega`` (rad): distances from the centre are angles over it."""

    omega: float

    @property
    def is_none(self) -> bool:
        return abs(self.omega) < 1e-8

    def distort(self, points: Points) -> Points:
        r = np.maximum(np.linalg.norm(points, axis=-1, keepdims=True), 1e-12)
        return points * np.arctan(r * 2 * math.tan(self.omega / 2)) / (r * self.omega)


@dataclass(frozen=True)
class Division:
    """Undistorted = distorted / (1 + k r^2) with r of the distorted; NaN for what no such lens shows."""

    k: float

    @property
    def is_none(self) -> bool:
        return self.k == 0

    def distort(self, points: Points) -> Points:
        with np.errstate(invalid="ignore"):
            return points * (2 / (1 + np.sqrt(1 - 4 * self.k * (points**2).sum(axis=-1, keepdims=True))))


@dataclass(frozen=True)
class EnhancedUnified:
    """EUCM: (x, y) / (alpha sqrt(beta r^2 + 1) + 1 - alpha)."""

    alpha: float
    beta: float

    @property
    def is_none(self) -> bool:
        return self.alpha == 0

    def distort(self, points: Points) -> Points:
        r2 = (points**2).sum(axis=-1, keepdims=True)
        with np.errstate(invalid="ignore"):
            return points / (self.alpha * np.sqrt(self.beta * r2 + 1) + 1 - self.alpha)


Distortion = Brown | RadTanThinPrism | FieldOfView | Division | EnhancedUnified


@dataclass(frozen=True)
class Lens:
    """Focal lengths, principal point and skew in pixels of a picture of ``width_px`` x ``height_px``; its distortion.

    u = fx x + skew y + cx, v = fy y + cy, with (x, y) distorted.
    """

    width_px: float
    height_px: float
    fx_px: float
    fy_px: float
    cx_px: float
    cy_px: float
    distortion: Distortion = field(default_factory=Brown)
    skew_px: float = 0.0

    @property
    def is_pinhole(self) -> bool:
        return self.distortion.is_none and self.skew_px == 0

    @property
    def intrinsics(self) -> tuple[float, float, float, float]:
        """(fx, fy, cx, cy) divided by width and height: those of `Cameras`, of a pinhole."""
        width, height = self.width_px, self.height_px
        return self.fx_px / width, self.fy_px / height, self.cx_px / width, self.cy_px / height

    def resized(self, width_px: float, height_px: float) -> "Lens":
        """The same lens for the same picture with other numbers of pixels."""
        x, y = width_px / self.width_px, height_px / self.height_px
        return replace(
            self,
            width_px=width_px,
            height_px=height_px,
            fx_px=self.fx_px * x,
            fy_px=self.fy_px * y,
            cx_px=self.cx_px * x,
            cy_px=self.cy_px * y,
            skew_px=self.skew_px * x,
        )

    def project(self, points: Points) -> Points:
        """Where the picture shows directions, in pixels; NaN where it cannot."""
        x, y = np.moveaxis(self.distortion.distort(points), -1, 0)
        return np.stack([self.fx_px * x + self.skew_px * y + self.cx_px, self.fy_px * y + self.cy_px], axis=-1)


def _polynomial(coefficients: tuple[float, ...], r2: Float[ndarray, "*points 1"]) -> Float[ndarray, "*points 1"]:
    """1 + k1 r^2 + k2 r^4 + ..."""
    total = np.zeros_like(r2)
    for k in reversed(coefficients):
        total = (total + k) * r2
    return total + 1


def _tangential(points: Points, r2: Float[ndarray, "*points 1"], p1: float, p2: float) -> Points:
    x, y = points[..., :1], points[..., 1:]
    return np.concatenate([2 * p1 * x * y + p2 * (r2 + 2 * x**2), 2 * p2 * x * y + p1 * (r2 + 2 * y**2)], axis=-1)


def _equidistant(points: Points) -> Points:
    """As far from the centre as the angle from the axis, in radians."""
    r = np.maximum(np.linalg.norm(points, axis=-1, keepdims=True), 1e-12)
    return points * (np.arctan(r) / r)
