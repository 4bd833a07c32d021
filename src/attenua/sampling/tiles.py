"""Pictures of any size: predictions on overlapping tiles, blended in every step into one prediction of the whole.

The state is one whole picture and its noise is drawn once for it, so there is no seam; where tiles disagree, detail
softens (theory, section 6). Because x0 and eps are blended with the same weights, x_t = a x0 + sigma eps stays true.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from attenua.config import ModelConfig
from attenua.model import AttenuationModel
from attenua.networks import Condition
from attenua.process import Prediction, Process
from attenua.shapes import Images

OnTile = Callable[[int, int], None]
"""Called with how many tiles of a network call are computed, and how many there are."""


@dataclass(frozen=True)
class Tile:
    """A tile's place in the picture, in pixels of the state."""

    top: int
    left: int
    height: int
    width: int

    def of(self, picture: Tensor, scale: int = 1) -> Tensor:
        """Return the tile of a picture that is `scale` times smaller than the state, [B, C, h, w]."""
        rows = slice(self.top // scale, (self.top + self.height) // scale)
        return picture[..., rows, self.left // scale : (self.left + self.width) // scale]


def starts(length: int, tile: int, overlap: int, multiple: int) -> list[int]:
    """Return where tiles of a side begin, so that they cover `length`, overlap by at least `overlap` and are aligned.

    length and tile are multiples of `multiple`, in pixels. Tiles that do not reach `multiple` pixels beyond the overlap
    share less than it: they are laid `multiple` apart. Raises ValueError for other lengths, or overlap >= tile.
    """
    for name, value in (("length", length), ("tile", tile)):
        if value < multiple or value % multiple:
            raise ValueError(f"{name} is {value} pixels; allowed are multiples of {multiple}")
    if not 0 <= overlap < tile:
        raise ValueError(f"overlap is {overlap} pixels; allowed is 0 to {tile - 1}, less than a tile")
    if length <= tile:
        return [0]
    stride = max((tile - overlap) // multiple * multiple, multiple)
    places = list(range(0, length - tile, stride))
    return [*places, length - tile]


def window(tile: Tile, whole: tuple[int, int], overlap: int) -> Tensor:
    """Return a tile's weights before normalisation, float32 [h, w]: raised cosine over `overlap` at inner borders.

    The outer quarter of the overlap weighs nothing: what lies there has seen the tile's own border.
    """

    def side(length: int, first: bool, last: bool) -> Tensor:
        place = torch.arange(length, dtype=torch.float32) + 0.5
        ramp = max(overlap / 2, 1.0)
        rise = ((place - overlap / 4) / ramp).clamp(0, 1)
        weight = 0.5 - 0.5 * torch.cos(torch.pi * rise)
        up = torch.ones(length) if first else weight
        down = torch.ones(length) if last else weight.flip(0)
        return up * down

    rows = side(tile.height, tile.top == 0, tile.top + tile.height == whole[0])
    columns = side(tile.width, tile.left == 0, tile.left + tile.width == whole[1])
    return torch.outer(rows, columns)


class TiledModel:
    """An AttenuationModel as `sample` sees it, computed tile by tile; `calls` counts calls on the whole picture.

    height, width: of the state, multiples of the network's `multiple`; tile, overlap: in pixels of the state (tiles
    that are too small for the overlap share less of it); batch: tiles at once; budget: bytes of encoded conditions that
    are kept between calls (what does not fit is encoded again). needed: bool [height, width] on the CPU, where a
    prediction is needed: tiles without such a pixel are not computed, and elsewhere a state is predicted that is zero
    with mu. Those weights are the same with and without. on_tile: told of progress within every call.
    """

    def __init__(
        self,
        model: AttenuationModel,
        height: int,
        width: int,
        *,
        tile: int,
        overlap: int,
        batch: int = 1,
        budget: int = 512 * 2**20,
        needed: Tensor | None = None,
        on_tile: OnTile | None = None,
    ) -> None:
        step = model.network.multiple
        tall, wide = (max(min(tile, side) // step * step, step) for side in (height, width))
        rows = starts(height, tall, min(overlap, tall - 1), step)
        columns = starts(width, wide, min(overlap, wide - 1), step)
        gaps = [after - before for places in (rows, columns) for before, after in itertools.pairwise(places)]
        self.model, self.batch, self.budget = model, batch, budget
        # neighbours are blended where they both are, which for small tiles is less than was asked for
        self.overlap = min([overlap, *(max(tall, wide) - gap for gap in gaps)])
        tiles = [Tile(top, left, tall, wide) for top in rows for left in columns]
        self.tiles = [tile for tile in tiles if needed is None or bool(tile.of(needed).any())]
        self.whole = (height, width)
        total = torch.zeros(height, width)
        for each in self.tiles:
            each.of(total[None])[0].add_(window(each, self.whole, self.overlap))
        self.total = total
        self.known = None if needed is None or bool(needed.all()) else ~needed
        self.kept: dict[int, tuple[Tensor, ...]] = {}
        self.used = 0
        self.calls = 0
        self.on_tile = on_tile

    @property
    def process(self) -> Process:
        """The model's process."""
        return self.model.process

    @property
    def config(self) -> ModelConfig:
        """The model's configuration."""
        return self.model.config

    @property
    def device(self) -> torch.device:
        """The model's device."""
        return self.model.device

    @property
    def mu(self) -> Tensor:
        """The model's mu."""
        return self.model.mu

    @property
    def data_mean(self) -> Tensor:
        """The model's data mean, of one tile: it cannot stand for a whole picture."""
        raise ValueError("a picture in tiles has no data mean to start from; choose a grid without it")

    @property
    def training(self) -> bool:
        """Whether the model is in training mode."""
        return self.model.training

    def train(self, mode: bool = True) -> None:
        """Set the model's mode."""
        self.model.train(mode)

    def eval(self) -> None:
        """Set the model's mode to evaluation."""
        self.model.eval()

    def weight(self, tile: Tile) -> Tensor:
        """Return a tile's share of every pixel, [h, w]; the shares of all tiles add up to one."""
        return window(tile, self.whole, self.overlap) / tile.of(self.total[None])[0].clamp(min=1e-30)

    def _groups(self) -> Iterator[list[int]]:
        for start in range(0, len(self.tiles), self.batch):
            yield list(range(start, min(start + self.batch, len(self.tiles))))

    def _encoded(self, index: int, picture: Tensor) -> tuple[Tensor, ...]:
        if index in self.kept:
            return self.kept[index]
        scale = self.config.network.condition_scale
        features = self.model.network.encode(self.tiles[index].of(picture, scale))
        size = sum(item.numel() * item.element_size() for item in features)
        if self.used + size <= self.budget:
            self.kept[index] = features
            self.used += size
        return features

    def __call__(
        self, x_t: Images, t: float, condition: Condition | None = None, *, combination: str | None = None
    ) -> Prediction:
        """Return the blended Prediction of the whole state, [1, C, H, W], for a condition picture of the whole."""
        if x_t.shape[0] != 1 or tuple(x_t.shape[-2:]) != self.whole:
            raise ValueError(
                f"a state of {list(x_t.shape)}; these tiles are for [1, C, {self.whole[0]}, {self.whole[1]}]"
            )
        self.calls += 1
        x0, eps = torch.zeros_like(x_t), torch.zeros_like(x_t)
        picture = None if condition is None else condition.picture
        for group in self._groups():
            states = torch.cat([self.tiles[index].of(x_t) for index in group])
            told = None
            if picture is not None:
                encoded = [self._encoded(index, picture) for index in group]
                told = Condition(features=tuple(torch.cat(level) for level in zip(*encoded, strict=True)))
            prediction = self.model(states, t, told, combination=combination)
            for row, index in enumerate(group):
                tile = self.tiles[index]
                share = self.weight(tile).to(x_t)
                tile.of(x0)[0].addcmul_(prediction.x0[row], share)
                tile.of(eps)[0].addcmul_(prediction.eps[row], share)
            if self.on_tile is not None:
                self.on_tile(group[-1] + 1, len(self.tiles))
        if self.known is not None:
            bare = self.known.to(x0.device)
            known = -self.mu.view(1, -1, 1, 1).to(x0)
            a, sigma = float(self.process.a(t)), float(self.process.sigma(t))
            x0 = torch.where(bare, known, x0)
            eps = torch.where(bare, (x_t - a * known) / sigma, eps)
        return Prediction(x0, eps)
