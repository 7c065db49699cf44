"""From a model to a scorer of rows: factors of the pool, direction of the reference set, controls.

    judge = influence_judge(task, pool, model, JudgeSettings(preconditioner="ekfac"))
    judge.score(sample_ids)                    # float32, predicted decrease of the reference loss
    judge.controls()                           # scores of noise, of shuffled rows, of the pool's

Selectors take any function of this form, so that they can be tested, and used, without a model.
Shapes: N pool, n rows, M reference rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast, get_args

import numpy as np

from workbench.core import (
    ConfigError,
    DataError,
    Pool,
    RandomStreams,
    SelectionTask,
    unknown_name,
)
from workbench.influence.choice import WayName, choose_way
from workbench.influence.direction import reference_direction
from workbench.influence.factors import Factors, fit_factors
from workbench.influence.preconditioners import PRECONDITIONERS, SERVED_BY, preconditioner
from workbench.influence.scores import Scorer, score_rows, scorer
from workbench.influence.trust import planted_controls
from workbench.models.linear_maps import LinearMaps, linear_maps
from workbench.selection.gate import Controls
from workbench.selection.options import require_number


@dataclass(frozen=True)
class JudgeSettings:
    """How rows are judged.

    preconditioner: of `PRECONDITIONERS`; damping: times the mean eigenvalue; attention, mlp: which
    linear maps are tracked, or exactly those of `names`; factor_rows: rows of the pool that the
    curvature is fitted on; way: how scores are computed, and relative_step of `difference`, see
    `influence.scores`; limit_mib: memory of the fit, None for any.
    """

    preconditioner: str = "ekfac"
    damping: float = 0.1
    attention: bool = True
    mlp: bool = True
    names: Sequence[str] | None = None
    factor_rows: int = 256
    way: str = "auto"
    relative_step: float | None = None
    limit_mib: float | None = None
    control_rows: int = 32

    def __post_init__(self):
        if self.preconditioner not in PRECONDITIONERS:
            problem, remedy = unknown_name("preconditioner", self.preconditioner, PRECONDITIONERS)
            raise ConfigError(problem, remedy=remedy)
        if self.way not in get_args(WayName):
            problem, remedy = unknown_name("way to score", self.way, get_args(WayName))
            raise ConfigError(problem, remedy=remedy)
        if self.way == "difference" and self.relative_step is None:
            raise ConfigError(
                "way = 'difference' needs relative_step", remedy="add relative_step=1e-3"
            )
        if isinstance(self.names, str):
            raise ConfigError(f"names = {self.names!r}", remedy="give a list of linear maps")
        require_number("damping", self.damping, least=0)
        require_number("factor_rows", self.factor_rows, least=1, whole=True)
        require_number("control_rows", self.control_rows, least=1, whole=True)
        for name in ("limit_mib", "relative_step"):
            if getattr(self, name) is not None:
                require_number(name, getattr(self, name), above=0)


@dataclass(frozen=True)
class Judge:
    """What a selector needs to know of a model.

    controls: scores of some rows of the pool and of control rows; computed when called.
    settings: what the scores depend on, plain types.
    """

    score: Scorer
    controls: Callable[[], Controls]
    settings: Mapping[str, Any] = field(default_factory=dict)


MakeJudge = Callable[[SelectionTask, Pool, Any, JudgeSettings], Judge]


def influence_judge(task: SelectionTask, pool: Pool, model: Any, settings: JudgeSettings) -> Judge:
    """Scores by influence on the task's reference set, as `influence` computes them.

    The curvature is that of a random sample of the pool, which is what the model trains on.

    Raises:
        WorkbenchError: from the factors, the direction or the scores.
    """
    names = None if settings.names is None else tuple(settings.names)
    maps = linear_maps(model, attention=settings.attention, mlp=settings.mlp, names=names)
    sample_NT = _sample(task, pool, settings.factor_rows)
    factors = _factors(task, model, maps, sample_NT, settings)
    direction = reference_direction(
        model,
        task.reference_MT,
        preconditioner(settings.preconditioner, factors, damping=settings.damping),
        maps,
        batch_rows=task.batch_rows,
        device=task.device,
        progress=task.progress,
    )
    # Chosen once, so that controls and rows are scored alike and the record says how.
    chosen = choose_way(model, maps, way=cast(WayName, settings.way))
    how: Any = {
        "way": chosen.way,
        "relative_step": settings.relative_step,
        "batch_rows": task.batch_rows,
        "device": task.device,
        "progress": task.progress,
    }

    def controls() -> Controls:
        sample_nT = sample_NT[: settings.control_rows]
        rows = planted_controls(sample_nT, len(model.head_VD), seed=task.seed)
        score = {
            kind: score_rows(model, rows_NT, direction, **how).score_N
            for kind, rows_NT in {"pool": sample_nT, **rows}.items()
        }
        return Controls(score.pop("pool"), score)

    known = {
        **direction.settings,
        "way": chosen.way,
        "way_reason": chosen.reason,
        "relative_step": settings.relative_step,
        "tracked_share": maps.share,
        "untracked": _untracked(maps),
    }
    score = scorer(model, task.source, direction, cache_dir=task.cache_dir, **how)
    return Judge(score, controls, known)


def _factors(
    task: SelectionTask,
    model: Any,
    maps: LinearMaps,
    sample_NT: np.ndarray,
    settings: JudgeSettings,
) -> Factors | None:
    if settings.preconditioner == "identity":
        return None
    batches = [
        sample_NT[first : first + task.batch_rows]
        for first in range(0, len(sample_NT), task.batch_rows)
    ]
    return fit_factors(
        model,
        batches,
        maps,
        kind=SERVED_BY[settings.preconditioner][0],
        seed=task.seed,
        device=task.device,
        progress=task.progress,
        limit_mib=settings.limit_mib,
        folder=task.cache_dir and task.cache_dir / "factors",
    )


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
