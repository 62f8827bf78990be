"""The rasteriser on impossible coordinates, with every index and conversion checked.

Run with NUMBA_DISABLE_JIT=1, where kernels are plain Python: NaN or infinity that becomes an integer raises, and so
does an index beyond its array. A negative index, which Python takes for one from the end, is refused by `_Checked`, and
corners that would overflow in integers by `_fill`. Compiled code would go on in all four cases.
"""

import hashlib
import itertools
import random
import sys

import numpy as np
import torch

from meshwright.cameras import Cameras
from meshwright.raster import antialias, coverage, interpolate, kernels, mip_levels, rasterize, sample_texture

HEIGHT, WIDTH = 4, 5
NUMBERS = (
    0.0, 0.3, -0.3, 1.0, -1.0, 7.0, 1e-7, -1e-5, 1e-5, 1e-30, -1e-30, 5e5, -5e5, 2.0**31, -(2.0**31), 2.0**63, 1e17,
    -1e17, 1e30, -1e30, 3e38, -3e38, float("nan"), float("inf"), -float("inf"),
)  # fmt: skip
BEYOND_FLOAT32 = (1e150, -1e150, 1e300, -1e300, 1.7e308, -1.7e308, 1e-300)


class _Checked(np.ndarray):
    def __getitem__(self, key):
        _check(key, self.shape)
        return super().__getitem__(key)

    def __setitem__(self, key, value):
        _check(key, self.shape)
        super().__setitem__(key, value)


def _check(key, shape) -> None:
    for number, size in zip(key if isinstance(key, tuple) else (key,), shape, strict=False):
        if not isinstance(number, slice) and not 0 <= number < size:
            raise IndexError(f"{number} of {size}")


def _one_by_one(kernel, items, arguments) -> None:
    arguments = [value.view(_Checked) if isinstance(value, np.ndarray) else value for value in arguments]
    for item in items:
        kernel(*(value.view(_Checked) if isinstance(value, np.ndarray) else value for value in item), *arguments)


def _bounded_fill(corners, *arguments, fill=kernels._fill) -> None:
    assert max(map(abs, corners)) <= kernels.GUARD_PX << kernels.SUBPIXEL_BITS, corners
    fill(corners, *arguments)


def _use(fragments, faces, rng) -> None:
    """All that is made of fragments, and its gradients."""
    colors = torch.rand(fragments.projected.shape[1], 3, requires_grad=True)
    uv = torch.tensor([[rng.choice(NUMBERS) for _ in range(2)] for _ in range(len(colors))], requires_grad=True)
    image = interpolate(fragments, faces, colors)
    image = antialias(image, fragments, faces)
    texture = torch.rand(3, 8, 4, requires_grad=True)
    levels = mip_levels(fragments, faces, uv, faces, 8, 4).flatten()
    points = interpolate(fragments, faces, uv).view(-1, 2)
    for repeat in (False, True):
        seen = sample_texture(texture, points, levels, repeat=repeat, smallest_mip_px=2)
        (image.sum() + seen.sum() + fragments.depth_z.sum()).backward(retain_graph=True)


def draw(seed: int, count: int) -> str:
    """Draw and differentiate what cannot be drawn; a digest of what is seen."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    digest = hashlib.sha256()
    faces = torch.tensor([[0, 1, 2], [2, 1, 3], [3, 4, 0], [4, 1, 4]])
    drawn = 0
    for number in range(count):
        if number % 2:  # through cameras that nobody has
            vertices = torch.tensor([[rng.choice(NUMBERS) for _ in range(3)] for _ in range(5)], requires_grad=True)
            focal = [rng.choice((1.0, 1e-6, 1e6, 1e30)) for _ in range(2)]
            camera = Cameras(torch.eye(4)[None], torch.tensor([[*focal, 0.5, rng.choice((0.5, 1e9))]]))
            fragments = rasterize(vertices, faces, camera, HEIGHT, WIDTH)
        else:  # and where float64 ends
            mixed = (*NUMBERS, *BEYOND_FLOAT32) if number % 4 else (1.0, 3.0, *BEYOND_FLOAT32)
            rows = [[rng.choice(mixed), rng.choice(mixed), rng.choice((*mixed, 1.0, 1.0))] for _ in range(5)]
            projected = torch.tensor([rows], dtype=torch.float64, requires_grad=True)
            fragments = coverage._rasterize_cpu(projected, faces, HEIGHT, WIDTH)
        seen = fragments.face_ids >= 0
        drawn += int(seen.sum())
        assert bool(fragments.barycentrics.isfinite().all()), fragments.barycentrics
        assert bool((fragments.depth_z[seen] > 0).all())
        digest.update(fragments.face_ids.numpy().tobytes())
        _use(fragments, faces, rng)
    assert drawn > 0
    for u, v, level in itertools.product(NUMBERS, NUMBERS, (0.5, 3.4e38, float("nan"))):
        uv = torch.tensor([[u, v]], requires_grad=True)
        sample_texture(torch.rand(1, 8, 4), uv, torch.tensor([level]), bool(rng.getrandbits(1)), 2).sum().backward()
    return digest.hexdigest()


def main() -> None:
    assert isinstance(kernels.rasterize, type(main)), "run with NUMBA_DISABLE_JIT=1"
    kernels._in_parallel = _one_by_one
    kernels._fill = _bounded_fill

    def checked(*arguments, kernel=kernels.sample_texture_grad_texels) -> None:  # called without a pool
        kernel(*(value.view(_Checked) if isinstance(value, np.ndarray) else value for value in arguments))

    kernels.sample_texture_grad_texels = checked
    np.seterr(all="ignore")
    print(draw(int(sys.argv[1]), int(sys.argv[2])))


if __name__ == "__main__":
    main()
