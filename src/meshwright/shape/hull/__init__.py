"""Visual hull: from silhouettes to a smooth signed field and a closed mesh, with no model.

A point is inside when every picture shows object where it falls. Instead of carving voxels, each picture becomes
signed distances to its outline (`outlines`), each point reads its distance in world units in every picture (`cones`)
and keeps the largest, but for views that contradict the others (`agreement`); a grid that fits (`bounds`) samples that.

Laurentini 1994, "The visual hull concept for silhouette-based image understanding", as a distance field.
"""

from meshwright.shape.hull.cones import Silhouettes
from meshwright.shape.hull.grid import VisualHull, visual_hull
from meshwright.shape.hull.outlines import outline_distances_px

__all__ = ["Silhouettes", "VisualHull", "outline_distances_px", "visual_hull"]
