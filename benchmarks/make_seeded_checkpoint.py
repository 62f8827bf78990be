"""Write a checkpoint in the published form (PyTorch Lightning) with the sizes of a preset and seeded random weights.

    python benchmarks/make_seeded_checkpoint.py instant-mesh-large model.ckpt

No published weights are needed to try and time everything at its real size: what such a model reconstructs is a
shape, but no one's.
"""

import argparse
from pathlib import Path

import torch

from meshwright.files import atomic_path
from meshwright.model import PRESETS, build_model


def write_published_form(preset: str, path: Path, seed: int) -> None:
    """The weights as drawn by ``build_model``, beside a name that readers must drop."""
    model = build_model(PRESETS[preset], seed)
    state = {f"lrm_generator.{name}": tensor for name, tensor in model.state_dict().items()}
    state["lpips.scaling_layer.shift"] = torch.zeros(1, 3, 1, 1)
    content = {"epoch": 0, "global_step": 0, "pytorch-lightning_version": "2.1.2", "state_dict": state}
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write_published_form(arguments.preset, arguments.out, arguments.seed)
