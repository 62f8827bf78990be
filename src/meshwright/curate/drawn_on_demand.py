"""Mesh files as a source of training samples, without pictures on disk: views are drawn when they are asked for."""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

from meshwright.cameras import Cameras
from meshwright.curate.inputs import find_objects
from meshwright.curate.normalize import normalization_of, normalized
from meshwright.curate.object_files import RenderedObject
from meshwright.curate.options import DrawOptions, ViewSetOptions
from meshwright.curate.render import MESH_SUFFIXES, draw
from meshwright.curate.view_sets import object_cameras
from meshwright.errors import InputError
from meshwright.mesh import Mesh
from meshwright.mesh_files import load_mesh

_MESHES_KEPT = 64  # in memory, so that an overfit on a few objects does not read them again and again


class DrawnOnDemand:
    """The views that `meshwright curate render` would have written, up to the rounding of its files.

    Files are read in the process that asks, without its limits: give a manifest of `meshwright curate select`, which
    holds what has been read safely before.
    """

    def __init__(
        self,
        objects: Sequence[Path],
        views: ViewSetOptions,
        drawing: DrawOptions,
        seed: int = 0,
        split: str = "all",
    ) -> None:
        found = find_objects(objects, MESH_SUFFIXES)
        self._paths = {item.name: item.path for item in found if split in ("all", item.split)}
        if not self._paths:
            raise InputError(f"{objects[0]}: holds no objects of split {split}; choose another")
        self._views, self._drawing, self._seed = views, drawing, seed
        self._loaded = functools.lru_cache(_MESHES_KEPT)(self._load)

    def __reduce__(self) -> tuple[object, ...]:
        """To a loading process goes what is needed to start anew, not the cache."""
        return _again, (self._paths, self._views, self._drawing, self._seed)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._paths)

    def view_count(self, name: str) -> int:
        return len(self._loaded(name)[1])

    def read(self, name: str, views: Sequence[int] | None = None) -> RenderedObject:
        mesh, cameras = self._loaded(name)
        chosen = cameras if views is None else cameras[list(views)]
        return draw(name, mesh, chosen, self._drawing.size_px, self._drawing.lighting)

    def _load(self, name: str) -> tuple[Mesh, Cameras]:
        path = self._paths[name]
        mesh = load_mesh(path)
        mesh = normalized(mesh, normalization_of(mesh, self._drawing.fit))
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        return mesh, object_cameras(self._views, self._seed, sha256)[0]


def _again(paths: dict[str, Path], views: ViewSetOptions, drawing: DrawOptions, seed: int) -> DrawnOnDemand:
    source = DrawnOnDemand.__new__(DrawnOnDemand)
    source._paths, source._views, source._drawing, source._seed = paths, views, drawing, seed
    source._loaded = functools.lru_cache(_MESHES_KEPT)(source._load)
    return source
