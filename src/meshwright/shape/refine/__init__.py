"""Fit a mesh, and if asked its cameras, to the pictures: coarse to fine, steps against the gradient of named terms.

`fit` has the loop, `stages` its table, `terms` the loss, `scene` what the mesh looks like, `view_weights` who is wrong,
`validation` how good a state is: the best on withheld pixels comes back, or the start if that is clearly better.
"""

from meshwright.shape.refine.fit import Refined, refine, refine_best

__all__ = ["Refined", "refine", "refine_best"]
