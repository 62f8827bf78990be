"""STL files: binary, the shape alone."""

from pathlib import Path

from meshwright.files import atomic_path
from meshwright.mesh import Mesh
from meshwright.mesh_files.y_up import to_file


def write_stl(mesh: Mesh, path: Path) -> None:
    """The triangles; STL knows no colours."""
    import trimesh

    solid = trimesh.Trimesh(vertices=to_file(mesh.vertices.float().numpy()), faces=mesh.faces.numpy(), process=False)
    with atomic_path(path) as temporary:
        solid.export(temporary)
