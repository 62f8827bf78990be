"""LPIPS: equal to a plain reading of the paper, on seeded weights."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from meshwright.errors import InputError
from meshwright.train.perceptual import Lpips

# VGG16 as in table 1, D, of Simonyan and Zisserman: widths of convolutions, "M" is a pooling.
LAYERS = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512]
USED = (3, 8, 15, 22, 29)  # numbers of relu1_2, relu2_2, relu3_3, relu4_3, relu5_3 in the stack


def seeded_weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weights, number, width_in = {}, 0, 3
    for layer in LAYERS:
        if layer == "M":
            number += 1
            continue
        scale = (2 / (9 * width_in)) ** 0.5
        weights[f"features.{number}.weight"] = torch.randn(layer, width_in, 3, 3, generator=generator) * scale
        weights[f"features.{number}.bias"] = torch.randn(layer, generator=generator) * 0.1
        number, width_in = number + 2, layer
    for i, width in enumerate((64, 128, 256, 512, 512)):
        weights[f"lin{i}.model.1.weight"] = torch.rand(1, width, 1, 1, generator=generator)
    return weights


WEIGHTS = seeded_weights()


def plain_lpips(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Equation 1 of the paper, layer by layer, with torch's own layers."""
    stack = nn.Sequential()
    width_in = 3
    for layer in LAYERS:
        stack.extend([nn.MaxPool2d(2)] if layer == "M" else [nn.Conv2d(width_in, layer, 3, padding=1), nn.ReLU()])
        width_in = width_in if layer == "M" else layer
    stack.load_state_dict({k.removeprefix("features."): v for k, v in WEIGHTS.items() if k.startswith("features")})
    shift, scale = (torch.tensor(v)[:, None, None] for v in ([-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]))
    total = torch.zeros(len(a))
    x, y = ((2 * image - 1 - shift) / scale for image in (a, b))
    for number, layer in enumerate(stack):
        x, y = layer(x), layer(y)
        if number in USED:
            difference = x / x.norm(dim=1, keepdim=True).clamp(min=1e-8) - y / y.norm(dim=1, keepdim=True).clamp(
                min=1e-8
            )
            weight = WEIGHTS[f"lin{USED.index(number)}.model.1.weight"]
            total += (weight * difference.square()).sum(1).mean(dim=(1, 2))
    return total


def pictures(seed: int) -> torch.Tensor:
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(seed))


def test_it_is_the_paper():
    a, b = pictures(1), pictures(2)
    found = Lpips(WEIGHTS)(a, b)
    torch.testing.assert_close(found, plain_lpips(a, b), rtol=1e-4, atol=1e-5)
    assert (found > 0.01).all()


def test_equal_pictures_have_distance_and_gradient_zero():
    a = torch.ones(1, 3, 32, 32, requires_grad=True)  # of one colour: many features are exactly 0 together
    distance = Lpips(WEIGHTS)(a, a.detach().clone()).sum()
    distance.backward()
    assert float(distance.detach()) == 0.0
    assert bool((a.grad == 0).all())


def test_files_in_any_order_and_under_either_name(tmp_path):
    backbone = {k: v for k, v in WEIGHTS.items() if k.startswith("features")}
    linear = {"lins." + k.removeprefix("lin"): v for k, v in WEIGHTS.items() if k.startswith("lin")}
    save_file(backbone, tmp_path / "vgg16.safetensors")
    torch.save(linear, tmp_path / "vgg.pth")
    files = (str(tmp_path / "vgg.pth"), str(tmp_path / "vgg16.safetensors"))
    torch.testing.assert_close(Lpips.load(files)(pictures(1), pictures(2)), Lpips(WEIGHTS)(pictures(1), pictures(2)))
    with pytest.raises(InputError, match=r"features\.0\.weight is in none"):
        Lpips.load(files[:1])
    with pytest.raises(InputError, match="perceptual 0"):
        Lpips.load(())
