"""What the answers to a task say: a value, its interval, and whether guessing does as well.

    summarise([1, 0, 1, 1], chance=0.5)        # {"value": 0.75, ..., "standing": "near chance"}

A value over documents has a 95 % interval: Wilson's where each document is right or wrong, which
stays within 0 and 1, the normal approximation otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Z = 1.959964
"""Of a two-sided 95 % interval."""


def summarise(
    values: Sequence[float], *, chance: float | None = None, of_mean: Callable = lambda mean: mean
) -> dict[str, Any]:
    """Mean over documents with its standard error and interval, against the level of guessing.

    Args:
        values: one a document.
        chance: expected value of a uniform guess; None where there is none.
        of_mean: what is reported of the mean, such as exp(-mean) for a perplexity; monotonic.
    Returns:
        value, stderr (of the mean itself), low, high, documents, chance, and standing: "near
        chance" where the interval holds the chance level, else "above chance" or "below chance";
        None without a level.
    """
    value_n = np.asarray(values, dtype=np.float64)
    mean, n = float(value_n.mean()), len(value_n)
    stderr = float(value_n.std(ddof=1) / math.sqrt(n)) if n > 1 else None
    ends = _wilson(mean, n) if np.isin(value_n, (0.0, 1.0)).all() else _normal(mean, stderr)
    low, high = sorted(map(of_mean, ends)) if ends else (None, None)
    return {
        "value": of_mean(mean),
        "stderr": stderr,
        "low": low,
        "high": high,
        "documents": n,
        "chance": chance,
        "standing": standing(low, high, chance),
    }


def standing(low: float | None, high: float | None, chance: float | None) -> str | None:
    """Where an interval lies against the chance level."""
    if chance is None or low is None or high is None:
        return None
    if low <= chance <= high:
        return "near chance"
    return "above chance" if low > chance else "below chance"


def perplexity(mean_nats: float) -> float:
    """exp(-mean log-likelihood), infinite where that overflows."""
    return math.exp(-mean_nats) if mean_nats > -700 else math.inf


def _wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson 1927, score interval of a proportion."""
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def _normal(mean: float, stderr: float | None) -> tuple[float, float] | None:
    return None if stderr is None else (mean - Z * stderr, mean + Z * stderr)
