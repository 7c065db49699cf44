"""Selectors that put the pool in order and take it from the front until the budget is full.

    class Random(OrderedSelector):
        def judge(self, pool, open_n, model, rng): return Judged(rng.permutation(open_n), "random")

Shapes: N rows of the pool, n of them, C clusters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from workbench.core import PolicyError, Pool, RandomStreams, Selection, SelectionTask
from workbench.selection.duplicates import DuplicateCap


@dataclass(frozen=True)
class Judged:
    """The open rows in order of preference, and what was seen on the way.

    order_n: places in the pool, best first; reason: of every chosen row; cluster_N: int32;
    influence_N: float32; columns: more columns (N,) of the table `samples`; facts: diagnostics.
    """

    order_n: np.ndarray
    reason: str
    cluster_N: np.ndarray | None = None
    influence_N: np.ndarray | None = None
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


class TooFewDistinct(PolicyError):
    """A budget that near-duplicates alone could fill; `tokens` can be had without them."""

    def __init__(self, problem: str, *, remedy: str = "", tokens: int = 0):
        super().__init__(problem, remedy=remedy)
        self.tokens = tokens

    def __reduce__(self):
        return (*super().__reduce__(), {"tokens": self.tokens})


def require_budget(pool: Pool, budget: int) -> None:
    """Refuse a budget below the smallest row or above the pool's tokens.

    Raises:
        PolicyError: with the numbers.
    """
    tokens = int(pool.tokens_N.sum())
    if not len(pool):
        raise PolicyError(
            f"budget of {budget} tokens for a pool of 0 tokens in 0 rows",
            remedy="give the corpus more text (max_domain_mb)",
        )
    least = int(pool.tokens_N.min())
    if not least <= budget <= tokens:
        raise PolicyError(
            f"budget of {budget} tokens for a pool of {tokens} tokens in {len(pool)} rows of "
            f"{least} or more",
            remedy=f"set selection.budget_tokens or selection.share so that the budget is between "
            f"{least} and {tokens} tokens",
        )


def fill(order_n: np.ndarray, tokens_N: np.ndarray, budget: int) -> np.ndarray:
    """The front of `order_n` that fits the budget; what is left is less than the next row."""
    return order_n[: np.searchsorted(np.cumsum(tokens_N[order_n]), budget, side="right")]


def distinct_rows(
    cap: DuplicateCap | None, pool: Pool, budget: int, rng: np.random.Generator
) -> np.ndarray:
    """Places of the pool, ascending: one of each near-duplicate group; all without a cap.

    Raises:
        TooFewDistinct: they have fewer tokens than the budget.
    """
    if cap is None:
        return np.arange(len(pool))
    open_n = np.sort(cap.admit(pool, rng.permutation(len(pool))))
    tokens = int(pool.tokens_N[open_n].sum())
    if tokens < budget:
        raise TooFewDistinct(
            f"budget of {budget} tokens, but without near-duplicates the pool has {tokens} of "
            f"its {int(pool.tokens_N.sum())} tokens left",
            remedy=f"lower the budget to {tokens}, or set deduplicate=False",
            tokens=tokens,
        )
    return open_n


class OrderedSelector(ABC):
    """Judges the pool, orders it, and fills the budget.

    State fields: choices made, and the near-duplicate groups with `deduplicate`.

    Args:
        deduplicate: choose one row at most of every group of near-duplicates.
    """

    uses_reference = False
    judges_with_model = True

    def __init__(self, task: SelectionTask, *, deduplicate: bool = False):
        self.task = task
        self._cap = DuplicateCap(task) if deduplicate else None
        self._choices = 0
        self._tables: dict[str, dict[str, np.ndarray]] = {}
        self._facts: dict[str, Any] = {}

    @abstractmethod
    def judge(self, pool: Pool, open_n: np.ndarray, model: Any, rng: np.random.Generator) -> Judged:
        """All places of `open_n` in order of preference; `rng` is a new one for every choice."""

    def select(self, pool: Pool, budget: int, model: Any) -> Selection:
        """The best rows that fit the budget, in order of preference.

        Raises:
            PolicyError: a budget above the pool's tokens, or below its smallest row.
            TooFewDistinct: a budget above the tokens of its distinct rows.
        """
        require_budget(pool, budget)
        rng = RandomStreams(self.task.seed).at("selection", self._choices)
        open_n = distinct_rows(self._cap, pool, budget, rng)
        judged = self.judge(pool, open_n, model, rng)
        chosen_n = fill(judged.order_n, pool.tokens_N, budget)
        if self._cap is not None:
            self._cap.take(pool, chosen_n)
        self._choices += 1
        self._remember(pool, budget, judged, chosen_n)
        self._facts["repeated_rows"] = len(pool) - len(open_n)
        return Selection(
            pool.sample_id_N[chosen_n],
            [judged.reason] * len(chosen_n),
            None if judged.cluster_N is None else judged.cluster_N[chosen_n],
            None if judged.influence_N is None else judged.influence_N[chosen_n],
        )

    def _remember(self, pool: Pool, budget: int, judged: Judged, chosen_n: np.ndarray) -> None:
        accepted_N = np.zeros(len(pool), dtype=bool)
        accepted_N[chosen_n] = True
        known = {"cluster": judged.cluster_N, "influence": judged.influence_N, **judged.columns}
        columns = {name: column for name, column in known.items() if column is not None}
        samples = {"sample_id": pool.sample_id_N, "domain": pool.domain_N, **columns}
        self._tables = {"samples": {**samples, "accepted": accepted_N}}
        if judged.cluster_N is not None:
            clusters = int(judged.cluster_N.max()) + 1
            self._tables["arms"] = {
                "cluster": np.arange(clusters),
                "rows": np.bincount(judged.cluster_N, minlength=clusters),
                "accepted": np.bincount(judged.cluster_N[chosen_n], minlength=clusters),
            }
        self._facts = {
            "budget_tokens": int(budget),
            "chosen_tokens": int(pool.tokens_N[chosen_n].sum()),
            "chosen_rows": len(chosen_n),
            "pool_rows": len(pool),
            **judged.facts,
        }

    def tables(self) -> Mapping[str, Mapping[str, np.ndarray]]:
        return self._tables

    def diagnostics(self) -> Mapping[str, Any]:
        return self._facts

    def state_dict(self) -> dict[str, Any]:
        cap = {} if self._cap is None else {"duplicates": self._cap.state_dict()}
        return {"choices": self._choices, **cap}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._choices = state["choices"]
        if self._cap is not None:
            self._cap.load_state_dict(state["duplicates"])
