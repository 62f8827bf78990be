"""Small corrections to cameras: a motion of each, and an elevation and a focal length common to all."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from meshwright.cameras import Cameras
from meshwright.descent import Adam

_TURN_RAD = math.radians(3.0)  # corrections of about this size are expected;
_SHIFT = 0.05  # units of the object's frame
_ZOOM = 0.03  # in the logarithm of the focal length
_STEP = 0.02  # of these sizes
_PENALTY = 0.05  # weight where they are as large as expected, against that of the silhouettes


class PoseCorrections:
    """Twists (rotation, translation) about the origin of the object's frame, as parameters to optimise.

    Moving, turning or growing the world as a whole shows in no picture. These seven directions are taken out, so
    the corrected cameras stay, on the whole, where the given ones are (to first order).
    """

    def __init__(self, cameras: Cameras) -> None:
        self._cameras = cameras
        count = len(cameras)
        self.twists = torch.zeros(count, 6).to(cameras.intrinsics).requires_grad_(True)
        self.common = torch.zeros(2).to(cameras.intrinsics).requires_grad_(True)  # elevation, focal length
        right = cameras.T_world_camera[:, :3, 0]
        self._elevation = torch.cat([-right, torch.zeros_like(right)], dim=1)
        self._steps = Adam([self.twists, self.common])
        self._gauge = torch.linalg.qr(_similarities(cameras.positions).flatten(1).T)[0]

    def cameras(self) -> Cameras:
        """The corrected cameras, differentiable."""
        twists = self.twists * torch.tensor([_TURN_RAD] * 3 + [_SHIFT] * 3).to(self.twists)
        twists = (twists + self.common[0] * _TURN_RAD * self._elevation).flatten()
        twists = (twists - self._gauge @ (self._gauge.T @ twists)).view(-1, 6)
        generator = torch.zeros(len(twists), 4, 4).to(twists)
        generator[:, :3, :3] = _cross_matrix(twists[:, :3])
        generator[:, :3, 3] = twists[:, 3:]
        zoom = torch.exp(self.common[1] * _ZOOM)
        intrinsics = self._cameras.intrinsics * torch.stack([zoom, zoom, torch.ones_like(zoom), torch.ones_like(zoom)])
        return Cameras(torch.matrix_exp(generator) @ self._cameras.T_world_camera, intrinsics)

    def penalty(self) -> Float[Tensor, ""]:
        """Mean squared size of the corrections, with its weight in the loss; differentiable."""
        return _PENALTY * (self.twists.square().mean() + self.common.square().mean())

    def step(self) -> None:
        """Take one small step against the gradients that the corrections have got."""
        self._steps.step(_STEP)


def _similarities(positions: Float[Tensor, "views 3"]) -> Float[Tensor, "7 views 6"]:
    """Twists of all cameras that change no picture if the object goes along: turns, shifts and growth of the world."""
    moves = torch.zeros(7, len(positions), 6).to(positions)
    for axis in range(6):
        moves[axis, :, axis] = 1
    moves[6, :, 3:] = positions
    return moves


def _cross_matrix(v: Float[Tensor, "views 3"]) -> Float[Tensor, "views 3 3"]:
    x, y, z = v.unbind(1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(-1, 3, 3)
