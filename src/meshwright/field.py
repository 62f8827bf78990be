"""Fields: the small networks that turn plane features at a point into density, colour, sdf, deformation and weights.

Each head is four linear layers with ReLU between (InstantMesh, arXiv 2404.07191, section 3.2 and 3.3).
Submodules bear the names of the published checkpoints.
"""

from torch import nn

HIDDEN = 64
CUBE_CORNERS = 8
CUBE_WEIGHTS = 21  # FlexiCubes: beta 12, alpha 8, gamma 1


class Head(nn.Sequential):
    """Features -> 64 -> 64 -> 64 -> out, ReLU between."""

    def __init__(self, features: int, out: int) -> None:
        layers: list[nn.Module] = []
        for size in (features, HIDDEN, HIDDEN):
            layers += [nn.Linear(size, HIDDEN), nn.ReLU()]
        super().__init__(*layers, nn.Linear(HIDDEN, out))
        for layer in self:
            if isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.bias)


class RadianceDecoder(nn.Module):
    """Head of the NeRF model: raw density and colour."""

    def __init__(self, plane_channels: int) -> None:
        super().__init__()
        self.net = Head(3 * plane_channels, 4)


class MeshDecoder(nn.Module):
    """Heads of the mesh model: signed distance, colour, deformation of grid vertices, FlexiCubes weights of cubes."""

    def __init__(self, plane_channels: int) -> None:
        super().__init__()
        features = 3 * plane_channels
        self.net_sdf = Head(features, 1)
        self.net_rgb = Head(features, 3)
        self.net_deformation = Head(features, 3)
        self.net_weight = Head(CUBE_CORNERS * features, CUBE_WEIGHTS)
