"""Textures baked from pictures drawn by the package itself."""

import torch

from meshwright import Cameras, Views
from meshwright.bake import bake_texture
from meshwright.flexicubes import grid, marching_cubes
from meshwright.metrics import psnr
from meshwright.raster import render


def test_a_baked_ball_looks_like_its_pictures_and_has_no_black_spots():
    ball = marching_cubes((grid(24, 2.0).norm(dim=1) - 0.7).reshape(25, 25, 25), scale=2.0)
    ball = ball.replace(vertex_colors=0.4 + 0.4 * (ball.vertices / 1.4 + 0.5))
    cameras = Cameras.zero123plus()
    rendered = render(ball, cameras, 128, 128, samples=4)
    views = Views(rendered.rgb, rendered.alpha, cameras, torch.full((6, 2), 128), tuple("012345"))
    baked = bake_texture(ball.replace(vertex_colors=None), views, texture_size_px=256)
    assert baked.texture is not None
    assert baked.texture.shape == (3, 256, 256)
    between = Cameras.spherical([0.0, 120.0, 240.0], [5.0, 5.0, 5.0], 4.0, 30.0)
    truth, ours = (render(mesh, between, 128, 128, samples=4) for mesh in (ball, baked))
    assert psnr(ours.rgb, truth.rgb).min() > 33
    everywhere = Cameras.spherical([0.0, 90.0, 200.0, 300.0], [70.0, -70.0, 0.0, 40.0], 4.0, 30.0)
    seen = render(baked, everywhere, 64, 64)
    assert seen.rgb.permute(0, 2, 3, 1)[seen.alpha[:, 0] > 0.99].min() > 0.3
