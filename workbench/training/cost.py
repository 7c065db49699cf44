"""What a run computes, by phase: floating-point operations; its seconds are in `training.clock`.

    cost = StepCost(state)
    cost.step(needs)                 # of one step, from shapes: the loop is not slowed
    cost.policy()                    # of the mixer's networks in that step

What cannot be told from shapes is counted by `models.operations`.
Phases: `train` forward, backward and update; `probe` what a mixer asks to know of a step;
`influence` all that a selector computes; `cached` what it read of the work of earlier runs;
`policy` the mixer's own work; `evaluate` held-out loss.
One multiplication and one addition count two.
"""

from __future__ import annotations

from workbench.core import CountedMixer, Signal
from workbench.training.signal_costs import Tracked, signal_flops
from workbench.training.state import TrainState


class StepCost:
    """Operations of one step of a state, from its shapes.

    Source: Chowdhery et al. 2022 (PaLM), appendix B, for a model's passes; recomputation is not
    counted.
    """

    def __init__(self, state: TrainState):
        self._state = state
        tokens = state.corpus.context_tokens
        self._row = state.model.flops_per_token * tokens

    def step(self, needs: frozenset[Signal]) -> dict[str, float]:
        """`flops` of the step itself, and `probe_flops` of what is asked to know of it."""
        return {"flops": self.train, "probe_flops": self.probe(needs)}

    def policy(self) -> dict[str, float]:
        """`policy_flops` of the mixer's own networks, where it counts them."""
        mixer = self._state.mixer
        return {"policy_flops": mixer.policy_flops} if isinstance(mixer, CountedMixer) else {}

    @property
    def train(self) -> float:
        return self._row * self._state.config.training.batch_rows

    @property
    def evaluate(self) -> float:
        """One evaluation: a forward pass over the held-out rows, a third of a training step's."""
        corpus, limit = self._state.corpus, self._state.config.training.held_out_rows
        rows = sum(len(corpus.held_out(domain, limit)) for domain in corpus.domains)
        return self._row / 3 * rows

    def probe(self, needs: frozenset[Signal]) -> float:
        """What the signals of a step cost beyond the step itself."""
        tracker, tracked = self._state.signals.tracker, None
        if tracker is not None:
            shapes = [(weight.shape[0], weight.shape[1]) for weight in tracker.weights]
            tracked = Tracked(shapes, tracker.domains, tracker.projection_width)
        return signal_flops(
            needs,
            tracked,
            row_flops=self._row,
            rows=self._state.config.training.batch_rows,
            tokens=self._state.corpus.context_tokens,
        )
