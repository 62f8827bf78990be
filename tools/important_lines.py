"""Changes to single lines that would spoil results without an error; `tools/mutants.py --important` tries them.

(module under src/meshwright, what stands there exactly once, what to put in its place, the tests that must notice).
"""

IMPORTANT = [
    # Each term of refinement's loss.
    ("shape/refine/terms.py", "silhouettes = (outline", "silhouettes = (0 * outline", "test_refine_terms.py"),
    ("shape/refine/terms.py", "smoothness = stage.roughness", "smoothness = 0", "test_refine_terms.py"),
    ("shape/refine/terms.py", "area = stage.area * _area", "area = 0 * _area", "test_refine_terms.py"),
    ("shape/refine/terms.py", "photo = _PHOTO *", "photo = 0 *", "test_refine_terms.py"),
    ("shape/refine/terms.py", "depth = _DEPTH *", "depth = 0 *", "test_refine_terms.py"),
    ("shape/refine/terms.py", "normals = _NORMALS *", "normals = 0 *", "test_refine_terms.py"),
    ("shape/refine/terms.py", "return area * spread.detach() / spread", "return area", "test_refine_terms.py"),
    ("shape/refine/poses.py", "return _PENALTY *", "return 0 *", "test_refine_terms.py"),
    # Who is believed, and what is hidden.
    (
        "shape/refine/terms.py",
        "comparison.weight * view_weights[comparison.view] * view_weights[comparison.other]",
        "comparison.weight",
        "test_refine_terms.py",
    ),
    (
        "shape/refine/view_weights.py",
        "return _weights(outline, _OUTLINE_SLACK * max(depth_z.shape[1:])) * _weights(color, COLOR_SCALE)",
        "return torch.ones_like(outline)",
        "test_refine_terms.py",
    ),
    (
        "shape/refine/view_weights.py",
        "max(depth_z.shape[1:])) * _weights(color, COLOR_SCALE)",
        "max(depth_z.shape[1:]))",
        "test_refine_terms.py",
    ),
    (
        "shape/refine/fit.py",
        "self.view_weights = estimate_view_weights(",
        "estimate_view_weights(",
        "test_refine_terms.py test_refine.py",
    ),
    (
        "shape/refine/scene.py",
        "visible &= (z - seen[:, 4]).abs() < _DEPTH_SLACK_PX * tolerance",
        "pass",
        "test_refine_terms.py",
    ),
    ("shape/refine/scene.py", " & (cos > _GRAZING_COS)", "", "test_refine_terms.py"),
    (
        "shape/refine/scene.py",
        "usable = (pictures.opaque & pictures.kept)",
        "usable = pictures.opaque",
        "test_refine_terms.py",
    ),
    (
        "shape/refine/fit.py",
        "torch.arange(step % turns, count, turns)",
        "torch.arange(min(count, 6))",
        "test_refine_terms.py",
    ),
    # The judge.
    (
        "shape/refine/validation.py",
        "_outline_offset(rendered.coverage, pictures.alpha).square()",
        "0 * rendered.coverage",
        "test_refine_terms.py",
    ),
    (
        "shape/refine/validation.py",
        "(colors - pictures.colors[at]).square().mean(1), 0)",
        "0 * colors[:, 0], 0)",
        "test_refine_terms.py",
    ),
    ("shape/refine/validation.py", "+ depth_offset(rendered, pictures, size).square()", "", "test_refine_terms.py"),
    ("shape/refine/fit.py", "if state.error < self.best.error + handicap:", "if True:", "test_refine.py"),
    (
        "shape/refine/fit.py",
        "_CLEARLY**2 if self.best is self.start",
        "1.0 if self.best is self.start",
        "test_refine.py",
    ),
    # What cannot be known is taken out.
    (
        "shape/refine/poses.py",
        "twists = (twists - self._gauge @ (self._gauge.T @ twists)).view(-1, 6)",
        "twists = twists.view(-1, 6)",
        "test_refine_terms.py",
    ),
    ("capture/path.py", "offsets_deg[:, 0] -= offsets_deg[:, 0].mean()", "pass", "test_orbit.py"),
    ("capture/path.py", "+ _ENERGY_WEIGHT * _path_energy(offsets_deg)", "", "test_orbit.py"),
    ("capture/path.py", "if not is_better(after, before, _LEAST_GAIN):", "if False:", "test_orbit.py"),
    ("capture/orbit.py", "found.mirrored != _turns_clockwise", "found.mirrored == _turns_clockwise", "test_orbit.py"),
    ("capture/load.py", "return [i * count // limit for", "return [i for", "test_views.py test_orbit.py"),
    # The hull.
    (
        "shape/hull/outlines.py",
        "(middle >= 0) == (level[i, j] >= 0)",
        "(middle >= 0) != (level[i, j] >= 0)",
        "test_hull.py",
    ),
    ("shape/hull/agreement.py", "kept.pop(int(blame.argmax()))", "break", "test_hull.py"),
    ("shape/hull/agreement.py", "ignored, iou = ignored + 1, better", "break", "test_hull.py"),
    # Colours.
    ("color/texture_fit.py", "best_error < _WORTH_IT * first_error", "True", "test_bake.py"),
    ("color/texture_fit.py", "used = torch.where(withheld, 0, weights)", "used = weights", "test_bake.py"),
    (
        "color/visibility.py",
        "torch.where(hidden | beside, 0.0, 1.0)",
        "torch.ones_like(depth_z)",
        "test_color_vertices.py test_bake.py",
    ),
    (
        "color/visibility.py",
        "torch.where(hidden | beside, 0.0, 1.0)",
        "torch.where(hidden, 0.0, 1.0)",
        "test_color_vertices.py test_bake.py",
    ),
    (
        "color/visibility.py",
        "quality = cos * magnification",
        "quality = magnification",
        "test_color_vertices.py test_bake.py",
    ),
    ("color/visibility.py", "quality = cos * magnification", "quality = cos", "test_color_vertices.py test_bake.py"),
    ("color/exposure.py", "gains.append(gain * scale)", "gains.append(gain)", "test_bake.py"),
    ("color/exposure.py", "agreement = (1 + residual / scale**2) ** -2", "pass", "test_bake.py"),
    # The mesh.
    ("shape/remesh.py", "return common == 2", "return True", "test_refine.py"),
    (
        "shape/simplify.py",
        "faces = _without_back_to_back(faces.astype(np.int64))",
        "faces = faces.astype(np.int64)",
        "test_atlas.py",
    ),
]
