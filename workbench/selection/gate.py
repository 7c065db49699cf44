"""Scores must earn trust: rows that teach nothing must not be what the scores would choose.

    gate = ControlGate("refuse", judge.controls)
    doubt = gate(threshold)                    # Untrusted when noise outranks the pool, or passes
    gate.diagnostics()["report"]

On an over-confident checkpoint every scorer, and the one-step oracle too, prefers noise: the
checkpoint is at fault, and no setting of the selector helps.  Shapes: n rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from workbench.core import ConfigError, PolicyError, Progress, silent
from workbench.influence.trust import Check, TrustReport, control_check

TRUST = ("refuse", "warn", "off")
REMEDY = (
    "judge with an earlier, less confident checkpoint or with more reference rows; trust='warn' "
    "goes on regardless"
)


class Untrusted(PolicyError):
    """Control rows say that the scores are worth nothing."""


class Controls(NamedTuple):
    """Scores, float32 (n,): of rows of the pool drawn at random, and of control rows by kind."""

    pool_n: np.ndarray
    control_n: Mapping[str, np.ndarray]


def require_trust(trust: str) -> None:
    """ConfigError for what is not one of `TRUST`."""
    if trust not in TRUST:
        raise ConfigError(f"trust = {trust!r}", remedy="give 'refuse', 'warn' or 'off'")


class ControlGate:
    """Compares control rows with rows of the pool, and with the threshold that these have to pass.

    Args:
        trust: `refuse` raises when a check fails, `warn` records it and goes on, `off` does not
            score the controls.
        controls: called once, by the first threshold.
    """

    def __init__(self, trust: str, controls: Callable[[], Controls], progress: Progress = silent):
        self._trust, self._controls, self._progress = trust, controls, progress
        self._scores: Controls | None = None
        self._threshold: float | None = None
        self.report: TrustReport | None = None
        """Of the threshold judged last; None where none was."""

    def __call__(self, threshold: float) -> str:
        """Judge the controls by the threshold in force.

        A threshold that is not finite is not judged: the budget needs every row, and there is
        nothing to choose.

        Returns:
            What to add to the reason of every row accepted on this threshold; empty while nothing
            speaks against it.
        Raises:
            Untrusted: a check failed, and `trust` is `refuse`.
        """
        if self._trust == "off" or not np.isfinite(threshold):
            return ""
        before, self._threshold = self.report and self.failed, float(threshold)
        if self._scores is None:
            self._scores = self._controls()
        self.report = _report(self._scores, self._threshold)
        if self.failed != before:
            self._progress({"stage": "trust", "done": 1, "total": 1, "failed": self.failed})
        if not self.failed:
            return ""
        if self._trust == "refuse":
            raise Untrusted(f"the influence scores cannot be trusted: {self.failed}", remedy=REMEDY)
        return f"; not to be trusted: {self.failed}"

    @property
    def failed(self) -> str:
        """What speaks against the scores at the threshold judged last."""
        checks = self.report.checks if self.report else ()
        return "; ".join(check.sentence for check in checks if not check.passed)

    def diagnostics(self) -> dict[str, Any]:
        """What was asked, mean scores, the threshold judged last and its report; plain types."""
        scores = self._scores
        known = {} if scores is None else scores.control_n
        return {
            "trust": self._trust,
            "pool": None if scores is None else float(scores.pool_n.mean()),
            "controls": {kind: float(score_n.mean()) for kind, score_n in known.items()},
            "threshold": self._threshold,
            "failed": self.failed,
            "report": self.report and self.report.to_dict(),
        }


def _report(scores: Controls, threshold: float) -> TrustReport:
    """For each kind: does it outrank rows of the pool, and would it be accepted itself?"""
    checks = []
    for kind, score_n in scores.control_n.items():
        checks.append(control_check(kind, scores.pool_n, score_n))
        checks.append(_threshold_check(kind, float(score_n.mean()), threshold))
    return TrustReport(tuple(checks))


def _threshold_check(kind: str, mean: float, threshold: float) -> Check:
    passed = mean < threshold
    verdict = "would not be accepted at" if passed else "would be accepted at"
    return Check(
        f"threshold: {kind}",
        mean,
        threshold,
        passed,
        f"{kind} scores {mean:.3g} and {verdict} {threshold:.3g}",
        REMEDY,
    )
