"""The stages of the fit: from few vertices and small pictures to many and large ones."""

from dataclasses import dataclass

import torch

from meshwright.views import Views

_THIN_PX = 4.0  # silhouettes thinner than this in a stage's pictures: the fit would tear the object


@dataclass(frozen=True)
class Stage:
    """One round of the fit: the mesh is remeshed to ``vertices`` and fitted to pictures of ``largest_px`` in ``steps``.

    ``stiffness``: lambda of the smooth steps; what moves together reaches about its square root in edges.
    ``roughness`` and ``area``: weights of these terms of the loss, that of the silhouettes being 1.
    ``crease``: differences of neighbouring unit normals above this are sharp edges and let be.
    """

    vertices: int
    largest_px: int
    steps: int
    stiffness: float
    roughness: float
    crease: float
    area: float


STAGES = {
    "fast": (
        Stage(vertices=1500, largest_px=40, steps=80, stiffness=8.0, roughness=30.0, crease=1.0, area=1.0),
        Stage(vertices=1500, largest_px=80, steps=80, stiffness=8.0, roughness=30.0, crease=0.3, area=1.0),
        Stage(vertices=3000, largest_px=160, steps=80, stiffness=4.0, roughness=10.0, crease=0.1, area=1.0),
        Stage(vertices=12000, largest_px=320, steps=80, stiffness=2.0, roughness=10.0, crease=0.1, area=0.3),
    ),
    "full": (
        Stage(vertices=1500, largest_px=40, steps=100, stiffness=8.0, roughness=30.0, crease=1.0, area=1.0),
        Stage(vertices=1500, largest_px=80, steps=100, stiffness=8.0, roughness=30.0, crease=0.3, area=1.0),
        Stage(vertices=3000, largest_px=160, steps=150, stiffness=4.0, roughness=10.0, crease=0.1, area=1.0),
        Stage(vertices=6000, largest_px=320, steps=150, stiffness=3.0, roughness=10.0, crease=0.1, area=0.5),
        Stage(vertices=12000, largest_px=512, steps=100, stiffness=2.0, roughness=10.0, crease=0.1, area=0.2),
    ),
}


def stages_for(level: str, views: Views) -> list[Stage]:
    """The stages of a level but for those whose pictures show this object too thin; the last one always stays."""
    *earlier, last = STAGES[level]
    thickness = _thickness(views)
    return [stage for stage in earlier if stage.largest_px * thickness >= _THIN_PX] + [last]


def _thickness(views: Views) -> float:
    """Mean thickness of the silhouettes, as a share of a picture's longer side: twice their area by their outline."""
    alpha = views.alpha[:, 0]
    padded = torch.nn.functional.pad(alpha, (0, 1, 0, 1))
    down, right = padded[:, 1:, :-1] - alpha, padded[:, :-1, 1:] - alpha
    outline = (down.square() + right.square()).sqrt().sum()
    return float(2 * alpha.sum() / outline.clamp(min=1)) / max(alpha.shape[1:])
