"""Named configurations. A preset that ships carries its measured scores in its model file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from attenua.config import (
    Config,
    ModelConfig,
    NetworkConfig,
    ObjectiveConfig,
    ProcessConfig,
    SamplingConfig,
    TaskConfig,
    TrainingConfig,
    closest,
)


def cifar10() -> Config:
    """CIFAR-10 for one or two GPUs: 19 M parameters, one decoder with two heads, 8 GFLOP a call."""
    return Config(
        model=ModelConfig(
            network=NetworkConfig(width=128, multipliers=(1, 2, 2), blocks=2, attention=(8,), heads=4, norm="rms")
        ),
        training=TrainingConfig(images=36_000_000, batch=512, rate=1e-3, checkpoint_every=4_000_000),
    )


def cifar10_cpu() -> Config:
    """CIFAR-10 for a laptop's processor: 2.6 M parameters at half resolution inside, 0.3 GFLOP a call."""
    network = NetworkConfig(
        width=64, multipliers=(1, 2, 2), blocks=1, attention=(8,), heads=4, patch=2, dropout=0.0, norm="rms"
    )
    training = TrainingConfig(
        images=300_000,
        batch=64,
        rate=1e-3,
        warmup=10_000,
        constant=0.3,
        ema=(0.10, 0.15),
        log_every=6_400,
        checkpoint_every=25_600,
        sample_every=51_200,
        compile=True,
    )
    return Config(model=ModelConfig(network=network), training=training)


def cifar10_paper() -> Config:
    """The paper's CIFAR-10 network and recipe: two decoders, 215 M parameters, published heads, weights and times."""
    network = NetworkConfig(
        width=192,
        multipliers=(1, 2, 2, 2),
        blocks=3,
        attention=(16, 8),
        heads=6,
        skips="all",
        resample="block",
        middle=2,
        decoders=2,
        split="spatial",
        dropout=0.1,
    )
    process = ProcessConfig(law="constant", noise="wiener", precondition="paper", combination="paper")
    training = TrainingConfig(
        images=800_000 * 256,
        batch=256,
        micro_batch=128,
        rate=1e-4,
        betas=(0.9, 0.999),
        weight_decay=0.01,
        warmup=0,
        constant=1.0,
        augment=0.12,
    )
    return Config(
        model=ModelConfig(network=replace(network, augment_labels=8), process=process),
        objective=ObjectiveConfig(times="uniform", weights="paper", l1=1.0, perceptual=1.0),
        training=training,
        sampling=SamplingConfig(steps=10, solver="released", grid="released"),
    )


def super_resolution(scale: int = 4) -> Config:
    """Super-resolution: all work is done at the low resolution, and half of it; windows instead of attention."""
    network = NetworkConfig(
        image_size=32 * scale,
        width=64,
        multipliers=(1, 2),
        blocks=2,
        attention=(),
        patch=scale,
        dropout=0.0,
        norm="rms",
        condition_channels=3,
        condition_scale=scale,
        condition_blocks=3,
    )
    return Config(
        model=ModelConfig(network=network, task=TaskConfig("super-resolution", scale)),
        objective=ObjectiveConfig(final_share=0.25),
        training=TrainingConfig(
            images=4_000_000, batch=64, rate=1e-3, warmup=20_000, checkpoint_every=200_000, sample_every=400_000
        ),
        sampling=SamplingConfig(steps=5, grid="uniform"),
    )


def edges() -> Config:
    """Edges: ImageNet features below a U-Net at half the picture's size; a 481 x 321 picture is 35 GFLOP a call."""
    return _perception("edges", image_size=160, patch=2)


def saliency() -> Config:
    """Saliency: ImageNet features below a U-Net at a quarter of the picture's size, which sees the whole picture."""
    return _perception("saliency", image_size=256, patch=4)


def _perception(task: Literal["edges", "saliency"], image_size: int, patch: int) -> Config:
    """Return the network and training of a map: more noise than for pictures, for the condition tells most there.

    And a small skip: with that of s_d, samples are full of grain (docs/mathematics.md, what a small skip is worth).
    """
    network = NetworkConfig(
        image_size=image_size,
        channels=1,
        width=48,
        multipliers=(1, 2, 2, 2),
        blocks=1,
        attention=(),
        patch=patch,
        dropout=0.0,
        norm="rms",
        condition_channels=3,
        condition_blocks=1,
        features="efficientnet-lite0",
    )
    training = TrainingConfig(
        images=1_600_000,
        batch=32,
        rate=1e-3,
        feature_rate=0.1,
        warmup=20_000,
        log_every=6_400,
        checkpoint_every=64_000,
        sample_every=128_000,
    )
    return Config(
        model=ModelConfig(network=network, process=ProcessConfig(skip_deviation=0.1), task=TaskConfig(task)),
        objective=ObjectiveConfig(log_mean=-0.5, log_deviation=1.6, final_share=0.3),
        training=training,
        sampling=SamplingConfig(steps=5, grid="uniform"),
    )


def inpainting() -> Config:
    """Inpainting: 3.9 M parameters at half resolution, a fourth level for wide holes; no attention."""
    network = NetworkConfig(
        image_size=128,
        width=56,
        multipliers=(1, 2, 2, 2),
        blocks=1,
        attention=(),
        patch=2,
        dropout=0.0,
        norm="rms",
        condition_channels=4,
        condition_blocks=1,
        gains=True,
    )
    return Config(
        model=ModelConfig(network=network, task=TaskConfig("inpainting")),
        objective=ObjectiveConfig(log_mean=-0.5, final_share=0.1),
        training=TrainingConfig(
            images=4_000_000, batch=64, rate=1e-3, warmup=20_000, checkpoint_every=200_000, sample_every=400_000
        ),
        sampling=SamplingConfig(steps=5, grid="uniform"),  # by LPIPS of filled faces and photographs, and by eye
    )


PRESETS: dict[str, Callable[[], Config]] = {
    "cifar10": cifar10,
    "cifar10-cpu": cifar10_cpu,
    "cifar10-paper": cifar10_paper,
    "super-resolution": super_resolution,
    "inpainting": inpainting,
    "edges": edges,
    "saliency": saliency,
}
"""Every preset by name."""


def preset(name: str) -> Config:
    """Return the preset of that name. Raises ValueError that lists the known ones."""
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}{closest(name, PRESETS)}; known: {', '.join(PRESETS)}")
    return PRESETS[name]()
