"""What a person asks of a running loop, handed over at step boundaries.

    controls = Controls()
    controls.pause(); controls.change({"temperature": 0.4}); controls.resume(); controls.stop()

The loop calls `take` between steps; every method may be called from any thread.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Asked:
    """What was asked since the loop last looked."""

    stop: bool = False
    paused: bool = False
    changes: list[dict[str, Any]] = field(default_factory=list)


class Controls:
    """A mailbox guarded by one condition; asking never blocks on a step."""

    def __init__(self):
        self._condition = threading.Condition()
        self._asked = Asked()

    def pause(self) -> None:
        with self._condition:
            self._asked.paused = True

    def resume(self) -> None:
        with self._condition:
            self._asked.paused = False
            self._condition.notify_all()

    def stop(self) -> None:
        with self._condition:
            self._asked.stop = True
            self._condition.notify_all()

    def change(self, changes: dict[str, Any]) -> None:
        with self._condition:
            self._asked.changes.append(changes)
            self._condition.notify_all()

    def waiting(self) -> list[dict[str, Any]]:
        """Changes asked for and not yet taken."""
        with self._condition:
            return list(self._asked.changes)

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for; for long work between two steps."""
        with self._condition:
            return self._asked.stop

    def take(self) -> Asked:
        """What is asked now; the changes are handed over once."""
        with self._condition:
            asked = Asked(self._asked.stop, self._asked.paused, self._asked.changes)
            self._asked.changes = []
            return asked

    def wait_while_paused(self, most_seconds: float | None = None) -> None:
        """Sleep until resumed, stopped, or given a change to apply; not longer than asked."""
        with self._condition:
            self._condition.wait_for(
                lambda: not self._asked.paused or self._asked.stop or self._asked.changes,
                timeout=most_seconds,
            )
