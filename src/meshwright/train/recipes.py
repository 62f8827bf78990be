"""Trainings worth naming: each function returns a whole `TrainConfig`, every field of which a flag can change."""

import dataclasses
from collections.abc import Callable

from meshwright.curate import SampleOptions
from meshwright.model import PRESETS, ModelConfig
from meshwright.train.config import LossWeights, OptimizerOptions, TrainConfig


def stage1_large() -> TrainConfig:
    """The published first stage of the large model: 6 + 4 of 32 views, LPIPS, warm restarts, bf16."""
    return TrainConfig(PRESETS["instant-nerf-large"], batch_size=2, precision="bf16", recompute=True)


def stage1_base() -> TrainConfig:
    """The published first stage of the base model."""
    return TrainConfig(PRESETS["instant-nerf-base"], batch_size=2, precision="bf16", recompute=True)


def stage2_large() -> TrainConfig:
    """The published second stage of the large model; give the first stage's run as --start."""
    return TrainConfig(
        PRESETS["instant-mesh-large"],
        stage="stage2",
        batch_size=2,
        data=SampleOptions(crop_px=512, render_px=(512, 512)),
        losses=LossWeights(depth=0.5, normal=0.2, entropy=0.01, deviation=0.5, cube_weight=0.1),
        optimizer=OptimizerOptions(learning_rate=4e-5, restart_steps=100_000, lowest_rate=0.0, clip_norm=0.0),
        unsigned_normals=True,
        precision="bf16",
        recompute=True,
    )


def seed_overfit() -> TrainConfig:
    """MindOne's example: the large model learns three objects by heart; 3 + 2 of 16 views, 192 px, fp32."""
    return TrainConfig(
        PRESETS["instant-nerf-large"],
        steps=7000,
        data=SampleOptions(inputs=3, targets=2, render_px=(192, 512), rotate_z=False, scale_probability=0.0),
        optimizer=OptimizerOptions(schedule="cosine", warmup_steps=1000, lowest_rate=1e-7 / 4e-4, eps=1e-6),
        recompute=True,
    )


def tiny_stage1() -> TrainConfig:
    """A model of 1.3 million weights that a laptop's CPU teaches a few objects by heart; no perceptual term."""
    return TrainConfig(
        _tiny("nerf"),
        steps=2500,
        workers=0,
        data=dataclasses.replace(_TINY_DATA, crop_px=24, render_px=(36, 72)),
        losses=LossWeights(perceptual=0.0, depth=0.1),
        optimizer=OptimizerOptions(learning_rate=2e-3, schedule="cosine", warmup_steps=50, lowest_rate=0.02),
        ema_decay=0.99,
        checkpoint_every=250,
        keep_checkpoints=2,
        validate_every=500,
        pictures_every=250,
    )


def tiny_stage2() -> TrainConfig:
    """The mesh stage of the tiny model; give its first stage's run as --start."""
    return TrainConfig(
        _tiny("mesh"),
        stage="stage2",
        steps=500,
        workers=0,
        data=dataclasses.replace(_TINY_DATA, crop_px=96, render_px=(96, 96)),
        losses=LossWeights(
            perceptual=0.0, depth=0.5, normal=0.2, entropy=0.01, deviation=0.5, cube_weight=0.1, free_space=0.1
        ),
        optimizer=OptimizerOptions(learning_rate=3e-4, schedule="cosine", warmup_steps=20, lowest_rate=0.02),
        ema_decay=0.98,
        checkpoint_every=250,
        keep_checkpoints=2,
        validate_every=250,
        pictures_every=250,
    )


# As few rays and pictures as still teach something; inputs as large as `reconstruct` gives them to any model.
_TINY_DATA = SampleOptions(
    inputs=4, targets=4, supervise_inputs=False, rotate_z=False, scale_probability=0.0, camera_noise=0.0
)


def _tiny(kind: str) -> ModelConfig:
    return ModelConfig(
        kind,
        encoder_hidden_size=96,
        encoder_layers=2,
        encoder_heads=4,
        encoder_mlp_size=384,
        encoder_image_size=320,
        patch_size=32,
        transformer_dim=96,
        transformer_layers=3,
        transformer_heads=4,
        triplane_low_res=24,
        triplane_dim=32,
        samples_per_ray=32,
        grid_res=64,
        mesh_resolution=96,
    )


RECIPES: dict[str, Callable[[], TrainConfig]] = {
    recipe.__name__: recipe
    for recipe in (stage1_large, stage2_large, stage1_base, seed_overfit, tiny_stage1, tiny_stage2)
}
