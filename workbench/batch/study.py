"""Train every run of a study, one after the other, with a line now and then.

runs = train_study(presets.tour("demo"), "runs/tour")     # {"uniform": [Run, …], …}
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.config import RunConfig
from workbench.core import StepOutcome
from workbench.training import Run, train

Say = Callable[[str], None]


def train_study(
    study: Mapping[str, Sequence[RunConfig]],
    out_dir: str | Path,
    *,
    every_seconds: float = 10.0,
    say: Say = print,
) -> dict[str, list[Run]]:
    """Train all configs seed by seed, so that a study cut short still holds whole pairs.

    Finished runs are taken as they are and interrupted ones continue, so a killed study can be
    started again with the same call.

    Args:
        study: label -> one config per seed.
        every_seconds: how often a running run says where it is.
        say: given each line.
    Returns:
        Label -> runs, in the order of the study.
    """
    runs: dict[str, list[Run]] = {label: [] for label in study}
    order = [
        (label, configs[i])
        for i in range(max(map(len, study.values()), default=0))
        for label, configs in study.items()
        if i < len(configs)
    ]
    for number, (label, config) in enumerate(order, start=1):
        heading = f"run {number}/{len(order)} {config.name}"
        teller = ProgressLines(heading, config.training.total_steps, every_seconds, say)
        run = train(config, out_dir, if_exists="resume", callbacks=[teller])
        summary = run.summary() or {}
        say(f"{heading}: held-out {summary.get('held_out_mean_nats', float('nan')):.4f} nats")
        runs[label].append(run)
    return runs


class ProgressLines:
    """A callback that says where a run is, at most once in `every_seconds`."""

    def __init__(self, heading: str, total_steps: int, every_seconds: float, say: Say):
        self._heading = heading
        self._total_steps = total_steps
        self._every_seconds = every_seconds
        self._say = say
        self._began = self._said = time.monotonic()
        self._first_step: int | None = None

    def on_step(self, outcome: StepOutcome) -> None:
        pass

    def on_events(self, events: Sequence[dict[str, Any]]) -> None:
        steps = [event for event in events if event["kind"] == "step"]
        now = time.monotonic()
        if not steps or now - self._said < self._every_seconds:
            return
        self._said = now
        last = steps[-1]
        if self._first_step is None:
            self._first_step = steps[0]["step"]
        done = last["step"] + 1
        pace = (now - self._began) / max(1, done - self._first_step)
        rate = sum(e["tokens"] for e in steps) / sum(e["seconds"] for e in steps)
        left = pace * (self._total_steps - done)
        self._say(
            f"{self._heading}: step {done}/{self._total_steps}, loss {last['loss']:.3f} nats, "
            f"{rate / 1000:.1f} k tokens/s, {left:.0f} s left"
        )
