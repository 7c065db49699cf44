"""Scores must earn trust: rows that teach nothing must not be what the scores would choose.

    gate = ControlGate("refuse", judge.controls)
    gate(threshold)                            # PolicyError when noise passes the threshold
    gate.diagnostics()

On an over-confident checkpoint every scorer, and the one-step oracle too, prefers noise: the
checkpoint is at fault, and no setting of the selector helps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from workbench.core import ConfigError, PolicyError, Progress, silent

TRUST = ("refuse", "warn", "off")


def require_trust(trust: str) -> None:
    """ConfigError for what is not one of `TRUST`."""
    if trust not in TRUST:
        raise ConfigError(f"trust = {trust!r}", remedy="give 'refuse', 'warn' or 'off'")


class ControlGate:
    """Compares the mean score of control rows with the threshold that clusters have to pass.

    Args:
        trust: `refuse` raises when a control passes, `warn` records it and goes on, `off` does
            not score the controls.
        controls: scores of control rows by kind; called once, by the first threshold.
    """

    def __init__(
        self,
        trust: str,
        controls: Callable[[], Mapping[str, np.ndarray]],
        progress: Progress = silent,
    ):
        self._trust, self._controls, self._progress = trust, controls, progress
        self._mean: dict[str, float] = {}
        self._threshold = float("nan")
        self.failed = ""
        """Why the scores are not to be trusted; empty while nothing speaks against them."""

    def __call__(self, threshold: float) -> None:
        """Judge the controls by the threshold in force.

        Raises:
            PolicyError: a control passes, and `trust` is `refuse`.
        """
        if self._trust == "off":
            return
        self._threshold = threshold
        self._mean = {kind: float(score_n.mean()) for kind, score_n in self._controls().items()}
        # A budget that needs every cluster has no threshold, and nothing to choose.
        passed = [
            k for k, mean in self._mean.items() if np.isfinite(threshold) and mean >= threshold
        ]
        if passed:
            shown = ", ".join(f"{kind} scores {self._mean[kind]:.3g}" for kind in passed)
            self.failed = f"{shown}, and {threshold:.3g} is enough to be accepted"
            if self._trust == "refuse":
                raise PolicyError(
                    f"the influence scores cannot be trusted: {self.failed}",
                    remedy="judge with an earlier, less confident checkpoint or with more "
                    "reference rows; trust='warn' goes on regardless",
                )
        self._progress({"stage": "trust", "done": 1, "total": 1, "failed": self.failed})

    @property
    def doubt(self) -> str:
        """What to add to the reason of every row that is chosen nevertheless."""
        return f"; not to be trusted: {self.failed}" if self.failed else ""

    def diagnostics(self) -> dict[str, Any]:
        """What was asked, what the controls scored, and whether they passed; plain types."""
        return {
            "trust": self._trust,
            "controls": self._mean,
            "threshold": self._threshold if np.isfinite(self._threshold) else None,
            "failed": self.failed,
        }
