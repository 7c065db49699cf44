"""A mixer played against an environment, step by step.

    trace = play(mixer, Environment(seed=1), steps=3000)
    trace.steps_to(0.1), trace.final_score, trace.share("noise")

Shapes: N steps, K domains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import workbench.mixing  # noqa: F401  (imported for what it registers)
from workbench.core import MIXERS, Mixer, PolicyError
from workbench.replay.environment import PROVIDED, Environment


@dataclass(frozen=True)
class Trace:
    """What a policy did: its mixtures (N, K), the score after each step (N,), its diagnostics.

    counterfactual: the mixtures were not acted on; see `recorded.counterfactual`.
    """

    domains: tuple[str, ...]
    mixture_NK: np.ndarray
    score_N: np.ndarray
    diagnostics: list[Mapping[str, Any]] = field(default_factory=list, repr=False)
    counterfactual: bool = False

    def __repr__(self) -> str:
        kind = "counterfactual " if self.counterfactual else ""
        return f"Trace({kind}of {len(self.mixture_NK)} steps over {len(self.domains)} domains)"

    @property
    def final_score(self) -> float:
        return float(self.score_N[-1])

    def steps_to(self, score: float) -> float:
        """Steps after which the score first lies below `score`; inf when it never does."""
        below = np.flatnonzero(self.score_N < score)
        return float(below[0] + 1) if len(below) else float("inf")

    def share(self, domain: str, first: float = 0.4, last: float = 0.6) -> float:
        """Mean probability of a domain between two fractions of the run: mid-run by default."""
        steps = len(self.mixture_NK)
        window = slice(int(first * steps), max(int(last * steps), int(first * steps) + 1))
        return float(self.mixture_NK[window, self.domains.index(domain)].mean())


def race(name: str, *, seed: int = 0, steps: int = 3000, **options: Any) -> Trace:
    """Let the mixer called `name`, with its options, drive a fresh `Environment` of a seed."""
    environment = Environment(total_steps=steps, seed=seed)
    return play(MIXERS.build(name, environment.task, **options), environment, steps=steps)


def play(mixer: Mixer, environment: Environment, *, steps: int, diagnostics: bool = False) -> Trace:
    """Let a mixer drive an environment.

    Args:
        mixer: built for `environment.task`.
        diagnostics: keep what the mixer says of every step, which takes time and memory.
    Raises:
        PolicyError: the mixer needs a signal that the environment does not give.
    """
    missing = mixer.needs - PROVIDED
    if missing:
        raise PolicyError(
            f"mixer '{type(mixer).__name__}' needs {', '.join(sorted(missing))}, which the "
            "environment does not give",
            remedy="choose another mixer, or train it on a real run",
        )
    domains = environment.task.names
    mixture_NK, score_N = np.empty((steps, len(domains))), np.empty(steps)
    said: list[Mapping[str, Any]] = []
    for step in range(steps):
        mixture = mixer.propose(step)
        outcome = environment.step(step, mixture, mixer.needs)
        mixer.observe(outcome)
        mixture_NK[step], score_N[step] = mixture.probability_K, environment.score
        if diagnostics:
            said.append(mixer.diagnostics())
    return Trace(domains, mixture_NK, score_N, said)
