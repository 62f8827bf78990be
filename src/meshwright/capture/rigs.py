"""Rigs: the cameras of pictures that come in a known order."""

from pathlib import Path

import torch

from meshwright.cameras import SV3D_FOV_DEG, Cameras, framing_radius
from meshwright.errors import InputError
from meshwright.images import Picture
from meshwright.options import ViewOptions, require_unset

ZERO123PLUS_VERSIONS = {"zero123plus": "1.2", "zero123plus-v1.1": "1.1"}
ORBITS = ("sv3d", "orbit")


def rig_cameras(rig: str, count: int, options: ViewOptions, where: object) -> Cameras:
    """The cameras of ``count`` square pictures in the order of a rig; an orbit's as far as ``options`` say.

    Raises:
        InputError: the rig has another number of pictures, or no use for an option.
    """
    if rig in ZERO123PLUS_VERSIONS:
        if count != 6:
            raise InputError(f"{where}: holds {count} pictures, but rig {rig} has six; choose `rig='orbit'`")
        require_no_orbit(f"rig {rig}, whose cameras are fixed", options)
        fov_deg, radius = lens(options, 30.0)
        return Cameras.zero123plus(ZERO123PLUS_VERSIONS[rig], radius, fov_deg)
    if count < 3:
        raise InputError(f"{where}: holds {count} pictures, too few for a turn around the object; give more")
    fov_deg, radius = lens(options, SV3D_FOV_DEG if rig == "sv3d" else 30.0)
    return Cameras.orbit(count, options.elevation_deg or 0.0, radius, fov_deg, bool(options.clockwise))


def guess_rig(path: Path, count: int, options: ViewOptions) -> tuple[str, str]:
    """A rig for pictures without cameras, and a sentence that says so."""
    if count == 6 and path.is_dir():
        return "zero123plus", "six pictures are taken for the views of Zero123++ v1.2 (else choose a `rig`)"
    rig = "sv3d" if options.fov_deg is None and options.radius is None else "orbit"
    fov_deg, radius = lens(options, SV3D_FOV_DEG)
    return rig, (
        f"the {count} pictures are taken for one turn of the camera, field of view {fov_deg:g} deg, radius {radius:.3g}"
    )


def lens(options: ViewOptions, rig_fov_deg: float) -> tuple[float, float]:
    """(field of view, radius): those given, else the rig's own and the radius that frames the object with it."""
    fov_deg = rig_fov_deg if options.fov_deg is None else options.fov_deg
    return fov_deg, framing_radius(fov_deg) if options.radius is None else options.radius


def require_no_orbit(what: str, options: ViewOptions) -> None:
    """Raise if an option is given that says how a camera went around the object."""
    turn = None if options.turn == ViewOptions.turn else options.turn
    require_unset(what, elevation_deg=options.elevation_deg, clockwise=options.clockwise, turn=turn)


def split_sheet(sheet: Picture, cameras: Cameras, rows: int, columns: int) -> tuple[list[Picture], Cameras]:
    """Cut a sheet into rows x columns pictures of one size, row by row, without resampling.

    ``cameras`` are those of the exact cells. Where the sheet's sides cannot be divided, the pictures are the whole
    pixels inside the cells, and the returned cameras are moved by the fractions that were cut away.
    """
    cell_height, cell_width = sheet.shape[1] / rows, sheet.shape[2] / columns
    height, width = int(cell_height), int(cell_width)
    tops = torch.arange(rows).repeat_interleave(columns) * cell_height
    lefts = torch.arange(columns).repeat(rows) * cell_width
    tops_px, lefts_px = tops.round().long(), lefts.round().long()
    pictures = [
        sheet[:, top : top + height, left : left + width]
        for top, left in zip(tops_px.tolist(), lefts_px.tolist(), strict=True)
    ]
    exact = cameras.cropped(
        (lefts_px - lefts) / cell_width, (tops_px - tops) / cell_height, width / cell_width, height / cell_height
    )
    return pictures, exact
