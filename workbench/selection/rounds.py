"""Pull clusters round by round until the token budget is filled.

    record = pull_rounds(bandit, arms, score, settings, budget_tokens=100_000, progress=print)
    record.row_n, record.reason_n, record.stopped

Knows neither models nor embeddings: `score` takes positions in the pool and gives one influence
per row.  Shapes: N pool, C clusters, n rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from workbench.core import Progress, silent
from workbench.selection.arms import Arms
from workbench.selection.bandit import Bandit
from workbench.selection.gate import Untrusted
from workbench.selection.options import require_number

Score = Callable[[np.ndarray], np.ndarray]
"""Positions in the pool, int64 (n,), to the influence score per token of each, float32 (n,)."""

Gate = Callable[[float], str]
"""Told every threshold before rows are accepted on it; gives what to add to their reasons.

Raises `Untrusted` to refuse: the selection while it is empty, more rows later.
"""


@dataclass(frozen=True)
class RoundSettings:
    """How a round goes.

    arms_per_round: clusters pulled; samples_per_pull: rows scored of each; chunk_rows: rows that
    an accepted cluster gives a round at most.  breadth: clusters that hold this multiple of the
    budget may pass, so that more than the very best are reached.  scored_share: once this part of
    the pool is scored nothing more is, and means decide; the cold start always ends.
    """

    arms_per_round: int = 8
    samples_per_pull: int = 4
    chunk_rows: int = 16
    breadth: float = 1.5
    scored_share: float = 0.3

    def __post_init__(self):
        for name in ("arms_per_round", "samples_per_pull", "chunk_rows"):
            require_number(name, getattr(self, name), least=1, whole=True)
        require_number("breadth", self.breadth, least=1)
        require_number("scored_share", self.scored_share, least=0)


class Pull(NamedTuple):
    """A row that was scored; `row` is its position in the pool."""

    round: int
    cluster: int
    row: int
    influence: float


@dataclass
class Record:
    """What the rounds did, in order: accepted rows with reasons, pulls, and why it ended."""

    row_n: list[int] = field(default_factory=list)
    reason_n: list[str] = field(default_factory=list)
    pulls: list[Pull] = field(default_factory=list)
    rounds: int = 0
    accepted_tokens: int = 0
    threshold: float = float("nan")
    stopped: str = ""


def pull_rounds(
    bandit: Bandit,
    arms: Arms,
    score: Score,
    settings: RoundSettings,
    *,
    budget_tokens: int,
    gate: Gate | None = None,
    progress: Progress = silent,
) -> Record:
    """Accept rows of at most `budget_tokens`; less than a row below, unless `stopped` says why.

    A round pulls the open arms with the highest optimistic scores; an arm is open while it has
    rows to score or passes with rows to give.  So every round scores or gives something.

    Raises:
        Untrusted: from the gate, before anything is accepted.
    """
    rounds = _Rounds(bandit, arms, score, settings, budget_tokens, gate, progress)
    while not rounds.record.stopped:
        rounds.play()
    return rounds.record


@dataclass
class _Rounds:
    bandit: Bandit
    arms: Arms
    score: Score
    settings: RoundSettings
    budget_tokens: int
    gate: Gate | None
    progress: Progress
    record: Record = field(default_factory=Record)
    doubt: str = ""

    def play(self) -> None:
        """One round: choose, score, judge, give."""
        passes_C = self.passes()
        open_C = (passes_C & (self.arms.tokens_C > 0)) | (self.may_score() & self._scorable_C())
        chosen = self.bandit.choose(self.settings.arms_per_round, open_C)
        if not len(chosen):
            self.record.stopped = self._why_nothing_is_open()
            return
        rewards = self._pull(chosen)
        self.record.threshold = self.threshold()
        passes_C, optimistic_C = self.passes(), self.bandit.estimate().optimistic_C
        if passes_C[chosen].any():
            self._ask_gate()
        for cluster in sorted(chosen.tolist(), key=lambda each: -optimistic_C[each]):
            if passes_C[cluster] and not self.record.stopped:
                self._accept(cluster)
        self._tell(chosen, rewards)
        self.record.rounds += 1

    def _ask_gate(self) -> None:
        """The threshold moves with the estimates, so it is judged whenever it is used."""
        if self.gate is None:
            return
        try:
            self.doubt = self.gate(self.record.threshold)
        except Untrusted as error:
            if not self.record.row_n:
                raise
            self.record.stopped = error.problem

    def knows_enough(self) -> bool:
        """Whether the cold start is over: before it no threshold means anything."""
        return not (self.bandit.cold_C & self._scorable_C()).any()

    def may_score(self) -> bool:
        limit = self.settings.scored_share * self.arms.rows_C.sum()
        return not self.knows_enough() or len(self.record.pulls) < limit

    def threshold(self) -> float:
        """The bandit's, for the clusters that may pass on what is left of the budget."""
        tokens_C = self.arms.tokens_C
        left = self.budget_tokens - self.record.accepted_tokens
        share = self.settings.breadth * left / max(tokens_C.sum(), 1)
        return self.bandit.threshold(share, tokens_C)

    def passes(self) -> np.ndarray:
        if self.bandit.variant == "robust" and not self.knows_enough():
            return np.zeros(len(self.bandit), dtype=bool)
        return self.bandit.accepts(self.threshold(), by_mean=not self.may_score())

    def _scorable_C(self) -> np.ndarray:
        return self.arms.unscored_C > 0

    def _rows_to_draw(self, cluster: int) -> int:
        """A cold arm of the robust variant gets what it lacks, others a pull's worth."""
        if self.bandit.variant == "robust" and self.bandit.cold_C[cluster]:
            return self.bandit.cold_samples - int(self.bandit.count_C[cluster])
        return self.settings.samples_per_pull if self.may_score() else 0

    def _pull(self, chosen: np.ndarray) -> list[float | None]:
        """Score some rows of every chosen arm, all in one call; the mean reward of each."""
        rows = [self._rows_to_draw(cluster) for cluster in chosen.tolist()]
        drawn = [self.arms.draw(*each) for each in zip(chosen.tolist(), rows, strict=True)]
        row_n = np.concatenate(drawn)
        influence_n = self.score(row_n) if len(row_n) else np.empty(0)
        parts = np.split(influence_n, np.cumsum([len(part) for part in drawn])[:-1])
        for cluster, own_n, reward_n in zip(chosen.tolist(), drawn, parts, strict=True):
            self.bandit.observe(cluster, reward_n)
            self.record.pulls += [
                Pull(self.record.rounds, cluster, row, value)
                for row, value in zip(own_n.tolist(), reward_n.tolist(), strict=True)
            ]
        return [float(part.mean()) if len(part) else None for part in parts]

    def _accept(self, cluster: int) -> None:
        left = self.budget_tokens - self.record.accepted_tokens
        reason = self._reason(cluster)
        emitted = self.arms.emit(cluster, self.settings.chunk_rows, left)
        self.bandit.lose(cluster, emitted.unscored)
        self.record.row_n += emitted.row_n.tolist()
        self.record.accepted_tokens += int(self.arms.tokens_N[emitted.row_n].sum())
        self.record.reason_n += [reason] * len(emitted.row_n)
        if emitted.full or self.record.accepted_tokens == self.budget_tokens:
            self.record.stopped = "the budget is filled"

    def _reason(self, cluster: int) -> str:
        estimate = self.bandit.estimate()
        shown = f"mean {estimate.mean_C[cluster]:.4g}"
        if self.bandit.variant == "robust" and self.may_score():
            shown = f"{estimate.low_C[cluster]:.4g}, low end of {shown},"
        return f"round {self.record.rounds}: {shown} passes {self.record.threshold:.4g}{self.doubt}"

    def _tell(self, chosen: np.ndarray, rewards: list[float | None]) -> None:
        """Rows accepted so far are told of the pulled arms: no other gives any in this round."""
        event: dict[str, Any] = {
            "stage": "pull",
            "done": self.record.accepted_tokens,
            "total": self.budget_tokens,
            "round": self.record.rounds,
            "clusters": chosen.tolist(),
            "rewards": rewards,
            "accepted": self.arms.accepted_C()[chosen].tolist(),
            "accepted_tokens": self.record.accepted_tokens,
            "scored": len(self.record.pulls),
            "threshold": self.record.threshold if np.isfinite(self.record.threshold) else None,
        }
        self.progress(event)

    def _why_nothing_is_open(self) -> str:
        if self.arms.tokens_C.any():
            return f"no cluster left passes {self.threshold():.3g}"
        return "no row is left"
