"""How good a result is: metrics, scores by view, preview, turntable and report.json.

`compare_shapes` and the picture metrics need a reference; `Scored` judges a mesh by the pictures it was made from.
Nothing in here changes a mesh.
"""

from meshwright.evaluate.comparison import write_comparison
from meshwright.evaluate.metrics import (
    ShapeScores,
    SurfaceSamples,
    chamfer,
    compare_shapes,
    f_score,
    normal_consistency,
    psnr,
    silhouette_iou,
    ssim,
)
from meshwright.evaluate.novel_views import Case, Split, draw_split, evaluate, read_splits
from meshwright.evaluate.pictures import preview, turntable
from meshwright.evaluate.report import versions, write_report
from meshwright.evaluate.scans import (
    ScanRig,
    Scene,
    load_scan,
    novel_cameras,
    photograph,
    rig_cameras,
    scan_scene,
)
from meshwright.evaluate.scores import Scored, ViewScore
from meshwright.evaluate.stages import Stage, StageClock

__all__ = [
    "Case",
    "ScanRig",
    "Scene",
    "Scored",
    "ShapeScores",
    "Split",
    "Stage",
    "StageClock",
    "SurfaceSamples",
    "ViewScore",
    "chamfer",
    "compare_shapes",
    "draw_split",
    "evaluate",
    "f_score",
    "load_scan",
    "normal_consistency",
    "novel_cameras",
    "photograph",
    "preview",
    "psnr",
    "read_splits",
    "rig_cameras",
    "scan_scene",
    "silhouette_iou",
    "ssim",
    "turntable",
    "versions",
    "write_comparison",
    "write_report",
]
