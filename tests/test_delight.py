"""Shading taken out of pictures: what was paint before the light fell on it comes out again."""

import pytest
import torch

from meshwright.cameras import Cameras
from meshwright.color import VisibleSurface, delight
from meshwright.color.shading import basis, estimate_light
from meshwright.errors import InputError
from meshwright.mesh import Mesh
from meshwright.options import ColorOptions, FitOptions
from meshwright.raster import render
from meshwright.reconstruct import StartShape, finish
from meshwright.srgb import linear_from_srgb, srgb_from_linear
from meshwright.views import Views
from small_objects import egg_with_nose

SIZE_PX = 96
CAMERAS = Cameras.spherical([i * 45.0 for i in range(8)], [20.0, -15.0] * 4, 3.0, 35.0)


def lambert(normals: torch.Tensor, towards: tuple[float, float, float]) -> torch.Tensor:
    direction = torch.nn.functional.normalize(torch.tensor(towards), dim=0)
    return 0.45 + 0.55 * (normals @ direction).clamp(min=0)


def lit(mesh: Mesh, light: str) -> Views:
    """Pictures of a coloured mesh: unlit, under a lamp in the world, or under one that moves with the camera."""
    assert mesh.vertex_colors is not None
    paint, normals = linear_from_srgb(mesh.vertex_colors), mesh.vertex_normals()
    images, alpha = [], []
    for i in range(len(CAMERAS)):
        shading = torch.ones(len(normals))
        if light in ("world", "both"):
            shading = shading * lambert(normals, (0.3, 0.5, 1.0))
        if light in ("camera", "both"):
            shading = shading * lambert(normals @ CAMERAS.T_world_camera[i, :3, :3], (-0.8, 0.3, 0.6))
        shaded = mesh.replace(vertex_colors=srgb_from_linear(paint * shading[:, None]))
        drawn = render(shaded, CAMERAS[[i]], SIZE_PX, SIZE_PX, samples=4)
        images.append(drawn.rgb)
        alpha.append(drawn.alpha)
    sizes = torch.full((len(CAMERAS), 2), SIZE_PX)
    return Views(torch.cat(images), torch.cat(alpha), CAMERAS, sizes, tuple(map(str, range(len(CAMERAS)))))


def error_of_paint(mesh: Mesh, views: Views) -> float:
    """Spread of the logarithm of light that is seen over that of the paint: 0 if they agree up to one factor."""
    assert mesh.vertex_colors is not None
    paint = linear_from_srgb(mesh.vertex_colors)
    ratios = []
    for i in range(len(views)):
        colors, quality = VisibleSurface.of(mesh, views[[i]]).sample_view(mesh.vertices, mesh.vertex_normals())
        good = quality > 0.3 * quality.max()
        ratios.append((linear_from_srgb(colors).mean(1) / paint.mean(1))[good].clamp(min=0.01).log())
    return float(torch.cat(ratios).std())


@pytest.fixture(scope="module")
def painted() -> Mesh:
    """Patches of five hues, none of them by height or side."""
    egg = egg_with_nose()
    hues = torch.tensor([[0.8, 0.3, 0.3], [0.3, 0.7, 0.3], [0.35, 0.4, 0.85], [0.75, 0.7, 0.3], [0.6, 0.35, 0.7]])
    patch = (6 * egg.vertices + torch.sin(9 * egg.vertices.flip(1))).floor().long().sum(1) % 5
    return egg.replace(vertex_colors=hues[patch])


@pytest.mark.parametrize("light", ["world", "camera", "both"])
def test_paint_comes_out_from_under_the_light(painted, light):
    views = lit(painted, light)
    before, after = error_of_paint(painted, views), error_of_paint(painted, delight(painted, views))
    assert before > 0.15
    assert after < 0.35 * before


def test_one_paint_all_over_comes_out_even(painted):
    plain = painted.replace(vertex_colors=torch.full_like(painted.vertices, 0.6))
    views = lit(plain, "world")
    assert error_of_paint(plain, delight(plain, views)) < 0.25 * error_of_paint(plain, views)


def test_light_of_the_camera_needs_no_assumption_about_paint(painted):
    """One hue, dark below and bright above, as a lamp overhead would make it: only views that overlap can tell."""
    height = (painted.vertices[:, 2:] / 0.75 + 1) / 2
    plain = painted.replace(vertex_colors=(0.3 + 0.5 * height).expand(-1, 3).contiguous())
    of_camera, _ = estimate_light(plain, lit(plain, "camera"))
    unlit, _ = estimate_light(plain, lit(plain, "unlit"))
    assert unlit.norm() < 0.1 * of_camera.norm()
    normals = plain.vertex_normals() @ CAMERAS.T_world_camera[:, :3, :3]
    true, found = lambert(normals, (-0.8, 0.3, 0.6)).log(), basis(normals) @ of_camera
    # What differs between the views that see a point.
    seen = torch.stack([
        VisibleSurface.of(plain, views[[i]]).sample_view(plain.vertices, plain.vertex_normals())[1] > 0.2
        for views in [lit(plain, "unlit")]
        for i in range(len(CAMERAS))
    ])  # fmt: skip
    share = seen / seen.sum(0).clamp(min=1)
    true, found = (value - (share * value).sum(0) for value in (true, found))
    assert (found - true)[seen].std() < 0.3 * true[seen].std()


def test_unlit_pictures_stay_as_they_are(painted):
    views = lit(painted, "unlit")
    assert (delight(painted, views).images - views.images).abs().mean() < 0.005


def test_turning_the_world_changes_nothing(painted):
    views = lit(painted, "both")
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0]
    turn = turn * torch.linalg.det(turn)
    T = views.cameras.T_world_camera.clone()
    T[:, :3] = turn @ T[:, :3]
    turned = delight(
        painted.replace(vertices=painted.vertices @ turn.T),
        Views(views.images, views.alpha, Cameras(T, CAMERAS.intrinsics), views.sizes_px, views.names),
    )
    assert (turned.images - delight(painted, views).images).abs().max() < 0.02


def test_the_objects_brightness_and_what_is_no_object_stay(painted):
    views = lit(painted, "both")
    after = delight(painted, views)
    assert bool((after.images == 1)[(views.alpha == 0).expand_as(views.images)].all())
    solid = (views.alpha == 1).expand_as(views.images)
    old, new = (linear_from_srgb(v.images)[solid].clamp(min=0.01).log().mean() for v in (views, after))
    assert abs(float(new - old)) < 0.05


def test_the_road_gives_the_mesh_its_paint(painted):
    views = lit(painted, "both")
    errors = []
    for wanted in (False, True):
        color = ColorOptions(vertex_colors=True, delight=wanted)
        done = finish(StartShape(painted), views, fit=FitOptions(refine="off"), color=color)
        assert done.views is views
        paint, found = (linear_from_srgb(mesh.vertex_colors).mean(1) for mesh in (painted, done.mesh))
        errors.append(float((found.clamp(min=0.01) / paint).log().std()))
    assert errors[1] < 0.5 * errors[0]


def test_it_is_refused_where_no_picture_gives_colours():
    with pytest.raises(InputError, match="`delight`: has no effect with `colors='model'`"):
        ColorOptions(colors="model", delight=True)
