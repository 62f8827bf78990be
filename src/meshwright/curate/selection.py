"""Choosing objects to learn from: what cannot be used goes, with the reason; the rest is split by object."""

import dataclasses
import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from meshwright.curate.inputs import ObjectFile, find_objects
from meshwright.curate.isolate import run_isolated
from meshwright.curate.layouts import split_of
from meshwright.curate.normalize import normalization_of, normalized
from meshwright.curate.options import CurateSelectOptions
from meshwright.curate.render import MESH_SUFFIXES
from meshwright.files import atomic_path
from meshwright.mesh import Mesh
from meshwright.mesh_files import load_mesh
from meshwright.progress import Progress, silent

_SAME = 1e-4  # vertices of an object of size 2 that are nearer than this are the same
_LARGEST_PALETTE = 64 * 64  # texels


@dataclass(frozen=True)
class MeshFacts:
    """What is asked of a mesh file. ``content``: the same for the same surface and colours, whatever the file."""

    sha256: str
    content: str
    faces: int
    thickness: float
    colors: int
    parts: int


@dataclass(frozen=True)
class Selection:
    """``rejected``: (file, reason). ``splits``: how many objects are in each."""

    kept: int
    rejected: tuple[tuple[str, str], ...]
    splits: dict[str, int]
    reasons: dict[str, int]


def select_objects(options: CurateSelectOptions, progress: Progress = silent) -> Selection:
    """Read every file in a process of its own, apply the rules, and write the manifest.

    Raises:
        InputError: there are no files, or the manifest cannot be written.
    """
    found = find_objects(options.objects, MESH_SUFFIXES)
    reasons: dict[int, str] = {}
    facts: dict[int, MeshFacts] = {}
    workers = options.workers or os.cpu_count() or 1
    for count, (number, outcome) in enumerate(
        run_isolated(inspect_mesh, [(item.path,) for item in found], workers, options.limits), 1
    ):
        if outcome.kind == "done":
            facts[number] = outcome.value
            reason = rejection(outcome.value, options)
        else:
            reason = f"unreadable: {outcome.reason}"
        if reason:
            reasons[number] = reason
        progress("select", count / len(found), found[number].name)
    first_with: dict[str, str] = {}
    kept: list[dict[str, Any]] = []
    for number, item in enumerate(found):
        if number in reasons:
            continue
        same = first_with.setdefault(facts[number].content, item.name)
        if same != item.name:
            reasons[number] = f"duplicate: of {same}"
            continue
        kept.append(_entry(item, facts[number], options))
    rejected = tuple((_relative(found[number].path, options.out), reasons[number]) for number in sorted(reasons))
    manifest = {"objects": kept, "rejected": [{"path": path, "reason": reason} for path, reason in rejected]}
    with atomic_path(options.out) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    splits = Counter(entry["split"] for entry in kept)
    return Selection(
        len(kept), rejected, dict(splits), dict(Counter(reason.partition(":")[0] for _, reason in rejected))
    )


def rejection(facts: MeshFacts, options: CurateSelectOptions) -> str:
    """The first rule that an object breaks, as "rule: reason"; empty if none."""
    if facts.faces > options.most_faces:
        return f"huge: has {facts.faces:,} triangles, more than {options.most_faces:,}"
    if facts.faces < options.least_faces:
        return f"empty: has {facts.faces} triangles, fewer than {options.least_faces}"
    if facts.thickness < options.least_thickness:
        return f"flat: is {facts.thickness:.4f} as thick as it is long, less than {options.least_thickness}"
    if facts.colors < 2 and not options.textureless:
        return "textureless: " + ("has no colours" if facts.colors == 0 else "has one colour all over")
    if facts.parts > options.most_objects:
        return f"scene: falls into {facts.parts} large parts that stand clear of each other"
    return ""


def inspect_mesh(path: Path) -> MeshFacts:
    """Raises: InputError: the file cannot be used."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    mesh = load_mesh(path)
    mesh = normalized(mesh, normalization_of(mesh))
    used = mesh.vertices[torch.unique(mesh.faces)]
    sides = used.amax(0) - used.amin(0)
    return MeshFacts(
        sha256, _content(mesh), len(mesh.faces), float(sides.min() / sides.max()), _color_count(mesh), _parts(mesh)
    )


def _content(mesh: Mesh) -> str:
    """A digest of surface and colours that does not depend on position, size, or the order of vertices."""
    digest = hashlib.sha256()
    points = np.unique((mesh.vertices.double() / _SAME).round().long().numpy(), axis=0)
    digest.update(points.tobytes() + len(mesh.faces).to_bytes(8, "big"))
    colors = mesh.texture if mesh.texture is not None else mesh.vertex_colors
    if colors is not None:
        rows = (colors * 255).round().to(torch.uint8).numpy()
        digest.update((rows if mesh.texture is not None else np.unique(rows, axis=0)).tobytes())
    return digest.hexdigest()


def _color_count(mesh: Mesh) -> int:
    """0: none; 1: one all over, as far as bytes can tell; 2: more."""
    if mesh.texture is not None and mesh.uv is not None:
        height, width = mesh.texture.shape[1:]
        column = (mesh.uv[:, 0] * width).long().clamp(0, width - 1)
        row = ((1 - mesh.uv[:, 1]) * height).long().clamp(0, height - 1)
        # A palette is asked for what the object uses of it; a picture is more than its texels under the corners.
        palette = height * width <= _LARGEST_PALETTE
        used = mesh.texture[:, row, column] if palette else mesh.texture
        colors = used.flatten(1).T
    elif mesh.vertex_colors is not None:
        colors = mesh.vertex_colors
    else:
        return 0
    return 2 if float((colors.amax(0) - colors.amin(0)).max()) > 2 / 255 else 1


def _parts(mesh: Mesh) -> int:
    """Groups of connected components whose boxes stand clear of all others, each with a tenth of the surface."""
    component = mesh.components()
    areas = mesh.face_normals().norm(dim=1).double()
    count = int(component.max()) + 1
    area = torch.zeros(count, dtype=torch.float64).index_add(0, component, areas)
    corners = mesh.vertices[mesh.faces]
    index = component[:, None].expand(-1, 3)
    low = torch.full((count, 3), torch.inf).scatter_reduce(0, index, corners.amin(1), "amin")
    high = torch.full((count, 3), -torch.inf).scatter_reduce(0, index, corners.amax(1), "amax")
    gap = 0.05  # of an object of size 2
    label = torch.arange(count)
    if count > 2000:  # grass, hair: no scene of a few objects
        return 1
    touching = ((low[:, None] - gap <= high[None]) & (high[:, None] + gap >= low[None])).all(2)
    while True:  # the least label of all that a component touches, until nothing changes
        spread = torch.where(touching, label[None], count).amin(1)
        if torch.equal(spread, label):
            break
        label = spread
    share = torch.zeros(count, dtype=torch.float64).index_add(0, label, area) / area.sum()
    return max(1, int((share >= 0.1).sum()))


def _entry(item: ObjectFile, facts: MeshFacts, options: CurateSelectOptions) -> dict[str, Any]:
    held_out = item.source in options.hold_out_sources
    return {
        "path": _relative(item.path, options.out),
        "name": item.name,
        "split": "test" if held_out else split_of(item.name, options.seed),
        "source": item.source,
        "licence": item.licence,
        "credit": item.credit,
        **dataclasses.asdict(facts),
    }


def _relative(path: Path, manifest: Path) -> str:
    """As the manifest's reader finds it: relative to the manifest where it lies below it."""
    folder = manifest.absolute().parent
    return (
        path.absolute().relative_to(folder).as_posix()
        if path.absolute().is_relative_to(folder)
        else str(path.absolute())
    )
