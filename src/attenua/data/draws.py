"""Random numbers that belong to a picture: they depend on a seed and its number, never on order or workers."""

from __future__ import annotations

import numpy as np

__all__ = ["generator"]


def generator(seed: int, index: int, stream: int = 0) -> np.random.Generator:
    """A generator of its own (Philox, keyed by seed and index) for picture `index`; other streams are independent.

    Raises ValueError where seed or index are outside 0 .. 2^64 - 1 or stream outside 0 .. 2^32 - 1.
    """
    for name, value, bits in (("seed", seed, 64), ("index", index, 64), ("stream", stream, 32)):
        if not 0 <= value < 2**bits:
            raise ValueError(f"{name} must be a whole number from 0 to 2^{bits} - 1, not {value}")
    key, counter = np.array([seed, index], np.uint64), np.array([0, 0, 0, stream], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
