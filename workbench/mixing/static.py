"""The static mixer: one mixture for the whole run.

    MIXERS.build("static", task, mixture={"code": 0.2, "prose": 0.8})

Shapes: K domains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from workbench.core import (
    MIXERS,
    ConfigError,
    MixingTask,
    Mixture,
    Signal,
    StepOutcome,
    unknown_name,
)
from workbench.mixing.published import PUBLISHED, published_mixture


@MIXERS.register("static")
class Static:
    """Fixed probabilities.  No state fields.

    Args:
        task: the domains, supplied by the loop.
        mixture: `uniform`, `natural` (in proportion to training tokens), a published vector (see
            `published`), or a mapping from domain to a non-negative number; missing domains get
            0, the rest is scaled to sum 1.
    """

    needs: frozenset[Signal] = frozenset()

    def __init__(self, task: MixingTask, *, mixture: str | Mapping[str, float] = "uniform"):
        self._mixture = Mixture(task.names, _probabilities(task, mixture))

    def propose(self, step: int) -> Mixture:
        return self._mixture

    def observe(self, outcome: StepOutcome) -> None:
        pass

    def diagnostics(self) -> Mapping[str, Any]:
        return {}

    def warnings(self) -> Sequence[str]:
        return ()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def _probabilities(task: MixingTask, mixture: str | Mapping[str, float]) -> np.ndarray:
    if isinstance(mixture, str) and mixture in PUBLISHED:
        mixture = published_mixture(mixture, task.names)
    if isinstance(mixture, str):
        named = {"uniform": np.ones(len(task.names)), "natural": task.rows_K}
        if mixture not in named:
            problem, remedy = unknown_name("mixture", mixture, [*named, *PUBLISHED])
            raise ConfigError(problem, remedy=remedy)
        share_K = np.asarray(named[mixture], dtype=np.float64)
    else:
        for name in mixture:
            if name not in task.names:
                problem, remedy = unknown_name("domain", name, task.names)
                raise ConfigError(f"{problem} in mixture", remedy=remedy)
        share_K = np.array([float(mixture.get(name, 0.0)) for name in task.names])
    if not np.isfinite(share_K).all() or (share_K < 0).any() or share_K.sum() <= 0:
        raise ConfigError(
            f"mixture {mixture} has no valid probabilities",
            remedy="give finite, non-negative numbers, at least one above 0",
        )
    return share_K / share_K.sum()
