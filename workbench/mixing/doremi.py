"""DoReMi's proxy phase: more of the domains where a reference model does better than the proxy.

    Policy("doremi", reference="runs/reference")

Xie et al. 2023 (arXiv 2305.10429).  The mixture that a later run uses is the average over the
proxy's steps: `average_mixture`.  The paper draws rows evenly and weighs their losses by the
mixture; here rows are drawn by it, which has the same expected gradient.  Shapes: K domains.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from workbench.core import (
    MIXERS,
    MixingTask,
    Positive,
    Share,
    ShareBelowOne,
    Signal,
    StepOutcome,
    Whole,
)
from workbench.mixing.descent import Descent
from workbench.mixing.floor import DEFAULT_FLOOR
from workbench.mixing.signals import domain_means


@MIXERS.register("doremi")
class DoReMi(Descent):
    """State fields: those of `Descent`, and the last excess loss of each domain.

    log w += step_size * excess; w <- (1 - smoothing) softmax + smoothing / K, where excess is the
    mean over a domain's tokens of max(loss - reference loss, 0).

    Args:
        reference: folder of a finished run on the same rows, usually of the natural mixture.
    """

    def __init__(
        self,
        task: MixingTask,
        *,
        reference: str,
        step_size: Positive = 1.0,
        smoothing: ShareBelowOne = 1e-4,
        floor: Share = DEFAULT_FLOOR,
        guaranteed_rows: Whole = 0,
    ):
        super().__init__(
            task,
            tracked_layers=1,
            projection_width=None,
            floor=floor,
            guaranteed_rows=guaranteed_rows,
        )
        self.reference = str(reference)
        self.smoothing, self._step_size = smoothing, step_size
        self._excess_K = np.zeros(len(task))

    @property
    def needs(self) -> frozenset[Signal]:
        return frozenset({Signal.EXCESS_LOSS})

    def gain(self, outcome: StepOutcome) -> np.ndarray | None:
        excess_B = outcome.signals[Signal.EXCESS_LOSS].double().numpy()
        valid_B = outcome.valid_B.cpu().numpy()
        if not np.isfinite(excess_B[valid_B]).all():
            self._dropped += 1
            return None
        excess_K, count_K = domain_means(excess_B, outcome.domain_B, valid_B, len(self.task))
        # A domain without rows keeps its last excess.
        self._excess_K = np.where(count_K > 0, excess_K, self._excess_K)
        return self._step_size * np.maximum(self._excess_K, 0)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "excess": self._excess_K.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._excess_K = np.array(state["excess"])
