"""Checkpoints: the state of a run at a step boundary, written aside, checksummed, then renamed.

save(folder, state)                       # checkpoints/step_000000100/
load(folder, state)                       # the newest one, into a state built from the config
"""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from workbench.config import RunConfig
from workbench.core import AgentMixer, RunError
from workbench.tracking import RunFolder
from workbench.tracking.durable import aside_file
from workbench.training.finished import STATE_FILE
from workbench.training.ranks import Ranks
from workbench.training.shards import FOLDER as SHARDS
from workbench.training.shards import save_shards
from workbench.training.state import TrainState

DIGEST_FILE = "state.blake2b"
SIZES_FILE = "shards.json"
AGENT_FILE = "agent.pt"
"""The policy a run's mixer has learned, for `agent=` of another run's mixer."""


class Writing:
    """A checkpoint whose shards are still being written; the run goes on meanwhile.

    Killed before `finish`, there is no such checkpoint.
    """

    def __init__(self, folder: RunFolder, state: TrainState, keep: int):
        assert state.spread.group is not None
        self._folder, self._keep, self.step = folder, keep, state.step
        self._stack = ExitStack()
        ranks = Ranks.here()
        path = None
        if ranks.leads:
            path = self._stack.enter_context(folder.aside(folder.checkpoint_path(state.step)))
            _write_state(path, folder, state)
        # The folder has its final name only when it is whole.
        self._path = Path(ranks.everyone(path and str(path))[0])
        self._shards = save_shards(
            state.model, state.optimizer, self._path / SHARDS, state.spread.group
        )

    @property
    def done(self) -> bool:
        return self._shards.done()

    def finish(self) -> None:
        """Wait for the shards, and give the checkpoint its name."""
        with self._stack:
            self._shards.result()
            if Ranks.here().leads:
                sizes = {file.name: file.stat().st_size for file in (self._path / SHARDS).iterdir()}
                (self._path / SIZES_FILE).write_text(json.dumps(sizes))
        self._folder.append("checkpoint", self.step)
        self._folder.keep_checkpoints(self._keep)


def save(folder: RunFolder, state: TrainState, *, keep: int) -> Writing | None:
    """Write the checkpoint of `state.step`, then remove all but the newest `keep`.

    Returns:
        What is still to be finished, where every rank writes its own part.
    """
    if state.spread.group is not None:
        return Writing(folder, state, keep)
    if Ranks.here().leads:
        with folder.aside(folder.checkpoint_path(state.step)) as path:
            _write_state(path, folder, state)
    folder.append("checkpoint", state.step)
    folder.keep_checkpoints(keep)
    return None


def _write_state(path: Path, folder: RunFolder, state: TrainState) -> None:
    """What is no shard, and the learned policy by itself."""
    saved = {**state.state_dict(), "started_with": folder.config}
    torch.save(saved, path / STATE_FILE)
    (path / DIGEST_FILE).write_text(_digest(path / STATE_FILE))
    if isinstance(state.mixer, AgentMixer):
        with aside_file(folder.path / AGENT_FILE) as agent:
            torch.save(state.mixer.agent_state(), agent)


def load(folder: RunFolder, *, content_hash: str, step: int | None = None) -> dict[str, Any] | None:
    """The saved state of `step` (the newest when None), checked; None for a fresh start.

    Raises:
        RunError: the file does not match its checksum, or belongs to another config or corpus.
    """
    require(folder, step)
    steps = folder.checkpoints()
    if step == 0 or (step is None and not steps):
        return None
    wanted = steps[-1] if step is None else step
    path = folder.checkpoint_path(wanted)
    older = [s for s in steps if s < wanted]
    remedy = f"resume from step {older[-1] if older else 0}: --step {older[-1] if older else 0}"
    try:
        expected = (path / DIGEST_FILE).read_text()
        found = _digest(path / STATE_FILE)
    except OSError as error:
        raise RunError(f"the checkpoint {path} is not whole: {error}", remedy=remedy) from None
    if found != expected:
        raise RunError(
            f"{path / STATE_FILE} is corrupt: checksum {found[:12]} instead of {expected[:12]}",
            remedy=remedy,
        )
    saved = torch.load(path / STATE_FILE, weights_only=True, map_location="cpu")
    _check_belongs(folder, saved, content_hash)
    if "model" not in saved:
        _check_sizes(path, remedy)
        saved["shards"] = str(path / SHARDS)
    return saved


def require(folder: RunFolder, step: int | None) -> None:
    """Raise RunError where there is no checkpoint of `step`; the newest and step 0 need none."""
    steps = folder.checkpoints()
    if step and step not in steps:
        raise RunError(
            f"{folder.path} has no checkpoint of step {step}",
            remedy=f"use one of: {', '.join(map(str, steps)) or 'none'}",
        )


def _check_sizes(path: Path, remedy: str) -> None:
    """Raise RunError for a shard that is missing or cut; their bytes are too many to be summed."""
    try:
        expected = json.loads((path / SIZES_FILE).read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"the checkpoint {path} is not whole: {error}", remedy=remedy) from None
    for name, size in expected.items():
        file = path / SHARDS / name
        found = file.stat().st_size if file.exists() else None
        if found != size:
            raise RunError(
                f"{file} " + ("is missing" if found is None else f"has {found} of {size} bytes"),
                remedy=remedy,
            )


def _check_belongs(folder: RunFolder, saved: dict[str, Any], content_hash: str) -> None:
    if saved["content_hash"] != content_hash:
        raise RunError(
            f"the corpus has changed since the checkpoint: content hash {content_hash[:12]} "
            f"instead of {saved['content_hash'][:12]}",
            remedy="restore the corpus, or start a new run",
        )
    # A fork starts from a checkpoint of its parent, under a name of its own.
    named = {**saved["started_with"], "name": folder.config["name"]}
    differs = differences(folder.config, named)
    if differs:
        raise RunError(
            f"the checkpoint of step {saved['step']} belongs to another config: {differs[0]}"
            + (f" and {len(differs) - 1} more" if len(differs) > 1 else ""),
            remedy="resume the run it came from, or start a new one",
        )


def differences(a: dict[str, Any], b: dict[str, Any], prefix: str = "") -> list[str]:
    """Settings in which two plain configs differ, as `name: a → b` with dotted names."""
    found = []
    for key in sorted(a.keys() | b.keys()):
        left, right = a.get(key), b.get(key)
        if isinstance(left, dict) and isinstance(right, dict):
            found += differences(left, right, f"{prefix}{key}.")
        elif left != right:
            found.append(f"{prefix}{key}: {left!r} → {right!r}")
    return found


def check_same_config(folder: RunFolder, config: RunConfig) -> None:
    """Raise RunError naming what differs unless the run was started with `config`."""
    # A setting that is newer than the folder has its default there.
    differs = differences(RunConfig(**folder.config).to_dict(), config.to_dict())
    if differs:
        raise RunError(
            f"{folder.path} holds a run of another config: {'; '.join(differs[:4])}",
            remedy="choose another name or folder",
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
