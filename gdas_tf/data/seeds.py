"""Random numbers of the data: one source for each purpose, all from one seed."""

from __future__ import annotations

import numpy as np


def generator(seed: int, *names: str) -> np.random.Generator:
    return np.random.default_rng(_sequence(seed, names))


def key(seed: int, *names: str) -> int:
    """Returns a seed for TensorFlow, a whole number below 2^63."""
    return int(_sequence(seed, names).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _sequence(seed: int, names: tuple[str, ...]) -> np.random.SeedSequence:
    """Returns a source of seeds of its own for each purpose."""
    return np.random.SeedSequence([seed, *"/".join(names).encode()])
