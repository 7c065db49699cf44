"""What the weights did over the steps of a run, read bit by bit from its folder.

    curves = WeightCurves(folder)
    curves.refresh()
    charts = weight_charts(curves)         # effective rows, and the implied mixture

Shapes: S recorded steps, P stretches of steps that are drawn as one point.
"""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np

from workbench.config import Policy
from workbench.core import REWEIGHTERS
from workbench.widgets.curves import ByDomain, RunCurves
from workbench.widgets.frames import line, stretched

SHARES = ("weight_share", "sample_share")


class WeightCurves(RunCurves):
    """`RunCurves` that also keeps what each step says about its weights."""

    def _clear(self) -> None:
        super()._clear()
        self._columns |= {name: array("d") for name in ("ess_fraction", "temperature")}
        self._shares = ByDomain(missing=0.0)
        self._policies = [(0, self.config.reweighter)]

    @property
    def domains(self) -> list[str]:
        """In the order first recorded."""
        return self._shares.domains

    def share(self, field: str, domain: str) -> np.ndarray:
        """A domain's `weight_share` or `sample_share` of each step, float64 (S,)."""
        return self._shares.column(field, domain)

    def policy_at(self, step: int) -> tuple[Policy, float | None]:
        """The reweighter in force at a step, and its temperature if it has one."""
        policy = [policy for first, policy in self._policies if first <= step][-1]
        return policy, self._temperature_at(step, policy)

    def _temperature_at(self, step: int, policy: Policy) -> float | None:
        steps = self._columns["step"]
        place = int(np.searchsorted(np.frombuffer(steps), step)) if steps else 0
        if place < len(steps) and np.isfinite(self._columns["temperature"][place]):
            return self._columns["temperature"][place]
        known = policy.name in REWEIGHTERS.names()
        options = REWEIGHTERS.options(policy.name) if known else {}
        value = {**options, **policy.options}.get("temperature")
        return float(value) if isinstance(value, (int, float)) else None

    def _take_step(self, event: dict[str, Any]) -> None:
        super()._take_step(event)
        for name in ("ess_fraction", "temperature"):
            self._columns[name].append(event.get(name, np.nan))
        self._shares.append({field: event[field] for field in SHARES})

    def _take_changes(self, step: int, changes: dict[str, Any]) -> None:
        super()._take_changes(step, changes)
        self._policies.append((step, self.config.reweighter))


def weight_charts(curves: WeightCurves) -> list[dict[str, Any]]:
    """Effective rows and implied mixture over the steps, with the changes made on the way."""
    shared = {
        "x_label": "optimiser step",
        "x_end": curves.steps_done,
        "marks": [{"step": mark.step, "text": mark.text} for mark in curves.marks],
        "empty": "Appears with the first recorded steps",
    }
    return [
        {
            "title": "Effective rows",
            "unit": "of the rows of a step; 1 when all weigh the same",
            "lines": _effective(curves),
            **shared,
        },
        {
            "title": "Implied mixture",
            "unit": "line: share of the weight, faint: of the rows",
            "lines": _mixture(curves),
            **shared,
        },
    ]


def _effective(curves: WeightCurves) -> list[dict[str, Any]]:
    step_S = curves.column("step")
    if not len(step_S):
        return []
    ess_S = curves.column("ess_fraction")
    raw = line("effective rows", step_S, ess_S, 0, faint=True)
    smoothed = line("effective rows", *stretched(step_S, ess_S), 0)
    raw["marker"] = smoothed["marker"] = None
    return [raw, smoothed]


def _mixture(curves: WeightCurves) -> list[dict[str, Any]]:
    step_S = curves.column("step")
    lines = []
    for index, domain in enumerate(curves.domains):
        for field, faint in (("sample_share", True), ("weight_share", False)):
            x_P, y_P = stretched(step_S, curves.share(field, domain))
            drawn = line(domain, x_P, y_P, index, faint=faint)
            drawn["dash"] = "dot" if faint else "solid"
            drawn["marker"] = None if faint else drawn["marker"]
            lines.append(drawn)
    return lines
