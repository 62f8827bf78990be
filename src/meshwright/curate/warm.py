"""Imported once by the server that rendering processes are forked from: libraries and compiled kernels are loaded here.

Importing draws one small textured triangle, which takes some seconds; forked processes then start at once.
"""

import tempfile
from pathlib import Path

import torch

from meshwright.curate.object_files import encode_normals, encode_png
from meshwright.curate.options import DrawOptions, ViewSetOptions
from meshwright.curate.render import render_builtin
from meshwright.curate.view_sets import view_set_cameras
from meshwright.mesh import Mesh

torch.set_num_threads(1)  # objects are drawn side by side; and threads would not survive the fork


def _draw_once() -> None:
    import numpy as np

    vertices, faces = torch.eye(3), torch.tensor([[0, 1, 2]])
    textured = Mesh(vertices, faces, uv=torch.rand(3, 2), uv_faces=faces, texture=torch.rand(3, 128, 128))
    cameras = view_set_cameras(ViewSetOptions("instantmesh", 1), np.random.default_rng(0))
    with tempfile.TemporaryDirectory() as folder:
        for number, mesh in enumerate((textured, Mesh(vertices, faces, vertices.clone()))):
            path = Path(folder) / f"{number}.glb"
            mesh.save(path)
            drawn = render_builtin("warm", path, cameras, DrawOptions(16), 0)
            encode_png(encode_normals(drawn.rendered.normals[0]))


_draw_once()
