"""Mixers that climb a gain per domain by mirror descent: no bandit, no reinforcement learning.

    mixture_K = exponentiated_gradient(mixture_K, gain_K, step_size=0.1)
    Policy("alignment")     # on AC-ODM's reward: what is left of it without actor and critic
    Policy("doge")          # on the gradient's product with a target, Fan et al. 2024
    Policy("pike")          # on norm and variance of the gradients, Li et al. 2025

Each averages what it proposed: `average_mixture`.  Shapes: K domains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from workbench.core import (
    MIXERS,
    ConfigError,
    Count,
    DomainGradients,
    MixingTask,
    Mixture,
    Positive,
    Share,
    ShareBelowOne,
    Signal,
    StepOutcome,
    Tracking,
    Whole,
    unknown_name,
)
from workbench.mixing.acodm.rewards import Rewards
from workbench.mixing.floor import DEFAULT_FLOOR, check_floor, floor_warnings, with_floor


def exponentiated_gradient(
    mixture_K: np.ndarray, gain_K: np.ndarray, *, step_size: float
) -> np.ndarray:
    """softmax(log w + step_size gain), (K,)."""
    logits_K = np.log(np.maximum(mixture_K, 1e-300)) + step_size * gain_K
    weight_K = np.exp(logits_K - logits_K.max())
    return weight_K / weight_K.sum()


class Descent:
    """What these mixers share.  State fields: weights, their running sum, and the counts of both.

    A subclass gives `gain`, the change of log weights after a step, or None for no change.
    """

    smoothing = 0.0
    """Share of the uniform mixture blended into the weights themselves after every change."""

    def __init__(
        self,
        task: MixingTask,
        *,
        tracked_layers: int,
        projection_width: int | None,
        floor: float,
        guaranteed_rows: int,
    ):
        check_floor(task, floor, guaranteed_rows)
        self.task = task
        self.tracking = Tracking(tracked_layers, projection_width)
        self._floor, self._guaranteed_rows = floor, guaranteed_rows
        self._weight_K = np.full(len(task), 1 / len(task))
        self._sum_K = np.zeros(len(task))
        self._steps = self._dropped = 0
        self._gain_K = np.zeros(len(task))

    @property
    def needs(self) -> frozenset[Signal]:
        return frozenset({Signal.DOMAIN_GRADIENTS})

    def gain(self, outcome: StepOutcome) -> np.ndarray | None:
        raise NotImplementedError

    def gradients(self, outcome: StepOutcome) -> DomainGradients | None:
        """The step's products, or None where they are missing or, counted, not finite."""
        gradients = outcome.signals.get(Signal.DOMAIN_GRADIENTS)
        if gradients is None or np.isfinite(gradients.gram_KK).all():
            return gradients
        self._dropped += 1
        return None

    @property
    def _proposed_K(self) -> np.ndarray:
        return with_floor(self._weight_K, self._floor)

    def propose(self, step: int) -> Mixture:
        return Mixture(self.task.names, self._proposed_K, self._guaranteed_rows)

    def observe(self, outcome: StepOutcome) -> None:
        gain_K = self.gain(outcome)
        if gain_K is not None:
            self._gain_K = gain_K
            weight_K = exponentiated_gradient(self._weight_K, gain_K, step_size=1.0)
            self._weight_K = with_floor(weight_K, self.smoothing)
        self._sum_K = self._sum_K + self._proposed_K
        self._steps += 1

    def average_mixture(self) -> np.ndarray:
        """Mean of the mixtures after each step, (K,): what a later static run uses."""
        return self._sum_K / self._steps if self._steps else self._proposed_K

    def diagnostics(self) -> Mapping[str, Any]:
        names = self.task.names
        return {
            "gain": dict(zip(names, self._gain_K.tolist(), strict=True)),
            "average_mixture": dict(zip(names, self.average_mixture().tolist(), strict=True)),
            "dropped": self._dropped,
        }

    def warnings(self) -> Sequence[str]:
        found = floor_warnings(self.task.names, self._proposed_K, self._floor)
        if self._dropped:
            found.append("steps with values that are not finite changed no weight: lower peak_lr")
        return found

    def state_dict(self) -> dict[str, Any]:
        return {
            "weight": self._weight_K.tolist(),
            "sum": self._sum_K.tolist(),
            "gain": self._gain_K.tolist(),
            "steps": self._steps,
            "dropped": self._dropped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._weight_K, self._sum_K = np.array(state["weight"]), np.array(state["sum"])
        self._gain_K = np.array(state["gain"])
        self._steps, self._dropped = state["steps"], state["dropped"]


@MIXERS.register("alignment")
class AlignmentDescent(Descent):
    """Control: EXP3 on AC-ODM's reward, exact gradient instead of a bandit's estimate.

    log w <- (1 - decay) log w + step_size zbar: the decay pulls towards uniform, as AC-ODM's
    entropy term does.  State fields: those of `Descent`, and the running reward.
    """

    def __init__(
        self,
        task: MixingTask,
        *,
        step_size: Positive = 0.02,
        decay: ShareBelowOne = 0.01,
        tracked_layers: Count = 3,
        projection_width: Count | None = None,
        floor: Share = DEFAULT_FLOOR,
        guaranteed_rows: Whole = 0,
    ):
        super().__init__(
            task,
            tracked_layers=tracked_layers,
            projection_width=projection_width,
            floor=floor,
            guaranteed_rows=guaranteed_rows,
        )
        self._step_size, self._decay = step_size, decay
        self._rewards = Rewards(len(task))

    def gain(self, outcome: StepOutcome) -> np.ndarray | None:
        gradients = self.gradients(outcome)
        reward_K = None if gradients is None else self._rewards.after(gradients, self._weight_K)
        if reward_K is None:
            return None
        return self._step_size * reward_K - self._decay * np.log(np.maximum(self._weight_K, 1e-300))

    def diagnostics(self) -> Mapping[str, Any]:
        by_domain = {
            name: dict(zip(self.task.names, values.tolist(), strict=True))
            for name, values in self._rewards.per_domain().items()
        }
        return {**super().diagnostics(), **by_domain}

    def warnings(self) -> Sequence[str]:
        return [*super().warnings(), *self._rewards.warnings(self.task.names)]

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "rewards": self._rewards.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._rewards.load_state_dict(state["rewards"])


@MIXERS.register("doge")
class Doge(Descent):
    """DoGE, Fan et al. 2024 (arXiv 2310.15393).  State fields: those of `Descent`.

    s_i = rate <g_i, g_target> / (mean |g| + 1e-6), clipped to [0, 5 rate];
    w <- softmax(log w + s / regularisation).

    Args:
        target: the domain to get better at; all domains together when None.
        rate: of the published formula, where it is the learning rate.
        regularisation: mu, how slowly weights move.
    """

    def __init__(
        self,
        task: MixingTask,
        *,
        target: str | None = None,
        rate: Positive = 1.0,
        regularisation: Positive = 50.0,
        tracked_layers: Count = 3,
        projection_width: Count | None = None,
        floor: Share = DEFAULT_FLOOR,
        guaranteed_rows: Whole = 0,
    ):
        super().__init__(
            task,
            tracked_layers=tracked_layers,
            projection_width=projection_width,
            floor=floor,
            guaranteed_rows=guaranteed_rows,
        )
        if target is not None and target not in task.names:
            problem, remedy = unknown_name("domain", target, task.names)
            raise ConfigError(f"{problem} as target", remedy=remedy)
        self._rate, self._regularisation = rate, regularisation
        self._target = None if target is None else task.names.index(target)

    def gain(self, outcome: StepOutcome) -> np.ndarray | None:
        gradients = self.gradients(outcome)
        if gradients is None:
            return None
        present_K = gradients.count_K > 0
        if self._target is not None and not present_K[self._target]:
            return None
        score_K = doge_scores(gradients.gram_KK, present_K, self._target, self._rate)
        return score_K / self._regularisation


def doge_scores(
    gram_KK: np.ndarray, present_K: np.ndarray, target: int | None, rate: float
) -> np.ndarray:
    """s of DoGE, (K,); a domain without rows gets that of the average domain."""
    products_K = gram_KK.sum(axis=1) if target is None else gram_KK[:, target]
    mean_norm = np.sqrt(np.maximum(np.diag(gram_KK)[present_K], 0)).mean()
    score_K = np.clip(rate * products_K / (mean_norm + 1e-6), 0, 5 * rate)
    return np.where(present_K, score_K, score_K[present_K].mean())


@MIXERS.register("pike")
class Pike(Descent):
    """PiKE, Li et al. 2025 (arXiv 2502.06244).  State fields: those of `Descent`, sums of a period.

    Every `period_steps`: w_k <- w_k exp(signal |g_k|² - noise sigma_k² / (2 b)), normalised.  The
    variance of a row's gradient is (mean |g_row|² - |g_k|²) n / (n - 1), and |g_k|² is freed of
    its share of it, sigma² / n.
    """

    def __init__(
        self,
        task: MixingTask,
        *,
        signal: Positive = 1.0,
        noise: Positive = 1.0,
        period_steps: Count = 10,
        tracked_layers: Count = 3,
        projection_width: Count | None = None,
        floor: Share = DEFAULT_FLOOR,
        guaranteed_rows: Whole = 0,
    ):
        super().__init__(
            task,
            tracked_layers=tracked_layers,
            projection_width=projection_width,
            floor=floor,
            guaranteed_rows=guaranteed_rows,
        )
        self._signal, self._noise, self._period_steps = signal, noise, period_steps
        self._norms_K, self._variances_K = np.zeros(len(task)), np.zeros(len(task))
        self._seen_K = np.zeros(len(task))

    @property
    def needs(self) -> frozenset[Signal]:
        return frozenset({Signal.DOMAIN_GRADIENTS, Signal.ROW_GRADIENTS})

    def gain(self, outcome: StepOutcome) -> np.ndarray | None:
        gradients = self.gradients(outcome)
        if gradients is None:
            return None
        count_K, row_square_K = gradients.count_K, outcome.signals[Signal.ROW_GRADIENTS]
        usable_K = (count_K > 1) & np.isfinite(row_square_K)
        square_K = np.diag(gradients.gram_KK)
        variance_K, norm_K = gradient_moments(square_K, row_square_K, count_K)
        self._norms_K += np.where(usable_K, norm_K, 0)
        self._variances_K += np.where(usable_K, variance_K, 0)
        self._seen_K += usable_K
        if (self._steps + 1) % self._period_steps or not self._seen_K.any():
            return None
        seen_K = np.maximum(self._seen_K, 1)
        exponent_K = (
            self._signal * self._norms_K / seen_K
            - self._noise * self._variances_K / seen_K / (2 * self.task.batch_rows)
        )
        known = exponent_K[self._seen_K > 0].mean()
        exponent_K = np.where(self._seen_K > 0, exponent_K, known)
        for sums_K in (self._norms_K, self._variances_K, self._seen_K):
            sums_K[:] = 0
        return exponent_K

    def state_dict(self) -> dict[str, Any]:
        sums = (self._norms_K, self._variances_K, self._seen_K)
        return {**super().state_dict(), "period": [values.tolist() for values in sums]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        sums = [np.array(values) for values in state["period"]]
        self._norms_K, self._variances_K, self._seen_K = sums


def gradient_moments(
    square_K: np.ndarray, row_square_K: np.ndarray, count_K: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Unbiased variance of a row's gradient (its trace) and squared norm of the true mean, (K,).

    Args:
        square_K: |mean gradient|² of each domain's rows; row_square_K: mean of |row gradient|².
        count_K: rows; fewer than two give zeros.
    """
    rows_K = np.maximum(count_K, 2)
    variance_K = np.maximum(row_square_K - square_K, 0) * rows_K / (rows_K - 1)
    norm_K = np.maximum(square_K - variance_K / rows_K, 0)
    enough_K = count_K > 1
    return np.where(enough_K, variance_K, 0.0), np.where(enough_K, norm_K, 0.0)
