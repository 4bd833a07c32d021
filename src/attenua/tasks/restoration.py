"""Restoration: what is missing in a picture is the state, what is there is the condition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from attenua.config import Config
from attenua.data.folder import OnSkip
from attenua.data.photographs import PhotoSet, load
from attenua.model import AttenuationModel
from attenua.networks import Condition
from attenua.sampling import Grid, Solver, Step, Uniform, sample
from attenua.sampling.tiles import TiledModel
from attenua.training.source import Source

MEASURED = 4096
"""Crops on which mu and s_d of the state are measured."""


@dataclass(frozen=True)
class SuperResolution:
    """Super-resolution by a whole factor: the state is the picture less its bicubic enlargement.

    So the network adds detail to what interpolation gives, and s_d is that of the detail. Pictures are float
    [B, 3, H, W] in [-1, 1]; the low resolution of training is the benchmarks' (antialiased bicubic, 8 bit).
    """

    scale: int = 4

    def __post_init__(self) -> None:
        if self.scale < 2:
            raise ValueError(f"scale is {self.scale}; allowed is a whole number from 2")

    def reduce(self, pictures: Tensor) -> Tensor:
        """Return the low-resolution pictures, on the grid of 8-bit levels. Sides must be multiples of the scale."""
        height, width = (side // self.scale for side in pictures.shape[-2:])
        if (height * self.scale, width * self.scale) != tuple(pictures.shape[-2:]):
            raise ValueError(f"sides of {list(pictures.shape[-2:])} pixels are no multiples of the scale, {self.scale}")
        small = F.interpolate(pictures.float(), size=(height, width), mode="bicubic", antialias=True)
        levels = ((small + 1) * 127.5).round().clamp(0, 255)
        return (levels / 127.5 - 1).to(pictures.dtype)

    def enlarge(self, small: Tensor) -> Tensor:
        """Return the bicubic enlargement."""
        return F.interpolate(small, scale_factor=self.scale, mode="bicubic", align_corners=False)

    def condition(self, small: Tensor) -> Condition:
        """Return what the network is told."""
        return Condition(picture=small)

    def postprocess(self, state: Tensor, small: Tensor) -> Tensor:
        """Return the picture of a state."""
        return (self.enlarge(small) + state).clamp(-1, 1)

    def dataset(
        self, path: Path, config: Config, *, strict: bool = False, on_skip: OnSkip | None = None
    ) -> SuperResolutionSource:
        """Return the training set of a folder or zip of photographs."""
        side = config.model.network.image_size
        return SuperResolutionSource(self, load(path, side, strict=strict, on_skip=on_skip), config)


class SuperResolutionSource(Source):
    """Crops of photographs, turned and mirrored, less their bicubic enlargement, beside their low resolution."""

    def __init__(self, task: SuperResolution, photographs: PhotoSet, config: Config) -> None:
        self.task, self.photographs = task, photographs
        self.name, self.terms = photographs.name, photographs.terms
        self.side = config.model.network.image_size
        self._measured: tuple[Tensor, float] | None = None

    def __len__(self) -> int:
        """Return the crops that cover the photographs once."""
        return max(int(self.photographs.sizes.prod(1).sum()) // self.side**2, 1)

    def sha256(self) -> str:
        """Return the checksum of the photographs."""
        return self.photographs.sha256()

    def _measure(self) -> tuple[Tensor, float]:
        if self._measured is None:
            generator = torch.Generator().manual_seed(0)
            total, square, count = torch.zeros(3, dtype=torch.float64), 0.0, 0
            for _ in range(max(MEASURED // 64, 1)):
                draws = torch.rand(64, 4, generator=generator, dtype=torch.float64)
                state, _ = self.batch(draws[:, 0], draws, torch.float32)
                values = state.double()
                total += values.sum((0, 2, 3))
                square += float(values.square().sum())
                count += values.numel() // 3
            mean = total / count
            self._measured = mean, float((square / (3 * count) - mean.square().mean()).sqrt())
        return self._measured

    def mean(self) -> Tensor:
        """Return mu of the state, near 0."""
        return self._measure()[0]

    def deviation(self) -> float:
        """Return s_d of the state, about 0.1."""
        return self._measure()[1]

    def data_mean(self) -> Tensor:
        """Return zeros: crops have no mean picture of their own."""
        return torch.zeros(3, self.side, self.side)

    def check(self, config: Config) -> None:
        """Raise ValueError where the network is not one for this task."""
        network = config.model.network
        found = (network.channels, network.condition_channels, network.condition_scale)
        if found != (3, 3, self.task.scale):
            wanted = f"channels 3, condition_channels 3 and condition_scale {self.task.scale}"
            raise ValueError(f"super-resolution needs a network with {wanted}, not {', '.join(map(str, found))}")

    def place(self, device: torch.device) -> None:
        """Measure the state, then move the photographs to the device."""
        self._measure()
        self.photographs = self.photographs.to(device)

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """Return which crops are cut."""
        return torch.rand(batch, 4, generator=generator, device=generator.device, dtype=torch.float64)

    def batch(self, rows: Tensor, draws: Tensor, dtype: torch.dtype) -> tuple[Tensor, Condition]:
        """Return states and their conditions; rows play no part, the crops are drawn by area."""
        pictures = self.photographs.crops(draws, self.side).to(dtype) / 127.5 - 1
        small = self.task.reduce(pictures)
        return pictures - self.task.enlarge(small), Condition(picture=small)


def upscale(
    model: AttenuationModel,
    task: SuperResolution,
    small: Tensor,
    *,
    steps: int = 5,
    seed: int = 0,
    faithful: bool = False,
    solver: Solver | None = None,
    grid: Grid | str | None = None,
    tile: int = 256,
    overlap: int = 32,
    callback: Callable[[Step], None] | None = None,
) -> Tensor:
    """Return the enlarged picture, [3, H scale, W scale] in [-1, 1], of a picture [3, H, W] of any size.

    faithful: one call at t = 1, the mean of all pictures that fit (the best in mean square); otherwise a sample by
    `steps` calls. tile, overlap: in pixels of the input. The picture is padded by reflection and never resized.
    Raises ValueError for an empty picture or another number of channels.
    """
    if small.ndim != 3 or small.shape[0] != 3 or not small.numel():
        raise ValueError(f"a picture must be [3, H, W], not {list(small.shape)}")
    multiple = model.network.multiple // task.scale
    padded, (height, width) = pad_to_multiple(small[None].to(model.device, model.dtype), multiple)
    state_height, state_width = padded.shape[-2] * task.scale, padded.shape[-1] * task.scale
    side = max(tile // multiple, 1) * multiple * task.scale
    tiled = TiledModel(model, state_height, state_width, tile=side, overlap=overlap * task.scale)
    state = sample(
        tiled,
        (1, 3, state_height, state_width),
        steps=1 if faithful else steps,
        seed=seed,
        solver=solver,
        grid=Uniform() if faithful else grid,
        condition=task.condition(padded),
        callback=callback,
        clip=False,
    )
    made = task.postprocess(state, padded)[0]
    return made[:, : height * task.scale, : width * task.scale]


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
