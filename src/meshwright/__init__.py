"""meshwright: pictures of one object from known directions in, a textured mesh out.

>>> from meshwright import load_views, reconstruct
>>> mesh = reconstruct(load_views("orbit.mp4"))
>>> mesh.save("mesh.glb")

What is importable from here is public; docs/api.md says what that promises. Names are looked up on first use, because
torch takes seconds to import and ``import meshwright`` and ``meshwright --help`` should not wait for it.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from meshwright.threads import wait_without_spinning

if TYPE_CHECKING:
    from meshwright import options
    from meshwright.cameras import Cameras
    from meshwright.capture import load_views
    from meshwright.color import bake_texture
    from meshwright.errors import InputError
    from meshwright.mesh import Mesh
    from meshwright.mesh_files import load_mesh
    from meshwright.options import ColorOptions, FitOptions, ShapeOptions, ViewOptions
    from meshwright.reconstruct import reconstruct
    from meshwright.shape import refine, visual_hull
    from meshwright.views import Views
    from meshwright.weights import load_model

wait_without_spinning()  # before anything loads torch

__version__ = "0.1.0"
__all__ = [
    "Cameras",
    "ColorOptions",
    "FitOptions",
    "InputError",
    "Mesh",
    "ShapeOptions",
    "ViewOptions",
    "Views",
    "__version__",
    "bake_texture",
    "load_mesh",
    "load_model",
    "load_views",
    "options",
    "reconstruct",
    "refine",
    "visual_hull",
]

_MODULE_OF = {
    "Cameras": "meshwright.cameras",
    "ColorOptions": "meshwright.options",
    "FitOptions": "meshwright.options",
    "InputError": "meshwright.errors",
    "Mesh": "meshwright.mesh",
    "ShapeOptions": "meshwright.options",
    "ViewOptions": "meshwright.options",
    "Views": "meshwright.views",
    "bake_texture": "meshwright.color",
    "load_mesh": "meshwright.mesh_files",
    "load_model": "meshwright.weights",
    "load_views": "meshwright.capture",
    "reconstruct": "meshwright.reconstruct",
    "refine": "meshwright.shape",
    "visual_hull": "meshwright.shape",
}


class _Package(ModuleType):
    """Keeps ``meshwright.reconstruct`` the function.

    When the module of that name is imported, Python binds it to the package under the function's name. The module
    stays importable: ``from meshwright.reconstruct import finish``.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _MODULE_OF and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

if not TYPE_CHECKING:  # a type checker that saw this would take every misspelt name for one that exists

    def __getattr__(name: str) -> Any:
        if name == "options":
            return import_module("meshwright.options")
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'meshwright' has no attribute {name!r}")
        value = getattr(import_module(_MODULE_OF[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
