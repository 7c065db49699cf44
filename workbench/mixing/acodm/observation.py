"""What the agent sees of the training: one vector a step.

    view = Observation(5, 3, 3000)            # domains, layers, steps of the run
    state_S = view.after(loss_K, count_K, norms, step)

3K + 2L + 1 numbers: losses, their change, how much of each domain was seen, norms of the tracked
weights and of their change, and progress; each group normalised over its own entries (Ma et al.
2026).  The paper's change is since the previous step and its counts are cumulative; the published
code has the change since the first step, the counts of the step alone and progress up to 100.
Shapes: K domains, L tracked layers, S state.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from workbench.core import ConfigError, TrackedNorms
from workbench.mixing.signals import normalised

Form = Literal["paper", "official"]


class Observation:
    """State fields: last and first known loss of each domain, rows seen, the vector itself."""

    def __init__(self, domains: int, layers: int, total_steps: int, *, form: Form = "paper"):
        self.form, self.total_steps, self._layers = form, total_steps, layers
        self._loss_K = np.full(domains, np.nan)
        self._first_K = np.full(domains, np.nan)
        self._seen_K = np.zeros(domains)
        self.vector_S = np.zeros(3 * domains + 2 * layers + 1)

    def after(
        self, loss_K: np.ndarray, count_K: np.ndarray, norms: TrackedNorms | None, step: int
    ) -> np.ndarray:
        """The state after a step.

        Args:
            loss_K: mean loss of each domain in nats; NaN keeps the last one.
            norms: zeros stand for them where they were not computed.
        Raises:
            ConfigError: they are of another number of layers.
        """
        if norms is not None and len(norms.weight_L) != self._layers:
            raise ConfigError(
                f"tracked_layers = {self._layers}, and the step has norms of "
                f"{len(norms.weight_L)} layers",
                remedy=f"set tracked_layers={len(norms.weight_L)}",
            )
        known_K = np.isfinite(loss_K)
        before_K = self._first_K if self.form == "official" else self._loss_K
        now_K = np.where(known_K, loss_K, self._loss_K)
        change_K = np.nan_to_num(now_K - before_K)
        self._first_K = np.where(np.isnan(self._first_K), now_K, self._first_K)
        self._loss_K = now_K
        self._seen_K = self._seen_K + count_K
        counts_K = count_K if self.form == "official" else self._seen_K
        sizes = (norms.weight_L, norms.change_L) if norms else (np.zeros(self._layers),) * 2
        progress = (step + 1) / self.total_steps
        self.vector_S = np.concatenate(
            [
                normalised(_filled(now_K)),
                normalised(change_K),
                normalised(counts_K),
                *map(normalised, sizes),
                [min(progress, 1.0) * (100 if self.form == "official" else 1)],
            ]
        )
        return self.vector_S

    def state_dict(self) -> dict[str, Any]:
        arrays = (self._loss_K, self._first_K, self._seen_K, self.vector_S)
        return {"arrays": [array.tolist() for array in arrays]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        arrays = [np.array(values) for values in state["arrays"]]
        self._loss_K, self._first_K, self._seen_K, self.vector_S = arrays


def _filled(value_K: np.ndarray) -> np.ndarray:
    """A domain never seen counts as average."""
    known = value_K[np.isfinite(value_K)]
    return np.where(np.isfinite(value_K), value_K, known.mean() if len(known) else 0.0)
