"""Atomic writes: a file is there whole, or as it was."""

from __future__ import annotations

import os
from pathlib import Path


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file in one step: whatever interrupts it, `path` is either as it was or complete.

    The bytes go to a temporary file in the same folder, which is made if need be, and reach the disk before the name
    does. Raises OSError where the file cannot be written; nothing is left then.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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
