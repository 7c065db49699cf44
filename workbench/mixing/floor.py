"""The floor every adaptive mixer keeps, so that no domain is forgotten or starved of signal.

    mixture_K = with_floor(probability_K, floor=0.05)     # (1 - floor) p + floor / K

Shapes: K domains.
"""

from __future__ import annotations

import numpy as np

from workbench.core import ConfigError, MixingTask

DEFAULT_FLOOR = 0.05


def with_floor(probability_K: np.ndarray, floor: float) -> np.ndarray:
    """(1 - floor) p + floor / K: every domain keeps at least floor / K."""
    return (1 - floor) * probability_K + floor / len(probability_K)


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
