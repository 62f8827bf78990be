"""Fit a mesh, and if asked the cameras, to pictures: analysis by synthesis, coarse to fine."""

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from meshwright.cameras import Cameras
from meshwright.errors import InputError
from meshwright.losses import charbonnier, geman_mcclure_weight, mesh_area, normal_roughness, silhouette_error
from meshwright.mesh import Mesh
from meshwright.progress import Progress, silent
from meshwright.shape.refine.poses import PoseCorrections
from meshwright.shape.refine.pyramid import Pictures
from meshwright.shape.refine.scene import (
    COLOR_SCALE,
    Comparison,
    Sight,
    Topology,
    compare,
    look,
    nearest_views,
    photo_error,
)
from meshwright.shape.refine.smoother import SmoothSteps
from meshwright.shape.remesh import edge_length_for, remesh
from meshwright.threads import one_torch_thread
from meshwright.views import Views

_STEP = 0.01  # first step in the latent, of the mesh's size
_STEP_FALL = 0.3  # of a stage's steps, from first to last
_STAGE_FALL = 0.7  # from stage to stage
_PHOTO, _DEPTH, _NORMALS = 400.0, 200.0, 60.0  # weights; that of the silhouettes is 1
_THIN_PX = 4.0  # stages whose pictures show the object thinner than this would tear it
_DEPTH_SCALE = 0.01  # of the mesh's size: robust beyond
_NORMAL_SCALE = 0.1  # differences of unit normals: robust beyond
_VIEWS_A_STEP = 6
_PARTNERS = 4  # nearest other views, of which each pixel is compared with one
_POINTS = 20_000  # pixels compared in a step
_LOOK_AROUND = 10  # steps after which visibility and the trust in views are found anew
_JUDGE = 25  # steps between looks at the withheld pixels, in the last stage
_FEWEST_TO_VOTE = 4  # views, of which one may be found wrong
_OUTLIER = 3.0  # a view so many times worse than the median has lost three quarters of its weight
_OUTLINE_SLACK = 0.01  # outlines off by this share of a picture say nothing against a view
_INSIDE = 0.99  # coverage of pixels that show nothing but the object
_OUTLINE_HAIR = 1 / 6  # mean difference of coverage over 3 x 3 pixels along an outline that is off by half a pixel
_TELLING = 0.01  # rms error, in colours and coverage, by which a start must be better than what was fitted
_DROPPED = 0.1  # share of views, the worst, that do not count when states are judged


@dataclass(frozen=True)
class _Stage:
    """``stiffness``: lambda of the smooth steps; what moves together reaches about its square root in edges."""

    vertices: int
    largest_px: int
    steps: int
    stiffness: float
    roughness: float
    crease: float
    area: float


_STAGES = {
    "fast": (
        _Stage(1500, 40, 80, 8.0, 30.0, 1.0, 1.0),
        _Stage(1500, 80, 80, 8.0, 30.0, 0.3, 1.0),
        _Stage(3000, 160, 80, 4.0, 10.0, 0.1, 1.0),
        _Stage(12000, 320, 80, 2.0, 10.0, 0.1, 0.3),
    ),
    "full": (
        _Stage(1500, 40, 100, 8.0, 30.0, 1.0, 1.0),
        _Stage(1500, 80, 100, 8.0, 30.0, 0.3, 1.0),
        _Stage(3000, 160, 150, 4.0, 10.0, 0.1, 1.0),
        _Stage(6000, 320, 150, 3.0, 10.0, 0.1, 0.5),
        _Stage(12000, 512, 100, 2.0, 10.0, 0.1, 0.2),
    ),
}


@dataclass(frozen=True, eq=False)
class Refined:
    """``mesh``: shape only, without colours. ``views``: as given, but for refined cameras.

    ``error_before`` and ``error_after``: mean squared error of colours and of coverage beyond half a pixel (and of
    given depths, in the size of the mesh, and normals) on pixels withheld from the fit, predicted from the other views
    by way of the mesh.
    ``view_trust``: 1 for views that agree with the others, towards 0 for those that do not and were disregarded.
    """

    mesh: Mesh
    views: Views
    error_before: float
    error_after: float
    view_trust: Float[Tensor, " views"]


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
) -> Refined:
    """Move the surface, remeshed to even triangles, until it shows what the pictures show.

    Silhouettes must agree, and points must have the same colour in all views that see them. Topology stays; a closed
    mesh stays closed. The best state on withheld pixels is returned, or the start if that is clearly better: by 0.01
    (rms of colours and coverage). Equal inputs and ``seed`` give equal results, unless ``time_budget_s`` (wall clock)
    ends the work early.

    Raises:
        InputError: the mesh has no surface, or ``time_budget_s`` is not positive.
    """
    if not mesh.area() > 0:
        raise InputError("the mesh to refine has no surface; give one whose faces have an area")
    if time_budget_s is not None and not time_budget_s > 0:
        raise InputError(f"a time budget of {time_budget_s:g} s leaves no time to refine; give a positive one")
    budget_s = math.inf if time_budget_s is None else time_budget_s
    return _Fit(mesh, views, _STAGES[level], refine_cameras, budget_s, seed, progress).run()


@dataclass(frozen=True, eq=False)
class _State:
    mesh: Mesh
    cameras: Cameras
    error: float


class _Fit:
    """The state between steps: the mesh and cameras at hand, the trust in views, and the best state so far."""

    def __init__(
        self,
        mesh: Mesh,
        views: Views,
        stages: tuple[_Stage, ...],
        refine_cameras: bool,
        time_budget_s: float,
        seed: int,
        progress: Progress,
    ) -> None:
        self._views, self._seed, self._progress = views, seed, progress
        thickness = _thickness(views)
        self._stages = [stage for stage in stages[:-1] if stage.largest_px * thickness >= _THIN_PX] + [stages[-1]]
        self._began, self._time_budget_s = time.monotonic(), time_budget_s
        self._vertices, self._faces = mesh.vertices, mesh.faces
        self._size = float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).norm()) / 2
        self._near = nearest_views(views.cameras, _PARTNERS)
        self._trust = torch.ones(len(views)).to(views.images)
        self._poses = PoseCorrections(views.cameras) if refine_cameras else None
        self._random = torch.Generator().manual_seed(seed)
        self._judged = Pictures.of(views, stages[-1].largest_px, seed)
        self._best = self._start = self._judge(mesh.replace(vertex_colors=None, uv=None, uv_faces=None, texture=None))

    def run(self) -> Refined:
        costs = torch.tensor([stage.steps * stage.largest_px**2 for stage in self._stages], dtype=torch.float64)
        shares = (costs.cumsum(0) / costs.sum()).tolist()
        for number, stage in enumerate(self._stages):
            self._fit_stage(number, stage, self._began + self._time_budget_s * shares[number])
        self._progress("refine", 1.0, self._said())
        views = dataclasses.replace(self._views, cameras=self._best.cameras)
        return Refined(self._best.mesh, views, self._start.error, self._best.error, self._trust)

    def _fit_stage(self, number: int, stage: _Stage, deadline: float) -> None:
        if time.monotonic() > deadline:
            return
        length = edge_length_for(self._vertices, self._faces, stage.vertices)
        self._vertices, self._faces = remesh(self._vertices, self._faces, length)
        pictures = Pictures.of(self._views, stage.largest_px, self._seed)
        topology = Topology.of(self._faces)
        steps = SmoothSteps(self._vertices, self._faces, stage.stiffness)
        for step in range(stage.steps):
            if step % _LOOK_AROUND == 0:
                depth_z = self._look_around(topology, pictures)
            loss, gradient = self._gradient(stage, step, topology, pictures, depth_z)
            fall = 1 - (1 - _STEP_FALL) * step / stage.steps
            self._vertices = steps.step(gradient, _STEP * self._size * _STAGE_FALL**number * fall)
            last = step + 1 == stage.steps or time.monotonic() > deadline
            if last or (number + 1 == len(self._stages) and (step + 1) % _JUDGE == 0):
                self._keep_if_better()
            done = (number + (step + 1) / stage.steps) / len(self._stages)
            self._progress("refine", min(done, 0.999), f"loss {loss:.4f}, {self._said()}")
            if last:
                return

    def _said(self) -> str:
        return f"withheld error {self._start.error:.5f} -> {self._best.error:.5f}"

    def _cameras(self) -> Cameras:
        return self._views.cameras if self._poses is None else self._poses.cameras()

    def _gradient(
        self,
        stage: _Stage,
        step: int,
        topology: Topology,
        pictures: Pictures,
        depth_z: Float[Tensor, "views height width"],
    ) -> tuple[float, Float[Tensor, "vertices 3"]]:
        """The loss over some of the views, and its gradient; moves the cameras on, if they are to move."""
        turns = math.ceil(len(self._views) / _VIEWS_A_STEP)
        chosen = torch.arange(step % turns, len(self._views), turns, device=depth_z.device)
        vertices = self._vertices.detach().requires_grad_(True)
        cameras = self._cameras()
        sight = look(vertices, topology, cameras[chosen], *depth_z.shape[1:])
        wanted = pictures[chosen]
        outline = silhouette_error(sight.coverage, wanted.alpha, wanted.kept.to(vertices.dtype))
        loss = (outline * self._trust[chosen]).mean()
        loss = loss + stage.roughness * normal_roughness(vertices, topology.faces, topology.pairs, stage.crease)
        loss = loss + stage.area * self._area(vertices, topology.faces)
        if len(self._views) > 1:
            points = _choose(_comparable(sight, wanted), _POINTS, self._random)
            comparison = self._compare(sight, chosen, points, cameras, pictures, depth_z)
            loss = loss + _PHOTO * photo_error(comparison, self._trust)
        if wanted.depth_z is not None:
            loss = loss + _DEPTH * self._depth_error(sight, wanted, chosen)
        if wanted.normals is not None:
            loss = loss + _NORMALS * self._normal_error(Mesh(vertices, topology.faces), sight, wanted, chosen)
        if self._poses is None:
            loss.backward()
        else:
            self._poses.descend(loss)
        assert vertices.grad is not None
        return float(loss.detach()), vertices.grad

    def _area(self, vertices: Float[Tensor, "vertices 3"], faces: Int[Tensor, "faces 3"]) -> Float[Tensor, ""]:
        """The surface's area in the mesh's size. If the cameras may move, its gradient does not shrink the whole:
        a smaller object nearer to them looks the same."""
        area = mesh_area(vertices, faces) / self._size**2
        if self._poses is None:
            return area
        spread = (vertices - vertices.mean(0)).square().sum(1).mean()
        return area * spread.detach() / spread

    def _compare(
        self,
        sight: Sight,
        chosen: Int[Tensor, " chosen"],
        points: Int[Tensor, "points 3"],
        cameras: Cameras,
        pictures: Pictures,
        depth_z: Float[Tensor, "views height width"],
    ) -> Comparison:
        """Pixels (view, row, column) of a sight against one of the views near to theirs, drawn by lot."""
        at = tuple(points.unbind(1))
        height, width = depth_z.shape[1:]
        # Not points[at]: the gradient of that adds up pixels drawn twice in the order in which threads happen to run.
        pixel = (points[:, 0] * height + points[:, 1]) * width + points[:, 2]
        view = chosen[points[:, 0]]
        lot = torch.randint(self._near.shape[1], (len(points),), generator=self._random).to(view.device)
        return compare(
            sight.points.flatten(0, 2).index_select(0, pixel),
            sight.normals[at],
            pictures[chosen].colors[at],
            view,
            self._near[view, lot],
            cameras,
            pictures,
            depth_z,
        )

    def _depth_error(self, sight: Sight, wanted: Pictures, chosen: Int[Tensor, " chosen"]) -> Float[Tensor, ""]:
        error = charbonnier(self._depth_offset(sight, wanted).square() * wanted.kept, _DEPTH_SCALE) / _DEPTH_SCALE
        return (error.mean(dim=(1, 2)) * self._trust[chosen]).mean()

    def _depth_offset(self, sight: Sight, wanted: Pictures) -> Float[Tensor, "views height width"]:
        """How far behind the wanted depth the surface lies, in the mesh's size; 0 where either has none."""
        assert wanted.depth_z is not None
        both = (wanted.depth_z > 0) & (sight.fragments.depth_z > 0)
        return torch.where(both, sight.fragments.depth_z - wanted.depth_z, 0) / self._size

    def _normal_error(
        self, mesh: Mesh, sight: Sight, wanted: Pictures, chosen: Int[Tensor, " chosen"]
    ) -> Float[Tensor, ""]:
        error = charbonnier(_normal_offset(mesh, sight, wanted) * wanted.kept, _NORMAL_SCALE) / _NORMAL_SCALE
        return (error.mean(dim=(1, 2)) * self._trust[chosen]).mean()

    @torch.no_grad()
    def _look_around(self, topology: Topology, pictures: Pictures) -> Float[Tensor, "views height width"]:
        """Depths of all views, for visibility; and how far each view is to be trusted, given that most are right."""
        cameras = self._cameras()
        sight = look(self._vertices, topology, cameras, *pictures.alpha.shape[1:])
        depth_z = sight.fragments.depth_z
        if len(self._views) < _FEWEST_TO_VOTE:
            return depth_z
        outline = silhouette_error(sight.coverage, pictures.alpha, pictures.kept.to(depth_z.dtype))
        everywhere = torch.arange(len(self._views), device=depth_z.device)
        points = _choose(_comparable(sight, pictures), 2 * _POINTS, self._random)
        comparison = self._compare(sight, everywhere, points, cameras, pictures, depth_z)
        color = _per_view_error(comparison, self._near)
        self._trust = _trust(outline, _OUTLINE_SLACK * max(depth_z.shape[1:])) * _trust(color, COLOR_SCALE)
        return depth_z

    @torch.no_grad()
    def _keep_if_better(self) -> None:
        state = self._judge(Mesh(self._vertices, self._faces))
        # Less tells nothing: where colours are even, true shapes have lost to their hulls by a third of this.
        handicap = _TELLING**2 if self._best is self._start else 0.0
        if state.error < self._best.error + handicap:
            self._best = state

    @torch.no_grad()
    def _judge(self, mesh: Mesh) -> _State:
        """Predict the withheld pixels from the other views: colours by way of the mesh, coverage by the mesh."""
        cameras = self._cameras()
        cameras = Cameras(cameras.T_world_camera.detach(), cameras.intrinsics.detach())
        pictures = self._judged
        sight = look(mesh.vertices, Topology.of(mesh.faces), cameras, *pictures.alpha.shape[1:])
        points = ((sight.fragments.face_ids >= 0) & pictures.withheld).nonzero()
        at = tuple(points.unbind(1))
        total = torch.zeros_like(sight.points[at])
        weight = torch.zeros_like(total[:, :1])
        for other in self._near.unbind(1):
            comparison = compare(
                sight.points[at],
                sight.normals[at],
                pictures.colors[at],
                at[0],
                other[at[0]],
                cameras,
                pictures,
                sight.fragments.depth_z,
            )
            total += comparison.trust[:, None] * comparison.colors
            weight += comparison.trust[:, None]
        mean = _mean_colors(pictures)[at[0]]
        colors = torch.where(weight > 0, total / weight.clamp(min=torch.finfo(weight.dtype).tiny), mean)
        # Colours count where picture and mesh are wholly object: what outlines mix in is counted as coverage.
        inside = (pictures.opaque & (sight.coverage > _INSIDE))[at]
        squared = _outline_offset(sight.coverage, pictures.alpha).square()
        squared[at] += torch.where(inside, (colors - pictures.colors[at]).square().mean(1), 0)
        if pictures.depth_z is not None:
            squared = squared + self._depth_offset(sight, pictures).square()
        if pictures.normals is not None:
            squared = squared + _normal_offset(mesh, sight, pictures) / 4
        errors = (squared * pictures.withheld).sum(dim=(1, 2)) / pictures.withheld.sum(dim=(1, 2)).clamp(min=1)
        counted = len(errors) - int(_DROPPED * len(errors))
        return _State(mesh, cameras, float(errors.sort().values[:counted].mean()))


def _thickness(views: Views) -> float:
    """Mean thickness of the silhouettes, as a share of a picture's longer side: twice their area by their outline."""
    alpha = views.alpha[:, 0]
    padded = torch.nn.functional.pad(alpha, (0, 1, 0, 1))
    down, right = padded[:, 1:, :-1] - alpha, padded[:, :-1, 1:] - alpha
    outline = (down.square() + right.square()).sqrt().sum()
    return float(2 * alpha.sum() / outline.clamp(min=1)) / max(alpha.shape[1:])


def _comparable(sight: Sight, pictures: Pictures) -> Int[Tensor, "pixels 3"]:
    return ((sight.fragments.face_ids >= 0) & pictures.opaque & pictures.kept).nonzero()


def _choose(rows: Int[Tensor, "rows columns"], count: int, random: torch.Generator) -> Int[Tensor, "chosen columns"]:
    """Some of the rows, drawn by lot; all if there are no more than ``count``."""
    if len(rows) <= count:
        return rows
    return rows[torch.randint(len(rows), (count,), generator=random).to(rows.device)]


def _normal_offset(mesh: Mesh, sight: Sight, wanted: Pictures) -> Float[Tensor, "views height width"]:
    """Squared difference between the wanted normals and those of the faces, 0 to 4; 0 where there is none of either."""
    assert wanted.normals is not None
    both = (wanted.normals.square().sum(3) > 0.5) & (sight.fragments.face_ids >= 0)
    ours = normalize(mesh.face_normals(), dim=1)[sight.fragments.face_ids[both]]
    squared = (ours - wanted.normals[both]).square().sum(1)
    return torch.zeros_like(sight.coverage).index_put(both.nonzero(as_tuple=True), squared)


def _outline_offset(
    coverage: Float[Tensor, "views height width"], alpha: Float[Tensor, "views height width"]
) -> Float[Tensor, "views height width"]:
    """Differences of coverage, but for those that an outline off by half a pixel makes.

    A hull was carved with the withheld pixels too, so its outlines are better than any fit's by a hair.
    """
    difference = avg_pool2d((coverage - alpha)[:, None], 3, stride=1, padding=1)[:, 0].abs()
    return (difference - _OUTLINE_HAIR).clamp(min=0)


def _mean_colors(pictures: Pictures) -> Float[Tensor, "views 3"]:
    """What is said of points that no other view sees: the mean of the object in the picture, white apart."""
    weight = (pictures.alpha * pictures.kept)[..., None]
    return ((pictures.colors - (1 - pictures.alpha[..., None])) * pictures.kept[..., None]).sum(
        dim=(1, 2)
    ) / weight.sum(dim=(1, 2)).clamp(min=1)


def _per_view_error(comparison: Comparison, near: Int[Tensor, "views others"]) -> Float[Tensor, " views"]:
    """Median over a view's partners of the mean difference of colours: one wrong partner does not blame a view."""
    views = len(near)
    pair = comparison.view * views + comparison.other
    seen = torch.zeros(views * views).to(comparison.squared).index_add_(0, pair, comparison.trust)
    difference = torch.zeros_like(seen).index_add_(0, pair, comparison.trust * comparison.squared.sqrt())
    mean = torch.where(seen > 0, difference / seen, torch.nan).view(views, views)
    return mean.gather(1, near).nanmedian(dim=1).values.nan_to_num(0.0)


def _trust(errors: Float[Tensor, " views"], slack: float) -> Float[Tensor, " views"]:
    return geman_mcclure_weight(errors, _OUTLIER * errors.median() + slack)
