"""The forks of a run as rows of a panel, looked for now and then.

rows = ForkRows(run.folder)
rows.now()              # [] for a run without forks

Many runs may lie in one folder, so what has not changed since the last look is not read again.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from workbench.tracking import RunFolder
from workbench.tracking.family import Member, family

LOOK_SECONDS = 2.0
"""A panel asks several times a second; folders appear when a person makes one."""
_LIVE = ("running", "paused")
"""A run of these may end without writing: its process was killed."""

Stamp = tuple[int, int, int]
"""Of a file: inode, time of change in ns, bytes."""


class ForkRows:
    """Keeps what it found for `LOOK_SECONDS`, and what it read of a run until its files change."""

    def __init__(self, run: RunFolder):
        self._run, self._rows = run, []
        self._looked = -LOOK_SECONDS
        self._opened: dict[Path, tuple[Stamp | None, RunFolder]] = {}
        self._told: dict[Path, tuple[Stamp | None, dict[str, Any]]] = {}

    def now(self) -> list[dict[str, Any]]:
        """One row a member of the family, parents before their forks."""
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            members = family(self._run, self._open)
            self._rows = [self._row(each) for each in members] if len(members) > 1 else []
            self._looked = time.monotonic()
        return self._rows

    def _open(self, path: Path) -> RunFolder:
        stamp = _stamp(path / "config.json")
        known = self._opened.get(path)
        if known is None or known[0] != stamp:
            known = self._opened[path] = (stamp, RunFolder.open(path))
        return known[1]

    def _row(self, member: Member) -> dict[str, Any]:
        left = "" if member.step is None else f"from step {member.step}: {member.said}"
        return {
            "name": member.path.name,
            "depth": member.depth,
            "left": left,
            "shown": member.path.name == self._run.path.name,
            **self._standing(member.run),
        }

    def _standing(self, run: RunFolder) -> dict[str, Any]:
        """`status` and `held_out_nats` of a run."""
        stamp, known = _stamp(run.path / "events.jsonl"), self._told.get(run.path)
        if known is None or known[0] != stamp or known[1]["status"] in _LIVE:
            status = run.status()
            summary = (run.summary() if status == "finished" else None) or {}
            nats = summary.get("held_out_mean_nats")
            known = self._told[run.path] = (stamp, {"status": status, "held_out_nats": nats})
        return known[1]


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
