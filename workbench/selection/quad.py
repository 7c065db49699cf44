"""Quad: clusters are arms, a few rows of a pulled one are scored, the best arms give their rows.

    selector = SELECTORS.build("quad", task, clusters=100)
    selection = selector.select(pool, budget_tokens, model)
    selector.tables()["arms"], selector.diagnostics()["gate"]

Zhang et al. 2025 (arXiv 2409.16986); docs/methods/quad.md says what departs from it.
Shapes: N pool, C clusters, n rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from workbench.core import (
    SELECTORS,
    Pool,
    RandomStreams,
    Selection,
    SelectionTask,
)
from workbench.selection.arms import Arms
from workbench.selection.bandit import Bandit, Variant
from workbench.selection.clustered_pool import ClusteredPool
from workbench.selection.clustering import Clusters
from workbench.selection.duplicates import DuplicateCap
from workbench.selection.gate import ControlGate, require_trust
from workbench.selection.judging import JudgeSettings, MakeJudge, influence_judge, require_reference
from workbench.selection.options import require_number
from workbench.selection.ordered import distinct_rows, require_budget
from workbench.selection.rounds import Record, RoundSettings, pull_rounds


@SELECTORS.register("quad")
class Quad:
    """Quality by influence, diversity by clusters.

    State fields: choices made, the clustered pool, near-duplicate groups used up, and what the
    bandit learned.  Clusters are made once, of the first pool; every choice begins with arms that
    know nothing but a share `memory` of what the last model said.

    Args:
        task: supplied by the loop.
        judge: from a model to scores; not an option.
        variant, alpha, tau, confidence, cold_samples: see `Bandit`.
        clusters, embedder, backend, projection: see `ClusteredPool`.
        preconditioner, damping, attention, mlp, names, factor_rows, way, relative_step, limit_mib:
            see `JudgeSettings`.
        arms_per_round, samples_per_pull, chunk_rows, breadth, scored_share: see `RoundSettings`.
        neighbour_distance: cosine distance within which a pull informs other clusters; None for
            no credit.
        deduplicate: accept one row of each near-duplicate group, over all choices.
        memory: weight of what was learned with earlier models, from 0 to 1.
        trust: what to do when control rows pass: `refuse`, `warn`, or `off` not to look.
        control_rows: of each kind.
    """

    def __init__(
        self,
        task: SelectionTask,
        judge: MakeJudge = influence_judge,
        *,
        variant: Variant = "robust",
        clusters: int | None = None,
        embedder: str | Mapping[str, Any] = "tfidf",
        backend: str = "minibatch",
        projection: str = "pca",
        preconditioner: str = "ekfac",
        damping: float = 0.1,
        attention: bool = True,
        mlp: bool = True,
        names: Sequence[str] | None = None,
        factor_rows: int = 256,
        way: str = "auto",
        relative_step: float | None = None,
        limit_mib: float | None = None,
        alpha: float | None = None,
        tau: float | None = None,
        confidence: float = 1.0,
        cold_samples: int = 3,
        arms_per_round: int = 8,
        samples_per_pull: int = 4,
        chunk_rows: int = 16,
        breadth: float = 1.5,
        scored_share: float = 0.3,
        neighbour_distance: float | None = None,
        deduplicate: bool = True,
        memory: float = 0.0,
        trust: str = "refuse",
        control_rows: int = 32,
    ):
        require_trust(trust)
        _require_memory(memory, neighbour_distance)
        self.task, self._make_judge = task, judge
        self._trust, self._memory = trust, memory
        self._neighbour_distance = neighbour_distance
        learning = {"confidence": confidence, "cold_samples": cold_samples}
        self._new_bandit = partial(Bandit, variant=variant, alpha=alpha, tau=tau, **learning)
        self._new_bandit(np.zeros(0))
        maps = (attention, mlp, names)
        self._judging = JudgeSettings(
            preconditioner, damping, *maps, factor_rows, way, relative_step, limit_mib, control_rows
        )
        self._rounds = RoundSettings(
            arms_per_round, samples_per_pull, chunk_rows, breadth, scored_share
        )
        self._pool = ClusteredPool(
            task, clusters=clusters, embedder=embedder, backend=backend, projection=projection
        )
        self._cap = DuplicateCap(task) if deduplicate else None
        self._choices = 0
        self._learned: dict[str, Any] = {}
        self._tables: dict[str, dict[str, np.ndarray]] = {}
        self._diagnostics: dict[str, Any] = {}

    def select(self, pool: Pool, budget: int, model: Any) -> Selection:
        """Rows of at most `budget` tokens, in the order in which their clusters were accepted.

        Raises:
            PolicyError: a budget above the pool's tokens or below its smallest row; a score that
                is not finite.
            Untrusted: control rows that pass or outrank the pool, before a row is accepted; later
                they end the choice, and `stopped` says so.
            TooFewDistinct: a budget above the tokens of the pool's distinct rows.
            DataError: no reference rows, or a pool with fewer rows than clusters.
        """
        require_budget(pool, budget)
        require_reference(self.task)
        clusters = self._pool.see(pool, model)
        arms = self._arms(pool, budget, clusters)
        self._tables = {"samples": self._placed(pool)}
        self.task.progress({"stage": "map", "done": len(pool), "total": len(pool)})
        bandit = self._bandit(arms, clusters)
        judge = self._make_judge(self.task, pool, model, self._judging)
        gate = ControlGate(self._trust, judge.controls, self.task.progress)
        record = pull_rounds(
            bandit,
            arms,
            lambda row_n: judge.score(pool.sample_id_N[row_n]),
            self._rounds,
            budget_tokens=budget,
            gate=gate,
            progress=self.task.progress,
        )
        if self._cap is not None:
            self._cap.take(pool, np.array(record.row_n, dtype=np.int64))
        self._learned = bandit.state_dict()
        self._choices += 1
        self._tables = self._tabulate(pool, arms, bandit, record)
        self._diagnostics = self._diagnose(pool, arms, record, budget)
        self._diagnostics |= {"gate": gate.diagnostics(), "judge": dict(judge.settings)}
        return self._selection(pool, record)

    def _arms(self, pool: Pool, budget: int, clusters: Clusters) -> Arms:
        """The pool's rows by cluster, one of each near-duplicate group that is not used up."""
        rng = RandomStreams(self.task.seed).at("quad", self._choices)
        held_N = np.zeros(len(pool), dtype=bool)
        held_N[distinct_rows(self._cap, pool, budget, rng)] = True
        return Arms(
            self._pool.labels(pool), pool.tokens_N, clusters=len(clusters), held_N=held_N, rng=rng
        )

    def _bandit(self, arms: Arms, clusters: Clusters) -> Bandit:
        distance = self._neighbour_distance
        neighbours = None if distance is None else clusters.neighbours(distance)
        bandit = self._new_bandit(arms.rows_C, neighbours=neighbours)
        if self._learned:
            bandit.load_state_dict(self._learned)
            bandit.renew(arms.rows_C, memory=self._memory)
        return bandit

    def _selection(self, pool: Pool, record: Record) -> Selection:
        row_n = np.array(record.row_n, dtype=np.int64)
        return Selection(
            pool.sample_id_N[row_n],
            record.reason_n,
            self._tables["samples"]["cluster"][row_n],
            self._tables["samples"]["influence"][row_n],
        )

    def _placed(self, pool: Pool) -> dict[str, np.ndarray]:
        """What is known of the rows before any is scored; a live map is drawn from it."""
        map_N2 = self._pool.map(pool)
        return {
            "sample_id": pool.sample_id_N,
            "domain": pool.domain_N,
            "cluster": self._pool.labels(pool),
            "x": map_N2[:, 0],
            "y": map_N2[:, 1],
        }

    def _tabulate(
        self, pool: Pool, arms: Arms, bandit: Bandit, record: Record
    ) -> dict[str, dict[str, np.ndarray]]:
        row_n = np.array([pull.row for pull in record.pulls], dtype=np.int64)
        score_n = np.array([pull.influence for pull in record.pulls], dtype=np.float32)
        influence_N = np.full(len(pool), np.nan, dtype=np.float32)
        influence_N[row_n] = score_n
        estimate = bandit.estimate()
        samples = {
            **self._placed(pool),
            "influence": influence_N,
            "accepted": arms.accepted_N,
        }
        by_arm = {
            "cluster": np.arange(len(bandit), dtype=np.int32),
            "rows": arms.rows_C,
            "mean": estimate.mean_C,
            "low": estimate.low_C,
            "high": estimate.high_C,
            "pulls": bandit.pulls_C,
            "scored": bandit.count_C,
            "accepted": arms.accepted_C(),
        }
        pulls = {
            "round": np.array([pull.round for pull in record.pulls], dtype=np.int32),
            "cluster": np.array([pull.cluster for pull in record.pulls], dtype=np.int32),
            "sample_id": pool.sample_id_N[row_n],
            "influence": score_n,
        }
        return {"samples": samples, "arms": by_arm, "pulls": pulls}

    def _diagnose(self, pool: Pool, arms: Arms, record: Record, budget: int) -> dict[str, Any]:
        return {
            "choice": self._choices,
            "rounds": record.rounds,
            "clusters": len(arms.rows_C),
            "clusters_accepted": int((arms.accepted_C() > 0).sum()),
            "scored_rows": len(record.pulls),
            "accepted_rows": len(record.row_n),
            "accepted_tokens": record.accepted_tokens,
            "budget_tokens": budget,
            "near_duplicate_rows": len(pool) - int(arms.rows_C.sum()),
            "threshold": record.threshold if np.isfinite(record.threshold) else None,
            "stopped": record.stopped,
        }

    def tables(self) -> Mapping[str, Mapping[str, np.ndarray]]:
        return self._tables

    def diagnostics(self) -> Mapping[str, Any]:
        return self._diagnostics

    def state_dict(self) -> dict[str, Any]:
        return {
            "choices": self._choices,
            "pool": self._pool.state_dict(),
            "duplicates": self._cap.state_dict() if self._cap is not None else {},
            "learned": self._learned,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._choices, self._learned = state["choices"], state["learned"]
        self._pool.load_state_dict(state["pool"])
        if self._cap is not None:
            self._cap.load_state_dict(state["duplicates"])


def _require_memory(memory: float, neighbour_distance: float | None) -> None:
    require_number("memory", memory, least=0, most=1)
    if neighbour_distance is not None:
        require_number("neighbour_distance", neighbour_distance, above=0)
