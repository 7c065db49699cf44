"""A second run folder that shares the record of its first steps with another.

    branch(parent, "runs/b", 50, config=…, environment=…, changes=[…])

Checkpoint, ledger and selections up to the step are hard links where the file system has them: no
file of a run is ever written in place except its log, which is copied.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.core import RunError
from workbench.tracking import durable, encoding, events, ledger
from workbench.tracking.folder import FORMAT, RunFolder


def branch(
    parent: RunFolder,
    path: Path,
    step: int,
    *,
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    changes: Sequence[dict[str, Any]],
    rechooses: bool = False,
) -> RunFolder:
    """A run that is where `parent` was at its checkpoint of `step` (0 needs none).

    Args:
        changes: the events `set` of the new run, in place of the parent's.
        rechooses: rows are chosen anew at `step`, so what the parent chose there is left out.
    Raises:
        RunError: `path` exists, or the disk is full; then nothing is there.
        FileNotFoundError: the parent gave its checkpoint up meanwhile.
    """
    if path.exists():
        raise RunError(f"{path} exists", remedy="choose another name for the fork")
    content = {
        "format": FORMAT,
        "created": time.time(),
        "config": dict(config),
        "environment": dict(environment),
    }
    saved = step in parent.checkpoints()
    # Without a checkpoint the run starts over, and what was done at the boundary with it.
    boundary = step if saved and not rechooses else step - 1
    past = [item for item in parent.events() if _is_past(item, step, boundary)]
    log = sorted([*past, *(events.event(**item) for item in changes)], key=lambda e: e["step"])
    with durable.writing(path, path.parent), durable.aside_folder(path) as aside:
        (aside / "config.json").write_bytes(encoding.encode(content, indent=2))
        (aside / "events.jsonl").write_bytes(b"".join(encoding.encode(item) for item in log))
        for part in ("ledger", "checkpoints"):
            (aside / part).mkdir()
        for first, _, part in ledger.parts(parent.path / "ledger"):
            if first < step:
                _link(part, aside / "ledger" / part.name)
        if saved:
            _link(parent.checkpoint_path(step), aside / "checkpoints" / f"step_{step:09d}")
        for chosen in parent.selections():
            if chosen <= boundary:
                name = f"selection/step_{chosen:09d}"
                _link(parent.path / name, aside / name)
    found = RunFolder.open(path)
    ledger.rewind(path / "ledger", step)
    return found


def _is_past(item: dict[str, Any], step: int, boundary: int) -> bool:
    """Whether an event was there when the checkpoint of `step` was taken, and is no change."""
    if item["kind"] in events.AT_BOUNDARY:
        return item["step"] <= (step if item["kind"] == "checkpoint" else boundary)
    if item["kind"] in ("set", *events.ENDS):
        return False
    return item["kind"] == "started" or item["step"] < step


def _link(source: Path, target: Path) -> None:
    """The same file, or every file of a folder, under another name; a copy where need be."""
    if source.is_dir():
        target.mkdir(parents=True)
        for file in source.iterdir():
            _link(file, target / file.name)
        return
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copy2(source, target)
