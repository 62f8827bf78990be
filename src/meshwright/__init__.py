"""meshwright: pictures of one object from known directions in, a textured mesh out.

>>> from meshwright import load_views, reconstruct
>>> mesh = reconstruct(load_views("orbit.mp4"))
>>> mesh.save("mesh.glb")
"""

# ruff: noqa: E402
# isort: off
from meshwright.threads import wait_without_spinning

wait_without_spinning()  # before anything loads torch
# isort: on

from meshwright.cameras import Cameras
from meshwright.capture.load import load_views
from meshwright.errors import InputError
from meshwright.mesh import Mesh
from meshwright.mesh_files import load_mesh
from meshwright.reconstruct import reconstruct
from meshwright.views import Views

__version__ = "0.1.0"
__all__ = ["Cameras", "InputError", "Mesh", "Views", "__version__", "load_mesh", "load_views", "reconstruct"]
