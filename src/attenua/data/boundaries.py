"""BSDS500 (Arbelaez, Maire, Fowlkes and Malik 2011): pictures and the boundaries that several people drew in each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.io import loadmat
from torch import Tensor

from attenua import images
from attenua.data import pairs
from attenua.data.folder import OnSkip, reporter
from attenua.data.pairs import PairSet

__all__ = ["SPLITS", "TERMS", "THRESHOLD", "annotators", "find", "load", "maps_sha256", "target"]

SPLITS = {"train": 200, "val": 100, "test": 200}
"""Pictures in each split. Train alone is trained on; val is for choosing thresholds, and is BSD100 too."""

TERMS = (
    "BSDS500: research, no licence is stated for the pictures; cite Arbelaez, Maire, Fowlkes and Malik, "
    "Contour Detection and Hierarchical Image Segmentation, PAMI 2011"
)

THRESHOLD = 0.3
"""The share of annotators from which a pixel counts as an edge."""

MAPS_SHA256 = "81c7c79c8da3cdbcad1162d0412891c76422d8329190034176f49fee15638b50"
"""`maps_sha256` of the published annotations."""

_PLACES = (".", "data", "BSDS500", "BSDS500/data", "BSR/BSDS500/data", "BSDS500/BSDS500/data")


def find(path: str | Path) -> Path | None:
    """The folder with images/train and groundTruth/train that `path` is or holds, or None."""
    for place in _PLACES:
        folder = Path(path) / place
        if (folder / "images" / "train").is_dir() and (folder / "groundTruth" / "train").is_dir():
            return folder
    return None


def load(path: str | Path, split: str = "train", *, strict: bool = False, on_skip: OnSkip | None = None) -> PairSet:
    """Read a split of the official layout: images/SPLIT/ID.jpg and groundTruth/SPLIT/ID.mat, by ID.

    The maps of a picture are its annotators', 0 or 255, in their order; `PairSet.mean` makes one map of them. A pair
    that cannot be used (a file that cannot be read or has no partner, maps of another size) is left out and told to
    `on_skip` (a warning where that is None); with `strict` it is an error. Raises ValueError for another split and
    where nothing is left, FileNotFoundError where there is no such layout.
    """
    if split not in SPLITS:
        raise ValueError(f"BSDS500 has no split {split!r}: it must be one of {', '.join(SPLITS)}")
    folder = find(path)
    if folder is None:
        raise FileNotFoundError(f"{path} holds no BSDS500 (folders images and groundTruth with train, val and test)")
    tell = reporter(strict, on_skip)
    return pairs.gather(_pairs(folder, split, tell), name=f"bsds500-{split}", terms=TERMS)


def _pairs(folder: Path, split: str, tell: OnSkip) -> Iterator[pairs.Pair]:
    pictures = {file.stem: file for file in images.list_images(folder / "images" / split)}
    drawn = {file.stem: file for file in (folder / "groundTruth" / split).glob("*.mat")}
    for name in sorted(drawn.keys() - pictures.keys()):
        tell(drawn[name], f"{drawn[name]} has no picture")
    for name, file in sorted(pictures.items()):
        if name not in drawn:
            tell(file, f"{file} has no annotations")
            continue
        try:
            picture, maps = images.read(file), annotators(drawn[name])
        except (ValueError, OSError) as error:
            tell(file, str(error))
            continue
        if maps.shape[1:] != picture.shape[1:]:
            tell(file, f"{drawn[name]} is for {list(maps.shape[1:])} pixels, but {file} has {list(picture.shape[1:])}")
            continue
        yield name, picture, maps


def annotators(path: str | Path) -> Tensor:
    """Read the boundary maps of one .mat file, groundTruth{k}.Boundaries: uint8 [K, H, W], 0 or 255.

    Raises ValueError where the file is damaged or holds something else, OSError where it cannot be opened.
    """
    path = Path(path)
    with path.open("rb") as file:
        try:
            cells = loadmat(file, variable_names=["groundTruth"])["groundTruth"].ravel()
            maps = np.stack([np.ascontiguousarray(cell["Boundaries"][0, 0]) for cell in cells])  # Fortran's order
        except MemoryError:
            raise
        except Exception as error:  # the reader raises almost anything on damaged files
            said = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"cannot read {path} as annotations of BSDS500: {said}") from None
    if maps.ndim != 3 or maps.dtype.kind not in "bu" or not maps.size:
        raise ValueError(f"{path} has boundaries of {maps.dtype} {list(maps.shape)}, not whole numbers [K, H, W]")
    return torch.from_numpy((maps > 0).astype(np.uint8) * np.uint8(255))


def maps_sha256(path: str | Path) -> str:
    """The SHA-256 (hex) of all maps as bytes 0 and 1: splits train, val, test, in each by ID as text.

    It does not depend on how the .mat files were written. Raises as `load` does.
    """
    folder = find(path)
    if folder is None:
        raise FileNotFoundError(f"{path} holds no BSDS500 (folders images and groundTruth with train, val and test)")
    digest = hashlib.sha256()
    for split in SPLITS:
        for file in sorted((folder / "groundTruth" / split).glob("*.mat"), key=lambda file: file.stem):
            digest.update((annotators(file) // 255).numpy().data)
    return digest.hexdigest()


def target(mean: Tensor, threshold: float = THRESHOLD) -> tuple[Tensor, Tensor]:
    """What is learnt from a mean over annotators, by the published rule: (edge, counted), both bool like `mean`.

    mean: uint8, 255 where all agree. A pixel is an edge from `threshold` on and no edge at 0; between them the
    annotators disagree, and it is not counted. The rule is that of Liu et al. 2017 (RCF, with 0.5; 0.3 is the later
    custom, from Su et al. 2021, PiDiNet). Raises ValueError for a threshold outside (0, 1] or other numbers.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be in (0, 1], not {threshold}")
    if mean.dtype != torch.uint8:
        raise ValueError(f"the mean must be uint8, not {mean.dtype}")
    edge = mean >= 255 * threshold
    return edge, edge | (mean == 0)


def check_published(path: str | Path) -> None:
    """Raise ValueError where the annotations are not the published ones, or a picture's size does not fit them."""
    found = maps_sha256(path)
    if found != MAPS_SHA256:
        raise ValueError(f"the boundary maps in {path} have the sha256 sum {found}, not {MAPS_SHA256} as published")
    folder = find(path)
    assert folder is not None
    for split in SPLITS:
        for file in images.list_images(folder / "images" / split):
            with Image.open(file) as picture:
                if sorted(picture.size) != [321, 481]:
                    raise ValueError(f"{file} is {picture.width} x {picture.height} pixels, not 481 x 321 or 321 x 481")
