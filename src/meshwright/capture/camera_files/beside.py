"""Files that lie beside a camera file: pictures and masks by name."""

from collections.abc import Sequence
from pathlib import Path

from meshwright.errors import InputError
from meshwright.images import PICTURE_SUFFIXES
from meshwright.untrusted import neighbour, open_untrusted, printable

_ANY_SIZE = 1 << 60


def picture_beside(folders: Sequence[Path], name: str, where: str) -> Path | None:
    """The picture of this name, possibly in folders of its own, in the first of ``folders`` that holds it.

    Raises:
        InputError: the name leads out of the folder.
    """
    for folder in folders:
        path = neighbour(folder, name, f"{where}: its picture")
        if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file():
            return path
    return None


def mask_beside(folders: Sequence[Path], name: str) -> Path | None:
    """The mask of a picture: of its name, with any suffix, or with one more (``a.jpg.png``); or None."""
    for folder in folders:
        path = neighbour(folder, name, "a mask")
        for stem in (str(path), str(path.with_suffix(""))):
            for suffix in ("", *sorted(PICTURE_SUFFIXES)):
                found = Path(stem + suffix)
                if found.suffix.lower() in PICTURE_SUFFIXES and found.is_file():
                    return found
    return None


def pictures_by_label(folders: Sequence[Path]) -> dict[str, Path]:
    """Pictures in folders, by name and by name without its suffix, in lower case; the first folder goes before."""
    found: dict[str, Path] = {}
    for folder in folders:
        if folder.is_dir():
            for file in sorted(folder.iterdir()):
                if file.suffix.lower() in PICTURE_SUFFIXES and file.is_file():
                    found.setdefault(file.name.lower(), file)
                    found.setdefault(file.stem.lower(), file)
    return found


def first_bytes(path: Path, count: int) -> bytes:
    """How a file begins, to tell its kind by; nothing where there is no regular file that can be read."""
    try:
        with open_untrusted(path, _ANY_SIZE) as file:
            return file.read(count)
    except (InputError, OSError):
        return b""


def last_part(name: str) -> str:
    """The name of a file in a path of any system: what programs write is where it was on their machine."""
    return name.replace("\\", "/").rsplit("/", 1)[-1]


def with_missing_noted(found: Sequence[object], missing: Sequence[str], path: Path) -> tuple[str, ...]:
    """A note about pictures that are named but not there.

    Raises:
        InputError: none is there.
    """
    if not found:
        example = f" such as {printable(missing[0])[:80]}" if missing else ""
        raise InputError(
            f"{path}: none of its {len(missing)} pictures{example} is there; put them into images beside it"
        )
    if not missing:
        return ()
    return (
        f"{len(missing)} of {len(found) + len(missing)} pictures are not there, such as {printable(missing[0])[:80]}",
    )
