"""Several runs one after another, with one bar over all of them.

    runs = train_study(presets.tour("ci"), "runs/tour")     # {"uniform": [Run, …], …}
    wb.prepare(…, progress=progress_bar())

The bars are text: they show in a terminal, in JupyterLab, and line by line through papermill.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.batch.notebook import Progress
from workbench.core import ConfigError

if TYPE_CHECKING:
    from tqdm import tqdm

    from workbench.config import RunConfig
    from workbench.core import StepOutcome
    from workbench.training import Run

_SECONDS_BETWEEN_DRAWS = 1.0


def train_study(
    study: Mapping[str, Sequence[RunConfig]], out_dir: str | Path
) -> dict[str, list[Run]]:
    """Train every config of a study into `out_dir`; finished runs are kept, others continue.

    Args:
        study: label -> one config a seed, as `workbench.config.presets` makes them.
    Returns:
        The runs, under the same labels in the same order.
    Raises:
        ConfigError: two configs have the same name, so they would share a folder.
        WorkbenchError: what a run raises; the runs before it are complete.
    """
    from workbench import training

    configs = [config for own in study.values() for config in own]
    _check_names(configs)
    bar = _text_bar(total=sum(config.training.total_steps for config in configs), unit="step")
    runs: dict[str, list[Run]] = {label: [] for label in study}
    before = 0
    with bar:
        for label, own in study.items():
            for config in own:
                bar.set_description_str(config.name, refresh=False)
                callback = _OnBar(bar, before)
                run = training.train(config, out_dir, if_exists="resume", callbacks=[callback])
                runs[label].append(run)
                before += config.training.total_steps
                _move(bar, before)
    return runs


def progress_bar() -> Progress:
    """A text bar as `progress(what, done, total)`, a new one for each `what`."""
    bar: tqdm | None = None

    def tell(what: str, done: int, total: int | None) -> None:
        nonlocal bar
        if bar is None or bar.desc != f"{what}: ":
            if bar is not None:
                bar.close()
            bar = _text_bar(total=total, desc=what)
        _move(bar, done)
        if total is not None and done >= total:
            bar.refresh()

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


def _text_bar(**options: Any) -> tqdm:
    from tqdm import tqdm

    # Not tqdm.auto: its notebook bar is a widget, which no executed copy can show.
    return tqdm(file=sys.stdout, mininterval=_SECONDS_BETWEEN_DRAWS, ncols=78, **options)


def _move(bar: tqdm, done: int) -> None:
    bar.update(done - bar.n)


class _OnBar:
    """Callback of one run that moves the bar of the whole study."""

    def __init__(self, bar: tqdm, before: int):
        self._bar = bar
        self._before = before

    def on_step(self, outcome: StepOutcome) -> None:
        return None

    def on_events(self, events: Sequence[dict[str, Any]]) -> None:
        steps = [event for event in events if event["kind"] == "step"]
        if steps:
            self._bar.set_postfix_str(f"loss {steps[-1]['loss']:.2f}", refresh=False)
            _move(self._bar, self._before + steps[-1]["step"] + 1)
