"""A run that shares its first steps with another and then goes another way.

    other = fork(run.folder, 50, {"mixer": "exp3"})     # a folder beside the run's, ready to resume
    run.fork(50, mixer="exp3")                          # the same, and trains it

Nothing of the shared steps is computed again where the parent has a checkpoint of the step; from an
older checkpoint the steps between are.  Data order and random streams are functions of seed and
step, so a fork with nothing changed repeats its parent to the bit on a CPU.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from workbench.config import RunConfig
from workbench.config.run import POLICY_SLOTS
from workbench.core import RunError
from workbench.data import PreparedCorpus
from workbench.tracking import RunFolder
from workbench.tracking.branch import branch
from workbench.training.changes import check_change, plain_changes

RECHOOSING = ("selector", "selection")
_NOT_OF_A_NAME = re.compile(r"[^\w.=-]+")


def fork(
    parent: RunFolder,
    step: int,
    changes: Mapping[str, Any],
    corpus: PreparedCorpus,
    *,
    name: str | None = None,
) -> RunFolder:
    """Make the folder of a fork beside its parent's; whole, or not at all.

    Changes that were made to the parent at `step` or later are made in the fork too, except in the
    settings that the fork changes itself.  Without a checkpoint of `step` it is warned of the steps
    that are trained again.

    Args:
        step: the first step that is the fork's own; the parent may still be training.
        changes: settings as in `Run.set`; also a selector, which then chooses before `step`.
        name: of the folder; made of the parent's name, the step and the changes when None.
    Raises:
        WorkbenchError: a step the parent has not reached, or a change that does not fit.
        RunError: a folder of that name is there.
    """
    done = steps_done(parent)
    if not 0 <= step <= done:
        raise RunError(
            f"{parent.path} has done {done} steps, so it cannot be forked at step {step}",
            remedy=f"choose a step from 0 to {done}",
        )
    before = settings_before(parent, step)
    plain = {before.dotted(name): value for name, value in plain_changes(changes).items()}
    later = list(_kept_changes(parent, step, {_part(name) for name in plain}))
    settings = before
    for each in ([plain] if plain else []) + [event["changes"] for event in later]:
        settings = check_change(settings, each, corpus)
    path = _path(parent, step, plain, name)
    base = max((s for s in parent.checkpoints() if s <= step), default=0)
    origin = {"parent": parent.path.name, "step": step, "changes": plain}
    _warn_of_repeated(parent, base, step)
    try:
        return branch(
            parent,
            path,
            base,
            config={**parent.config, "name": path.name},
            environment={**parent.environment, "forked": origin},
            changes=[
                *(event for event in _changes(parent) if event["step"] < step),
                *([{"kind": "set", "step": step, "changes": plain}] if plain else []),
                *later,
            ],
            rechooses=base == step and any(_part(name) in RECHOOSING for name in plain),
        )
    except FileNotFoundError as error:
        raise RunError(
            f"{error.filename} was removed while {parent.path} was being forked",
            remedy="fork again, or raise keep_checkpoints",
        ) from None


def _warn_of_repeated(parent: RunFolder, base: int, step: int) -> None:
    if base < step:
        warnings.warn(
            f"{parent.path.name} has no checkpoint of step {step}: its fork trains again from step "
            f"{base} (checkpoint_every_steps and keep_checkpoints say which there are)",
            stacklevel=3,
        )


def steps_done(run: RunFolder) -> int:
    """Steps that are recorded."""
    steps = run.events("step")
    return steps[-1]["step"] + 1 if steps else 0


def settings_before(run: RunFolder, step: int) -> RunConfig:
    """The settings in force when `step` begins, before what is changed at `step` itself."""
    config = RunConfig(**run.config)
    for event in _changes(run):
        if event["step"] < step:
            config = config.change(**event["changes"])
    return config


def _changes(run: RunFolder) -> list[dict[str, Any]]:
    return sorted(run.events("set"), key=lambda event: event["step"])


def _kept_changes(
    parent: RunFolder, step: int, touched: Collection[str]
) -> Iterator[dict[str, Any]]:
    """Changes of `step` and later in what the fork does not change, by full names."""
    config = RunConfig(**parent.config)
    for event in _changes(parent):
        named = {config.dotted(name): value for name, value in event["changes"].items()}
        config = config.change(**event["changes"])
        kept = {name: value for name, value in named.items() if _part(name) not in touched}
        if kept and event["step"] >= step:
            yield {**event, "changes": kept}


def _part(name: str) -> str:
    """What a full name belongs to: a policy's slot, the selection, or the setting itself."""
    slot = name.split(".")[0]
    return slot if slot in (*POLICY_SLOTS, "selection") else name


def _path(parent: RunFolder, step: int, changes: Mapping[str, Any], name: str | None) -> Path:
    siblings = parent.path.parent
    if name is not None and Path(name).name != name:
        raise RunError(
            f"'{name}' is no name of a folder", remedy="a fork lies beside its parent; give a name"
        )
    if name is not None:
        return siblings / name
    label = "-".join(_word(key, value) for key, value in changes.items()) or "again"
    first = siblings / f"{parent.path.name}-{step}-{_NOT_OF_A_NAME.sub('_', label)[:60]}"
    tries = (first.with_name(f"{first.name}-{i}") for i in range(2, 10_000))
    return first if not first.exists() else next(path for path in tries if not path.exists())


def _word(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return str(value.get("name", name))
    return str(value) if isinstance(value, str) else f"{name.split('.')[-1]}={value}"
