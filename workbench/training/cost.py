"""What a run computes, by phase: floating-point operations; its seconds are in `training.clock`.

    cost = StepCost(state)
    cost.step(needs)                 # of one step, from shapes: the loop is not slowed
    cost.policy()                    # of the mixer's networks in that step

What cannot be told from shapes is counted by `models.operations`.
Phases: `train` forward, backward and update; `probe` what a mixer asks to know of a step;
`influence` all that a selector computes; `cached` what it read of the work of earlier runs;
`policy` the mixer's own work; `evaluate` held-out loss.
One multiplication and one addition count two.  Shapes: K domains, O/I layer out/in, T tokens.
"""

from __future__ import annotations

from workbench.core import CountedMixer, Signal
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
        found, rows = 0.0, self._state.config.training.batch_rows
        if Signal.EXCESS_LOSS in needs:
            # The model without dropout, and the reference model.
            found += 2 * self._row / 3 * rows
        tracker = self._state.signals.tracker
        if tracker is None:
            return found
        for weight in tracker.weights:
            found += self._of_layer(needs, *weight.shape)
        return found

    def _of_layer(self, needs: frozenset[Signal], outputs: int, inputs: int) -> float:
        """What is asked to know of one tracked layer."""
        tracker, found = self._state.signals.tracker, 0.0
        assert tracker is not None
        tokens, rows = self._state.corpus.context_tokens, self._state.config.training.batch_rows
        if Signal.DOMAIN_GRADIENTS in needs:
            width = tracker.projection_width
            if width is None:
                # The parts take the place of the weight's gradient; their products are new.
                found += 2 * tracker.domains**2 * outputs * inputs
            else:
                found += 2 * rows * tokens * width * (outputs + inputs + width)
                found += 2 * tracker.domains**2 * width**2
        if Signal.ROW_GRADIENTS in needs:
            found += 2 * rows * tokens**2 * (outputs + inputs)
        return found
