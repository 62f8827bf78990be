"""Training: pictures of many objects in, the weights of a reconstruction model out.

A recipe (`RECIPES`) is a `TrainConfig`; `loop` runs it and knows nothing of stages; `stage1` (volume rendering) and
`stage2` (meshes) turn a batch into named losses; `runs` keeps what happened on disk, so that any run can go on.
Needs the extra ``train``.
"""

from meshwright.train.config import LossWeights, OptimizerOptions, TrainConfig, from_yaml, to_yaml
from meshwright.train.loop import Outcome
from meshwright.train.perceptual import Lpips
from meshwright.train.recipes import RECIPES
from meshwright.train.runs import Run
from meshwright.train.training import run_training
from meshwright.train.validation import predict

__all__ = [
    "RECIPES",
    "LossWeights",
    "Lpips",
    "OptimizerOptions",
    "Outcome",
    "Run",
    "TrainConfig",
    "from_yaml",
    "predict",
    "run_training",
    "to_yaml",
]
