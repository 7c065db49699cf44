"""A training run small enough to know its best mixture: quadratic bowls and one domain of noise.

    environment = Environment(width=64, seed=0)
    trace = play(MIXERS.build("acodm", environment.task), environment, steps=3000)

Four clean domains each pull half of the coordinates of theta to 0; their halves overlap, so they
agree.  The last domain's gradient is pure noise and its loss never falls.  The best mixture is a
quarter for each clean domain; the reference of an excess loss is the optimum, theta = 0, whatever
run a mixer names.  Shapes: K domains, N micro-batches of a step, D coordinates.
"""

from __future__ import annotations

import numpy as np
import torch

from workbench.core import (
    ConfigError,
    DomainGradients,
    MixingTask,
    Mixture,
    RandomStreams,
    Signal,
    StepOutcome,
    TrackedNorms,
)

CLEAN = 4
CLEAN_NOISE = 0.3
NOISE = 4.0
BEST_LOSS_NATS_K = np.array([1.0] * CLEAN + [6.0])
"""Losses at theta = 0; that of noise is the same everywhere."""
LAYERS = 3
"""Slots into which theta is cut for the norms of tracked weights."""
PROVIDED = frozenset(Signal)
"""Signals the environment can give a mixer."""


class Environment:
    """Stochastic gradient descent on theta, one micro-batch of every domain a step at least.

    Args:
        width: D, coordinates of theta.
        micro_batches: N of a step, each of one domain.
        learning_rate: of plain gradient descent.
        total_steps: what mixers are told of the length of the run.
    Raises:
        ConfigError: fewer micro-batches than domains.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        micro_batches: int = 32,
        learning_rate: float = 0.005,
        total_steps: int = 3000,
        seed: int = 0,
    ):
        names = (*(f"clean_{i}" for i in range(CLEAN)), "noise")
        if micro_batches < len(names):
            raise ConfigError(
                f"micro_batches = {micro_batches} for {len(names)} domains, each of which gets one "
                "a step",
                remedy=f"set micro_batches to {len(names)} or more",
            )
        self.task = MixingTask(
            names,
            np.full(len(names), 10**9),
            batch_rows=micro_batches,
            total_steps=total_steps,
            seed=seed,
        )
        self.optimum = Mixture(names, np.array([1 / CLEAN] * CLEAN + [0.0]))
        self._learning_rate = learning_rate
        self._streams = RandomStreams(seed)
        self.theta_D = np.ones(width)
        quarter = width // CLEAN
        offset_D = np.arange(width)
        self._mask_KD = np.stack(
            [(offset_D - quarter * i) % width < 2 * quarter for i in range(CLEAN)]
        ).astype(float)

    @property
    def score(self) -> float:
        """Mean over the clean domains of ½ sum theta² on their coordinates: 0 is the best."""
        return float((self._mask_KD @ self.theta_D**2).mean() / 2)

    def step(self, step: int, mixture: Mixture, needs: frozenset[Signal]) -> StepOutcome:
        """Draw micro-batches by the mixture, descend, and say what was seen."""
        rng = self._streams.at("environment", step)
        domains = len(self.task)
        free = self.task.batch_rows - domains
        count_K = 1 + rng.multinomial(free, mixture.probability_K)
        gradient_KD = self._gradients(rng, count_K)
        excess_K = np.append(self._mask_KD @ self.theta_D**2 / 2, 0.0)
        loss_K = excess_K + BEST_LOSS_NATS_K
        before_D = self.theta_D
        direction_D = count_K @ gradient_KD / self.task.batch_rows
        self.theta_D = before_D - self._learning_rate * direction_D
        domain_B = np.repeat(np.arange(domains), count_K)
        ones = torch.ones(len(domain_B))
        return StepOutcome(
            step=step,
            domain_B=domain_B,
            sample_id_B=domain_B << 40,
            loss_B=torch.from_numpy(loss_K[domain_B]),
            weight_B=ones,
            valid_B=ones > 0,
            signals={
                **self._of_gradients(needs, gradient_KD, count_K),
                **self._of_weights(needs, before_D, excess_K[domain_B]),
            },
        )

    def _gradients(self, rng: np.random.Generator, count_K: np.ndarray) -> np.ndarray:
        """Mean gradient of each domain over its micro-batches, (K, D).

        The mean of n draws is drawn at once, with 1/n of the variance.
        """
        noise_KD = rng.standard_normal((len(count_K), len(self.theta_D)))
        noise_KD /= np.sqrt(count_K)[:, None]
        clean_KD = self._mask_KD * (self.theta_D + CLEAN_NOISE * noise_KD[:CLEAN])
        return np.concatenate([clean_KD, NOISE * noise_KD[CLEAN:]])

    def _of_gradients(
        self, needs: frozenset[Signal], gradient_KD: np.ndarray, count_K: np.ndarray
    ) -> dict[Signal, object]:
        found: dict[Signal, object] = {}
        if Signal.DOMAIN_GRADIENTS in needs:
            found[Signal.DOMAIN_GRADIENTS] = DomainGradients(gradient_KD @ gradient_KD.T, count_K)
        if Signal.ROW_GRADIENTS in needs:
            # Only the mean of a domain's draws exists: the rest is what they spread around it.
            variance_K = np.append(
                CLEAN_NOISE**2 * self._mask_KD.sum(axis=1), NOISE**2 * len(self.theta_D)
            )
            square_K = (gradient_KD**2).sum(axis=1)
            found[Signal.ROW_GRADIENTS] = square_K + variance_K * (count_K - 1) / count_K
        return found

    def _of_weights(
        self, needs: frozenset[Signal], before_D: np.ndarray, excess_B: np.ndarray
    ) -> dict[Signal, object]:
        found: dict[Signal, object] = {}
        if Signal.EXCESS_LOSS in needs:
            found[Signal.EXCESS_LOSS] = torch.from_numpy(excess_B).float()
        if Signal.TRACKED_NORMS in needs:
            found[Signal.TRACKED_NORMS] = TrackedNorms(
                _slot_norms(self.theta_D), _slot_norms(self.theta_D - before_D)
            )
        return found


def _slot_norms(value_D: np.ndarray) -> np.ndarray:
    return np.array([np.linalg.norm(part) for part in np.array_split(value_D, LAYERS)])
