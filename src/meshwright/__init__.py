"""meshwright: pictures of one object from known directions in, a textured mesh out."""

from meshwright.cameras import Cameras
from meshwright.errors import InputError
from meshwright.mesh import Mesh
from meshwright.views import Views

__version__ = "0.1.0"
__all__ = ["Cameras", "InputError", "Mesh", "Views", "__version__"]
