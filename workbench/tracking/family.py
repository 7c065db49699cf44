"""A run with its parents and forks, as far as they lie in one folder.

for member in family(run.folder): print("  " * member.depth, member.path.name, member.step)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.core import RunError
from workbench.tracking.folder import RunFolder


@dataclass(frozen=True)
class Member:
    """depth: 0 for the first run, one more for each fork of a fork; step: where it left its parent,
    None for the first; changes: what it changed there."""

    run: RunFolder
    depth: int
    step: int | None
    changes: Mapping[str, Any]

    @property
    def path(self) -> Path:
        return self.run.path

    @property
    def said(self) -> str:
        """The changes in words, policies by their names."""
        named = {
            name: value.get("name", value) if isinstance(value, Mapping) else value
            for name, value in self.changes.items()
        }
        return ", ".join(f"{name} = {value}" for name, value in named.items()) or "no change"

    @property
    def parent(self) -> str | None:
        return origin(self.run).get("parent")


def origin(run: RunFolder) -> Mapping[str, Any]:
    """`parent`, `step` and `changes` of a fork; empty for a run of its own."""
    return run.environment.get("forked", {})


def family(run: RunFolder, opened: Callable[[Path], RunFolder] = RunFolder.open) -> list[Member]:
    """The first run, then its forks by step, each followed by its own forks.

    A parent that was removed leaves its forks as first runs of their own.

    Args:
        opened: from the path of a folder to its run; whoever asks often may remember them.
    """
    siblings = {each.path.name: each for each in _beside(run, opened)} | {run.path.name: run}
    first, seen = run, {run.path.name}
    while (parent := siblings.get(origin(first).get("parent", ""))) is not None:
        # A new run under the name of one that was removed may be its own ancestor.
        if parent.path.name in seen:
            break
        first = parent
        seen.add(first.path.name)
    forks: dict[str, list[RunFolder]] = {}
    for each in siblings.values():
        if "parent" in origin(each):
            forks.setdefault(origin(each)["parent"], []).append(each)

    told: set[str] = set()

    def members(one: RunFolder, depth: int) -> Iterator[Member]:
        if one.path.name in told:
            return
        told.add(one.path.name)
        came = origin(one) if depth else {}
        yield Member(one, depth, came.get("step"), came.get("changes", {}))
        for each in sorted(forks.get(one.path.name, []), key=lambda f: (origin(f)["step"], f.path)):
            yield from members(each, depth + 1)

    return list(members(first, 0))


def _beside(run: RunFolder, opened: Callable[[Path], RunFolder]) -> Iterator[RunFolder]:
    for config in sorted(run.path.parent.glob("*/config.json")):
        if RunFolder.holds_run(config.parent):
            try:
                yield opened(config.parent)
            except RunError:
                # Another folder's damage is no matter of this run's.
                continue
