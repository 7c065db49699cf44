"""What happened in a run, one JSON object a line, and the schema of those objects.

    log = EventLog(run / "events.jsonl")
    log.write([event("set", step=40, changes={"temperature": 0.4})])

Unknown kinds are refused when written and passed on when read, so that an older workbench can
read a newer folder.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from workbench.core import RunError, unknown_name
from workbench.tracking.durable import aside_file, sync
from workbench.tracking.encoding import decode, encode

REQUIRED_FIELDS: dict[str, tuple[str, ...]] = {
    "started": (),
    "resumed": (),
    "step": (
        "loss",
        "weighted_loss",
        "lr",
        "grad_norm",
        "tokens",
        "seconds",
        "ess_fraction",
        "max_weight",
        "mixture",
        "weight_share",
        "sample_share",
        "domain_loss",
    ),
    "held_out": ("losses", "mean_nats"),
    "checkpoint": (),
    "selecting": ("stage", "done", "total"),
    "selected": ("rows", "tokens", "budget_tokens", "seconds", "domains"),
    "set": ("changes",),
    "paused": (),
    "unpaused": (),
    "stopped": (),
    "finished": (),
    "failed": ("problem", "remedy"),
    "warning": ("message",),
}
"""Fields each kind must carry beside `kind`, `step` and `time`; others are welcome."""

MEASUREMENTS = frozenset({"step", "held_out"})
"""Kinds that the loop writes again when it resumes; all others are history and stay."""
AT_BOUNDARY = frozenset({"checkpoint", "selecting", "selected"})
"""Kinds that a checkpoint of their own step has behind it: a rewind drops those of later steps."""
ENDS = frozenset({"stopped", "finished", "failed"})
"""How a run ends; it may be resumed after each."""
LIFECYCLE = ENDS | {"started", "resumed", "paused", "unpaused"}

_OFFSET_BITS = 40
_FILE_BITS = 22


def event(kind: str, step: int, **fields: Any) -> dict[str, Any]:
    """A checked event; `time` (unix seconds) is now unless given.

    Raises:
        RunError: unknown kind, a required field is missing, or the step is not a count.
    """
    if kind not in REQUIRED_FIELDS:
        problem, remedy = unknown_name("event kind", kind, REQUIRED_FIELDS)
        raise RunError(problem, remedy=remedy)
    missing = [name for name in REQUIRED_FIELDS[kind] if name not in fields]
    if missing:
        raise RunError(
            f"event '{kind}' of step {step} lacks {', '.join(missing)}",
            remedy=f"give {', '.join(REQUIRED_FIELDS[kind])}",
        )
    if not isinstance(step, (int, np.integer)) or isinstance(step, bool) or step < 0:
        raise RunError(
            f"event '{kind}' has step {step!r}", remedy="give the optimiser step, counted from 0"
        )
    return {"kind": kind, "step": int(step), "time": fields.pop("time", time.time()), **fields}


class EventLog:
    """The append-only file of events; several threads of one writer must take turns."""

    def __init__(self, path: Path):
        self.path = path
        self._last_lifecycle: str | None = None
        self._scanned = 0

    def write(self, events: Sequence[dict[str, Any]]) -> None:
        """Append events in one write; on failure the file is as it was."""
        lines = b"".join(encode(item) for item in events)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            before = os.fstat(descriptor).st_size
            try:
                _write_all(descriptor, lines)
                if any(item["kind"] not in MEASUREMENTS for item in events):
                    os.fsync(descriptor)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(descriptor, before)
                raise
        finally:
            os.close(descriptor)

    def sync(self) -> None:
        """Force everything written so far to disk."""
        if self.path.exists():
            sync(self.path)

    def read(self, kind: str | None = None) -> list[dict[str, Any]]:
        """All complete events, or those of one kind, in the order written."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        return list(_decode_lines(content, self.path, None if kind is None else {kind}))

    def follow(self, position: int = 0) -> tuple[list[dict[str, Any]], int]:
        """Complete events written since `position`, and the position after them.

        A position is opaque; 0 is the start.  After a rewind, everything is given from the start
        again: the first event is then `started`, and what was held before is void.
        """
        content, position = self._new_bytes(position)
        return list(_decode_lines(content, self.path)), position

    def last_lifecycle(self) -> str | None:
        """The last of `LIFECYCLE` to be written; reads only what is new since the last call."""
        before = self._scanned
        content, self._scanned = self._new_bytes(before)
        if self._scanned >> _OFFSET_BITS != before >> _OFFSET_BITS:
            self._last_lifecycle = None
        for item in _decode_lines(content, self.path, LIFECYCLE):
            self._last_lifecycle = item["kind"]
        return self._last_lifecycle

    def _new_bytes(self, position: int) -> tuple[bytes, int]:
        offset, known_file = position & (2**_OFFSET_BITS - 1), position >> _OFFSET_BITS
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return b"", 0
        with file:
            status = os.fstat(file.fileno())
            # The inode tells a rewound file, which is a new one, from one that only grew.
            this_file = status.st_ino % 2**_FILE_BITS
            if this_file != known_file or offset > status.st_size:
                offset = 0
            file.seek(offset)
            content = file.read()
        content = content[: content.rfind(b"\n") + 1]
        return content, this_file << _OFFSET_BITS | offset + len(content)

    def repair(self) -> None:
        """Cut off a last line that a killed writer did not finish."""
        if not self.path.is_file():
            return
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        while whole and not _is_json(last := whole[whole.rfind(b"\n", 0, -1) + 1 :]):
            whole = whole[: -len(last)]
        if len(whole) < len(content):
            os.truncate(self.path, len(whole))
            sync(self.path)

    def rewind(self, step: int, *, keep_changes: bool = True) -> None:
        """Drop measurements of `step` and later, and what was done at boundaries after it."""
        gone = MEASUREMENTS if keep_changes else MEASUREMENTS | {"set"}
        kept = [item for item in self.read() if not _is_future(item, step, gone)]
        with aside_file(self.path) as temporary:
            temporary.write_bytes(b"".join(encode(item) for item in kept))


def _is_future(item: dict[str, Any], step: int, kinds: frozenset[str]) -> bool:
    if item["kind"] in AT_BOUNDARY:
        return item["step"] > step
    return item["kind"] in kinds and item["step"] >= step


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]


def _decode_lines(
    content: bytes, path: Path, kinds: Iterable[str] | None = None
) -> Iterator[dict[str, Any]]:
    wanted = None if kinds is None else {kind: f'"{kind}"'.encode() for kind in kinds}
    # What follows the last newline is a line still being written.
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        if wanted is not None and not any(name in line for name in wanted.values()):
            continue
        try:
            item = decode(line)
        except ValueError:
            raise RunError(
                f"{path} is damaged at line {number}", remedy="delete that line and resume"
            ) from None
        if wanted is None or item["kind"] in wanted:
            yield item


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(decode(line), dict)
    except ValueError:
        return False


def symmetric(triangle: Sequence[float | None], width: int) -> np.ndarray:
    """The matrix of which an event keeps the upper triangle, (width, width); NaN for null."""
    matrix = np.zeros((width, width))
    matrix[np.triu_indices(width)] = np.array(triangle, dtype=float)
    return matrix + np.triu(matrix, 1).T
