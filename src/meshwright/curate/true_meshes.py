"""The mesh files that a data set was rendered from, brought to where its pictures show them."""

import hashlib
from pathlib import Path

from meshwright.curate.dataset import ObjectSource
from meshwright.curate.layouts import Chosen
from meshwright.curate.normalize import normalized
from meshwright.curate.rendered_folder import RenderedFolder
from meshwright.curate.shards import Shards
from meshwright.errors import InputError
from meshwright.mesh import Mesh
from meshwright.mesh_files import load_mesh


def true_mesh(source: ObjectSource, name: str, folder: Path) -> Mesh:
    """The object's mesh, from the file below ``folder`` that has the name and the content that its record tells.

    Raises:
        InputError: the layout keeps no such record, or there is no such file.
    """
    while isinstance(source, Chosen):
        source = source.source
    if not isinstance(source, (RenderedFolder, Shards)):
        raise InputError(f"{name}: this layout does not say which mesh file was drawn; leave `truth` out")
    record = source.record(name)
    for path in sorted(folder.rglob("*")):
        is_named = path.name == record.source_file and path.is_file()
        if is_named and hashlib.sha256(path.read_bytes()).hexdigest() == record.sha256:
            return normalized(load_mesh(path), record.normalization)
    raise InputError(f"{folder}: holds no {record.source_file} as {name} was drawn from; choose another `truth`")
