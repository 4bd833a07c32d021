"""Where this process stands among those that train together: rank, size, device, and what they agree on."""

from __future__ import annotations

import inspect
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class World:
    """One process of `size`; rank 0 writes files and reports."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """Return this process's rows of a global batch. Raises ValueError if it does not divide evenly."""
        if batch % self.size:
            raise ValueError(f"training.batch is {batch}; it must be a multiple of the {self.size} processes")
        rows = batch // self.size
        return slice(self.rank * rows, (self.rank + 1) * rows)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process; every process must ask at the same point."""
        if self.size == 1:
            return flag
        value = torch.tensor([float(flag)], device=self.device)
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return bool(value.item())

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()


def connect(device: torch.device) -> World:
    """Join the process group that torchrun's environment describes (a world of one without it).

    On CUDA each process takes the device of its local rank and NCCL, elsewhere gloo.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World(0, 1, device)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        # the first process samples and scores alone, for longer than NCCL's ten minutes, while the others wait
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(hours=6))
    return World(dist.get_rank(), size, device)


def replicate(module: nn.Module, device: torch.device) -> DistributedDataParallel:
    """Return the module with gradients averaged over the processes; its buffers are the same everywhere and stay so."""
    ids = [device.index] if device.type == "cuda" else None
    known = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # newer and older torch
    constant: dict[str, Any] = {name: False}
    return DistributedDataParallel(module, device_ids=ids, **constant)


def disconnect() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
