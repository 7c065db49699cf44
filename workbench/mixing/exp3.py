"""ODM: a bandit over domains that is paid by the loss.  Albalak et al. 2023 (arXiv 2312.02406).

    Policy("exp3", variant="paper")

A domain with a high loss gets more; a domain of noise, whose loss never falls, gets most.  Shapes:
K domains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from workbench.core import MIXERS, ConfigError, MixingTask, Mixture, Signal, StepOutcome
from workbench.mixing.floor import DEFAULT_FLOOR, check_floor, floor_warnings, with_floor
from workbench.mixing.signals import domain_losses

Variant = Literal["paper", "official"]


def exploration_rate(domains: int, step: int) -> float:
    """epsilon_t = min(1/K, (ln K / (K t))^½), with t counted from 1; 1/K at t = 0."""
    if step < 1 or domains < 2:
        return 1 / domains
    return min(1 / domains, math.sqrt(math.log(domains) / (domains * step)))


def paper_policy(reward_K: np.ndarray, step: int, previous_step: int | None = None) -> np.ndarray:
    """pi = (1 - K eps_t) softmax(eps_{t-1} R) + eps_t.

    Args:
        previous_step: that of the policy before, where it was not the step before.
    """
    domains = len(reward_K)
    previous_step = step - 1 if previous_step is None else previous_step
    now, before = exploration_rate(domains, step), exploration_rate(domains, previous_step)
    logits_K = before * reward_K
    softmax_K = np.exp(logits_K - logits_K.max())
    return (1 - domains * now) * softmax_K / softmax_K.sum() + now


def official_policy(reward_K: np.ndarray, step: int) -> np.ndarray:
    """pi = (1 - K eps_t) R / sum R + eps_t."""
    domains = len(reward_K)
    now = exploration_rate(domains, step)
    # Rewards are exponentials of losses: their sum can overflow where none of them does.
    share_K = reward_K / reward_K.max()
    return (1 - domains * now) * share_K / share_K.sum() + now


@MIXERS.register("exp3")
class Exp3:
    """Online data mixing as EXP3.  State fields: reward estimate, the last policy, steps dropped.

    Args:
        task: supplied by the loop.
        variant: `paper`: R_i <- alpha R_i + (1 - alpha) l_i / pi_i, through a softmax; `official`:
            R_i <- s R_i + (1 - s) exp(l_i), in proportion.
        smoothing: alpha, or s.
        warmup_steps: steps with the uniform mixture, which are observed already.
        floor, guaranteed_rows: as in every mixer.
    """

    def __init__(
        self,
        task: MixingTask,
        *,
        variant: Variant = "paper",
        smoothing: float = 0.9,
        warmup_steps: int = 0,
        floor: float = DEFAULT_FLOOR,
        guaranteed_rows: int = 0,
    ):
        check_floor(task, floor, guaranteed_rows)
        if variant not in ("paper", "official"):
            raise ConfigError(f"variant = {variant!r}", remedy="give 'paper' or 'official'")
        if not 0 <= smoothing < 1 or warmup_steps < 0:
            raise ConfigError(
                f"smoothing = {smoothing}, warmup_steps = {warmup_steps}",
                remedy="give a smoothing from 0 to below 1, and 0 or more steps",
            )
        self.task, self.variant = task, variant
        self._smoothing, self._warmup_steps = smoothing, warmup_steps
        self._floor, self._guaranteed_rows = floor, guaranteed_rows
        start = 0.0 if variant == "paper" else 1.0
        self._reward_K = np.full(len(task), start)
        self._policy_K = np.full(len(task), 1 / len(task))
        self._dropped = 0

    @property
    def needs(self) -> frozenset[Signal]:
        return frozenset()

    def propose(self, step: int) -> Mixture:
        uniform_K = np.full(len(self.task), 1 / len(self.task))
        policy = paper_policy if self.variant == "paper" else official_policy
        chosen_K = uniform_K if step < self._warmup_steps else policy(self._reward_K, step)
        self._policy_K = with_floor(chosen_K, self._floor)
        return Mixture(self.task.names, self._policy_K, self._guaranteed_rows)

    def observe(self, outcome: StepOutcome) -> None:
        loss_K, count_K = domain_losses(outcome, len(self.task))
        # exp of a loss above 709 nats is not finite either.
        with np.errstate(over="ignore"):
            gain_K = loss_K / self._policy_K if self.variant == "paper" else np.exp(loss_K)
        # Credit goes to the domains that were drawn; the others keep their estimate.
        seen_K = np.isfinite(gain_K)
        self._dropped += int((~seen_K & (count_K > 0)).any())
        kept = self._smoothing
        self._reward_K = np.where(
            seen_K, kept * self._reward_K + (1 - kept) * gain_K, self._reward_K
        )

    def diagnostics(self) -> Mapping[str, Any]:
        reward = dict(zip(self.task.names, self._reward_K.tolist(), strict=True))
        return {"reward_average": reward, "dropped": self._dropped}

    def warnings(self) -> Sequence[str]:
        found = floor_warnings(self.task.names, self._policy_K, self._floor)
        if self._dropped:
            found.append(
                "losses that are not finite, or too large to be a reward, were left out: "
                "lower peak_lr"
            )
        return found

    def state_dict(self) -> dict[str, Any]:
        return {
            "reward": self._reward_K.tolist(),
            "policy": self._policy_K.tolist(),
            "dropped": self._dropped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._reward_K = np.array(state["reward"])
        self._policy_K = np.array(state["policy"])
        self._dropped = state["dropped"]
