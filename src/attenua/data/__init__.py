"""Pictures to learn from: one module a source, one kind of result."""

from __future__ import annotations

from pathlib import Path

from attenua.data import cifar10, folder
from attenua.data.folder import OnSkip
from attenua.data.imageset import ImageSet

__all__ = ["ImageSet", "load"]


def load(
    path: str | Path,
    *,
    split: str = "train",
    size: int | None = None,
    strict: bool = False,
    on_skip: OnSkip | None = None,
) -> ImageSet:
    """Read pictures of one size: CIFAR-10 in its binary version, or what `photographs.chosen` knows.

    That is a folder or a zip file of pictures, tar shards, and the official layouts of CelebA-HQ, LFW, DIV2K and
    BSDS500. split: "train" or "test". size: centre-crop to a square and resize to it; without it all pictures must have
    one size; CIFAR-10 is always 32 x 32, so another size is refused there. A picture that cannot be read is left out
    and told to `on_skip` (a warning where that is None); with `strict` it is an error.

    Raises FileNotFoundError where nothing is; ValueError for any other kind of file, no readable pictures and pictures
    of several sizes; and what `photographs.chosen` raises.
    """
    from attenua.data import photographs, shards

    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no data at {path}")
    if cifar10.find(path) is not None:
        if size not in (None, 32):
            raise ValueError(f"CIFAR-10 is 32 x 32 and is not resized: size must be 32 or none, not {size}")
        return cifar10.load(path, split)
    if path.is_file() and path.suffix.lower() != ".zip" and not shards.is_shard(path):
        kinds = "a CIFAR-10 folder, a folder of pictures, a .zip of pictures or a .tar shard"
        raise ValueError(f"{path} is no data: it must be {kinds}")
    if size is not None and size < 1:
        raise ValueError(f"size must be at least 1 pixel, not {size}")
    tell = folder.reporter(strict, on_skip)
    with photographs.chosen(path, split, on_skip=tell) as entries:
        pictures = folder.stacked(path, entries, size, tell)
        terms = photographs.terms(path, [name for name, _ in entries])
    name = path.stem if path.is_file() else path.resolve().name
    return ImageSet(pictures, None, (), f"{name}-{split}", terms)
