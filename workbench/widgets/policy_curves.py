"""What a mixer did over the steps of a run, read bit by bit from its folder.

    curves = PolicyCurves(folder)
    curves.refresh()
    policy_charts(curves); path(curves); mixture_at(curves, step=120)

Shapes: S recorded steps, P stretches of steps that are drawn as one point, K domains.
"""

from __future__ import annotations

import math
from array import array
from typing import Any

import numpy as np

from workbench.core import entropy_nats
from workbench.plots.mixing import WITHOUT_SPREAD, corners
from workbench.plots.theme import style
from workbench.widgets.curves import ByDomain, RunCurves
from workbench.widgets.frames import line, stretched

ASKED, USED = "mixture", "effective_mixture"
REWARD, RATIO = "reward_average", "signal_to_noise"
LEARNT = {
    "critic_loss": "Critic loss",
    "actor_loss": "Actor loss",
    "self_energy": "Self energy",
    "interaction_energy": "Interaction energy",
}


class PolicyCurves(RunCurves):
    """`RunCurves` that also keeps what each step says about its mixture."""

    def _clear(self) -> None:
        super()._clear()
        self._columns |= {name: array("d") for name in LEARNT}
        self._by_domain = ByDomain(missing=math.nan)
        self._mixers = [(0, self.config.mixer.name)]
        self._phases: list[tuple[int, str]] = []

    @property
    def domains(self) -> list[str]:
        """In the order first recorded."""
        return self._by_domain.domains

    def by_domain(self, field: str, domain: str) -> np.ndarray:
        """A domain's mixture, reward or signal-to-noise of each step, float64 (S,)."""
        return self._by_domain.column(field, domain)

    def records(self, field: str) -> bool:
        """Whether any step has a number of this field."""
        return any(np.isfinite(self.by_domain(field, name)).any() for name in self.domains)

    def mixer_at(self, step: int) -> tuple[str, str | None]:
        """Name of the mixer in force at a step, and its phase if it has some."""
        mixer = [name for first, name in self._mixers if first <= step][-1]
        phases = [name for first, name in self._phases if first <= step]
        return mixer, phases[-1] if phases else None

    @property
    def recorded(self) -> tuple[int, int] | None:
        """First and last step; None before there is one."""
        steps = self._columns["step"]
        return (int(steps[0]), int(steps[-1])) if steps else None

    def place(self, step: int) -> int:
        """Index of a step, or of the last one recorded before it."""
        return max(0, int(np.searchsorted(np.array(self._columns["step"]), step, "right")) - 1)

    def _take_step(self, event: dict[str, Any]) -> None:
        super()._take_step(event)
        mixer = event.get("mixer", {})
        for name in LEARNT:
            self._columns[name].append(mixer.get(name, math.nan))
        told = {REWARD: mixer.get(REWARD, {}), RATIO: _with_spread(mixer.get(RATIO, {}))}
        self._by_domain.append({ASKED: event[ASKED], USED: event.get(USED, {}), **told})
        phase = mixer.get("phase")
        if phase and (not self._phases or self._phases[-1][1] != phase):
            self._phases.append((event["step"], phase))

    def _take_changes(self, step: int, changes: dict[str, Any]) -> None:
        super()._take_changes(step, changes)
        self._mixers.append((step, self.config.mixer.name))


def _with_spread(ratios: dict[str, float | None]) -> dict[str, float | None]:
    return {name: r if r is not None and r < WITHOUT_SPREAD else None for name, r in ratios.items()}


def missing(curves: PolicyCurves) -> str:
    """What the mixer of the run does not record, in a sentence; empty when it records all."""
    if not curves.recorded:
        return ""
    fields = {USED: "effective mixture", REWARD: "reward", RATIO: "signal-to-noise"}
    absent = [name for field, name in fields.items() if not curves.records(field)]
    mixer, _ = curves.mixer_at(curves.recorded[1])
    return f"The mixer '{mixer}' has recorded no {' and no '.join(absent)}." if absent else ""


def policy_charts(curves: PolicyCurves) -> list[dict[str, Any]]:
    """Reward and signal-to-noise of each domain over the steps."""
    soon = "Appears with the first recorded steps"
    nothing = "The run's mixer has recorded nothing of this" if curves.recorded else soon
    shared = {
        "x_label": "optimiser step",
        "x_end": curves.steps_done,
        "marks": [{"step": mark.step, "text": mark.text} for mark in curves.marks],
        "empty": nothing,
    }
    return [
        {
            "title": "Reward",
            "unit": "running mean of each domain",
            "lines": _lines(curves, REWARD),
            "rule": 0,
            **shared,
        },
        {
            "title": "Signal / noise",
            "unit": "of the reward; below 1 it is mostly noise",
            "lines": _lines(curves, RATIO, log=True),
            "log": True,
            "rule": 0,
            **shared,
        },
    ]


def _lines(curves: PolicyCurves, field: str, *, log: bool = False) -> list[dict[str, Any]]:
    """A line a domain, of logarithms to base 10 where `log`; none of a field never recorded."""
    if not curves.records(field):
        return []
    step_S, lines = curves.column("step"), []
    for index, domain in enumerate(curves.domains):
        y_S = curves.by_domain(field, domain)
        if log:
            y_S = np.log10(np.where(y_S > 0, y_S, np.nan))
        lines.append(line(domain, *stretched(step_S, y_S), index))
    return lines


def path(curves: PolicyCurves) -> dict[str, Any]:
    """Corners of the simplex, the smoothed way over it, and the largest share so far."""
    step_S, domains = curves.column("step"), curves.domains
    corner_K2 = corners(len(domains))
    ways = [stretched(step_S, curves.by_domain(ASKED, domain)) for domain in domains]
    point_P2 = np.stack([share_P for _, share_P in ways], axis=1) @ corner_K2
    shares = [curves.by_domain(field, domain) for field in (ASKED, USED) for domain in domains]
    return {
        "domains": [
            {"name": name, "colour": style(k).colour, "marker": style(k).symbol}
            for k, name in enumerate(domains)
        ],
        "corners": np.round(corner_K2, 4).tolist(),
        "x": np.round(ways[0][0], 2).tolist(),
        "points": np.round(point_P2, 4).tolist(),
        "top": min(1.0, math.ceil(10 * float(np.nanmax(shares))) / 10),
    }


def mixture_at(curves: PolicyCurves, step: int) -> dict[str, Any]:
    """Mixture, reward and signal-to-noise per domain of one step; None for what it lacks."""
    at, domains = curves.place(step), curves.domains
    fields = {"asked": ASKED, "used": USED, "reward": REWARD, "ratio": RATIO}
    return {
        "step": step,
        "facts": _facts(curves, step, at),
        "missing": missing(curves),
        **{
            name: [_known(curves.by_domain(field, domain)[at]) for domain in domains]
            for name, field in fields.items()
        },
    }


def _facts(curves: PolicyCurves, step: int, at: int) -> list[tuple[str, str]]:
    mixer, phase = curves.mixer_at(step)
    asked_K = np.array([curves.by_domain(ASKED, domain)[at] for domain in curves.domains])
    entropy, most = entropy_nats(asked_K), math.log(len(asked_K))
    facts = [("Mixer", mixer)] + ([("Phase", phase)] if phase else [])
    facts.append(("Entropy", f"{entropy:.2f} of {most:.2f} nats"))
    learnt = {label: curves.column(name)[at] for name, label in LEARNT.items()}
    return facts + [
        (label, f"{value:.3g}") for label, value in learnt.items() if math.isfinite(value)
    ]


def _known(value: float) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None
