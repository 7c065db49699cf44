"""A pseudo-random order of n rows, computed row by row without storing it.

    permute(np.arange(16), n=1_000_003, seed=7)       # the first 16 rows of that order

A Feistel network over the smallest even number of bits that holds n, walked until the value is
below n (Black and Rogaway 2002, "Ciphers with arbitrary finite domains", cycle walking).
"""

from __future__ import annotations

import numpy as np

_ROUNDS = 6
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def permute(position_N: np.ndarray, *, n: int, seed: int) -> np.ndarray:
    """Rows at the given positions of the order `seed` of n rows; int64, shape (N,)."""
    half = max(1, (max(n - 1, 1).bit_length() + 1) // 2)
    rounds = (np.arange(1, _ROUNDS + 1, dtype=np.uint64) * _GOLDEN) ^ np.uint64(seed)
    keys = _scramble(rounds)
    value_N = _encipher(position_N.astype(np.uint64), keys, half)
    while (outside := np.flatnonzero(value_N >= n)).size:
        value_N[outside] = _encipher(value_N[outside], keys, half)
    return value_N.astype(np.int64)


def _encipher(value_N: np.ndarray, keys: np.ndarray, half: int) -> np.ndarray:
    bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left_N, right_N = value_N >> bits, value_N & mask
    for key in keys:
        left_N, right_N = right_N, left_N ^ (_scramble(right_N ^ key) & mask)
    return (left_N << bits) | right_N


def _scramble(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
