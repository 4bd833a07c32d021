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
    """Read what lies at `path`: CIFAR-10 in its binary version, a folder of pictures, or a zip file of pictures.

    split: "train" or "test". size, strict, on_skip: see `folder.load`; CIFAR-10 is always 32 x 32, so another size
    is refused there. Raises FileNotFoundError where nothing is, ValueError for any other kind of file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no data at {path}")
    if cifar10.find(path) is not None:
        if size not in (None, 32):
            raise ValueError(f"CIFAR-10 is 32 x 32 and is not resized: size must be 32 or none, not {size}")
        return cifar10.load(path, split)
    if path.is_file() and path.suffix.lower() != ".zip":
        raise ValueError(f"{path} is no data: it must be a CIFAR-10 folder, a folder of pictures or a .zip of pictures")
    return folder.load(path, split=split, size=size, strict=strict, on_skip=on_skip)
