"""A contact sheet of a data set."""

import torch
from jaxtyping import Float
from torch import Tensor

from meshwright.curate.layouts import open_dataset
from meshwright.curate.object_files import RenderedObject
from meshwright.curate.options import CuratePreviewOptions
from meshwright.images import resize, write_image
from meshwright.progress import Progress, silent


def preview_dataset(options: CuratePreviewOptions, progress: Progress = silent) -> None:
    """Write the sheet.

    Raises:
        InputError: no data set, a chosen object is broken, or ``out`` cannot be written.
    """
    source = open_dataset(options.dataset)
    count = min(options.objects, len(source.names))
    rows = []
    for row in range(count):
        name = source.names[row * len(source.names) // count]
        views = source.view_count(name)
        chosen = [i * views // options.views for i in range(min(options.views, views))]
        tiles = _tiles(source.read(name, chosen), options.tile_px)
        missing = options.views + 2 - len(tiles)
        rows.append(torch.cat([*tiles, *[torch.ones_like(tiles[0])] * missing], dim=2))
        progress("preview", (row + 1) / count, name)
    write_image(torch.cat(rows, dim=1), options.out)


def _tiles(rendered: RenderedObject, tile_px: int) -> list[Float[Tensor, "3 tile tile"]]:
    rgba = rendered.rgba.float() / 255
    on_white = rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:]
    depth, normals = rendered.depth_z[:1], rendered.normals[:1]
    seen = depth > 0
    low, high = (float(depth[seen].min()), float(depth[seen].max())) if bool(seen.any()) else (0.0, 1.0)
    grey = torch.where(seen, 0.9 - 0.8 * (depth - low) / max(high - low, 1e-6), 1.0).expand(-1, 3, -1, -1)
    colored = torch.where((normals != 0).any(1, keepdim=True), (normals + 1) / 2, 1.0)
    return list(resize(torch.cat([on_white, grey, colored]), tile_px, tile_px))
