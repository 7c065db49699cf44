"""The forks of a run as rows of a panel, looked for now and then.

rows = ForkRows(run.folder)
rows.now()              # [] for a run without forks
"""

from __future__ import annotations

import time
from typing import Any

from workbench.tracking import RunFolder
from workbench.tracking.family import Member, family

LOOK_SECONDS = 2.0
"""A panel asks several times a second; folders appear when a person makes one."""


class ForkRows:
    """Keeps what it found for `LOOK_SECONDS`."""

    def __init__(self, run: RunFolder):
        self._run, self._rows = run, []
        self._looked = -LOOK_SECONDS

    def now(self) -> list[dict[str, Any]]:
        """One row a member of the family, parents before their forks."""
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            members = family(self._run)
            self._rows = [self._row(each) for each in members] if len(members) > 1 else []
            self._looked = time.monotonic()
        return self._rows

    def _row(self, member: Member) -> dict[str, Any]:
        status, summary = member.run.status(), member.run.summary() or {}
        left = "" if member.step is None else f"from step {member.step}: {member.said}"
        nats = summary.get("held_out_mean_nats") if status == "finished" else None
        return {
            "name": member.path.name,
            "depth": member.depth,
            "left": left,
            "status": status,
            "held_out_nats": nats,
            "shown": member.path.name == self._run.path.name,
        }
