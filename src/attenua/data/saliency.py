"""DUTS (Wang et al. 2017), and any folders of pictures and masks: what stands out in a picture."""

from __future__ import annotations

from pathlib import Path

from attenua.data import heldout, pairs
from attenua.data.folder import OnSkip, reporter
from attenua.data.pairs import PairSet

__all__ = ["COUNTS", "NAMES", "TERMS", "files", "find", "load"]

COUNTS = {"train": 10_553, "test": 5_019}
"""Pairs in DUTS-TR and DUTS-TE."""

TERMS = (
    "DUTS: academic research; cite Wang et al., Learning to Detect Salient Objects with Image-level Supervision, "
    "CVPR 2017"
)

_NAMES = {"train": "DUTS-TR", "test": "DUTS-TE"}
NAMES = tuple(_NAMES.values())
"""Its two folders, and archives."""


def find(path: str | Path, split: str) -> Path | None:
    """The folder DUTS-TR (train) or DUTS-TE (test) that `path` is or holds, or None."""
    name = _NAMES[split]
    for folder in (Path(path), Path(path) / name, Path(path) / "DUTS" / name):
        if (folder / f"{name}-Image").is_dir() and (folder / f"{name}-Mask").is_dir():
            return folder
    return None


def load(
    path: str | Path,
    split: str = "train",
    *,
    longest: int | None = None,
    strict: bool = False,
    on_skip: OnSkip | None = None,
) -> PairSet:
    """Read DUTS as published (DUTS-TR/DUTS-TR-Image, DUTS-TR-Mask; DUTS-TE likewise), or any folder of pairs.

    Arguments and errors as for `pairs.load`. All of DUTS-TR takes about 5 GB of memory at its own size (sides up to
    400 pixels), and 2 GB with longest=256.
    """
    tell = reporter(strict, on_skip)
    found = files(path, split, tell)
    if find(path, split) is None:
        return pairs.gather(pairs.read(found, tell, longest), name=f"{Path(path).resolve().name}-{split}")
    return pairs.gather(pairs.read(found, tell, longest), name=f"duts-{split}", terms=TERMS)


def files(path: str | Path, split: str, tell: OnSkip) -> list[tuple[str, Path, Path]]:
    """The pairs that `load` reads, unread: name, picture and mask, by name; a file without partner is told.

    Errors as for `load`, except that a folder may have no pair left.
    """
    if split not in _NAMES:
        raise ValueError(f"there is no split {split!r}: it must be one of {', '.join(_NAMES)}")
    folder = find(path, split)
    if folder is None:
        if any(find(path, other) is not None for other in _NAMES if other != split):
            raise ValueError(f"{path} has no {_NAMES[split]} (DUTS's split {split!r})")
        return pairs.files(path, split, tell)
    heldout.check(folder, split)
    name = _NAMES[split]
    return pairs.paired(folder / f"{name}-Image", folder / f"{name}-Mask", tell)
