"""What AC-ODM's reward stands for in a run: the interaction of its gradients, and its linear part.

    walk = energy_walk(run)                # from the uniform mixture to each domain alone
    plots.energy_walk(walk)

Ma et al. 2026 (arXiv 2505.23878), theorem on the surrogate; the formulas are in `mixing.energy`.
Shapes: K domains, S points of a walk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workbench.core import RunError
from workbench.mixing.energy import descent_gain, energies, interaction, linear_gain
from workbench.tracking import RunFolder
from workbench.tracking.events import symmetric

POINTS = 41


@dataclass(frozen=True)
class EnergyWalk:
    """Energies of the mixed gradient between the uniform mixture (0) and one domain alone (1).

    share_S: how far the walk has gone; interaction_KS: E(a) on the way to each domain; linear_KS:
    its linear part; interaction_K: W_i, what the reward is made of; descent_K: W_i + H_ii, the
    gain of gradient descent itself.
    """

    domains: tuple[str, ...]
    share_S: np.ndarray
    interaction_KS: np.ndarray
    linear_KS: np.ndarray
    interaction_K: np.ndarray
    descent_K: np.ndarray


def energy_walk(run: RunFolder, *, first: float = 0.5, last: float = 1.0) -> EnergyWalk:
    """Energies under the mean products of the run's gradients between two fractions of its steps.

    Raises:
        RunError: the run's mixer asked for no gradients.
    """
    recorded = [
        (event["mixture"], event["signals"]["gram"])
        for event in run.events("step")
        if None not in event.get("signals", {}).get("gram", [None])
    ]
    if not recorded:
        raise RunError(
            f"{run.path} recorded no gradients",
            remedy="give a run of mixer acodm, direct, alignment, doge or pike",
        )
    domains = tuple(recorded[0][0])
    begin = min(int(first * len(recorded)), len(recorded) - 1)
    window = recorded[begin : max(int(last * len(recorded)), begin + 1)]
    gram_KK = np.mean([symmetric(gram, len(domains)) for _, gram in window], axis=0)
    return walk_of(gram_KK, domains)


def walk_of(gram_KK: np.ndarray, domains: tuple[str, ...]) -> EnergyWalk:
    """The walk for given products H = g g^T, (K, K)."""
    share_S = np.linspace(0, 1, POINTS)
    ways_KSK = (
        1 / len(domains) + share_S[:, None] * (np.eye(len(domains)) - 1 / len(domains))[:, None]
    )
    return EnergyWalk(
        domains,
        share_S,
        np.array([[energies(gram_KK, a_K)[1] for a_K in way_SK] for way_SK in ways_KSK]),
        np.array([[linear_gain(gram_KK, a_K) for a_K in way_SK] for way_SK in ways_KSK]),
        interaction(gram_KK),
        descent_gain(gram_KK),
    )
