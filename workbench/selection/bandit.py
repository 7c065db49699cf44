"""Clusters as arms of a bandit: which to pull next, and which have shown enough to be accepted.

    bandit = Bandit(rows_C, variant="robust")
    for arm in bandit.choose(8, open_C):
        bandit.observe(arm, influence_of_some_rows)
    bandit.accepts(bandit.threshold(budget_share, tokens_C))         # bool (C,)

Quad (Zhang et al. 2025, arXiv 2409.16986, section 3) and what its regime asks for: many arms, few
pulls, arms that run out.  Pure NumPy, no randomness.  Shapes: C clusters (arms), n rewards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from workbench.core import ConfigError, PolicyError
from workbench.selection.options import require_number

Variant = Literal["robust", "paper"]
Neighbours = Sequence[tuple[np.ndarray, np.ndarray]]
"""Of each arm: int64 (m,) the arms near it, float64 (m,) their weights 1 - d / d0."""

OFFICIAL: dict[str, Any] = {
    "variant": "paper",
    "alpha": 1e-4,
    "tau": 0.0020,
    "arms_per_round": 50,
    "samples_per_pull": 10,
    "clusters": 9873,
    "neighbour_distance": 0.2,
}
"""Constants of the published code as options of the selector `quad`."""

DEFAULT_ALPHA = {"robust": 1.0, "paper": OFFICIAL["alpha"]}
PRIOR_SAMPLES = 2.0
"""Weight of the pooled variance, in samples, in the variance of one arm."""


def paper_scores(mean_C: np.ndarray, pulls_C: np.ndarray, alpha: float) -> np.ndarray:
    """CS_i = mean_i + alpha (2 ln(sum T) / T_i)^½; infinite where T_i = 0.  float64 (C,)."""
    score_C = np.full(len(pulls_C), np.inf)
    seen_C = pulls_C > 0
    if seen_C.any():
        log_total = np.log(max(pulls_C.sum(), 1.0))
        score_C[seen_C] = mean_C[seen_C] + alpha * np.sqrt(2 * log_total / pulls_C[seen_C])
    return score_C


@dataclass(frozen=True)
class Estimate:
    """What is known of every arm's mean reward, float64 (C,): NaN where nothing is.

    low, high: a confidence interval; optimistic: the score by which arms are chosen.
    """

    mean_C: np.ndarray
    low_C: np.ndarray
    high_C: np.ndarray
    optimistic_C: np.ndarray


class Bandit:
    """Statistics of the arms.  State fields: rows, pulls, own sums, credited sums.

    Args:
        rows_C: rows of each cluster that can still be had, N_i.
        variant: `paper`: the mean of the pulls' mean rewards, `paper_scores`, a fixed `tau`;
            `robust`: see `_robust`, and a threshold from the budget unless `tau` is given.
        alpha: size of the exploration bonus; None for 1 (robust) or 1e-4 (paper).
        tau: threshold of acceptance in units of the reward; None for the budget's quantile
            (robust) or 0.0020 (paper).
        confidence: half-width of the interval in standard errors, robust only.
        cold_samples: rewards of an arm before it counts as known, robust only.
        neighbours: whom a reward also informs; None for no credit.
    Raises:
        ConfigError: an unknown variant, or numbers out of range.
    """

    def __init__(
        self,
        rows_C: np.ndarray,
        *,
        variant: Variant = "robust",
        alpha: float | None = None,
        tau: float | None = None,
        confidence: float = 1.0,
        cold_samples: int = 3,
        neighbours: Neighbours | None = None,
    ):
        if variant not in DEFAULT_ALPHA:
            raise ConfigError(f"variant = {variant!r}", remedy="give 'robust' or 'paper'")
        self.variant = variant
        self.alpha = DEFAULT_ALPHA[variant] if alpha is None else alpha
        self.tau = OFFICIAL["tau"] if tau is None and variant == "paper" else tau
        self.cold_samples = cold_samples if variant == "robust" else 1
        self._confidence, self._neighbours = confidence, neighbours
        require_number("alpha", self.alpha, least=0)
        require_number("confidence", confidence, least=0)
        require_number("cold_samples", cold_samples, least=1, whole=True)
        if tau is not None:
            require_number("tau", tau)
        self.rows_C = np.array(rows_C, dtype=np.int64)
        arms = len(self.rows_C)
        self.pulls_C = np.zeros(arms, dtype=np.int64)
        self.count_C = np.zeros(arms, dtype=np.int64)
        self._mean_C, self._squares_C = np.zeros(arms), np.zeros(arms)
        self._units_C, self._sum_C = np.zeros(arms), np.zeros(arms)
        self._credit_C, self._credited_C = np.zeros(arms), np.zeros(arms)

    def __len__(self) -> int:
        return len(self.rows_C)

    @property
    def cold_C(self) -> np.ndarray:
        """Arms with fewer rewards of their own than count as known; bool (C,)."""
        return self.count_C < np.minimum(self.cold_samples, self.rows_C)

    def choose(self, arms: int, open_C: np.ndarray) -> np.ndarray:
        """The `arms` open arms with the highest optimistic score, best first; int64.

        Equal scores, as of arms not pulled yet: the one with more rows first, then the lower id.
        """
        optimistic_C = self.estimate().optimistic_C
        order = np.lexsort((np.arange(len(self)), -self.rows_C, -optimistic_C))
        return order[open_C[order]][:arms]

    def observe(self, arm: int, reward_n: np.ndarray) -> None:
        """One pull of `arm`: influence per token of n of its rows, all new; credit its neighbours.

        Raises:
            PolicyError: a reward that is not finite, or more rewards than the arm has rows.
        """
        reward_n = np.asarray(reward_n, dtype=np.float64)
        if not np.isfinite(reward_n).all():
            raise PolicyError(
                f"cluster {arm}: an influence score is not finite",
                remedy="judge with an earlier checkpoint, or raise the damping",
            )
        if self.count_C[arm] + len(reward_n) > self.rows_C[arm]:
            raise PolicyError(
                f"cluster {arm}: {self.count_C[arm] + len(reward_n)} rewards of "
                f"{self.rows_C[arm]} rows",
                remedy="reward every row once",
            )
        self.pulls_C[arm] += 1
        if not len(reward_n):
            return
        self._count_in(arm, reward_n)
        # The paper counts a pull as one, whatever its size; the robust variant counts rows.
        units = 1.0 if self.variant == "paper" else float(len(reward_n))
        self._units_C[arm] += units
        self._sum_C[arm] += units * reward_n.mean()
        if self._neighbours is not None:
            near, weight = self._neighbours[arm]
            self._credit_C[near] += weight * units
            self._credited_C[near] += weight * units * reward_n.mean()

    def _count_in(self, arm: int, reward_n: np.ndarray) -> None:
        """Welford's update, which does not cancel where the mean is far from 0."""
        for reward in reward_n:
            self.count_C[arm] += 1
            away = reward - self._mean_C[arm]
            self._mean_C[arm] += away / self.count_C[arm]
            self._squares_C[arm] += away * (reward - self._mean_C[arm])

    def estimate(self) -> Estimate:
        """Means, intervals and optimistic scores as they stand."""
        return self._robust() if self.variant == "robust" else self._paper()

    def _paper(self) -> Estimate:
        units_C = self._units_C + self._credit_C
        mean_C = _ratio(self._sum_C + self._credited_C, units_C)
        score_C = paper_scores(mean_C, units_C, self.alpha)
        half_C = score_C - mean_C
        return Estimate(mean_C, mean_C - half_C, mean_C + half_C, score_C)

    def _robust(self) -> Estimate:
        """Shrunk means, a bonus in units of the arm's own spread, and no bonus once all is seen.

        With m_i, s_i² of n_i rewards (credit included in n_i and m_i), mu the mean over rows and
        b² the variance of the true means:
            w_i = b² / (b² + s_i² / n_i);  predicted_i = w_i m_i + (1 - w_i) mu
            mean_i = f_i own_i + (1 - f_i) predicted_i,  f_i = own rows rewarded / N_i
            optimistic_i = mean_i + alpha s_i (2 ln(sum n) / n_i)^½ (1 - f_i)^½
            low_i = mean_i - confidence s_i (1 / n_i)^½ (1 - f_i)^½
        """
        samples_C = self._units_C + self._credit_C
        known_C = samples_C > 0
        if not known_C.any():
            unknown = np.full(len(self), np.nan)
            return Estimate(unknown, unknown, unknown, np.full(len(self), np.inf))
        raw_C = _ratio(self._sum_C + self._credited_C, samples_C)
        error_C = _ratio(self._variance_C(raw_C), samples_C)
        between = max(np.nanvar(raw_C) - np.nanmean(error_C), 0.0)
        weight_C = np.divide(
            between, between + error_C, out=np.ones(len(self)), where=between + error_C > 0
        )
        known_rows_C = np.where(known_C, self.rows_C, 0)
        centre = float(np.average(np.where(known_C, raw_C, 0), weights=known_rows_C + 1e-9))
        seen_C = self.count_C / np.maximum(self.rows_C, 1)
        predicted_C = weight_C * raw_C + (1 - weight_C) * centre
        mean_C = seen_C * self._mean_C + (1 - seen_C) * predicted_C
        spread_C = np.sqrt(error_C * (1 - seen_C))
        bonus_C = self.alpha * spread_C * np.sqrt(2 * np.log(max(samples_C.sum(), 1.0)))
        half_C = self._confidence * spread_C
        optimistic_C = np.where(known_C & ~self.cold_C, mean_C + bonus_C, np.inf)
        return Estimate(mean_C, mean_C - half_C, mean_C + half_C, optimistic_C)

    def _variance_C(self, raw_C: np.ndarray) -> np.ndarray:
        """Within-arm variance, drawn to the pooled one, which stands for an arm of one reward."""
        freedom_C = np.maximum(self.count_C - 1, 0)
        if freedom_C.any():
            pooled = self._squares_C.sum() / freedom_C.sum()
        else:
            pooled = float(np.nanvar(raw_C))
        return (self._squares_C + PRIOR_SAMPLES * pooled) / (freedom_C + PRIOR_SAMPLES)

    def threshold(self, share: float, tokens_C: np.ndarray) -> float:
        """What an arm's lower bound has to pass.

        Args:
            share: part of the tokens that may pass, such as budget over what is left.
            tokens_C: tokens each arm still has; arms are weighed by them.
        Returns:
            `tau` if it is fixed; else midway between the last arm that the share, filled best arm
            first, needs and the first that it does not; -inf when it needs all, inf while no arm
            is known.

        The mean of the last arm needed would be a bar that this arm's own lower bound never
        passes; the mean of the next would be one that this next arm passes by its mean.
        """
        if self.tau is not None:
            return self.tau
        mean_C = self.estimate().mean_C
        known = np.flatnonzero((tokens_C > 0) & np.isfinite(mean_C))
        if not len(known):
            return np.inf
        best = known[np.argsort(-mean_C[known], kind="stable")]
        passed = np.cumsum(tokens_C[best])
        needed = int(np.searchsorted(passed, min(share, 1.0) * passed[-1])) + 1
        return (
            float(mean_C[best[needed - 1 : needed + 1]].mean()) if needed < len(best) else -np.inf
        )

    def accepts(self, threshold: float, *, by_mean: bool = False) -> np.ndarray:
        """Whether each arm passes: mean (paper) or lower bound (robust) at or above it; bool (C,).

        An arm passes only on rewards of its own, whatever its neighbours say.

        Args:
            by_mean: the mean decides in the robust variant too, as when no more may be scored.
        """
        estimate = self.estimate()
        by_mean = by_mean or self.variant == "paper"
        bound_C = estimate.mean_C if by_mean else estimate.low_C
        return (self.count_C > 0) & (np.nan_to_num(bound_C, nan=-np.inf) >= threshold)

    def lose(self, arm: int, rows: int) -> None:
        """Rows of `arm` left without a reward and can have none any more: N_i is what can be seen.

        Without this a bound would never close on an arm some of whose rows went unscored.
        """
        self.rows_C[arm] -= rows

    def renew(self, rows_C: np.ndarray, *, memory: float) -> None:
        """Begin again with another model and the rows that are left.

        What was learned stays as credit of weight `memory`, 0 to forget it: no row counts as
        rewarded by the new model.
        """
        self.rows_C = np.array(rows_C, dtype=np.int64)
        self._credit_C = memory * (self._credit_C + self._units_C)
        self._credited_C = memory * (self._credited_C + self._sum_C)
        for own in (self.pulls_C, self.count_C, self._mean_C, self._squares_C):
            own[:] = 0
        self._units_C[:], self._sum_C[:] = 0, 0

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, attribute).tolist() for name, attribute in _STATE.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, attribute in _STATE.items():
            setattr(self, attribute, np.array(state[name], dtype=getattr(self, attribute).dtype))


_STATE = {
    "rows": "rows_C",
    "pulls": "pulls_C",
    "count": "count_C",
    "mean": "_mean_C",
    "squares": "_squares_C",
    "units": "_units_C",
    "sum": "_sum_C",
    "credit": "_credit_C",
    "credited": "_credited_C",
}


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, NaN where the denominator is 0."""
    nothing = np.full(len(denominator), np.nan)
    return np.divide(numerator, denominator, out=nothing, where=denominator > 0)
