"""What a command on pictures will write: which picture goes where, what is there already, what is refused.

Nothing is decoded and nothing is written here.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from attenua.cli import common

__all__ = ["Item", "compare", "plan", "skip"]


@dataclass
class Item:
    """One picture's way through a command.

    source, target, map: the input, its output, its map of uncertainty; settings: what the output is made with; status:
    planned, written, kept or skipped (then with a reason); seconds: that it took.
    """

    source: Path
    target: Path
    map: Path | None = None
    settings: dict[str, str] = field(default_factory=dict)
    status: str = "planned"
    reason: str | None = None
    seconds: float | None = None

    @property
    def places(self) -> list[Path]:
        """All that is written of it."""
        return [self.target, *([] if self.map is None else [self.map])]

    def told(self) -> dict[str, Any]:
        """Return what `--json` says of it."""
        told: dict[str, Any] = {"in": self.source, "out": self.target, "uncertainty": self.map, "status": self.status}
        told |= {"reason": self.reason, "seconds": self.seconds, "settings": self.settings}
        return {key: value for key, value in told.items() if value is not None}


def plan(
    inputs: Sequence[Path],
    out: Path,
    uncertainty: Path | None,
    *,
    beside: Callable[[Path], Path | None],
    lossless: bool,
    overwrite: bool,
    quiet: bool,
) -> list[Item]:
    """Return all pictures of `inputs` and where they go.

    uncertainty: where maps go (None: there are none); beside: another file that a picture takes, such as its mask;
    lossless: PNG in place of JPEG and WebP in folders, and a warning, unless `quiet`, where `out` is such a file.
    Raises ValueError where an output would replace an input, what lies beside one, or another output;
    what `photos.pairs` raises; OSError where a folder cannot be written.
    """
    from attenua import photos

    found = photos.pairs(inputs, out, overwrite=overwrite)
    named = found[0][1] == out  # -o is the file itself
    if lossless and not named:
        found = _lossless(found)
    elif lossless and not quiet and photos.SUFFIXES[out.suffix.lower()] in ("JPEG", "WEBP"):
        click.echo(f"attenua: {out} is compressed with losses: every pixel may change (PNG keeps them)", err=True)
    items = [Item(source, target) for source, target in found]
    if uncertainty is not None:
        maps = dict(photos.pairs(inputs, uncertainty))
        taken = {target.resolve() for _, target in found}
        for item in items:
            item.map = maps[item.source]
            if item.map.resolve() in taken:
                raise ValueError(f"{item.map} is both an output and a map of uncertainty: choose another place for one")
    others = set()
    for item in items:
        with contextlib.suppress(ValueError, OSError):  # told when it is this picture's turn
            other = beside(item.source)
            others |= set() if other is None else {other.resolve()}
    places = [place for item in items for place in item.places]
    for place in places:
        if place.resolve() in others:
            raise ValueError(f"{place} is itself an input: choose another output")
    for folder in {place.parent for place in places}:
        common.check_folder(folder)
    return items


def _lossless(found: Sequence[tuple[Path, Path]]) -> list[tuple[Path, Path]]:
    """The same plan with PNG in place of JPEG and WebP. Raises ValueError where two pictures then have one name."""
    from attenua import photos

    taken: dict[Path, Path] = {}
    result = []
    for source, target in found:
        lossy = photos.SUFFIXES[target.suffix.lower()] in ("JPEG", "WEBP")
        place = target.with_suffix(".png") if lossy else target
        if place in taken:
            raise ValueError(f"{taken[place]} and {source} would both be written to {place}")
        if lossy and place.exists() and any(place.resolve() == each.resolve() for each, _ in found):
            raise ValueError(f"{place} is itself an input: choose another output")
        taken[place] = source
        result.append((source, place))
    return result


def compare(
    items: Sequence[Item],
    settings: Callable[[Path], Mapping[str, str]],
    skipped: common.Skipped,
    *,
    overwrite: bool,
    quiet: bool,
) -> list[Item]:
    """Return what is to be done: all but the outputs that are there with the same settings, and the unreadable.

    settings: those of an input, beside its own SHA-256, which is added. Tells how many are kept, unless `quiet`.
    Raises FileExistsError where an output is there with other settings, unless `overwrite`.
    """
    different = []
    for item in items:
        try:
            digest = hashlib.sha256(item.source.read_bytes()).hexdigest()
            item.settings = {**settings(item.source), "input_sha256": digest}
        except (ValueError, OSError) as error:
            skip(item, error, skipped)
            continue
        there = [] if overwrite else [place for place in item.places if place.exists()]
        different += [place for place in there if not _equal(place, item.settings)]
        if len(there) == len(item.places):
            item.status = "kept"
    if different:
        more = f" (and {len(different) - 1} more)" if len(different) > 1 else ""
        way = "name another output, or give --overwrite to replace it"
        raise FileExistsError(f"{different[0]}{more} exists already, made otherwise: {way}")
    kept = sum(item.status == "kept" for item in items)
    if kept and not quiet:
        told = "1 output is" if kept == 1 else f"{kept} outputs are"
        click.echo(f"attenua: {told} there already with the same settings", err=True)
    return [item for item in items if item.status == "planned"]


def _equal(path: Path, settings: Mapping[str, str]) -> bool:
    from attenua import photos

    return photos.settings_of(path) == settings


def skip(item: Item, error: Exception, skipped: common.Skipped) -> None:
    """Note why a picture is left out, in a sentence without its name. Raises ValueError where `skipped` is strict."""
    own = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    reason = own.replace(f"cannot read {item.source} as a picture: ", "").replace(f"{item.source}: ", "")
    item.status, item.reason = "skipped", reason
    skipped(item.source, reason)
