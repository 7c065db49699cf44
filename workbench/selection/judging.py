"""From a model to a scorer of rows: factors of the pool, direction of the reference set, controls.

    judge = influence_judge(task, pool, model, JudgeSettings(preconditioner="ekfac"))
    judge.score(sample_ids)                    # float32, predicted decrease of the reference loss
    judge.controls()                           # scores of noise and of shuffled rows

Selectors take any function of this form, so that they can be tested, and used, without a model.
Shapes: N pool, n rows, M reference rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from workbench.core import (
    ConfigError,
    DataError,
    Pool,
    RandomStreams,
    SelectionTask,
    unknown_name,
)
from workbench.influence.direction import reference_direction
from workbench.influence.factors import fit_factors
from workbench.influence.preconditioners import PRECONDITIONERS, SERVED_BY, preconditioner
from workbench.influence.scores import Scorer, score_rows, scorer
from workbench.influence.trust import planted_controls
from workbench.models.linear_maps import LinearMaps, linear_maps


@dataclass(frozen=True)
class JudgeSettings:
    """How rows are judged.

    preconditioner: of `PRECONDITIONERS`; damping: times the mean eigenvalue; attention, mlp: which
    linear maps are tracked; factor_rows: rows of the pool that the curvature is fitted on; way:
    how scores are computed, see `influence.scores`; limit_mib: memory of the fit, None for any.
    """

    preconditioner: str = "ekfac"
    damping: float = 0.1
    attention: bool = True
    mlp: bool = True
    factor_rows: int = 256
    way: str = "auto"
    limit_mib: float | None = None
    control_rows: int = 32

    def __post_init__(self):
        if self.preconditioner not in PRECONDITIONERS:
            problem, remedy = unknown_name("preconditioner", self.preconditioner, PRECONDITIONERS)
            raise ConfigError(problem, remedy=remedy)
        if self.factor_rows < 1 or self.control_rows < 1:
            raise ConfigError(
                f"factor_rows = {self.factor_rows}, control_rows = {self.control_rows}",
                remedy="give at least one row of each",
            )


@dataclass(frozen=True)
class Judge:
    """What a selector needs to know of a model.

    controls: kind of control row to the scores of some, float32 (n,); computed when called.
    settings: what the scores depend on, plain types.
    """

    score: Scorer
    controls: Callable[[], Mapping[str, np.ndarray]]
    settings: Mapping[str, Any] = field(default_factory=dict)


MakeJudge = Callable[[SelectionTask, Pool, Any, JudgeSettings], Judge]


def influence_judge(task: SelectionTask, pool: Pool, model: Any, settings: JudgeSettings) -> Judge:
    """Scores by influence on the task's reference set, as `influence` computes them.

    The curvature is that of a random sample of the pool, which is what the model trains on.

    Raises:
        WorkbenchError: from the factors, the direction or the scores.
    """
    maps = linear_maps(model, attention=settings.attention, mlp=settings.mlp)
    sample_NT = _sample(task, pool, settings.factor_rows)
    factors = None
    if settings.preconditioner != "identity":
        factors = fit_factors(
            model,
            [
                sample_NT[first : first + task.batch_rows]
                for first in range(0, len(sample_NT), task.batch_rows)
            ],
            maps,
            kind=SERVED_BY[settings.preconditioner][0],
            seed=task.seed,
            device=task.device,
            progress=task.progress,
            limit_mib=settings.limit_mib,
            folder=task.cache_dir and task.cache_dir / "factors",
        )
    direction = reference_direction(
        model,
        task.reference_MT,
        preconditioner(settings.preconditioner, factors, damping=settings.damping),
        maps,
        batch_rows=task.batch_rows,
        device=task.device,
        progress=task.progress,
    )
    how: Any = {
        "way": settings.way,
        "batch_rows": task.batch_rows,
        "device": task.device,
        "progress": task.progress,
    }

    def controls() -> Mapping[str, np.ndarray]:
        sample_nT = sample_NT[: settings.control_rows]
        rows = planted_controls(sample_nT, len(model.head_VD), seed=task.seed)
        return {
            kind: score_rows(model, rows_NT, direction, **how).score_N
            for kind, rows_NT in rows.items()
        }

    score = scorer(model, task.source, direction, cache_dir=task.cache_dir, **how)
    known = {**direction.settings, "way": settings.way, "tracked_share": maps.share}
    return Judge(score, controls, {**known, "untracked": _untracked(maps)})


def _untracked(maps: LinearMaps) -> dict[str, float]:
    """Share of the parameters that no score sees, by the reason for it."""
    shares: dict[str, float] = {}
    for skip in maps.skipped:
        shares[skip.reason] = shares.get(skip.reason, 0.0) + skip.share
    return shares


def _sample(task: SelectionTask, pool: Pool, rows: int) -> np.ndarray:
    rng = RandomStreams(task.seed).at("factor rows")
    ids = np.sort(pool.sample_id_N)
    return task.source.tokens(rng.permutation(ids)[:rows])


def require_reference(task: SelectionTask) -> None:
    """DataError for a task whose reference set has no rows."""
    if not len(task.reference_MT):
        raise DataError(
            "the reference set has no rows",
            remedy="give a reference text, or raise reference_rows or held_out_fraction",
        )
