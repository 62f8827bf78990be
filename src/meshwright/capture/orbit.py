"""Direction and elevation of an orbit, read off the pictures."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from meshwright.cameras import Cameras
from meshwright.capture.agreement import COARSE, FINE, SmallPictures, agreement, is_better, shrink
from meshwright.progress import Progress, silent
from meshwright.views import Views

_FIRST_ELEVATIONS_DEG = (-25.0, -15.0, -5.0, 5.0, 15.0, 25.0, 40.0)  # closer than the agreement's peak is wide
_STEPS_DEG = (5.0, 2.0)  # around the best of them; outlines 96 px high tell no less than 2 degrees
_LEAST_GAIN = 0.05  # share of what an agreement lacks to 1: less is no reason to leave the cameras where they are


@dataclass(frozen=True)
class _Guess:
    """``mirrored``: the other way round than the views' cameras."""

    mirrored: bool
    elevation_deg: float


def estimate_orbit(
    views: Views, elevation_deg: float | None = None, clockwise: bool | None = None, progress: Progress = silent
) -> Views:
    """Replace the direction of rotation and the elevation of an even orbit by those that fit the pictures best.

    An ``elevation_deg`` or a direction (``clockwise`` seen from above) that is given is kept, and the other found.
    The views' own cameras give radius, lens and the size of the steps. Where the pictures do not clearly say
    otherwise (a ball looks the same from everywhere) the cameras stay. ``Views.assumptions`` says what was found.
    Elevations are good to about 2 degrees; they are searched from -35 to 50.
    """
    if elevation_deg is not None and clockwise is not None:
        return views
    search = _Search(shrink(views), progress)
    start = _Guess(False, _elevation_deg(views.cameras))
    best = search.best(
        [
            _Guess(mirrored, candidate_deg)
            for mirrored in ((False, True) if clockwise is None else (False,))
            for candidate_deg in (_FIRST_ELEVATIONS_DEG if elevation_deg is None else (elevation_deg,))
        ],
        COARSE,
    )
    for step_deg in _STEPS_DEG if elevation_deg is None else ():
        lower, higher = (_Guess(best.mirrored, best.elevation_deg + change) for change in (-step_deg, step_deg))
        best = search.best([best, lower, higher], FINE)
    before, after = search.agreement(start, FINE), search.agreement(best, FINE)
    progress("orbit", 1.0)
    clear = is_better(after, before, _LEAST_GAIN)
    found = best if clear else start
    words = []
    if clockwise is None:
        turns_clockwise = found.mirrored != _turns_clockwise(search.pictures.azimuths_deg)
        words.append("clockwise" if turns_clockwise else "counter-clockwise")
    if elevation_deg is None:
        words.append(f"elevation {found.elevation_deg:g} deg")
    sentence = f"the pictures fit {' and '.join(words)} as well as any other"
    if clear:
        sentence = f"measured in the pictures: {', '.join(words)} (fit {after:.3f}, before {before:.3f})"
    cameras = search.cameras(best) if clear else views.cameras
    return replace(views, cameras=cameras, assumptions=(*views.assumptions, sentence))


class _Search:
    """Guesses and how well they agree with the pictures; none is tried twice."""

    def __init__(self, pictures: SmallPictures, progress: Progress) -> None:
        self.pictures = pictures
        self._progress = progress
        self._tried: dict[tuple[_Guess, int], float] = {}

    def cameras(self, guess: _Guess) -> Cameras:
        return self.pictures.cameras(guess.elevation_deg, guess.mirrored)

    def agreement(self, guess: _Guess, resolution: int) -> float:
        if (guess, resolution) not in self._tried:
            most = 2 * len(_FIRST_ELEVATIONS_DEG) + 2 * len(_STEPS_DEG) + 2
            self._progress("orbit", min(len(self._tried) / most, 0.99))
            self._tried[guess, resolution] = agreement(self.pictures, self.cameras(guess), resolution)
        return self._tried[guess, resolution]

    def best(self, guesses: list[_Guess], resolution: int) -> _Guess:
        """The first of those that agree best."""
        return max(guesses, key=lambda guess: self.agreement(guess, resolution))


def _elevation_deg(cameras: Cameras) -> float:
    positions = cameras.positions
    return torch.rad2deg(torch.asin(positions[:, 2] / positions.norm(dim=1))).mean().item()


def _turns_clockwise(azimuths_deg: Float[Tensor, " views"]) -> bool:
    steps_deg = (azimuths_deg.diff() + 180) % 360 - 180
    return bool(steps_deg.median() < 0)
