"""The static mixer: one mixture for the whole run, or one for each of its stages.

    MIXERS.build("static", task, mixture={"code": 0.2, "prose": 0.8})

Shapes: K domains.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
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
from workbench.mixing.floor import check_floor, with_floor
from workbench.mixing.published import PUBLISHED, published_mixture


@MIXERS.register("static")
class Static:
    """Probabilities given beforehand, fixed or in stages.  No state fields.

    Args:
        task: the domains, supplied by the loop.
        mixture: `uniform` (also when None), `natural` (in proportion to the rows on offer), a
            published vector (see `published`), a .json file that `batch.find_mixture` wrote, or a
            mapping from domain to a non-negative number; missing domains get 0, the rest is
            scaled to sum 1.
        stages: first step of a stage -> its mixture, in place of `mixture`; the first starts at 0.
        floor, guaranteed_rows: as in every mixer, but a given mixture is kept as it is, with no
            floor, unless one is asked for; a comparison with adaptive mixers asks for theirs.
    Raises:
        ConfigError: a mixture or stages that are none, or both; a floor or rows out of range.
    """

    needs: frozenset[Signal] = frozenset()

    def __init__(
        self,
        task: MixingTask,
        *,
        mixture: str | Mapping[str, float] | None = None,
        stages: Mapping[int | str, str | Mapping[str, float]] | None = None,
        floor: float = 0.0,
        guaranteed_rows: int = 0,
    ):
        check_floor(task, floor, guaranteed_rows)
        self._task, self._floor, self._guaranteed_rows = task, floor, guaranteed_rows
        if mixture is not None and stages is not None:
            raise ConfigError(
                "both mixture and stages are given", remedy="give the mixture of step 0 in stages"
            )
        only = {0: "uniform" if mixture is None else mixture}
        self._asked = only if stages is None else _first_steps(stages)
        self.supplied(task.rows_K)

    def supplied(self, rows_K: np.ndarray) -> None:
        """Natural mixtures follow the rows on offer."""
        task = replace(self._task, rows_K=rows_K)
        self._stages = {
            first: Mixture(
                task.names,
                with_floor(_probabilities(task, each), self._floor),
                self._guaranteed_rows,
            )
            for first, each in self._asked.items()
        }

    def propose(self, step: int) -> Mixture:
        return self._stages[max(first for first in self._stages if first <= step)]

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


def _first_steps(
    stages: Mapping[int | str, str | Mapping[str, float]],
) -> dict[int, str | Mapping[str, float]]:
    """Stages by their first step; a config's keys are text."""
    if not isinstance(stages, Mapping):
        raise ConfigError(
            f"stages = {stages!r} is no mapping",
            remedy='give first steps and mixtures, such as {0: "uniform", 500: "natural"}',
        )
    try:
        # `int` alone would take 5.5 for 5.
        found = {
            int(first) if isinstance(first, str) else operator.index(first): mixture
            for first, mixture in stages.items()
        }
    except (TypeError, ValueError):
        found = {}
    if 0 not in found or min(found) < 0 or len(found) < len(stages):
        raise ConfigError(
            f"stages start at {list(stages)}",
            remedy="give the first step of each stage once, as a count, one of them 0",
        )
    return found


def read_mixture(path: str | Path) -> dict[str, float]:
    """The mixture in a file of `batch.find_mixture`, by domain.

    Raises:
        ConfigError: no such file, or it holds none.
    """
    try:
        return {name: float(p) for name, p in json.loads(Path(path).read_text())["mixture"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"cannot read a mixture from {path}: {type(error).__name__}: {error}",
            remedy="give a mixture.json that `workbench mixture` wrote",
        ) from None


def _probabilities(task: MixingTask, mixture: str | Mapping[str, float]) -> np.ndarray:
    if isinstance(mixture, str) and mixture.endswith(".json"):
        mixture = read_mixture(mixture)
    if isinstance(mixture, str) and mixture in PUBLISHED:
        mixture = published_mixture(mixture, task.names)
    if isinstance(mixture, str):
        named = {"uniform": np.ones(len(task.names)), "natural": task.rows_K}
        if mixture not in named:
            problem, remedy = unknown_name("mixture", mixture, [*named, *PUBLISHED])
            raise ConfigError(problem, remedy=remedy)
        share_K = np.asarray(named[mixture], dtype=np.float64)
    else:
        share_K = _given(task, mixture)
    if not np.isfinite(share_K).all() or (share_K < 0).any() or share_K.sum() <= 0:
        raise ConfigError(
            f"mixture {mixture} has no valid probabilities",
            remedy="give finite, non-negative numbers, at least one above 0",
        )
    return share_K / share_K.sum()


def _given(task: MixingTask, mixture: Mapping[str, float]) -> np.ndarray:
    """The numbers of a mapping in the order of the domains, 0 where it has none."""
    if not isinstance(mixture, Mapping):
        raise ConfigError(
            f"mixture = {mixture!r} is no mixture",
            remedy=f'give a name or domains with numbers, such as {{"{task.names[0]}": 1}}',
        )
    for name in mixture:
        if name not in task.names:
            problem, remedy = unknown_name("domain", name, task.names)
            raise ConfigError(f"{problem} in mixture", remedy=remedy)
    try:
        return np.array([float(mixture.get(name, 0.0)) for name in task.names])
    except (TypeError, ValueError):
        raise ConfigError(
            f"mixture {dict(mixture)} has shares that are no numbers",
            remedy="give a number for each domain",
        ) from None
