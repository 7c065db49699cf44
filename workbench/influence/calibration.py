"""How closely an approximate way ranks rows, measured on some of them against `ghost`.

    found = best_step(lambda step: difference_scores(step), exact_n)   # Agreement
    found.relative_step, found.spearman, found.close_enough("float32")

A step of the difference has no default that fits: rounding of the losses limits it below, curvature
above, and where they meet differs by a factor of a hundred between a gradient and an EK-FAC
direction, whose length lies where the loss is flat.  So it is measured.
Shapes: n probe rows of N.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from workbench.influence.agreement import spearman

PROBE_ROWS = 64
TOLERANCE: dict[str, float] = {"float32": 0.999, "bfloat16": 0.97}
"""Least Spearman correlation with exact scores, by precision."""
COARSE_STEPS = tuple(1e-4 * 4**k for k in range(6))
PROBE_PASSES = (len(COARSE_STEPS) + 2) + 3
"""Forward passes of a probe row: the steps tried, and the exact score."""


@dataclass(frozen=True)
class Agreement:
    """Rank correlation with exact scores on `rows` probe rows, at the best step where one is."""

    spearman: float
    rows: int
    relative_step: float | None = None

    def close_enough(self, precision: str) -> bool:
        """Half the tolerated distance from 1: the probe is small, and the best step is its own."""
        return 1 - self.spearman <= (1 - TOLERANCE[precision]) / 2

    def __str__(self) -> str:
        step = (
            "" if self.relative_step is None else f" at a relative step of {self.relative_step:g}"
        )
        return f"Spearman {self.spearman:.4f} with ghost on {self.rows} rows{step}"


def probe_indices(rows: int) -> np.ndarray:
    """At most `PROBE_ROWS` of the rows, spread evenly, int64 (n,)."""
    return np.unique(np.linspace(0, rows - 1, PROBE_ROWS).astype(np.int64))


def agreement(score_n: np.ndarray, exact_n: np.ndarray, step: float | None = None) -> Agreement:
    """Of scores of probe rows with their exact ones; two rows at least."""
    return Agreement(spearman(score_n, exact_n), len(exact_n), step)


def best_step(score: Callable[[float], np.ndarray], exact_n: np.ndarray) -> Agreement:
    """The relative step whose differences rank the probe rows most like their exact scores.

    Steps four times apart are tried first, then the double and the half of the best.

    Args:
        score: relative step |h P| / |W| to scores of the probe rows (n,).
    """

    def tried(steps: Iterable[float]) -> dict[float, Agreement]:
        return {step: agreement(score(step), exact_n, step) for step in steps}

    found = tried(COARSE_STEPS)
    best = max(found, key=lambda step: found[step].spearman)
    found |= tried((best / 2, best * 2))
    return max(found.values(), key=lambda one: one.spearman)
