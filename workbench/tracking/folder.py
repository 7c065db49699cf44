"""RunFolder: a run on disk, readable at any instant and by anyone, written by one process.

    folder = RunFolder.create("runs/a", config=config.to_dict(), environment={"seed": 0})
    with folder.lock():
        folder.append("started", 0)

`config.json`, `events.jsonl`, `ledger/*.parquet`, `checkpoints/step_N/`, `selection/step_N/`,
`selection/pool/`, `summary.json`, `.lock`.
Files are written aside, forced to disk and renamed, or appended line by line.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np

from workbench.core import RunError
from workbench.tracking import durable, encoding, events, ledger, selection

Status = Literal["running", "paused", "finished", "stopped", "failed", "interrupted"]
_STEP = re.compile(r"step_(\d+)")
_LOCK_PATIENCE_SECONDS = 0.3
FORMAT = 1
"""Of what a run folder holds; raised when an older workbench could not read it."""


class RunFolder:
    """One run.  Make it with `create` or `open`; write to it under `lock`.

    A write outside `lock` takes the lock for its own duration.
    """

    def __init__(self, path: Path, config: dict[str, Any], environment: dict[str, Any]):
        self.path = path
        self.config = config
        self.environment = environment
        self.ledger = ledger.Ledger(path / "ledger")
        self._log = events.EventLog(path / "events.jsonl")
        self._lock_file: int | None = None
        self._turn = threading.RLock()

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r}, {self.status()})"

    @classmethod
    def create(
        cls, path: str | Path, *, config: dict[str, Any], environment: dict[str, Any]
    ) -> RunFolder:
        """A new run; the folder may exist but must not hold a run.

        Args:
            config: resolved settings, `RunConfig.to_dict()`.
            environment: versions, commit, seed, device, content hash of the corpus.
        Raises:
            RunError: the folder already holds a run, or cannot be written.
        """
        path = Path(path)
        if cls.holds_run(path):
            raise RunError(
                f"{path} already holds a run",
                remedy=f"choose another folder, or continue it: workbench resume {path}",
            )
        content = {
            "format": FORMAT,
            "created": time.time(),
            "config": config,
            "environment": environment,
        }
        with durable.writing(path, path):
            for part in ("ledger", "checkpoints"):
                (path / part).mkdir(parents=True, exist_ok=True)
            durable.write_file(path / "config.json", encoding.encode(content, indent=2))
        return cls.open(path)

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """An existing run, as it is; nothing is written.

        Raises:
            RunError: the folder is not a run, or its config.json cannot be read.
        """
        path = Path(path)
        if not cls.holds_run(path):
            raise RunError(f"{path} is not a run", remedy="give a folder that has a config.json")
        try:
            content = encoding.decode((path / "config.json").read_bytes())
            return cls(path, dict(content["config"]), dict(content["environment"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"cannot read {path / 'config.json'}: {error}",
                remedy="restore it from another run of the same settings",
            ) from None

    @staticmethod
    def holds_run(path: str | Path) -> bool:
        """Whether the folder itself is a run; an exported model also has a config.json."""
        path = Path(path)
        parts = ("events.jsonl", "ledger", "checkpoints")
        return (path / "config.json").is_file() and any((path / part).exists() for part in parts)

    # --- one writer ---

    @contextmanager
    def lock(self) -> Iterator[RunFolder]:
        """Be the only writer; clears what a killed writer left behind.

        Raises:
            RunError: another writer is at work; its process id is named.
        """
        self._acquire()
        try:
            with self._turn, durable.writing(self.path, self.path):
                self._log.repair()
                for part in ("", "ledger", "checkpoints", "selection"):
                    durable.clear_leftovers(self.path / part)
            yield self
        finally:
            self._release()

    def _acquire(self) -> None:
        path = self.path / ".lock"
        with durable.writing(path, self.path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._wait_for(descriptor)
            with durable.writing(path, self.path):
                os.pwrite(descriptor, f"{os.getpid():<20}\n".encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        self._lock_file = descriptor

    def _wait_for(self, descriptor: int) -> None:
        # `status` holds a shared lock for an instant; only a lasting one is a writer.
        deadline = time.monotonic() + _LOCK_PATIENCE_SECONDS
        while True:
            try:
                return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    owner = os.pread(descriptor, 20, 0).decode().strip() or "unknown"
                    raise RunError(
                        f"{self.path} is being written by process {owner}",
                        remedy="stop that run, or wait until it ends",
                    ) from None
                time.sleep(0.01)

    def _release(self) -> None:
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    @contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        with self._turn, self._locked(), durable.writing(path, self.path):
            yield

    def _locked(self) -> AbstractContextManager[Any]:
        return self.lock() if self._lock_file is None else nullcontext()

    def _has_writer(self) -> bool:
        if self._lock_file is not None:
            return True
        try:
            descriptor = os.open(self.path / ".lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    # --- events ---

    def append(self, kind: str, step: int, **fields: Any) -> None:
        """Write one event; see `append_many`."""
        self.append_many([{"kind": kind, "step": step, **fields}])

    def append_many(self, new_events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Write events in one go, each with `kind`, `step` and the fields of its kind.

        Returns them as written, with their time.

        All kinds but `step` and `held_out` are forced to disk.

        Raises:
            RunError: an event is not valid (nothing is written), or the disk is full (the file
                is as it was before).
        """
        checked = [events.event(**item) for item in new_events]
        with self._writing(self._log.path):
            self._log.write(checked)
        return checked

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Complete events in the order written, all or of one kind."""
        return self._log.read(kind)

    def follow(self, position: int = 0) -> tuple[list[dict[str, Any]], int]:
        """Events written since `position`, and the next position; cheap enough to poll.

        Positions are opaque, 0 is the start.  After a `rewind` all events are given again from
        `started` on, and those held from before are void.
        """
        return self._log.follow(position)

    def status(self) -> Status:
        """What the run is doing; `interrupted` when its writer died without an end event."""
        last = self._log.last_lifecycle()
        if last == "finished" or last == "stopped" or last == "failed":
            return last
        if not self._has_writer():
            return "interrupted"
        return "paused" if last == "paused" else "running"

    # --- ledger ---

    def write_ledger(
        self, columns: Mapping[str, np.ndarray], first_step: int, last_step: int
    ) -> None:
        """Add the rows of `first_step`..`last_step`, both included, as one part.

        Raises:
            RunError: wrong columns, steps already written, or the disk is full.
        """
        path = self.path / "ledger" / ledger.part_name(first_step, last_step)
        with self._writing(path):
            path.parent.mkdir(exist_ok=True)
            ledger.write_part(path.parent, columns, first_step, last_step)

    # --- checkpoints ---

    def checkpoints(self) -> list[int]:
        """Steps with a complete checkpoint, ascending."""
        return self._steps_in("checkpoints")

    def _steps_in(self, part: str) -> list[int]:
        folder = self.path / part
        names = os.listdir(folder) if folder.is_dir() else []
        return sorted(int(match[1]) for name in names if (match := _STEP.fullmatch(name)))

    def checkpoint_path(self, step: int) -> Path:
        """Folder of the checkpoint taken before step `step` ran, whether it exists or not."""
        return self.path / "checkpoints" / f"step_{step:09d}"

    def aside(self, path: str | Path) -> AbstractContextManager[Path]:
        """Yield an empty folder to fill; it becomes `path` whole, or not at all.

        Events are forced to disk first, so no checkpoint is ahead of the record.
        """
        return self._aside(Path(path))

    @contextmanager
    def _aside(self, path: Path) -> Iterator[Path]:
        # Without `_turn`: a click on Pause must not wait until a large model is written.
        with (
            self._locked(),
            durable.writing(path, self.path),
            durable.aside_folder(path) as folder,
        ):
            yield folder
            self._log.sync()

    def keep_checkpoints(self, newest: int) -> None:
        """Remove all but the `newest` checkpoints."""
        for step in self.checkpoints()[: -max(1, newest)]:
            with self._writing(self.checkpoint_path(step)):
                durable.remove_folder(self.checkpoint_path(step))

    def rewind(self, step: int, *, keep_changes: bool = True) -> None:
        """Make the record end where the checkpoint of `step` was taken, ready to resume there.

        Drops `step` and `held_out` events and ledger rows with step >= `step`, later checkpoints,
        selections and downstream results, and the summary.  Control events stay, so that a `set`
        still to come is applied again; without `keep_changes`, those of `step` and later go too.
        Killed at any moment, it can be repeated with the same result.

        Raises:
            RunError: there is no checkpoint of `step` (0 needs none).
        """
        if step > 0 and step not in self.checkpoints():
            raise RunError(
                f"{self.path} has no checkpoint of step {step}",
                remedy=f"choose one of: {', '.join(map(str, self.checkpoints())) or '0'}",
            )
        with self._writing(self.path):
            # Later checkpoints go first and newest first: whichever is then the latest, all
            # events and rows before it are still there.
            for later in reversed([s for s in self.checkpoints() if s > step]):
                durable.remove_folder(self.checkpoint_path(later))
            for part in ("selection", "downstream"):
                for later in reversed([s for s in self._steps_in(part) if s > step]):
                    durable.remove_folder(self.path / part / f"step_{later:09d}")
            (self.path / "summary.json").unlink(missing_ok=True)
            ledger.rewind(self.path / "ledger", step)
            self._log.rewind(step, keep_changes=keep_changes)

    # --- selections ---

    def write_selection(
        self, step: int, tables: Mapping[str, Mapping[str, Any]], manifest: Mapping[str, Any]
    ) -> None:
        """What a selector chose before `step`: selection/step_N/, one parquet file a table.

        Raises:
            RunError: the columns of a table differ in length, or the disk is full.
        """
        path = self.path / "selection" / f"step_{step:09d}"
        with self._aside(path) as aside:
            selection.write_tables(aside, tables)
            (aside / "manifest.json").write_bytes(encoding.encode(dict(manifest), indent=2))

    def write_pool(self, tables: Mapping[str, Mapping[str, Any]]) -> None:
        """What a selector that is at work knows of its pool: selection/pool/, replaced each time.

        Raises:
            RunError: the columns of a table differ in length, or the disk is full.
        """
        with self._aside(self.path / "selection" / "pool") as aside:
            selection.write_tables(aside, tables)

    def pool(self) -> selection.SelectionRecord | None:
        """The pool of the choice being made, or of the last one; None before a selector told."""
        path = self.path / "selection" / "pool"
        return selection.SelectionRecord(path) if path.is_dir() else None

    def selections(self) -> list[int]:
        """Steps before which a selector chose, ascending."""
        return self._steps_in("selection")

    def selection(self, step: int | None = None) -> selection.SelectionRecord:
        """A selector's choice, the last one when `step` is None.

        Raises:
            RunError: nothing was chosen before that step.
        """
        steps = self.selections()
        wanted = step if step is not None or not steps else steps[-1]
        if wanted not in steps:
            raise RunError(
                f"{self.path} has no selection" + ("" if wanted is None else f" of step {wanted}"),
                remedy=f"choose one of: {', '.join(map(str, steps))}"
                if steps
                else "set RunConfig.selector, such as selector='quad'",
            )
        return selection.SelectionRecord(self.path / "selection" / f"step_{wanted:09d}")

    # --- summary ---

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write or replace summary.json in one step."""
        path = self.path / "summary.json"
        with self._writing(path):
            durable.write_file(path, encoding.encode(dict(summary), indent=2))

    def summary(self) -> dict[str, Any] | None:
        """The summary, or None while there is none."""
        try:
            return encoding.decode((self.path / "summary.json").read_bytes())
        except FileNotFoundError:
            return None


def find_runs(
    root: str | Path, *, unreadable: Callable[[Path, RunError], Any] | None = None
) -> list[RunFolder]:
    """All runs at or below a folder, by path.

    Args:
        unreadable: told the path and the reason of a run that cannot be opened, which is then left
            out of the result.
    Raises:
        RunError: a run cannot be opened and there is no `unreadable` to tell.
    """
    configs = Path(root).rglob("config.json")
    runs = []
    for path in sorted(path.parent for path in configs if RunFolder.holds_run(path.parent)):
        try:
            runs.append(RunFolder.open(path))
        except RunError as error:
            if unreadable is None:
                raise
            unreadable(path, error)
    return runs
