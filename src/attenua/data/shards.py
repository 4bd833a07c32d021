"""Tar shards of pictures, as WebDataset writes them: read where they lie, nothing is unpacked."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from attenua import images
from attenua.files import hidden

__all__ = ["entries", "is_shard"]


def is_shard(path: str | Path) -> bool:
    """Whether a file's name is that of a shard: it ends in .tar (compressed ones cannot be read at random)."""
    return Path(path).suffix.lower() == ".tar" and not Path(path).name.startswith(".")


def entries(shard: str | Path) -> list[tuple[str, Callable[[], bytes]]]:
    """The pictures of one shard in its order: the member's name, and how to read its bytes (anew at each call).

    Members that are no pictures by their names (labels, captions), links, and what is hidden or in a hidden folder are
    passed over. Raises ValueError where the file is no whole tar file, OSError where it cannot be read.
    """
    shard = Path(shard)
    try:
        with tarfile.open(shard, "r:") as tar:
            members = [member for member in tar if member.isreg() and _shown(member.name)]
    except tarfile.TarError as error:
        raise ValueError(f"{shard} is not a whole tar file: {str(error) or 'it is damaged'}") from None
    return [(member.name, partial(_bytes, shard, member.offset_data, member.size)) for member in members]


def _shown(name: str) -> bool:
    """Whether a member is a picture by its name, and neither it nor a folder above it is hidden or macOS's own."""
    return images.is_image(name) and not hidden(part for part in name.split("/") if part not in (".", ".."))


def _bytes(shard: Path, start: int, size: int) -> bytes:
    """A part of a file; OSError where the file ends before it."""
    with shard.open("rb") as file:
        file.seek(start)
        data = file.read(size)
    if len(data) != size:
        raise OSError(f"{shard} ends before the picture does")
    return data
