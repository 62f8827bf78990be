"""The road: posed pictures in, a textured mesh out, readable top to bottom."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from meshwright.color import ColorField, bake_field, bake_texture, color_vertices, delight, query_colors
from meshwright.device import resolve_device
from meshwright.errors import InputError
from meshwright.images import resize
from meshwright.mesh import Mesh
from meshwright.model import InstantMesh, InstantNeRF
from meshwright.options import (
    ColorOptions,
    FitOptions,
    Frame,
    OutputOptions,
    RunOptions,
    ShapeOptions,
    Surface,
    require_unset,
)
from meshwright.progress import Progress, silent
from meshwright.shape import LEAST_VIEWS, Refined, carve, decimate, refine_best, visual_hull
from meshwright.views import ObjectFrame, Views

_MODEL_PICTURE_PX = 320  # the size the published weights were trained on
_NEARLY_KNOWN = ("sv3d", "orbit")  # rigs of generated videos, whose frames are only nearly where they claim to be


def reconstruct(
    views: Views,
    *,
    model: InstantNeRF | InstantMesh | None = None,
    shape: ShapeOptions = ShapeOptions(),
    fit: FitOptions = FitOptions(),
    color: ColorOptions = ColorOptions(),
    frame: ObjectFrame | None = None,
    device: str | torch.device = RunOptions.device,
    seed: int = RunOptions.seed,
    progress: Progress = silent,
) -> Mesh:
    """Turn posed pictures of one object into a textured mesh, in the world frame of ``views.cameras``, on the CPU.

    `start_shape`, then `finish`; `meshwright.options` says what the options do. ``frame``: see `start_shape`.

    Raises:
        InputError: the views see nothing, contradict each other wholly, ``device`` is not present, or an option has
            no effect.
    """
    views = views.to(resolve_device(device))
    start = start_shape(views, model=model, shape=shape, fit=fit, frame=frame, progress=progress)
    return finish(start, views, fit=fit, color=color, seed=seed, progress=progress).mesh.to("cpu")


def in_output_frame(views: Views, frame: Frame = OutputOptions.frame) -> tuple[Views, ObjectFrame]:
    """The views in the frame that results are to be given in, and that frame: what it restores is in the input's world.

    ``auto`` keeps the input's world where somebody chose its axes, unless it lies so far away that the numbers of mesh
    files lose the object. Rigs are in the object's frame already.
    """
    cameras, capture = views.cameras, views.capture
    chosen = capture is None or (capture.own_axes and capture.up is None)
    if (
        frame == "input"
        or views.rig != "posed"
        or (frame == "auto" and chosen and cameras.positions.dtype == torch.float32)
    ):
        return views, ObjectFrame.world(cameras.positions.dtype)
    own = ObjectFrame.upright(views)
    return own.normalize_views(views), own


@dataclass(frozen=True, eq=False)
class StartShape:
    """A shape to go on from. ``color_field``: what is known of colours (sRGB) where no view looks.

    ``rejected_views``: numbers of views whose silhouettes contradict the others and were left out.
    ``carved``: the same object carved, if it is to be found out which of both is the better start.
    ``unknown``: as of `Views`, pixels where a silhouette lacks a piece that the others show; None if there are none.
    """

    mesh: Mesh
    color_field: ColorField | None = None
    rejected_views: tuple[int, ...] = ()
    carved: Mesh | None = None
    unknown: Bool[Tensor, "views 1 height width"] | None = None


def start_shape(
    views: Views,
    *,
    model: InstantNeRF | InstantMesh | None = None,
    shape: ShapeOptions = ShapeOptions(),
    fit: FitOptions = FitOptions(),
    frame: ObjectFrame | None = None,
    progress: Progress = silent,
) -> StartShape:
    """The visual hull on a grid of about ``shape.resolution`` cubed cells, carved or not, or what a model sees.

    If ``shape.start`` is auto, hull and carved hull both, for the ``fit`` to choose; without a fit the hull.

    A model (see `meshwright.load_model`) has its own grid and gives colours as well. ``frame``: where the object is,
    for the model, if that is known (in a data set it is the world); else it is found from the views.

    Raises:
        InputError: the views see nothing, or contradict each other wholly; the model has no use for an option.
    """
    if model is None:
        start = shape.start or "carve"  # auto gains no more and costs twice as much (docs/shape.md)
        frame = _own_frame(views)
        views = frame.normalize_views(views)
        hull, carved = visual_hull(views, shape.resolution, progress), None
        if start == "carve":
            hull = carve(views, hull, progress)
        elif start == "auto" and fit.refine != "off" and len(views) >= LEAST_VIEWS:
            carved = frame.restore_mesh(carve(views, hull, progress).mesh(shape.surface))
        mesh = frame.restore_mesh(hull.mesh(shape.surface))
        return StartShape(mesh, rejected_views=hull.rejected_views, carved=carved, unknown=hull.unknown)
    if shape.start is not None:
        require_unset("a model, which is the start itself", start=shape.start)
    if shape.resolution != ShapeOptions.resolution:
        require_unset("a model, which has its own grid", resolution=shape.resolution)
    if not isinstance(model, InstantMesh) and shape.surface != ShapeOptions.surface:
        require_unset("a NeRF model, whose surface comes from marching cubes", surface=shape.surface)
    return model_shape(model.to(views.images.device), views, shape.surface, progress, frame)


@dataclass(frozen=True, eq=False)
class Finished:
    """``views``: as given, but for refined cameras and what is ``unknown`` of them. ``refined``: None if it was not."""

    mesh: Mesh
    views: Views
    refined: Refined | None


def finish(
    start: StartShape,
    views: Views,
    *,
    fit: FitOptions = FitOptions(),
    color: ColorOptions = ColorOptions(),
    seed: int = RunOptions.seed,
    progress: Progress = silent,
    observe: Callable[[Mesh], None] | None = None,
) -> Finished:
    """Fit a shape to the pictures (`meshwright.refine`) and give it their colours (`meshwright.bake_texture`).

    Shape and views are on one device, and the result stays there. ``observe`` is shown the shape while it is fitted.

    Raises:
        InputError: the mesh has no faces, or there is no model to take colours of.
    """
    if start.unknown is not None:
        views = dataclasses.replace(views, unknown=start.unknown)
    world_views, frame, world_field = views, _own_frame(views), start.color_field
    mesh, views, refined = frame.normalize_mesh(start.mesh), frame.normalize_views(views), None
    field = None if world_field is None else lambda points: world_field(frame.restore_points(points))
    if color.colors == "model" and field is None:
        raise InputError("`colors='model'`: there is no model to take colours from; give a `model` or leave it out")
    if fit.refine != "off":
        nearly_known = views.rig in _NEARLY_KNOWN and not views.cameras_fitted
        refined = refine_best(
            [mesh] if start.carved is None else [mesh, frame.normalize_mesh(start.carved)],
            views,
            level=fit.refine,
            refine_cameras=nearly_known if fit.refine_cameras is None else fit.refine_cameras,
            time_budget_s=fit.time_budget_s,
            seed=seed,
            progress=progress,
            observe=None if observe is None else lambda mesh: observe(frame.restore_mesh(mesh)),
        )
        moved = refined.views is not views
        mesh, views = refined.mesh, refined.views
        if moved:
            world_views = dataclasses.replace(world_views, cameras=frame.restore_cameras(views.cameras))
        refined = dataclasses.replace(refined, mesh=frame.restore_mesh(mesh), views=world_views)
    if fit.faces is not None:
        mesh = decimate(mesh, fit.faces)
    colored = delight(mesh, views, seed) if color.delight else views
    if color.colors == "model" and field is not None:
        if color.vertex_colors:
            mesh = Mesh(mesh.vertices, mesh.faces, query_colors(field, mesh.vertices).clamp(0, 1))
        else:
            mesh = bake_field(mesh, field, texture_size_px=color.texture_size_px, progress=progress)
    elif color.vertex_colors:
        mesh = color_vertices(mesh, colored, field, progress)
    else:
        mesh = bake_texture(
            mesh, colored, texture_size_px=color.texture_size_px, field=field, seed=seed, progress=progress
        )
    return Finished(frame.restore_mesh(mesh), world_views, refined)


def _own_frame(views: Views) -> ObjectFrame:
    """Where the work is done: what a capture becomes does not depend on the place, unit and axes of its world."""
    return ObjectFrame.upright(views) if views.rig == "posed" else ObjectFrame.world(views.images.dtype)


@torch.no_grad()
def model_shape(
    model: InstantNeRF | InstantMesh,
    views: Views,
    surface: Surface = ShapeOptions.surface,
    progress: Progress = silent,
    frame: ObjectFrame | None = None,
) -> StartShape:
    """What the model sees in the views, with the colours of its colour head; model and views on one device.

    It sees them in the object's frame (``frame``, or as the views tell it), which is the world that it was trained in.

    Raises:
        InputError: the density of a NeRF model nowhere reaches its threshold.
    """
    if frame is None:
        # A world whose axes nobody chose is turned upright for the model; other worlds are as it was trained in.
        arbitrary = views.capture is not None and not views.capture.own_axes
        frame = ObjectFrame.upright(views) if arbitrary else ObjectFrame.of(views)
    views = frame.normalize_views(views)
    images, embedding = _model_input(views)
    triplane = model.planes(images[None], embedding[None], progress)
    progress("mesh", 0.0)
    if isinstance(model, InstantMesh):
        (mesh,) = model.extract_mesh(triplane, surface)
    else:
        (mesh,) = model.extract_mesh(triplane)
    if len(mesh.faces) == 0:
        raise InputError(
            "the model sees no object in these views; check the pictures and their cameras, or start from their"
            " silhouettes (`model='none'`)"
        )
    progress("mesh", 1.0)
    color_field = model.color_field(triplane.planes[0])
    return StartShape(frame.restore_mesh(mesh), lambda points: color_field(frame.normalize_points(points)))


def _model_input(views: Views) -> tuple[Float[Tensor, "views 3 side side"], Float[Tensor, "views 16"]]:
    """Square pictures of the size the model knows, and the cameras of these squares, as the model reads them."""
    height, width = views.images.shape[2:]
    side = max(height, width)
    squares = torch.nn.functional.pad(views.images, (0, side - width, 0, side - height), value=1.0)
    embedding = views.cameras.embedding()
    # Intrinsics count in picture widths and heights, and the square is wider or higher than the picture was.
    stretch = torch.tensor([width / side, height / side] * 2).to(embedding)
    embedding = torch.cat([embedding[:, :12], embedding[:, 12:] * stretch], dim=1)
    return resize(squares, _MODEL_PICTURE_PX, _MODEL_PICTURE_PX), embedding
