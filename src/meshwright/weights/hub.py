"""Where weights known by name are: a local folder first, then the cache of the Hugging Face hub, then the hub."""

import os
from pathlib import Path
from typing import Any

from meshwright.errors import InputError
from meshwright.progress import Progress, silent

# name -> repository, file. Published models, and what training can start from.
_HUB_FILES = {
    "instant-nerf-base": ("TencentARC/InstantMesh", "instant_nerf_base.ckpt"),
    "instant-nerf-large": ("TencentARC/InstantMesh", "instant_nerf_large.ckpt"),
    "instant-mesh-base": ("TencentARC/InstantMesh", "instant_mesh_base.ckpt"),
    "instant-mesh-large": ("TencentARC/InstantMesh", "instant_mesh_large.ckpt"),
    "dino-vitb16": ("facebook/dino-vitb16", "pytorch_model.bin"),
    "openlrm-base-obj-1.0": ("zxhezexin/openlrm-base-obj-1.0", "model.safetensors"),
    "openlrm-large-obj-1.0": ("zxhezexin/openlrm-large-obj-1.0", "model.safetensors"),
}
_SUFFIXES = (".safetensors", ".ckpt", ".bin")


def find_weights(
    name_or_path: str | os.PathLike[str],
    *,
    model_dir: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    progress: Progress = silent,
) -> Path:
    """The file of a path or of a known name such as ``instant-mesh-large``, downloaded if need be.

    ``model_dir`` is searched first for ``instant-mesh-large.safetensors``, ``instant_mesh_large.ckpt`` and the like;
    downloads are then kept in it rather than in the hub's own cache. ``revision`` (a commit, branch or tag of the hub's
    repository) concerns downloads alone. HF_HUB_OFFLINE=1 keeps to what has been downloaded.

    Raises:
        InputError: there is no such file or name, or the download fails; says what else works.
    """
    name = os.fspath(name_or_path)
    if name not in _HUB_FILES:
        return _existing(Path(name))
    if model_dir is not None:
        if not Path(model_dir).is_dir():
            raise InputError(f"{model_dir}: is no folder; make it or choose another --model-dir")
        for stem in (name, name.replace("-", "_")):
            for suffix in _SUFFIXES:
                if (path := Path(model_dir) / (stem + suffix)).is_file():
                    return path
    return _download(name, model_dir, revision, progress)


def _existing(path: Path) -> Path:
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not a file of weights; name the file in it")
    if not path.exists():
        raise InputError(f"{path}: no such file of weights, nor a name among {', '.join(_HUB_FILES)}")
    return path


def _download(name: str, model_dir: str | os.PathLike[str] | None, revision: str | None, progress: Progress) -> Path:
    repository, file = _HUB_FILES[name]
    local = name + Path(file).suffix
    instead = f"pass the path of a file of weights, put {local} into --model-dir, or do without (--model none)"
    try:
        import huggingface_hub
    except ImportError:
        raise InputError(
            f"{name}: downloading needs huggingface_hub; pip install 'meshwright[hub]', or {instead}"
        ) from None
    try:
        path = huggingface_hub.hf_hub_download(
            repository,
            file,
            revision=revision,
            cache_dir=os.fspath(model_dir) if model_dir else None,
            tqdm_class=_progress_bar(progress),
        )
    except Exception as error:  # the hub's errors have no common ancestor, nor have those of its transports
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        at = f" at revision {revision}" if revision else ""
        raise InputError(
            f"{name}: {file} of {repository}{at} cannot be had from the hub ({reason}); {instead}"
        ) from None
    return Path(path)


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
