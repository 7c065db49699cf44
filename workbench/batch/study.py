"""Several runs one after another, saying in plain lines how far they are.

    runs = train_study(presets.tour("ci"), "runs/tour")     # {"uniform": [Run, …], …}
    wb.prepare(…, progress=progress_lines())

Lines rather than bars: an executed notebook keeps every frame of a bar, and a widget none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.batch.notebook import Progress
from workbench.batch.terminal import selected_line, selecting_line
from workbench.core import ConfigError

if TYPE_CHECKING:
    from workbench.config import RunConfig
    from workbench.core import StepOutcome
    from workbench.training import Run

Say = Callable[[str], None]


def train_study(
    study: Mapping[str, Sequence[RunConfig]],
    out_dir: str | Path,
    *,
    every_seconds: float = 10.0,
    say: Say = print,
) -> dict[str, list[Run]]:
    """Train every config of a study into `out_dir`; finished runs are kept, others continue.

    Seed by seed over all labels, so that a study cut short still holds whole pairs.

    Args:
        study: label -> one config a seed, as `workbench.config.presets` makes them.
        every_seconds: how often a run says where it is.
        say: given each line.
    Returns:
        The runs, under the same labels in the same order.
    Raises:
        ConfigError: two configs have the same name, so they would share a folder.
        WorkbenchError: what a run raises; the runs before it are complete.
    """
    from workbench import training

    configs = [config for own in study.values() for config in own]
    _check_names(configs)
    longest = max(map(len, study.values()), default=0)
    order = [
        (label, own[i]) for i in range(longest) for label, own in study.items() if i < len(own)
    ]
    runs: dict[str, list[Run]] = {label: [] for label in study}
    for number, (label, config) in enumerate(order, start=1):
        heading = f"run {number}/{len(order)} {config.name}"
        teller = Teller(heading, config.training.total_steps, every_seconds, say)
        run = training.train(config, out_dir, if_exists="resume", callbacks=[teller])
        held_out_nats = (run.summary() or {}).get("held_out_mean_nats")
        say(f"{heading}: done, held-out loss {held_out_nats:.4f} nats per token")
        runs[label].append(run)
    return runs


def progress_lines(*, every_seconds: float = 5.0, say: Say = print) -> Progress:
    """`progress(what, done, total)` as lines: when the work changes, and now and then within it."""
    told = {"what": "", "at": 0.0}

    def tell(what: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if what != told["what"] or now - told["at"] >= every_seconds:
            told.update(what=what, at=now)
            say(f"{what}: {done}/{total}" if total else what)

    return tell


def _check_names(configs: Sequence[RunConfig]) -> None:
    seen: set[str] = set()
    for config in configs:
        if config.name in seen:
            raise ConfigError(
                f"two runs of the study are named '{config.name}'",
                remedy="give each run its own name",
            )
        seen.add(config.name)


class Teller:
    """Given the events of one run, says where it is, at most once in `every_seconds`."""

    def __init__(self, heading: str, total_steps: int, every_seconds: float, say: Say):
        self._heading = heading
        self.total_steps = total_steps
        self._every_seconds = every_seconds
        self._say = say
        self._said = time.monotonic()

    def on_step(self, outcome: StepOutcome) -> None:
        return None

    def on_events(self, events: Sequence[dict[str, Any]]) -> None:
        steps = [event for event in events if event["kind"] == "step"]
        now = time.monotonic()
        for event in events:
            if event["kind"] == "selected":
                self._say(f"{self._heading}: {selected_line(event)}")
        if events[-1]["kind"] == "selecting" and now - self._said >= self._every_seconds:
            self._said = now
            self._say(f"{self._heading}: {selecting_line(events[-1])}")
        if not steps or now - self._said < self._every_seconds:
            return
        self._said = now
        done = steps[-1]["step"] + 1
        seconds_a_step = sum(event["seconds"] for event in steps) / len(steps)
        tokens_a_second = sum(event["tokens"] for event in steps) / len(steps) / seconds_a_step
        self._say(
            f"{self._heading}: step {done}/{self.total_steps}, "
            f"loss {steps[-1]['loss']:.3f} nats per token, "
            f"{tokens_a_second / 1000:.1f} k tokens/s, "
            f"{seconds_a_step * (self.total_steps - done):.0f} s left"
        )
