"""Photographs of any sizes in one piece of memory, from which crops are cut on the device that trains."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from attenua.data.folder import OnSkip, read

__all__ = ["PhotoSet", "load"]


@dataclass(frozen=True, eq=False)
class PhotoSet:
    """Photographs as one row of bytes: picture i is pixels[offsets[i] : ...] as [H_i, W_i, 3].

    pixels: uint8 [P]; sizes: int64 [N, 2], height and width; offsets: int64 [N].
    """

    pixels: Tensor
    sizes: Tensor
    name: str
    terms: str

    @property
    def offsets(self) -> Tensor:
        """Where each photograph begins, int64 [N]."""
        lengths = self.sizes.prod(1) * 3
        return lengths.cumsum(0) - lengths

    def __len__(self) -> int:
        """The number of photographs."""
        return len(self.sizes)

    def sha256(self) -> str:
        """The SHA-256 (hex) of the sizes and then the pixels."""
        digest = hashlib.sha256(self.sizes.cpu().numpy().tobytes())
        digest.update(self.pixels.cpu().numpy().tobytes())
        return digest.hexdigest()

    def to(self, device: torch.device) -> PhotoSet:
        """The same set on a device."""
        return PhotoSet(self.pixels.to(device), self.sizes.to(device), self.name, self.terms)

    def crops(self, draws: Tensor, side: int) -> Tensor:
        """Cut one square a row of draws, uint8 [B, 3, side, side], turned and mirrored; nothing is copied to the host.

        draws: float64 [B, 4] in [0, 1): which photograph (by area), top, left, and which of the square's eight
        symmetries.
        """
        area = self.sizes.prod(1).double().cumsum(0)
        which = torch.searchsorted(area, draws[:, 0] * area[-1], right=True).clamp(max=len(self.sizes) - 1)
        height, width = self.sizes[which, 0], self.sizes[which, 1]
        top = (draws[:, 1] * (height - side + 1)).long()
        left = (draws[:, 2] * (width - side + 1)).long()
        place = torch.arange(side, device=draws.device)
        symmetry = (draws[:, 3] * 8).long()[:, None, None]
        rows, columns = place[None, :, None], place[None, None, :]
        rows = torch.where(symmetry & 1 == 1, side - 1 - rows, rows)
        columns = torch.where(symmetry & 2 == 2, side - 1 - columns, columns)
        rows, columns = torch.where(symmetry & 4 == 4, columns, rows), torch.where(symmetry & 4 == 4, rows, columns)
        y, x = top[:, None, None] + rows, left[:, None, None] + columns
        first = self.offsets[which][:, None, None] + (y * width[:, None, None] + x) * 3
        return self.pixels[first[:, None] + torch.arange(3, device=draws.device)[None, :, None, None]]


def load(path: str | Path, side: int, *, strict: bool = False, on_skip: OnSkip | None = None) -> PhotoSet:
    """Read all photographs below a folder or in a zip file whose sides are at least `side` pixels.

    Raises ValueError where none is large enough, and what `attenua.data.folder.read` raises.
    """
    pixels, sizes, small = [], [], 0
    for _, picture in read(path, strict=strict, on_skip=on_skip):
        height, width = picture.shape[1:]
        if min(height, width) < side:
            small += 1
            continue
        pixels.append(picture.permute(1, 2, 0).reshape(-1))
        sizes.append((height, width))
    if not sizes:
        raise ValueError(f"{path} has no photograph of at least {side} x {side} pixels ({small} are smaller)")
    name = Path(path).stem if Path(path).is_file() else Path(path).resolve().name
    terms = "those of the pictures, which the program cannot know"
    return PhotoSet(torch.cat(pixels), torch.tensor(sizes, dtype=torch.int64), name, terms)
