"""How long work reports where it is, without knowing who listens."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """Called as ``progress("hull", 0.25)``: a stage name and the fraction of it that is done, 0 to 1.

    Stages follow each other; a stage is over when its fraction reaches 1.  ``detail`` is a short text for people,
    such as a loss.  Whoever listens may raise KeyboardInterrupt: the caller is left in a usable state.
    """

    def __call__(self, stage: str, fraction: float, detail: str = "") -> None: ...


def silent(stage: str, fraction: float, detail: str = "") -> None:
    """Report to nobody."""
