"""A conditional model in hand: a picture of any size in, one output or several out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from attenua import weights
from attenua.model import AttenuationModel
from attenua.process import Process
from attenua.sampling import Grid, Solver, Step, Uniform, sample
from attenua.sampling.tiles import OnTile, TiledModel
from attenua.tasks.loaded import Loaded
from attenua.tasks.registry import task_of
from attenua.tasks.task import Task

OVERLAP = 32
"""Overlap of tiles, in pixels of the picture that the network is told."""


class Conditional(Loaded):
    """A model for a task with a picture: what `attenua.load_conditional` returns; see Loaded. task: the Task."""

    def __init__(self, path: Path, device: torch.device | None = None, process: Process | None = None) -> None:
        super().__init__(path, device, process)
        try:
            self.task: Task = task_of(self.model.config)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def draw(
        self,
        picture: Tensor,
        *,
        samples: int = 1,
        steps: int | None = None,
        seed: int = 0,
        solver: Solver | str | None = None,
        grid: Grid | str | Sequence[float] | None = None,
        eta: float | None = None,
        faithful: bool = False,
        tile: int | None = None,
        overlap: int = OVERLAP,
        callback: Callable[[Step], None] | None = None,
        on_tile: OnTile | None = None,
    ) -> Tensor:
        """Return outputs, float32 [samples, C, H, W] on the CPU, for a picture [C', h, w] of any size; see `draw`.

        What is None is the model's own default; sample k depends on (seed, k) alone.
        """
        choice = self.choose(steps, solver, grid, eta)
        return draw(
            self.model,
            self.task,
            picture,
            samples=samples,
            steps=choice.steps,
            seed=seed,
            solver=choice.solver,
            grid=choice.grid,
            faithful=faithful,
            tile=tile,
            overlap=overlap,
            callback=callback,
            on_tile=on_tile,
        )


def draw(
    model: AttenuationModel,
    task: Task,
    picture: Tensor,
    *,
    samples: int = 1,
    steps: int = 5,
    seed: int = 0,
    solver: Solver | None = None,
    grid: Grid | str | Sequence[float] | None = None,
    faithful: bool = False,
    tile: int | None = None,
    overlap: int = OVERLAP,
    callback: Callable[[Step], None] | None = None,
    on_tile: OnTile | None = None,
) -> Tensor:
    """Return outputs, float32 [samples, C, H, W] on the CPU, for a picture [C', h, w] of any size.

    faithful: one call at t = 1, the mean of all outputs that fit the picture (the best in mean square; theory,
    section 5), the same for every sample; otherwise samples by `steps` calls each. tile, overlap: in pixels of the
    picture (tile None: the task's); it is padded by reflection, never resized, and encoded once for all calls and
    samples, as far as the encoding fits in memory. Tiles without a pixel that the task needs are not computed. callback
    is told of every network call, on_tile of every tile within one. Raises ValueError for an empty picture, another
    number of channels, samples < 1.
    """
    if picture.ndim != 3 or picture.shape[0] != task.picture_channels or not picture.numel():
        raise ValueError(f"a picture must be [{task.picture_channels}, H, W], not {list(picture.shape)}")
    if samples < 1:
        raise ValueError(f"samples is {samples}; allowed is a whole number from 1")
    tile = task.tile if tile is None else tile
    for name, value, least in (("tile", tile, 1), ("overlap", overlap, 0)):
        if value < least:
            raise ValueError(f"{name} is {value}; allowed is a whole number from {least}")
    scale = task.scale
    multiple = model.network.multiple // scale
    padded, (height, width) = pad_to_multiple(picture[None].to(model.device, model.dtype), multiple)
    state_height, state_width = padded.shape[-2] * scale, padded.shape[-1] * scale
    side = max(tile // multiple, 1) * multiple * scale
    needed = task.unknown(padded)
    tiled = TiledModel(
        model,
        state_height,
        state_width,
        tile=side,
        overlap=overlap * scale,
        needed=None if needed is None else needed[0].cpu(),
        on_tile=on_tile,
    )
    condition, made = task.condition(padded), []
    assert condition.picture is not None
    for index in range(1 if faithful else samples):
        state = sample(
            tiled,
            (1, task.state_channels, state_height, state_width),
            steps=1 if faithful else steps,
            seed=seed,
            solver=solver,
            grid=Uniform() if faithful else grid,
            indices=[index],
            condition=condition,
            callback=callback,
            clip=False,
        )
        made.append(task.postprocess(state, condition.picture)[..., : height * scale, : width * scale].float().cpu())
    return torch.cat(made).expand(samples, -1, -1, -1)


def pad_to_multiple(picture: Tensor, multiple: int) -> tuple[Tensor, tuple[int, int]]:
    """Return [B, C, H', W'] padded at the bottom and right by reflection to multiples, and the sides before.

    Reflection reaches as far as the picture does; where a side is shorter than that, it is reflected again.
    """
    height, width = picture.shape[-2:]
    rows, columns = (_reflected(side, -(-side // multiple) * multiple) for side in (height, width))
    return picture[..., rows.to(picture.device), :][..., columns.to(picture.device)], (height, width)


def _reflected(side: int, length: int) -> Tensor:
    """Return the places 0..length - 1 of an axis of `side` pixels, reflected without repeating the border."""
    place = torch.arange(length)
    if side == 1:
        return torch.zeros_like(place)
    period = 2 * (side - 1)
    return (side - 1) - ((place % period) - (side - 1)).abs()


def load_conditional(name: str, device: str | torch.device = "cpu", process: Process | None = None) -> Conditional:
    """Return a conditional model by name (see `attenua models`) or path; errors as for `attenua.load`."""
    return Conditional(weights.find(name), torch.device(device), process)
