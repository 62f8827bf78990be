"""The published networks: pictures and cameras -> image tokens -> Triplane -> radiance field or mesh.

`build_model` makes one from a `ModelConfig` (`PRESETS` has the published ones); `meshwright.weights` fills it.
`render_rays` makes pictures of a radiance field.
"""

from meshwright.model.config import PRESETS, ModelConfig
from meshwright.model.instantmesh import Geometry, InstantMesh, InstantNeRF, build_model
from meshwright.model.triplane import Triplane
from meshwright.model.volume import Draws, RadianceField, Rendering, render_rays

__all__ = [
    "PRESETS",
    "Draws",
    "Geometry",
    "InstantMesh",
    "InstantNeRF",
    "ModelConfig",
    "RadianceField",
    "Rendering",
    "Triplane",
    "build_model",
    "render_rays",
]
