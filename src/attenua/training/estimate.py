"""What a run will cost, before it starts: parameters, operations and memory, from a network without data."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor

from attenua.config import Config, ModelConfig
from attenua.model import AttenuationModel
from attenua.training.trainer import resolve

TRANSIENT = 4 / 3
"""Peak of a training step over what autograd keeps: gradients on their way, values that nothing keeps. Measured."""
LIBRARY = 32 * 2**20
"""Bytes that kernels take for themselves at any size. Measured on a processor."""


@dataclass(frozen=True)
class Estimate:
    """A resolved configuration, parameters, FLOPs of a forward pass an image, expected bytes on the device."""

    config: Config
    parameters: int
    flops: int
    memory: int
    micro_batch: int
    steps: int

    def figures(self) -> dict[str, int]:
        """Return the figures by name."""
        return {
            "parameters": self.parameters,
            "flops_per_image": self.flops,
            "training_flops_per_image": 3 * self.flops,
            "memory_bytes": self.memory,
            "micro_batch": self.micro_batch,
            "steps": self.steps,
        }


def estimate(config: Config, device: torch.device) -> Estimate:
    """Return what training a configuration on a device will take.

    Memory: weights, gradients, Adam's two moments and the averages in float32, and what autograd keeps for the
    images that a device takes at once, counted tensor by tensor on a network without memory, with the measured share
    that comes on top of it. Not in it: the pictures, and what torch and Python take before any work.
    """
    resolved = resolve(config, device)
    training = resolved.training
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    micro = min(training.micro_batch or training.batch, training.batch // processes)
    with torch.device("meta"):
        model = AttenuationModel(resolved.model)
    parameters, width = model.parameter_count(), 8 if training.precision == "float64" else 4
    copies = 4 + len(training.ema)
    kept = saved_bytes(resolved.model) * (0.5 if training.precision == "bfloat16" else 1.0) * width / 4
    memory = parameters * copies * width + int(TRANSIENT * kept * micro) + LIBRARY
    steps = -(-training.images // training.batch)
    return Estimate(resolved, parameters, model.flops(), memory, micro, steps)


def saved_bytes(config: ModelConfig) -> int:
    """Return the bytes that autograd keeps for one image in float32: every saved storage once, parameters left out."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            base = tensor._base if tensor._base is not None else tensor
            kept.setdefault(id(base), base)
        return tensor

    with torch.device("meta"), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model = AttenuationModel(config)
        model.network(*model.network.example())
    parameters = {id(parameter) for parameter in model.parameters()}
    return sum(tensor.numel() * tensor.element_size() for key, tensor in kept.items() if key not in parameters)
