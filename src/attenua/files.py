"""Files: atomic writes (a file is there whole, or as it was), and those that installed packages keep."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import threading
from collections.abc import Iterable
from pathlib import Path


def hidden(parts: Iterable[str]) -> bool:
    """Whether a member of an archive is hidden or macOS's own, by the parts of its name: its folders' and its own."""
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file in one step: whatever interrupts it, `path` is either as it was or complete.

    The bytes go to a temporary file in the same folder, which is made if need be, and reach the disk before the name
    does. Raises OSError where the file cannot be written; nothing is left then.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # of the name only so much that the temporary one is not too long for the disk where the name itself is not
    temporary = path.with_name(f".{path.name[:40]}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:  # a full disk names no file, and the temporary one's name means nothing to the user
        if error.errno is not None:
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def package_file(package: str, name: str, sha256: str, *, extra: str = "eval") -> Path:
    """Where an installed package keeps a file, found without importing the package, and checked.

    extra: the extra of attenua that brings the package. Raises ValueError that says how to install it, or that the
    file's SHA-256 (hex) is another one.
    """
    spec = importlib.util.find_spec(package)
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    paths = [path for folder in folders if (path := Path(folder) / name).is_file()]
    if not paths:
        own = package.replace("_", "-")
        raise ValueError(f"the package {own} with {name} is not installed: pip install 'attenua[{extra}]' brings it")
    with paths[0].open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise ValueError(f"{paths[0]} has the sha256 sum {found}, not {sha256}: install attenua[{extra}] anew")
    return paths[0]
