"""Where weights known by name are: in this package, a local folder, the cache of the Hugging Face hub, or the hub."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meshwright.errors import InputError
from meshwright.progress import Progress, silent
from meshwright.weights.torch_pickle import check_torch_reads_pickles

_INSTANTMESH_COMMIT = "b785b4ecfb6636ef34a08c748f96f6a5686244d0"


@dataclass(frozen=True)
class _HubFile:
    """A file of a repository of the hub, at the commit that is taken unless another is named.

    ``sha256``: of the file at that commit, where it is known; what was downloaded is then compared with it.
    """

    repository: str
    file: str
    commit: str | None = None
    sha256: str | None = None


# Published models, and what training can start from. Commits and hashes are as other projects state them in public
# (none of these files could be downloaded where this was written); of OpenLRM none was found, so the newest is taken.
_HUB_FILES = {
    "instant-nerf-base": _HubFile("TencentARC/InstantMesh", "instant_nerf_base.ckpt", _INSTANTMESH_COMMIT),
    "instant-nerf-large": _HubFile("TencentARC/InstantMesh", "instant_nerf_large.ckpt", _INSTANTMESH_COMMIT),
    "instant-mesh-base": _HubFile(
        "TencentARC/InstantMesh",
        "instant_mesh_base.ckpt",
        _INSTANTMESH_COMMIT,
        "22701cd25201d624ebb1568b93cf91b43a2c32006835c08fe73e1f3c9f6c44b5",
    ),
    "instant-mesh-large": _HubFile("TencentARC/InstantMesh", "instant_mesh_large.ckpt", _INSTANTMESH_COMMIT),
    "dino-vitb16": _HubFile(
        "facebook/dino-vitb16",
        "pytorch_model.bin",
        "f205d5d8e640a89a2b8ef0369670dfc37cc07fc2",
        "a064e36c67289caaa5c949c0b3f7f31a0fcbcba5721f5fa12419933ec1f4fe6e",
    ),
    "openlrm-base-obj-1.0": _HubFile("zxhezexin/openlrm-base-obj-1.0", "model.safetensors"),
    "openlrm-large-obj-1.0": _HubFile("zxhezexin/openlrm-large-obj-1.0", "model.safetensors"),
}
_PACKAGED = {"demo": "demo/model.safetensors"}  # beside this file; demo/MODEL_CARD.md says what they are
_PICKLES = (".ckpt", ".bin")
_SUFFIXES = (".safetensors", ".ckpt", ".bin")


def find_weights(
    name_or_path: str | os.PathLike[str],
    *,
    model_dir: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    progress: Progress = silent,
) -> Path:
    """The file of a path, of a training's folder or of a known name (``instant-mesh-large``), downloaded if need be.

    ``demo`` is the one that comes with this package.

    ``model_dir`` is searched first for ``instant-mesh-large.safetensors``, ``instant_mesh_large.ckpt`` and the like;
    downloads are then kept in it rather than in the hub's own cache. ``revision`` (a commit, branch or tag of the hub's
    repository) concerns downloads alone; without it the commit that is known here is taken, so that the same name
    gives the same weights tomorrow, and compared with its SHA-256 where that is known. HF_HUB_OFFLINE=1 keeps to what
    has been downloaded.

    Raises:
        InputError: there is no such file or name, torch is too old for it, or the download fails or gives another
            file; says what else works.
    """
    name = os.fspath(name_or_path)
    if name in _PACKAGED:
        return Path(__file__).parent / _PACKAGED[name]
    if name not in _HUB_FILES:
        return _existing(Path(name))
    if model_dir is not None:
        if not Path(model_dir).is_dir():
            raise InputError(f"{model_dir}: is no folder; make it or choose another `model_dir`")
        for stem in (name, name.replace("-", "_")):
            for suffix in _SUFFIXES:
                if (path := Path(model_dir) / (stem + suffix)).is_file():
                    return path
    return _download(name, model_dir, revision, progress)


def _existing(path: Path) -> Path:
    if path.is_dir():
        of_run = path / "model.safetensors"  # where a training keeps its best knowledge
        if of_run.is_file():
            return of_run
        raise InputError(f"{path}: is a folder without model.safetensors; name a file of weights, or a finished run")
    if not path.exists():
        raise InputError(f"{path}: no such file of weights, nor a name among {', '.join([*_PACKAGED, *_HUB_FILES])}")
    return path


def _download(name: str, model_dir: str | os.PathLike[str] | None, revision: str | None, progress: Progress) -> Path:
    wanted = _HUB_FILES[name]
    suffix = Path(wanted.file).suffix
    if suffix in _PICKLES:  # before gigabytes come down that could not be opened
        check_torch_reads_pickles(f"{name}: {wanted.file} of {wanted.repository}", name)
    instead = (
        f"pass the path of a file of weights, put {name + suffix} into `model_dir`, or do without (`model='none'`)"
    )
    try:
        import huggingface_hub
    except ImportError:
        raise InputError(
            f"{name}: downloading needs huggingface_hub; pip install 'meshwright[hub]', or {instead}"
        ) from None
    taken = revision or wanted.commit
    try:
        path = huggingface_hub.hf_hub_download(
            wanted.repository,
            wanted.file,
            revision=taken,
            cache_dir=os.fspath(model_dir) if model_dir else None,
            tqdm_class=_progress_bar(progress),
        )
    except Exception as error:  # the hub's errors have no common ancestor, nor have those of its transports
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        at = f" at revision {taken}" if taken else ""
        raise InputError(
            f"{name}: {wanted.file} of {wanted.repository}{at} cannot be had from the hub ({reason}); {instead}"
        ) from None
    if wanted.sha256 is not None and taken == wanted.commit:
        _check_sha256(Path(path), wanted.sha256, progress)
    return Path(path)


def _check_sha256(path: Path, expected: str, progress: Progress) -> None:
    """Compare a file with the hash that is on record: what the cache holds may be half a file or another one."""
    digest, done, size = hashlib.sha256(), 0, max(path.stat().st_size, 1)
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
            done += len(block)
            progress("verify", done / size)
    if digest.hexdigest() != expected:
        raise InputError(
            f"{path}: is not the published file (its SHA-256 is {digest.hexdigest()[:12]}..., not {expected[:12]}...);"
            " delete it and fetch it again, or name a `revision` to take another on purpose"
        )


def _progress_bar(progress: Progress) -> type[Any]:
    """A tqdm that draws nothing and reports the fraction of the file that has come to ``progress``."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    most = 0.0

    class Bar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: int | float | None = 1) -> None:
            nonlocal most
            self.n += n or 0
            most = max(most, min(self.n / self.total, 1.0) if self.total else 0.0)  # the hub may run two bars at once
            progress("download", most)

    return Bar
