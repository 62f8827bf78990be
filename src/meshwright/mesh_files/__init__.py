"""A mesh to and from files: .glb, .obj with .mtl and .png, .ply, .stl.

Each format has a file that writes it and one that reads it; ``load`` makes one mesh of what was read.
Files are right-handed with y up, as glTF demands; the world here has z up.
"""

from meshwright.mesh_files.load import load_mesh
from meshwright.mesh_files.save import save_mesh

__all__ = ["load_mesh", "save_mesh"]
