"""Faces: CelebA-HQ (Karras et al. 2018) and Labeled Faces in the Wild (Huang et al. 2007), and which are for tests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from attenua.data.heldout import is_held_out_person

__all__ = ["CELEBA_HQ", "CELEBA_HQ_TEST", "celeba_split", "is_celeba", "is_lfw", "lfw_split"]

CELEBA_HQ = 30_000
"""Pictures of CelebA-HQ."""

CELEBA_HQ_TEST = 2_000
"""How many of them, the last ones by number, are the test set."""

CELEBA_TERMS = "CelebA-HQ: non-commercial research; the people are recognisable"
LFW_TERMS = "LFW: research; the people are recognisable; cite Huang et al., Labeled Faces in the Wild, 2007"

_NUMBER = re.compile(r"[A-Za-z_-]*(\d{1,5})")


def is_celeba(names: Sequence[str]) -> bool:
    """Whether these files are CelebA-HQ's: 30,000, numbered 0 to 29,999 or 1 to 30,000, in one folder."""
    if len(names) != CELEBA_HQ or len({str(PurePosixPath(name).parent) for name in names}) != 1:
        return False
    numbers = [_number(name) for name in names]
    return sorted(numbers) in (list(range(CELEBA_HQ)), list(range(1, CELEBA_HQ + 1)))


def celeba_split(names: Sequence[str], split: str) -> list[str]:
    """The names of "train" (28,000) or "test" (2,000), by number, so that 9.jpg and 00009.jpg are the same."""
    ordered = sorted(names, key=_number)
    return ordered[-CELEBA_HQ_TEST:] if split == "test" else ordered[:-CELEBA_HQ_TEST]


def _number(name: str) -> int:
    found = _NUMBER.fullmatch(PurePosixPath(name).stem)
    return -1 if found is None else int(found[1])


def is_lfw(names: Sequence[str]) -> bool:
    """Whether these files (below one folder) are LFW's: PERSON/PERSON_0001.jpg and so on, at any depth."""

    def fits(name: str) -> bool:
        path = PurePosixPath(name)
        return re.fullmatch(rf"{re.escape(path.parent.name)}_\d{{4}}", path.stem) is not None and bool(path.parent.name)

    return bool(names) and all(fits(name) for name in names)


def lfw_split(names: Sequence[str], split: str) -> list[str]:
    """The names of "train" or "test": a person is in one of them with all pictures (`is_held_out_person`)."""
    wanted = split == "test"
    return [name for name in names if is_held_out_person(PurePosixPath(name).parent.name) == wanted]
