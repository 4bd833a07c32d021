"""What must never be trained on: the test parts of the data sets that the reports use, known by their folders."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path, PurePath

__all__ = ["check", "is_held_out_person", "reason"]

_TESTS = frozenset({"set5", "set14", "bsd68", "bsd100", "b100", "urban100", "kodak", "kodak24", "manga109"})
_PARTS = {"div2k_valid_hr": "DIV2K's validation", "duts-te": "DUTS's test", "duts-te-image": "DUTS's test"}
_BSDS = {"val": "BSDS500's validation", "test": "BSDS500's test"}
_PERSON = re.compile(r"(?P<person>.+)_\d{4}")


def is_held_out_person(person: str) -> bool:
    """Whether an LFW person is kept for tests: the SHA-256 (hex) of the folder's name begins with 0 or 1.

    That is about one person in eight, whatever else a copy holds. Names are hashed as UTF-8.
    """
    return hashlib.sha256(person.encode()).hexdigest()[0] in "01"


def reason(path: str | PurePath) -> str | None:
    """Why a file or folder must not be trained on, as the end of a sentence that begins with its name; None: it may.

    Known by names alone (nothing is read, nothing need exist): BSDS500's val and test pictures and BSD100, which are
    the same as val; Set5, Set14, Urban100, Kodak, Manga109; DIV2K_valid_HR; DUTS-TE; below a folder whose name
    begins with lfw, the people of `is_held_out_person`.
    """
    parts = [part.lower() for part in PurePath(path).parts]
    for before, part in zip(["", *parts], parts, strict=False):
        if part in _TESTS:
            return f"belongs to the test set {part}, which is never trained on"
        if part in _PARTS:
            return f"belongs to {_PARTS[part]} set, which is never trained on"
        if part in _BSDS and before in ("images", "groundtruth") and any("bsds" in each for each in parts):
            return f"belongs to {_BSDS[part]} set, which is never trained on"
    names = PurePath(path).parts
    for top, person in zip(names, names[1:], strict=False):
        if top.lower().startswith("lfw") and is_held_out_person(person) and _is_person(person, names[-1]):
            return f"shows {person}, one of the people that are kept for tests"
    return None


def check(path: str | Path, split: str) -> None:
    """Raise ValueError where split is "train" and `path`, made absolute, is held out."""
    why = reason(Path(path).absolute()) if split == "train" else None
    if why is not None:
        raise ValueError(f"{path} {why}: name other data, or the split test where it is for measuring")


def _is_person(person: str, file: str) -> bool:
    """Whether this is a person's folder or one of its files, as LFW names them (NAME/NAME_0001.jpg)."""
    found = _PERSON.fullmatch(PurePath(file).stem)
    return file == person or (found is not None and found["person"] == person)
