"""Archives from elsewhere, unpacked without trust: regular files below one folder, and nothing outside it."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from attenua.files import hidden

__all__ = ["unpack"]

_Member = tuple[str, int, bool, Callable[[], IO[bytes] | None]]  # name, bytes, whether a regular file, how to open it


def unpack(
    archive: str | Path,
    folder: str | Path,
    *,
    prefix: str = "",
    suffixes: frozenset[str] | None = None,
    limit: int,
) -> int:
    """Unpack the files of a .zip, .tar, .tar.gz or .tgz below `prefix` into `folder`; return how many.

    prefix: "" or a folder of the archive with a slash at its end; it is cut off. suffixes: endings (in lower case,
    with the dot) of the files that are wanted, None: all; the rest is passed over, and so are hidden files.
    limit: bytes that the files may have together, whatever the archive says.

    Raises ValueError, before anything is written, where any member's name is absolute or climbs (..), or a member
    below `prefix` is a link or a device; and where the archive is damaged or holds more than `limit`. Raises
    OSError where the disk does not take the files. Files that were written by then stay in `folder`, so it should be
    a temporary one; the bytes need not have reached the disk.
    """
    archive, folder = Path(archive), Path(folder)
    with _opened(archive) as members:
        chosen = [(name[len(prefix) :], member) for name, member in _checked(archive, members, prefix, suffixes)]
        declared = sum(member[1] for _, member in chosen)
        if declared > limit:
            raise ValueError(f"{archive} holds {declared} bytes, more than the {limit} that are expected at most")
        for name, (_, size, _, content) in chosen:
            _write(archive, folder / name, size, content)
    return len(chosen)


def _checked(
    archive: Path, members: list[_Member], prefix: str, suffixes: frozenset[str] | None
) -> Iterator[tuple[str, _Member]]:
    """The wanted members by name; every member is judged first."""
    for member in members:
        name, _, regular, _ = member
        if name.startswith("/") or "\\" in name or ":" in name.partition("/")[0] or ".." in PurePosixPath(name).parts:
            raise ValueError(f"{archive} has a member {name!r} that would lie outside its folder: nothing was unpacked")
        if not regular and name.startswith(prefix):
            raise ValueError(f"{archive} has a member {name!r} that is a link or a device: nothing was unpacked")
    for member in members:
        name = member[0]
        rest = PurePosixPath(name[len(prefix) :])
        if name.startswith(prefix) and not hidden(rest.parts) and (suffixes is None or rest.suffix.lower() in suffixes):
            yield name, member


@contextmanager
def _opened(archive: Path) -> Iterator[list[_Member]]:
    """The members of an archive except folders; whatever its decoder says against it becomes ValueError."""
    try:
        if archive.suffix.lower() == ".zip":
            with zipfile.ZipFile(archive) as packed:
                yield [_zipped(packed, info) for info in packed.infolist() if not info.is_dir()]
        else:
            with tarfile.open(archive, "r:*") as tar:
                yield [_tarred(tar, info) for info in tar.getmembers() if not info.isdir()]
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, RuntimeError, zlib.error) as error:  # Runtime: a password
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{archive} is not a whole archive: {said}") from None
    except OSError as error:
        if error.errno is not None:  # of the system; the others are gzip's
            raise
        raise ValueError(f"{archive} is not a whole archive: {error}") from None


def _zipped(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    kind = info.external_attr >> 28  # of Unix's mode; 0 where the archive has none, 8: a regular file
    return info.filename, info.file_size, kind in (0, 8), lambda: packed.open(info)


def _tarred(tar: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    name = info.name.removeprefix("./")
    return name, info.size, info.isreg(), lambda: tar.extractfile(info)


def _write(archive: Path, path: Path, size: int, content: Callable[[], IO[bytes] | None]) -> None:
    """Write one file under its own name in a folder that nobody looks into yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = content()
    if source is None:
        raise ValueError(f"{archive} has no bytes for {path.name}")
    with source, path.open("xb") as file:
        shutil.copyfileobj(source, file)
        if file.tell() != size:
            raise ValueError(f"{archive} has {file.tell()} bytes for {path.name}, not {size} as it says")
