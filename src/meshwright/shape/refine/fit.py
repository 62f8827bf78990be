"""Fit a mesh, and if asked the cameras, to pictures: analysis by synthesis, coarse to fine."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from meshwright.cameras import Cameras
from meshwright.errors import InputError
from meshwright.mesh import Mesh, subdivide
from meshwright.progress import Progress, silent
from meshwright.shape.refine.poses import PoseCorrections
from meshwright.shape.refine.pyramid import Pictures
from meshwright.shape.refine.scene import Topology, nearest_views, render_geometry
from meshwright.shape.refine.smoother import SmoothSteps
from meshwright.shape.refine.stages import Stage, stages_for
from meshwright.shape.refine.terms import Evidence, LossTerms, loss_terms
from meshwright.shape.refine.validation import coverage_error, prediction_error, validation_error
from meshwright.shape.refine.view_weights import estimate_view_weights
from meshwright.shape.remesh import edge_length_for, remesh
from meshwright.threads import one_torch_thread
from meshwright.views import Views

_STEP = 0.01  # first step in the latent, of the mesh's size
_STEP_FALL = 0.3  # of a stage's steps, from first to last
_STAGE_FALL = 0.7  # of the steps, from stage to stage
_VIEWS_A_STEP = 6
NEIGHBORS = 4  # nearest other views, with one of which each pixel is compared
_RENEW = 10  # steps after which visibility and the weights of the views are found anew
_AS_FINE = 1.2  # times as many vertices as the last stage asks for are still as many
_VALIDATE = 25  # steps between validations, in the last stage
# The rms error, of coverage or with that of colours, by which a start must be better than its fit to be kept.
_CLEARLY = 0.02


@dataclass(frozen=True, eq=False)
class Refined:
    """``mesh``: shape only, without colours. ``views``: as given, but for refined cameras.

    ``error_before`` and ``error_after``: mean squared error of colours and of coverage beyond half a pixel (and of
    given depths, in the size of the mesh, and normals) on pixels withheld from the fit, predicted from the other views
    by way of the mesh. The second is never larger than the first by more than 4e-4 (0.02 rms).
    ``view_weights``: 1 for views that agree with the others, towards 0 for those that do not and were disregarded.
    ``start``: number of the mesh that this came of. ``prediction_errors``: of each mesh, where there were several.
    """

    mesh: Mesh
    views: Views
    error_before: float
    error_after: float
    view_weights: Float[Tensor, " views"]
    start: int = 0
    prediction_errors: tuple[float, ...] = ()


@one_torch_thread()
def refine(
    mesh: Mesh,
    views: Views,
    *,
    level: Literal["fast", "full"] = "fast",
    refine_cameras: bool = False,
    time_budget_s: float | None = None,
    seed: int = 0,
    progress: Progress = silent,
    observe: Callable[[Mesh], None] | None = None,
) -> Refined:
    """Move the surface, remeshed to even triangles, until it shows what the pictures show.

    Silhouettes must agree, and points must have the same colour in all views that see them. Topology stays; a closed
    mesh stays closed. The best state on withheld pixels is returned, or the start if that is clearly better: by 0.02
    (rms of colours and coverage, or, if better at all in both, of coverage); a state of an early stage in as many
    triangles as the last one has. Equal inputs and ``seed`` give equal results, unless ``time_budget_s`` (wall clock)
    ends the work early. The work is done in the object's frame (`Views.normalized`), so the place and the unit of the
    world do not matter. ``observe`` is shown the mesh of every tenth step, in the caller's frame and without colours.

    Raises:
        InputError: the mesh has no surface, or ``time_budget_s`` is not positive.
    """
    return refine_best(
        [mesh],
        views,
        level=level,
        refine_cameras=refine_cameras,
        time_budget_s=time_budget_s,
        seed=seed,
        progress=progress,
        observe=observe,
    )


@one_torch_thread()
def refine_best(
    meshes: Sequence[Mesh],
    views: Views,
    *,
    level: Literal["fast", "full"] = "fast",
    refine_cameras: bool = False,
    time_budget_s: float | None = None,
    seed: int = 0,
    progress: Progress = silent,
    observe: Callable[[Mesh], None] | None = None,
) -> Refined:
    """`refine` each of several starts, of any topology; what predicts the pictures best from each other is kept.

    Nothing earlier tells: before the last steps of the last stage the better start is found little better than by
    chance (docs/shape.md). Where they are equal the first is kept. Each has an even share of the time.

    Raises:
        InputError: a mesh has no surface, or ``time_budget_s`` is not positive.
    """
    if not all(mesh.area() > 0 for mesh in meshes):
        raise InputError("the mesh to refine has no surface; give one whose faces have an area")
    if time_budget_s is not None and not time_budget_s > 0:
        raise InputError(f"a time budget of {time_budget_s:g} s leaves no time to refine; give a positive one")
    bare = {"vertex_colors": None, "uv": None, "uv_faces": None, "texture": None, "view_counts": None}
    starts = [mesh.replace(**bare) for mesh in meshes]
    normalized, frame = views.normalized()
    fits = []
    for number, start in enumerate(starts):
        share = _share(progress, number, len(starts))
        fit = _Fit(frame.normalize_mesh(start), normalized, level, refine_cameras, seed, share)
        if observe is not None:
            fit.observe = lambda mesh: observe(frame.restore_mesh(mesh))
        fit.run(math.inf if time_budget_s is None else time_budget_s / len(starts))
        fits.append(fit)
    errors = tuple(fit.prediction_error() for fit in fits) if len(fits) > 1 else ()
    kept = errors.index(min(errors)) if errors else 0
    fit = fits[kept]
    best = fit.best
    return Refined(
        starts[kept] if best is fit.start else frame.restore_mesh(fit.fine(best.mesh)),
        dataclasses.replace(views, cameras=frame.restore_cameras(best.cameras)) if refine_cameras else views,
        fit.start.error,
        best.error,
        fit.view_weights,
        kept,
        errors,
    )


def _share(progress: Progress, number: int, count: int) -> Progress:
    """The progress of one of several pieces of work, one after the other."""

    def told(stage: str, fraction: float, detail: str = "") -> None:
        progress(stage, (number + fraction) / count, detail)

    return told


def views_of_step(step: int, count: int) -> Int[Tensor, " chosen"]:
    """At most six of the views, every n-th, beginning with another one in each step: all have their turn."""
    turns = math.ceil(count / _VIEWS_A_STEP)
    return torch.arange(step % turns, count, turns)


@dataclass(frozen=True, eq=False)
class _State:
    mesh: Mesh
    cameras: Cameras
    error: float


class _Fit:
    """What lasts from step to step: mesh and cameras at hand, weights of the views, first and best state."""

    def __init__(
        self, mesh: Mesh, views: Views, level: str, refine_cameras: bool, seed: int, progress: Progress
    ) -> None:
        self._views, self._seed, self._progress = views, seed, progress
        self._stages = stages_for(level, views)
        self._vertices, self._faces = mesh.vertices, mesh.faces
        self._size = float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).norm()) / 2
        self._neighbors = nearest_views(views.cameras, NEIGHBORS)
        self._poses = PoseCorrections(views.cameras) if refine_cameras else None
        self._random = torch.Generator().manual_seed(seed)
        self._validated = Pictures.of(views, self._stages[-1].largest_px, seed)
        self.view_weights = torch.ones(len(views)).to(views.images)
        self.best = self.start = self._state(mesh)
        self.observe: Callable[[Mesh], None] | None = None

    def run(self, time_budget_s: float) -> None:
        """Run all stages, each for its share of the time."""
        began = time.monotonic()
        costs = torch.tensor([stage.steps * stage.largest_px**2 for stage in self._stages], dtype=torch.float64)
        shares = (costs.cumsum(0) / costs.sum()).tolist()
        for number, stage in enumerate(self._stages):
            self._run_stage(number, stage, began + time_budget_s * shares[number])
        self._progress("refine", 1.0, self._errors_so_far())

    def _run_stage(self, number: int, stage: Stage, deadline: float) -> None:
        if time.monotonic() > deadline:
            return
        length = edge_length_for(self._vertices, self._faces, stage.vertices)
        self._vertices, self._faces = remesh(self._vertices, self._faces, length)
        pictures = Pictures.of(self._views, stage.largest_px, self._seed)
        topology = Topology.of(self._faces)
        steps = SmoothSteps(self._vertices, self._faces, stage.stiffness)
        for step in range(stage.steps):
            if step % _RENEW == 0:
                evidence = self._evidence(topology, pictures, renewed=step > 0)
                if self.observe is not None:
                    self.observe(Mesh(self._vertices, self._faces))
            chosen = views_of_step(step, len(self._views)).to(self._vertices.device)
            terms, gradient = self._differentiate(stage, topology, evidence, chosen)
            fall = 1 - (1 - _STEP_FALL) * step / stage.steps
            self._vertices = steps.step(gradient, _STEP * self._size * _STAGE_FALL**number * fall)
            if self._poses is not None:
                self._poses.step()
            last = step + 1 == stage.steps or time.monotonic() > deadline
            if last or (number + 1 == len(self._stages) and (step + 1) % _VALIDATE == 0):
                self._keep_if_better()
            done = (number + (step + 1) / stage.steps) / len(self._stages)
            self._progress("refine", min(done, 0.999), f"{terms}; {self._errors_so_far()}")
            if last:
                return

    def fine(self, mesh: Mesh) -> Mesh:
        """The same surface in about as many triangles as those of the last stage, if it is from an early one.

        Colours at the vertices of few triangles are a blurred picture (docs/shape.md: 1.7 dB).
        """
        while 4 * len(mesh.vertices) <= _AS_FINE * self._stages[-1].vertices:
            mesh = Mesh(*subdivide(mesh.vertices, mesh.faces))
        return mesh

    def prediction_error(self) -> float:
        """How badly the pictures are predicted from each other by way of the best state."""
        pictures = Pictures.of(self._views, self._stages[-1].largest_px, self._seed)
        return prediction_error(self.best.mesh, self.best.cameras, pictures, self._neighbors)

    def _errors_so_far(self) -> str:
        return f"withheld error {self.start.error:.5f} -> {self.best.error:.5f}"

    def _cameras(self) -> Cameras:
        return self._views.cameras if self._poses is None else self._poses.cameras()

    @torch.no_grad()
    def _evidence(self, topology: Topology, pictures: Pictures, renewed: bool) -> Evidence:
        """What the next steps compare with: depths of all views, for visibility, and how far each is believed.

        A view may lose belief from stage to stage, but within a stage only win it back: else one that is off by chance
        pulls less, is off more, and is lost for good, though it is right.
        """
        cameras = self._cameras()
        rendered = render_geometry(self._vertices, topology, cameras, *pictures.alpha.shape[1:])
        weights = estimate_view_weights(rendered, self._neighbors, cameras, pictures, self._random)
        self.view_weights = torch.maximum(weights, self.view_weights) if renewed else weights
        return Evidence(pictures, self._neighbors, rendered.fragments.depth_z, self.view_weights, self._size)

    def _differentiate(
        self, stage: Stage, topology: Topology, evidence: Evidence, chosen: Int[Tensor, " chosen"]
    ) -> tuple[LossTerms, Float[Tensor, "vertices 3"]]:
        """The loss, and its gradient with respect to the vertices; that of the corrections of cameras stays in them."""
        vertices = self._vertices.detach().requires_grad_(True)
        penalty = None if self._poses is None else self._poses.penalty()
        terms = loss_terms(
            vertices, topology, self._cameras(), chosen, evidence, stage, self._random, camera_penalty=penalty
        )
        terms.total().backward()
        assert vertices.grad is not None
        return terms, vertices.grad

    def _keep_if_better(self) -> None:
        state = self._state(Mesh(self._vertices, self._faces))
        if state.error < self.best.error or (self.best is self.start and self._is_hardly_worse(state)):
            self.best = state

    def _is_hardly_worse(self, state: _State) -> bool:
        """Whether a state that is worse than the start is so by no more than chance.

        True shapes have lost to hulls where colours are even by a third of what is allowed here, fits to carved starts,
        which have seen the withheld colours, by a half. Coverage is not to blame for such differences.
        """
        if state.error > self.start.error + _CLEARLY**2:
            return False
        lost, had = (coverage_error(each.mesh, each.cameras, self._validated) for each in (state, self.start))
        return lost < had + _CLEARLY**2

    @torch.no_grad()
    def _state(self, mesh: Mesh) -> _State:
        cameras = self._cameras()
        cameras = Cameras(cameras.T_world_camera.detach(), cameras.intrinsics.detach())
        error = validation_error(mesh, cameras, self._validated, self._neighbors, self._size)
        return _State(mesh, cameras, error)
