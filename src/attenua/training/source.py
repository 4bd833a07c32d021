"""Where a run's pictures come from: on the device, drawn for the whole batch, made for one process's share."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from attenua.config import Config
from attenua.data import ImageSet, augment
from attenua.networks import Condition


class Source(ABC):
    """A training set as the trainer needs it.

    name, terms, classes: for the model's record. A pass has len(source) examples, in a new order each.
    """

    name: str
    terms: str
    classes: tuple[str, ...] = ()

    @abstractmethod
    def __len__(self) -> int:
        """Return the examples of a pass."""

    @abstractmethod
    def sha256(self) -> str:
        """Return the checksum of the data (hex), by which a resumed run knows it again."""

    @abstractmethod
    def mean(self) -> Tensor:
        """Return mu, the mean of every channel in picture values, [C]."""

    @abstractmethod
    def deviation(self) -> float:
        """Return s_d, the deviation of what is left after mu is taken off."""

    @abstractmethod
    def data_mean(self) -> Tensor:
        """Return the mean example less mu, [C, H, W]."""

    @abstractmethod
    def check(self, config: Config) -> None:
        """Raise ValueError where the examples do not fit the network."""

    @abstractmethod
    def place(self, device: torch.device) -> None:
        """Move the data to the device that trains."""

    @abstractmethod
    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """Return what is random about `batch` examples, [batch, K], on the generator's device."""

    @abstractmethod
    def batch(self, rows: Tensor, draws: Tensor, dtype: torch.dtype) -> tuple[Tensor, Condition]:
        """Return examples in picture values, [B, C, H, W], and what the network is told of them.

        rows: [B], which examples of the pass; draws: their rows of `draw`.
        """

    def compile(self) -> None:  # noqa: B027 - nothing to do is the usual case
        """Have `batch` compiled, where it is many small operations; by default it stays as it is."""

    def weigh(self, condition: Condition) -> Tensor | None:
        """Return how much pixels count in the loss, [B, 1, H, W], with a mean of 1 a sample; None: all alike."""
        return None

    def preview(self, count: int) -> Condition | None:
        """Return the conditions of `count` examples of the run's sample grids, [count, ...], always the same."""
        return None

    def show(self, states: Tensor, condition: Condition | None) -> Tensor:
        """Return the pictures, in [-1, 1], of samples that were drawn under the conditions of `preview`."""
        return states.clamp(-1, 1)


class ImageSource(Source):
    """Pictures for generation, kept as uint8 on the device, flipped or augmented there."""

    def __init__(self, data: ImageSet, config: Config) -> None:
        self.data = data
        self.name, self.terms = data.name, data.terms
        self.classes = data.classes if config.model.network.classes else ()
        self.flip, self.probability = config.training.flip, config.training.augment
        self.images = data.images
        self.labels = data.labels if config.model.network.classes else None

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.data)

    def sha256(self) -> str:
        """Return the checksum of the pictures."""
        return self.data.sha256()

    def mean(self) -> Tensor:
        """Return the mean of every channel."""
        return self.data.mean()

    def deviation(self) -> float:
        """Return s_d."""
        return self.data.deviation()

    def data_mean(self) -> Tensor:
        """Return the mean picture less mu."""
        return self.data.data_mean()

    def check(self, config: Config) -> None:
        """Raise ValueError where size, channels or labels do not fit the network."""
        network = config.model.network
        shape = tuple(self.images.shape[1:])
        if shape != (network.channels, network.image_size, network.image_size):
            wanted = f"{network.channels} x {network.image_size} x {network.image_size}"
            raise ValueError(f"the pictures are {' x '.join(map(str, shape))}; this network takes {wanted}")
        if network.classes and self.labels is None:
            raise ValueError(f"network.classes is {network.classes}, but {self.name} has no labels")
        if self.labels is not None and network.classes < len(self.classes):
            raise ValueError(f"network.classes is {network.classes}, but {self.name} has {len(self.classes)} classes")
        if self.probability and network.augment_labels != augment.LABELS:
            found = f"network.augment_labels is {network.augment_labels}"
            raise ValueError(f"training.augment needs a network that is told of it: {found}, not {augment.LABELS}")

    def place(self, device: torch.device) -> None:
        """Move pictures and labels to the device."""
        self.images = self.images.to(device)
        self.labels = None if self.labels is None else self.labels.to(device)

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """Return the transformations of `batch` pictures."""
        device = generator.device
        if self.probability:
            size = (self.images.shape[-2], self.images.shape[-1])
            return augment.draw(batch, probability=self.probability, size=size, generator=generator, device=device)
        if self.flip:
            return torch.randint(2, (batch, 1), generator=generator, device=device)
        return torch.zeros(batch, 0, device=device)

    def batch(self, rows: Tensor, draws: Tensor, dtype: torch.dtype) -> tuple[Tensor, Condition]:
        """Return the pictures, and their labels and what augmentation did where the network is told."""
        x = self.images[rows].to(dtype) / 127.5 - 1
        told = None
        if self.probability:
            x, told = augment.apply(x, draws)
        elif self.flip:
            x = augment.flip(x, draws[:, 0])
        return x, Condition(None if self.labels is None else self.labels[rows], told)

    def preview(self, count: int) -> Condition | None:
        """Return the classes in turn, where there are any."""
        if self.labels is None:
            return None
        return Condition(labels=torch.arange(count, device=self.labels.device) % len(self.classes))
