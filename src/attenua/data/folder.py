"""A folder or a zip file of pictures as an ImageSet."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from attenua import images
from attenua.data.imageset import ImageSet

__all__ = ["Entry", "OnSkip", "choose_split", "list_entries", "load", "read", "read_entry", "reporter", "stacked"]

OnSkip = Callable[[Path, str], None]
"""Called with the file and the reason for each picture that is left out."""

_SPLITS = ("train", "test")

Entry = tuple[str, Callable[[], bytes]]
"""The name below the folder (with /), and how to read the bytes."""


def load(
    path: str | Path,
    *,
    split: str = "train",
    size: int | None = None,
    strict: bool = False,
    on_skip: OnSkip | None = None,
) -> ImageSet:
    """Read all pictures below a folder, or in a zip file, in the order of their names; they have no labels.

    split: "train" or "test". Where the folder has both `train` and `test` at its top, the one named; else all
    pictures are the "train" split. size: centre-crop to a square and resize to it; without it all pictures must have
    one size. A picture that cannot be read is left out and told to `on_skip` (a warning where that is None); with
    `strict` it is an error.

    Raises ValueError for a split that is not there, no pictures, no readable pictures, pictures of several sizes, and
    a file that is not a zip file; FileNotFoundError where `path` is nothing.
    """
    path = Path(path)
    if split not in _SPLITS:
        raise ValueError(f"there is no split {split!r}: it must be one of {', '.join(_SPLITS)}")
    if size is not None and size < 1:
        raise ValueError(f"size must be at least 1 pixel, not {size}")
    with list_entries(path) as entries:
        chosen = choose_split(path, entries, split)
        pictures = stacked(path, chosen, size, reporter(strict, on_skip))
    name = path.stem if path.is_file() else path.resolve().name
    return ImageSet(pictures, None, (), f"{name}-{split}", "those of the pictures, which the program cannot know")


@contextmanager
def list_entries(path: Path) -> Iterator[list[Entry]]:
    """All pictures of a folder or zip file, sorted by name."""
    if not path.is_file():
        found = images.list_images(path)
        yield [(file.relative_to(path).as_posix(), file.read_bytes) for file in found]
        return
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is not a whole zip file: {str(error) or 'it is damaged'}") from None
    with archive:
        names = sorted(info.filename for info in archive.infolist() if _listed(info.filename))
        yield [(name, lambda name=name: archive.read(name)) for name in names]  # type: ignore[misc]


def _listed(name: str) -> bool:
    """Whether a member of a zip file is a picture outside hidden folders and those that macOS adds."""
    return images.is_image(name) and not any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def choose_split(path: Path, entries: list[Entry], split: str) -> list[Entry]:
    """The entries of one split."""
    if not entries:
        raise ValueError(f"{path} holds no pictures (files that end in {', '.join(images.SUFFIXES)})")
    tops = {name.partition("/")[0] for name, _ in entries if "/" in name}
    if tops.issuperset(_SPLITS):
        return [entry for entry in entries if entry[0].startswith(f"{split}/")]
    if split != "train":
        raise ValueError(f"{path} has no split {split!r}: for that it must hold folders train and test")
    return entries


def reporter(strict: bool, on_skip: OnSkip | None) -> OnSkip:
    """What happens to a picture that cannot be read."""

    def stop(_: Path, reason: str) -> None:
        raise ValueError(reason)

    def warn(_: Path, reason: str) -> None:
        warnings.warn(f"left out: {reason}", stacklevel=2)

    return stop if strict else on_skip or warn


def read(
    path: str | Path, *, split: str = "train", strict: bool = False, on_skip: OnSkip | None = None
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (name, uint8 [3, H, W]) of all pictures below a folder or in a zip file, of any sizes, by name.

    Arguments and errors as for `load`.
    """
    path = Path(path)
    if split not in _SPLITS:
        raise ValueError(f"there is no split {split!r}: it must be one of {', '.join(_SPLITS)}")
    tell = reporter(strict, on_skip)
    with list_entries(path) as entries:
        for name, content in choose_split(path, entries, split):
            try:
                yield name, images.decode(read_entry(path / name, content), str(path / name))
            except ValueError as error:
                tell(path / name, str(error))


def stacked(path: Path, entries: list[Entry], size: int | None, on_skip: OnSkip) -> torch.Tensor:
    """Decode into one tensor that is made once: the pictures are never held twice."""
    stack: torch.Tensor | None = None
    first, count = "", 0
    for name, read in entries:
        try:
            picture = images.decode(read_entry(path / name, read), str(path / name), square=size)
        except ValueError as error:
            on_skip(path / name, str(error))
            continue
        if stack is None:
            stack, first = picture.new_empty(len(entries), *picture.shape), name
        if picture.shape != stack.shape[1:]:
            sizes = [f"{file} has {h} x {w}" for file, (h, w) in ((first, stack.shape[2:]), (name, picture.shape[1:]))]
            raise ValueError(
                f"the pictures in {path} must all have one height and width, but {' and '.join(sizes)} pixels: "
                "give a size (--resize) to crop and resize them to"
            )
        stack[count] = picture
        count += 1
    if stack is None:
        raise ValueError(f"none of the {len(entries)} pictures in {path} can be read")
    return stack[:count]


def read_entry(file: Path, read: Callable[[], bytes]) -> bytes:
    """The bytes of one picture; whatever hinders that is the picture's fault, not the set's."""
    try:
        return read()
    except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"cannot read {file}: {str(error) or type(error).__name__}") from None
