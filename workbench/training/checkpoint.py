"""Checkpoints: the state of a run at a step boundary, written aside, checksummed, then renamed.

save(folder, state)                       # checkpoints/step_000000100/
load(folder, state)                       # the newest one, into a state built from the config
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from workbench.config import RunConfig
from workbench.core import AgentMixer, RunError
from workbench.tracking import RunFolder
from workbench.tracking.durable import aside_file
from workbench.training.finished import STATE_FILE
from workbench.training.state import TrainState

DIGEST_FILE = "state.blake2b"
AGENT_FILE = "agent.pt"
"""The policy a run's mixer has learned, for `agent=` of another run's mixer."""


def save(folder: RunFolder, state: TrainState, *, keep: int) -> None:
    """Write the checkpoint of `state.step`, then remove all but the newest `keep`."""
    with folder.aside(folder.checkpoint_path(state.step)) as path:
        saved = {**state.state_dict(), "started_with": folder.config}
        torch.save(saved, path / STATE_FILE)
        (path / DIGEST_FILE).write_text(_digest(path / STATE_FILE))
    if isinstance(state.mixer, AgentMixer):
        with aside_file(folder.path / AGENT_FILE) as path:
            torch.save(state.mixer.agent_state(), path)
    folder.append("checkpoint", state.step)
    folder.keep_checkpoints(keep)


def load(folder: RunFolder, *, content_hash: str, step: int | None = None) -> dict[str, Any] | None:
    """The saved state of `step` (the newest when None), checked; None for a fresh start.

    Raises:
        RunError: the file does not match its checksum, or belongs to another config or corpus.
    """
    steps = folder.checkpoints()
    if step == 0 or (step is None and not steps):
        return None
    wanted = steps[-1] if step is None else step
    if wanted not in steps:
        raise RunError(
            f"{folder.path} has no checkpoint of step {wanted}",
            remedy=f"use one of: {', '.join(map(str, steps)) or 'none'}",
        )
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
    return saved


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
    differs = differences(folder.config, config.to_dict())
    if differs:
        raise RunError(
            f"{folder.path} holds a run of another config: {'; '.join(differs[:4])}",
            remedy="choose another name or folder",
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
