"""Top-k by influence, without diversity: what Quad's clusters are worth is measured against it.

    SELECTORS.build("top_influence", task).select(pool, budget, model)

Scores the whole pool; what was scored is kept under the task's `cache_dir`, so that work cut short
goes on.  Shapes: N pool, n rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from workbench.core import SELECTORS, Pool, Selection, SelectionTask
from workbench.selection.gate import ControlGate, require_trust
from workbench.selection.judging import (
    JudgeSettings,
    MakeJudge,
    influence_judge,
    require_reference,
)
from workbench.selection.ordered import Judged, OrderedSelector, fill


@SELECTORS.register("top_influence")
class TopInfluence(OrderedSelector):
    """The rows with the highest influence scores that the budget takes.

    State: see `OrderedSelector`.

    Args:
        judge: from a model to scores; not an option.
        preconditioner, damping, attention, mlp, names, factor_rows, way, relative_step, limit_mib,
            control_rows: see `JudgeSettings`.
        deduplicate: see `OrderedSelector`.
        trust: what to do when control rows score as high as the last row taken: `refuse`, `warn`,
            or `off` not to look.
    """

    uses_reference = True

    def __init__(
        self,
        task: SelectionTask,
        judge: MakeJudge = influence_judge,
        *,
        preconditioner: str = "ekfac",
        damping: float = 0.1,
        attention: bool = True,
        mlp: bool = True,
        names: Sequence[str] | None = None,
        factor_rows: int = 256,
        way: str = "auto",
        relative_step: float | None = None,
        limit_mib: float | None = None,
        control_rows: int = 32,
        deduplicate: bool = False,
        trust: str = "refuse",
    ):
        super().__init__(task, deduplicate=deduplicate)
        require_trust(trust)
        self._make_judge, self._trust = judge, trust
        maps = (attention, mlp, names)
        self._judging = JudgeSettings(
            preconditioner, damping, *maps, factor_rows, way, relative_step, limit_mib, control_rows
        )
        self._budget = 0

    def select(self, pool: Pool, budget: int, model: Any) -> Selection:
        """As `OrderedSelector.select`.

        Raises:
            Untrusted: control rows that would be taken, or outrank those of the pool.
            DataError: no reference rows.
        """
        require_reference(self.task)
        self._budget = budget
        return super().select(pool, budget, model)

    def judge(self, pool: Pool, open_n: np.ndarray, model: Any, rng: np.random.Generator) -> Judged:
        judge = self._make_judge(self.task, pool, model, self._judging)
        influence_n = judge.score(pool.sample_id_N[open_n])
        order_n = open_n[np.argsort(-influence_n, kind="stable")]
        influence_N = np.full(len(pool), np.nan, dtype=np.float32)
        influence_N[open_n] = influence_n
        taken_n = fill(order_n, pool.tokens_N, self._budget)
        gate = ControlGate(self._trust, judge.controls, self.task.progress)
        # Where everything is taken there is no threshold, and nothing to choose.
        is_choice = 0 < len(taken_n) < len(open_n)
        doubt = gate(float(influence_N[taken_n[-1]]) if is_choice else -np.inf)
        return Judged(
            order_n,
            f"top influence{doubt}",
            influence_N=influence_N,
            facts={"gate": gate.diagnostics(), "judge": dict(judge.settings)},
        )
