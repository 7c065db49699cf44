"""What the agent is rewarded for, domain by domain, and how far that can be trusted.

    rewards = Rewards(domains=5)
    reward_K = rewards.after(gradients, mixture_K)       # None when the step must be dropped

`alignment`: the running mean of z, AC-ODM's normalised alignment; the mixture's reward is a . z.
`step`: z of the step alone, whose noise a replay averages where the running mean's is shared.
`importance`: the paper's W_i / P_i over the mean norm, summed over domains.  It pays for rare
domains rather than for good ones: a domain of noise ends with nearly all the weight.
Shapes: K domains, N transitions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import numpy as np

from workbench.core import ConfigError, DomainGradients
from workbench.mixing.signals import alignment

Reward = Literal["alignment", "step", "importance"]
SMOOTHING = 0.9
"""Share of the past in the running means of z."""
PATIENCE_STEPS = 20
"""Steps before a running ratio is worth a warning."""


def mixture_reward(reward: np.ndarray, mixture: np.ndarray, form: Reward) -> np.ndarray:
    """R of a mixture from rewards of its domains, (…, K) -> (…): sum a_i z_i, or sum W_i / P_i."""
    return reward.sum(-1) if form == "importance" else (mixture * reward).sum(-1)


class Rewards:
    """State fields: running means of z, z² and of agreement, steps counted and dropped."""

    def __init__(self, domains: int, *, form: Reward = "alignment"):
        if form not in get_args(Reward):
            raise ConfigError(
                f"reward = {form!r}", remedy=f"give one of: {', '.join(get_args(Reward))}"
            )
        self.form: Reward = form
        self.dropped = 0
        self._last_K = np.zeros(domains)
        self._mean_K = np.zeros(domains)
        self._square_K = np.zeros(domains)
        self._steps_K = np.zeros(domains)
        self._agreement = 0.0

    def after(self, gradients: DomainGradients, mixture_K: np.ndarray) -> np.ndarray | None:
        """The reward of each domain after a step; a domain without rows keeps its last.

        A step whose products or rewards are not finite is counted, and gives no reward.
        """
        if np.isfinite(gradients.gram_KK).all():
            self._take(gradients)
            reward_K = self._reward(mixture_K)
            if np.isfinite(reward_K).all():
                return reward_K
        self.dropped += 1
        return None

    def _take(self, gradients: DomainGradients) -> None:
        present_K = gradients.count_K > 0
        if present_K.sum() < 2:
            return
        found = alignment(gradients.gram_KK[np.ix_(present_K, present_K)])
        self._last_K[present_K] = found.utility_K if self.form == "importance" else found.reward_K
        self._agreement = SMOOTHING * self._agreement + (1 - SMOOTHING) * found.agreement
        self._smooth(present_K)

    def _smooth(self, present_K: np.ndarray) -> None:
        self._steps_K += present_K
        # The plain mean until the running one has as long a memory.
        rate_K = np.maximum(1 / np.maximum(self._steps_K, 1), 1 - SMOOTHING) * present_K
        self._mean_K += rate_K * (self._last_K - self._mean_K)
        self._square_K += rate_K * (self._last_K**2 - self._square_K)

    def _reward(self, mixture_K: np.ndarray) -> np.ndarray:
        if self.form != "importance":
            return (self._mean_K if self.form == "alignment" else self._last_K).copy()
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._last_K / mixture_K

    @property
    def signal_to_noise_K(self) -> np.ndarray:
        """|mean z_i| / std z_i over the last steps, (K,); infinite without spread."""
        spread_K = np.sqrt(np.maximum(self._square_K - self._mean_K**2, 0))
        return np.abs(self._mean_K) / np.maximum(spread_K, 1e-12)

    def per_domain(self) -> dict[str, np.ndarray]:
        return {
            "reward": self._last_K,
            "reward_average": self._mean_K,
            "signal_to_noise": np.minimum(self.signal_to_noise_K, 1e6),
        }

    def warnings(self, names: Sequence[str]) -> Iterator[str]:
        if self.dropped:
            yield (
                "steps whose reward was not finite were dropped: lower peak_lr, set "
                "precision='float32', or give reward='importance' a floor above 0"
            )
        if self._steps_K.max(initial=0) < PATIENCE_STEPS:
            return
        if self._agreement < 0:
            yield (
                "the domains' gradients oppose each other, so that a domain of noise would look "
                "best: raise entropy, take out the domain that conflicts, or use a static mixture"
            )
        for name, ratio, steps in zip(names, self.signal_to_noise_K, self._steps_K, strict=True):
            if steps >= PATIENCE_STEPS and ratio < 1:
                yield (
                    f"the reward of domain '{name}' is below its noise, so that its share says "
                    "little: raise batch_rows, guaranteed_rows or tracked_layers; where that does "
                    "not help, the domain agrees with the others just as the average one does"
                )

    def state_dict(self) -> dict[str, Any]:
        arrays = (self._last_K, self._mean_K, self._square_K, self._steps_K)
        return {
            "arrays": [array.tolist() for array in arrays],
            "agreement": self._agreement,
            "dropped": self.dropped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        arrays = [np.array(values) for values in state["arrays"]]
        self._last_K, self._mean_K, self._square_K, self._steps_K = arrays
        self._agreement, self.dropped = state["agreement"], state["dropped"]
