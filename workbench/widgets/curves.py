"""A run's record as growing arrays, read bit by bit from its folder.

    curves = RunCurves(folder)
    if curves.refresh():                       # cheap: reads what was written since the last call
        step_S, loss_S = curves.column("step"), curves.column("loss")

Shapes: S recorded steps, E held-out evaluations.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.config import RunConfig
from workbench.plots.series import SMOOTHING_STEPS, smooth
from workbench.tracking import RunFolder

RIPPLE_STEPS = 20 * SMOOTHING_STEPS
"""A new step moves the smoothed loss of no step further back by more than 1e-8 of its value."""
RATE_STEPS = 20
"""Steps that the shown tokens per second and time left are averaged over."""
STAGES = {
    "embedding": "Embedding rows",
    "clustering": "Clustering",
    "near-duplicates": "Looking for near-duplicates",
    "map": "The map is drawn",
    "factors": "Fitting factors",
    "eigenvalues": "Fitting eigenvalues",
    "reference gradient": "Gradient of the reference set",
    "scores": "Scoring rows",
    "trust": "Scoring control rows",
    "pull": "Pulling arms",
}
"""What a selector at work says it is doing, in words."""


@dataclass(frozen=True)
class Mark:
    """A change made during the run, at the step before which it took effect."""

    step: int
    text: str


class ByDomain:
    """A number a step for fields and domains; `missing` where a step says nothing of a domain."""

    def __init__(self, missing: float):
        self._missing, self._steps = missing, 0
        self._columns: dict[tuple[str, str], array] = {}

    @property
    def domains(self) -> list[str]:
        """In the order first recorded."""
        return list(dict.fromkeys(domain for _, domain in self._columns))

    def column(self, field: str, domain: str) -> np.ndarray:
        """A domain's values of a field, float64 (S,)."""
        column = self._columns.get((field, domain))
        return np.full(self._steps, self._missing) if column is None else np.array(column)

    def append(self, fields: Mapping[str, Mapping[str, float | None]]) -> None:
        """Add a step."""
        for field, values in fields.items():
            for domain in values:
                before = array("d", [self._missing]) * self._steps
                self._columns.setdefault((field, domain), before)
        for (field, domain), column in self._columns.items():
            value = fields.get(field, {}).get(domain)
            column.append(self._missing if value is None else value)
        self._steps += 1


class RunCurves:
    """What a panel knows of one run."""

    def __init__(self, folder: RunFolder):
        self.folder = folder
        self._position = 0
        self._clear()

    def _clear(self) -> None:
        self._columns = {
            name: array("d") for name in ("step", "loss", "smooth", "tokens", "seconds")
        }
        self._held_out: dict[str, tuple[array, array]] = {}
        self.marks: list[Mark] = []
        self.config = RunConfig(**self.folder.config)
        self.failure: dict[str, str] | None = None
        self.stage: dict[str, Any] | None = None
        self.warnings: list[Mark] = []
        self.resumed = 0
        self._held_out_seconds = 0.0
        self._elapsed_seconds, self._since, self._last_time = 0.0, None, 0.0

    def refresh(self) -> bool:
        """Read what was written since the last call; whether there was anything."""
        events, self._position = self.folder.follow(self._position)
        if events and events[0]["kind"] == "started":
            self._clear()
        for event in events:
            self._take(event)
        self._smooth_new()
        return bool(events)

    def column(self, name: str) -> np.ndarray:
        """`step`, `loss` and `smooth` (nats), `tokens` or `seconds` of each step, float64 (S,)."""
        return np.array(self._columns[name])

    @property
    def held_out(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Steps and losses in nats per domain, each (E,)."""
        return {name: (np.array(x), np.array(y)) for name, (x, y) in self._held_out.items()}

    @property
    def steps_done(self) -> int:
        steps = self._columns["step"]
        return int(steps[-1]) + 1 if steps else 0

    @property
    def total_steps(self) -> int:
        return self.config.training.total_steps

    @property
    def tokens_per_second(self) -> float | None:
        """Over the last steps, evaluation and pauses left out."""
        seconds = sum(self._columns["seconds"][-RATE_STEPS:])
        return sum(self._columns["tokens"][-RATE_STEPS:]) / seconds if seconds > 0 else None

    @property
    def left_seconds(self) -> float | None:
        """Expected time to the last step at the present rate, evaluations included."""
        recent = self._columns["seconds"][-RATE_STEPS:]
        if not recent:
            return None
        step_seconds = sum(recent) / len(recent)
        evaluation_seconds = self._held_out_seconds / len(self._columns["step"])
        remaining = max(0, self.total_steps - self.steps_done)
        return remaining * (step_seconds + evaluation_seconds)

    def elapsed_seconds(self, *, running: bool) -> float:
        """Time spent training, pauses and interruptions left out."""
        if self._since is None:
            return self._elapsed_seconds
        until = time.time() if running else self._last_time
        return self._elapsed_seconds + max(0.0, until - self._since)

    def _take(self, event: dict[str, Any]) -> None:
        self._keep_time(event)
        # What a selector does is over with the first event of anything else.
        self.stage = event if event["kind"] == "selecting" else None
        match event["kind"]:
            case "step":
                self._take_step(event)
            case "held_out":
                self._held_out_seconds += event.get("seconds", 0.0)
                for name, loss in event["losses"].items():
                    steps, losses = self._held_out.setdefault(name, (array("d"), array("d")))
                    steps.append(event["step"])
                    losses.append(loss)
            case "set":
                self._take_changes(event["step"], event["changes"])
            case "selected":
                self.marks.append(Mark(event["step"], f"selected {event['rows']} rows"))
            case "warning":
                self.warnings.append(Mark(event["step"], event["message"]))
            case "failed":
                self.failure = {"problem": event["problem"], "remedy": event["remedy"]}
            case "resumed":
                self.failure = None
                self.resumed += 1

    def _take_step(self, event: dict[str, Any]) -> None:
        for name in ("step", "loss", "tokens", "seconds"):
            self._columns[name].append(event[name])

    def _smooth_new(self) -> None:
        """Smooth what a long run has new, not all of it again."""
        loss, smoothed = self._columns["loss"], self._columns["smooth"]
        settled = max(0, len(smoothed) - RIPPLE_STEPS)
        context = max(0, settled - RIPPLE_STEPS)
        if len(loss) > len(smoothed):
            tail_S = smooth(_finite(loss[context:]), SMOOTHING_STEPS)
            smoothed[settled:] = array("d", tail_S[settled - context :])

    def _take_changes(self, step: int, changes: dict[str, Any]) -> None:
        self.config = self.config.change(**changes)
        short = [f"{name.split('.')[-1]} {_short(value)}" for name, value in changes.items()]
        self.marks.append(Mark(step, ", ".join(short)))

    def _keep_time(self, event: dict[str, Any]) -> None:
        now, kind = event["time"], event["kind"]
        if kind in ("started", "resumed", "unpaused"):
            # Still counting means the process before was killed: it worked until its last event.
            if self._since is not None:
                self._elapsed_seconds += self._last_time - self._since
            self._since = now
        elif kind in ("paused", "stopped", "finished", "failed") and self._since is not None:
            self._elapsed_seconds += now - self._since
            self._since = None
        self._last_time = now


def told_stage(stage: dict[str, Any] | None) -> str:
    """What a selector is doing, in words; empty when it is not at work."""
    if stage is None:
        return ""
    name, done, total = stage["stage"], stage["done"], stage["total"]
    words = STAGES.get(name, str(name).capitalize())
    if name == "pull":
        return f"{words}: round {stage['round']:,}"
    known = done is not None and total
    return f"{words}: {done:,} of {total:,}" if known and done != total else words


def _finite(values: array) -> np.ndarray:
    values_S = np.array(values)
    return np.where(np.isfinite(values_S), values_S, np.nan)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("name", value))
    return f"{value:g}" if isinstance(value, float) else str(value)
