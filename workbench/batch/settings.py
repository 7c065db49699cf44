"""Settings in which runs differ, beyond what repetitions over seeds differ in.

differing_settings(runs)          # {"reweighter.name": ["uniform", "linupper"]}

A repetition has its own seed and name, its own judge, agent or run to match, and the length that
follows from that.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from workbench.tracking import RunFolder

# A repetition differs from its siblings in these alone; workers give the same rows.
_REPETITION = {"name", "seed", "corpus.workers"}
_MIXTURE = "mixer.mixture"
# Each names a run, or a file in or beside one; repetitions name one of their own seed.
_NAMES_A_RUN = {
    "training.match_run",
    "selection.checkpoint",
    _MIXTURE,
    *(f"mixer.{option}" for option in ("agent", "reference", "trials")),
}

BOOKKEEPING = frozenset(
    f"training.{name}"
    for name in (
        *("record_every_steps", "ledger_every_steps", "keep_checkpoints"),
        *("checkpoint_every_steps", "evaluate_every_steps"),
    )
)
"""How often a run writes and is looked at, which changes nothing that it learns."""


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted name, such as `training.total_steps`."""
    flat = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def differing_settings(runs: Iterable[RunFolder]) -> dict[str, list[Any]]:
    """Settings that runs did not all start with, one value a run; None where a run lacks it.

    A path of another run is told without what such paths share and without that run's seed; steps
    that follow from a `match_run` are not told.
    """
    configs = [flatten(run.config) for run in runs]
    names = dict.fromkeys(name for config in configs for name in config)
    values = {name: [config.get(name) for config in configs] for name in names}
    for name in _NAMES_A_RUN & set(values):
        values[name] = _seedless_paths(values[name], files=name == _MIXTURE)
    found = {
        name: row
        for name, row in values.items()
        if name not in _REPETITION and any(value != row[0] for value in row)
    }
    steps, matches = found.get("training.total_steps"), values.get("training.match_run", [])
    if steps and any(matches):
        given = [None if match else own for own, match in zip(steps, matches, strict=True)]
        found["training.total_steps"] = given
        if len({own for own in given if own is not None}) < 2:
            del found["training.total_steps"]
    return found


def _seedless_paths(row: list[Any], *, files: bool) -> list[Any]:
    """Paths in the words that the seeds of one setting share; other values as they are.

    Args:
        files: only what ends with .json is a path.
    """
    named = {value for value in row if isinstance(value, str)}
    paths = {
        value: Path(value).absolute() for value in named if not files or value.endswith(".json")
    }
    if not paths:
        return row
    shared = os.path.commonpath([path.parent for path in paths.values()])
    told = {
        value: "/".join(_seedless(part, _seed_of(path)) for part in path.relative_to(shared).parts)
        for value, path in paths.items()
    }
    return [told.get(value, value) if isinstance(value, str) else value for value in row]


def _seed_of(path: Path) -> int | None:
    """The seed of the run that a path names, by its folder or a file in it."""
    held = next((each for each in (path, path.parent) if RunFolder.holds_run(each)), None)
    return None if held is None else RunFolder.open(held).config["seed"]


def _seedless(name: str, seed: int | None) -> str:
    """A name without its seed: the known one, or else any number at the end."""
    number = r"\d+" if seed is None else str(seed)
    without, found = re.subn(rf"[-_]?seed[-_=]?{number}(?!\d)", "", name, count=1)
    return without if found else re.sub(rf"(?<![\d.])[-_]?(?<![\d.]){number}$", "", name)
