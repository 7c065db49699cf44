"""A run folder as it is seen by the processes of a run that do not write it.

folder = RunMirror.open(path)          # reads like a RunFolder; what is written goes nowhere
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from workbench.tracking import events
from workbench.tracking.folder import RunFolder


class RunMirror(RunFolder):
    """Takes every call of a writer and leaves the folder to the one process that writes it."""

    @contextmanager
    def lock(self) -> Iterator[RunFolder]:
        yield self

    def append_many(self, new_events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The events as they would be written."""
        return [events.event(**item) for item in new_events]

    def write_ledger(self, columns: Any, first_step: int, last_step: int) -> None: ...

    def aside(self, path: str | Path) -> AbstractContextManager[Path]:
        """Raise: whoever writes a whole folder has to know who does."""
        raise NotImplementedError(f"{path} is written by the leading process alone")

    def keep_checkpoints(self, newest: int) -> None: ...

    def rewind(self, step: int, *, keep_changes: bool = True) -> None: ...

    def write_selection(self, step: int, tables: Any, manifest: Any) -> None: ...

    def write_pool(self, tables: Any) -> None: ...

    def write_summary(self, summary: Mapping[str, Any]) -> None: ...
