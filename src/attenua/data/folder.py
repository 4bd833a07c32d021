"""A folder or a zip file of pictures: what is in it, split, read one by one, or stacked."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from attenua import images
from attenua.files import hidden

__all__ = ["TERMS", "Entry", "OnSkip", "choose_split", "decoded", "list_entries", "read", "reporter", "stacked"]

OnSkip = Callable[[Path, str], None]
"""Called with the file and the reason for each picture that is left out."""

TERMS = "those of the pictures, which the program cannot know"
"""The terms of a set that is none of the known ones."""

_SPLITS = ("train", "test")

Entry = tuple[str, Callable[[], bytes]]
"""The name below the folder (with /), and how to read the bytes."""


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
    return images.is_image(name) and not hidden(name.split("/"))


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
    path: str | Path, *, strict: bool = False, on_skip: OnSkip | None = None
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (name, uint8 [3, H, W]) of all pictures below a folder or in a zip file, of any sizes, by name.

    Nothing is held out here: for tests. A picture that cannot be read is left out and told to `on_skip` (a warning
    where that is None); with `strict` it is an error. Raises ValueError for a file that is no zip file,
    FileNotFoundError where `path` is nothing.
    """
    with list_entries(Path(path)) as entries:
        yield from decoded(Path(path), entries, reporter(strict, on_skip))


def decoded(path: Path, entries: Iterable[Entry], tell: OnSkip) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (name, uint8 [3, H, W]) of entries below a path; what cannot be read is told."""
    for name, content in entries:
        try:
            picture = images.decode(_bytes(path / name, content), str(path / name))
        except ValueError as error:
            tell(path / name, str(error))
            continue
        yield name, picture


def stacked(path: Path, entries: list[Entry], size: int | None, on_skip: OnSkip) -> torch.Tensor:
    """Decode into one tensor that is made once: the pictures are never held twice."""
    stack: torch.Tensor | None = None
    first, count = "", 0
    for name, read in entries:
        try:
            picture = images.decode(_bytes(path / name, read), str(path / name), square=size)
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


def _bytes(file: Path, read: Callable[[], bytes]) -> bytes:
    """The bytes of one picture; whatever hinders that is the picture's fault, not the set's."""
    try:
        return read()
    except (OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"cannot read {file}: {str(error) or type(error).__name__}") from None
