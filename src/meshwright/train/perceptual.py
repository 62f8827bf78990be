"""LPIPS: how different two pictures look, by the features of a network trained to name what is in pictures.

Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (arXiv 1801.03924), with
VGG16 (Simonyan and Zisserman 2015, arXiv 1409.1556), version 0.1: five layers' features, each pixel's made a unit
vector, squared differences weighted by channel, averaged over the picture, summed over layers.

No weights come with this package: see docs/training.md for where they are.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d, relu

from meshwright.errors import InputError
from meshwright.weights import read_tensors

# VGG16's convolutions by their numbers in torchvision's ``features``, in the five blocks that end at the layers used.
_BLOCKS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
_WIDTHS = (64, 128, 256, 512, 512)
# ImageNet's mean and deviation for pictures in [-1, 1], rounded as the published metric has them.
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_EPS = 1e-10  # under the root, where the published metric adds it after: its gradient is NaN where all features are 0


class Lpips(nn.Module):
    """The distance as a function of two pictures; its weights are fixed and no part of a checkpoint."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """``weights``: ``features.N.weight`` and ``.bias`` of VGG16 and ``lin0.model.1.weight`` to ``lin4...``.

        Raises:
            InputError: one is missing or of the wrong shape.
        """
        super().__init__()
        for name, shape in _shapes().items():
            if name not in weights:
                raise InputError(f"perceptual weights: {name} is in none of the files; see docs/training.md")
            tensor = weights[name]
            if tuple(tensor.shape) != shape:
                raise InputError(
                    f"perceptual weights: {name} is {list(tensor.shape)}, not {list(shape)}; another file?"
                )
            self.register_buffer(name.replace(".", "_"), tensor.float().clone(), persistent=False)
        self.register_buffer("shift", torch.tensor(_SHIFT).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(3, 1, 1), persistent=False)

    @classmethod
    def load(cls, files: tuple[str, ...]) -> "Lpips":
        """From VGG16 as torchvision or timm store it and LPIPS' own ``vgg.pth``, or one file with both.

        Raises:
            InputError: no files, or they cannot be read or lack a weight.
        """
        if not files:
            raise InputError(
                "losses.perceptual: LPIPS needs VGG16's weights, which do not come with meshwright;"
                " name their files (--perceptual-weights) or switch the term off (--losses.perceptual 0)"
            )
        found: dict[str, Tensor] = {}
        for file in files:
            found |= read_tensors(Path(file))
        # The linear layers are stored as lin0.model.1.weight, or without the module's inner names.
        return cls({_plain_name(name): tensor for name, tensor in found.items()})

    def forward(
        self, images: Float[Tensor, "views 3 height width"], reference: Float[Tensor, "views 3 height width"]
    ) -> Float[Tensor, " views"]:
        """Distance of each picture (sRGB in [0, 1]) from its reference; differentiable in both."""
        total = images.new_zeros(len(images))
        x = self._normalised(images)
        y = self._normalised(reference)
        for block in range(len(_BLOCKS)):
            x, y = self._block(x, block), self._block(y, block)
            squared = (_unit(x) - _unit(y)).square()
            weight = self.get_buffer(f"lin{block}_model_1_weight")
            total = total + conv2d(squared, weight).mean(dim=(1, 2, 3))
        return total

    def _normalised(self, images: Float[Tensor, "views 3 height width"]) -> Float[Tensor, "views 3 height width"]:
        return (2 * images - 1 - self.get_buffer("shift")) / self.get_buffer("scale")

    def _block(self, x: Tensor, number: int) -> Tensor:
        if number:
            x = max_pool2d(x, 2)
        for layer in _BLOCKS[number]:
            name = f"features_{layer}"
            x = relu(conv2d(x, self.get_buffer(f"{name}_weight"), self.get_buffer(f"{name}_bias"), padding=1))
        return x


def _unit(features: Float[Tensor, "views channels height width"]) -> Float[Tensor, "views channels height width"]:
    return features * (features.square().sum(1, keepdim=True) + _EPS).rsqrt()


def _shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    width_in = 3
    for number, (block, width) in enumerate(zip(_BLOCKS, _WIDTHS, strict=True)):
        for layer in block:
            shapes[f"features.{layer}.weight"] = (width, width_in, 3, 3)
            shapes[f"features.{layer}.bias"] = (width,)
            width_in = width
        shapes[f"lin{number}.model.1.weight"] = (1, width, 1, 1)
    return shapes


def _plain_name(name: str) -> str:
    if name.startswith("lins."):  # as in the state of the whole published metric: lins.0.model.1.weight
        return "lin" + name.removeprefix("lins.")
    return name
