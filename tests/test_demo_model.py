"""The model in the package: pictures of an object that it knows to a mesh of it, through the whole road."""

from pathlib import Path

import pytest
import torch

from meshwright import load_views
from meshwright.evaluate import silhouette_iou
from meshwright.options import ColorOptions, FitOptions
from meshwright.raster import render
from meshwright.reconstruct import reconstruct
from meshwright.weights import find_weights, load_model

INPUTS = Path(__file__).parent.parent / "examples" / "demo_model"


def test_its_file_is_small_and_comes_with_a_card():
    path = find_weights("demo")
    assert path.stat().st_size < 4e6
    assert "CC0" in (path.parent / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize("name", ["knight", "taxi", "burger"])
def test_it_makes_the_object_that_the_pictures_show(name):
    model = load_model("demo")
    views = {other.name: load_views(other) for other in INPUTS.iterdir() if other.is_dir()}
    mesh = reconstruct(
        views[name], model=model, fit=FitOptions(refine="off"), color=ColorOptions("model", vertex_colors=True)
    )
    seen = render(mesh, views[name].cameras, 160, 160)
    overlap, error = {}, {}
    for other, true in views.items():
        alpha, images = (
            torch.nn.functional.interpolate(x, size=(160, 160), mode="area") for x in (true.alpha, true.images)
        )
        overlap[other] = float(silhouette_iou(seen.alpha, alpha).mean())
        error[other] = float((seen.rgb - images).square().mean())
    assert overlap[name] > 0.85
    assert max(overlap, key=overlap.get) == name
    assert min(error, key=error.get) == name
