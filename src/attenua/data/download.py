"""One file from the web: resumable, checked against its sums, and never half-named."""

from __future__ import annotations

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from attenua._version import __version__

__all__ = ["Progress", "check", "download"]

Progress = Callable[[int, int | None], None]
"""Called with the bytes done and the bytes in all (None: not known)."""

_CHUNK = 1 << 18
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})


class _BrokenError(Exception):
    """The connection failed in a way that another try may mend."""


def check(path: Path, *, sha256: str | None = None, md5: str | None = None) -> None:
    """Compare a file with the sums that are given (hex digits).

    Raises ValueError that names the file, the sum found and the sum expected.
    """
    for algorithm, expected in (("sha256", sha256), ("md5", md5)):
        if expected is None:
            continue
        with path.open("rb") as file:
            found = hashlib.file_digest(file, algorithm).hexdigest()
        if found != expected.lower():
            raise ValueError(f"{path} has the {algorithm} sum {found}, not {expected.lower()} as it should")


def download(
    url: str,
    path: str | Path,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    progress: Progress | None = None,
    timeout: float = 30.0,
    attempts: int = 4,
    pause: float = 1.0,
) -> Path:
    """Bring `url` (http or https) to `path` and return `path`.

    The bytes gather in `path` + ".part", which gets its name only when it is complete and its sums are right.
    A broken connection is taken up again where it broke, up to `attempts` tries with growing pauses (seconds,
    starting at `pause`). A .part file left by a killed process is taken up too, but only if a sum is given: nothing
    else could tell that the file has changed on the server meanwhile. A file that is already there is checked
    against the sums and left alone. `timeout` is in seconds without a byte.

    Raises ValueError for another kind of address and for a wrong sum (which names both sums and leaves no file), and
    OSError when the server refuses, does not answer, or the disk does not take the bytes.
    """
    path = Path(path)
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"cannot download {url!r}: the address must begin with http:// or https://")
    if path.exists():
        check(path, sha256=sha256, md5=md5)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    summed = sha256 is not None or md5 is not None
    if not summed:
        part.unlink(missing_ok=True)
    inherited = part.exists()
    _fill(url, part, progress, timeout, attempts, pause, resumable=summed)
    try:
        check(part, sha256=sha256, md5=md5)
    except ValueError as error:
        part.unlink()
        if inherited:  # the old part may be of another version of the file: once more, from its first byte
            return download(
                url, path, sha256=sha256, md5=md5, progress=progress, timeout=timeout, attempts=attempts, pause=pause
            )
        raise ValueError(f"the download of {url} is not the file expected: {error}; nothing was kept") from None
    part.replace(path)
    return path


def _fill(
    url: str, part: Path, progress: Progress | None, timeout: float, attempts: int, pause: float, *, resumable: bool
) -> None:
    """Try until the part file is complete, or raise OSError that says why it is not."""
    for attempt in range(1, attempts + 1):
        if not resumable:
            part.unlink(missing_ok=True)
        try:
            _attempt(url, part, progress, timeout)
            return
        except _BrokenError as error:
            if attempt == attempts:
                raise OSError(f"cannot download {url}: {error} (tried {attempts} times)") from None
            time.sleep(pause * 2 ** (attempt - 1))


def _attempt(url: str, part: Path, progress: Progress | None, timeout: float) -> None:
    """Ask for what is missing and append it to the part file."""
    have = part.stat().st_size if part.exists() else 0
    with _open(url, have, timeout) as response:
        if response.status == 416:  # nothing follows our last byte: complete, or longer than the file itself
            if response.headers.get("Content-Range") == f"bytes */{have}":
                return
            part.unlink()
            raise _BrokenError("the server has fewer bytes than an earlier part of the download")
        start, total = _extent(response, have)
        with part.open("r+b" if start else "wb") as file:
            done = file.seek(start)
            for chunk in _chunks(response):
                file.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
            file.flush()
            os.fsync(file.fileno())
    if total is not None and done != total:
        raise _BrokenError(f"the connection closed after {done} of {total} bytes")


def _open(url: str, have: int, timeout: float) -> http.client.HTTPResponse | urllib.error.HTTPError:
    """Send the request; refusals become OSError, failures that may pass become _BrokenError."""
    # identity: a compressed answer would have other bytes and other offsets
    headers = {"User-Agent": f"attenua/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
        assert isinstance(response, http.client.HTTPResponse)
        return response
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:
            return error
        error.close()
        sentence = f"the server answered {error.code} {error.reason}"
        if error.code in _RETRIED:
            raise _BrokenError(sentence) from None
        raise OSError(f"cannot download {url}: {sentence}") from None
    except urllib.error.URLError as error:
        raise _BrokenError(str(error.reason)) from None
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(str(error) or type(error).__name__) from None


def _extent(response: http.client.HTTPResponse | urllib.error.HTTPError, have: int) -> tuple[int, int | None]:
    """Where the answer begins in the file, and the length of the whole file if the server tells it."""
    if response.status == 206:
        unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
        span, _, total = rest.partition("/")
        if unit == "bytes" and span.startswith(f"{have}-"):
            return have, int(total) if total.isdigit() else None
        raise _BrokenError(f"the server answered with the range {rest or 'nothing'!r} where {have}- was asked for")
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _chunks(response: http.client.HTTPResponse | urllib.error.HTTPError) -> Iterator[bytes]:
    """The body; only failures of the connection become _BrokenError, never one of the disk."""
    while True:
        try:
            chunk = response.read(_CHUNK)
        except http.client.IncompleteRead as error:
            chunk = error.partial
            if chunk:
                yield chunk
            raise _BrokenError("the connection closed early") from None
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenError(str(error) or type(error).__name__) from None
        if not chunk:
            return
        yield chunk
