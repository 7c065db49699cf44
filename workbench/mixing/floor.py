"""The floor every adaptive mixer keeps, so that no domain is forgotten or starved of signal.

    mixture_K = with_floor(probability_K, floor=0.05)     # (1 - floor) p + floor / K
    at_floor(names, mixture_K, floor=0.05)                # names of the domains that lie on it

Shapes: K domains.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workbench.core import ConfigError, MixingTask

DEFAULT_FLOOR = 0.05
NEAR = 1.1
"""A share below so many times the floor's lies on it."""


def with_floor(probability_K: np.ndarray, floor: float) -> np.ndarray:
    """(1 - floor) p + floor / K: every domain keeps at least floor / K."""
    return (1 - floor) * probability_K + floor / len(probability_K)


def at_floor(names: Sequence[str], mixture_K: np.ndarray, floor: float) -> list[str]:
    """Names of the domains that hold hardly more than the floor leaves them; none without one."""
    lowest = floor / len(names)
    # A floor of 1 puts every domain there by the user's own choice.
    if not 0 < floor < 1:
        return []
    return [name for name, share in zip(names, mixture_K, strict=True) if share < NEAR * lowest]


def floor_warnings(names: Sequence[str], mixture_K: np.ndarray, floor: float) -> list[str]:
    """A line for each domain at the floor, with what can be done."""
    return [
        f"domain '{name}' sits at its floor: raise floor if it must be learned, or take it out"
        for name in at_floor(names, mixture_K, floor)
    ]


def check_floor(task: MixingTask, floor: float, guaranteed_rows: int) -> None:
    """Raise ConfigError unless the floor is in [0, 1] and the guaranteed rows fit a batch."""
    if not 0 <= floor <= 1:
        raise ConfigError(
            f"floor = {floor} is no share of the mixture", remedy="give a number from 0 to 1"
        )
    if guaranteed_rows < 0:
        raise ConfigError(f"guaranteed_rows = {guaranteed_rows}", remedy="give 0 or more")
    if guaranteed_rows * len(task) > task.batch_rows:
        raise ConfigError(
            f"{guaranteed_rows} guaranteed rows for each of {len(task)} domains do not fit a batch "
            f"of {task.batch_rows} rows",
            remedy="raise batch_rows, or set guaranteed_rows=0",
        )
