"""Runs before a run that it needs: they made its judge, its agent, its reference or its mixture.

    needed = needed_by(config)
    needed.runs, needed.missing        # folders, each once, and names of what cannot be found

What such runs needed themselves is needed too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.config import RunConfig
from workbench.tracking import RunFolder


@dataclass(frozen=True)
class Needed:
    """runs: each once; missing: what is named but leads to no run, so its cost is not known."""

    runs: tuple[RunFolder, ...]
    missing: tuple[str, ...]


def needed_by(*configs: RunConfig) -> Needed:
    """The runs that any of the settings needs, and those that these needed in turn."""
    found: dict[Path, RunFolder] = {}
    missing: dict[str, None] = {}
    waiting = list(configs)
    while waiting:
        for name, path in _named(waiting.pop(0)):
            if path is None:
                missing[name] = None
            elif path not in found:
                found[path] = RunFolder.open(path)
                waiting += settings_of(found[path])
    return Needed(tuple(found.values()), tuple(missing))


def settings_of(folder: RunFolder) -> list[RunConfig]:
    """All settings that were in force in a run, the first ones first."""
    configs = [RunConfig(**folder.config)]
    for event in sorted(folder.events("set"), key=lambda event: event["step"]):
        configs.append(configs[-1].change(**event["changes"]))
    return configs


def _named(config: RunConfig) -> Iterator[tuple[str, Path | None]]:
    """What the settings name, and the folder of the run behind it."""
    options = config.mixer.options
    judge = config.selection.checkpoint if config.selector else None
    for name in (judge, options.get("agent"), options.get("reference")):
        if name is not None:
            yield str(name), _run_at(Path(str(name)))
    for name in _mixture_files(options):
        yield from _made_by(name)


def _run_at(path: Path) -> Path | None:
    # An agent may be named by its file, which lies in the folder of its run.
    held = (each.resolve() for each in (path, path.parent) if RunFolder.holds_run(each))
    return next(held, None)


def _mixture_files(options: dict[str, Any]) -> list[str]:
    stages = options.get("stages")
    mixtures = [options.get("mixture"), *(stages.values() if isinstance(stages, dict) else ())]
    files = [each for each in mixtures if isinstance(each, str) and each.endswith(".json")]
    return files if options.get("trials") is None else [*files, str(options["trials"])]


def _made_by(name: str) -> Iterator[tuple[str, Path | None]]:
    """The runs of the job that wrote a mixture; they lie beside the file."""
    try:
        runs = [str(run) for run in json.loads(Path(name).read_text())["runs"]]
    except (OSError, ValueError, KeyError, TypeError):
        runs = []
    if not runs:
        yield name, None
    for run in runs:
        path = Path(name).parent / run
        yield str(path), path.resolve() if RunFolder.holds_run(path) else None
