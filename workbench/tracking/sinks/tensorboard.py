"""TensorBoard: event files in `<run>/tensorboard/`, or below a folder of your own.

build("tensorboard", "runs/run")                       # tensorboard --logdir runs
build("tensorboard", "runs/run", folder="board")       # board/run/

A rewound run needs no new place: a session that starts at a step voids what lies behind it.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.tracking.folder import RunFolder


def require() -> None:
    """Raise ImportError unless the package is there."""
    import tensorboard.summary  # noqa: F401  # pyright: ignore[reportMissingImports]


class TensorBoard:
    """Args: folder: holds the run's folder of event files; inside the run's own when None."""

    def __init__(self, *, folder: str | Path | None = None):
        self._folder = folder
        self._path = Path()
        self._writer: Any = None

    def open(self, folder: RunFolder, state: dict[str, Any]) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter  # pyright: ignore[reportMissingImports]

        inside = folder.path / "tensorboard"
        self._path = inside if self._folder is None else Path(self._folder) / folder.path.name
        fresh = not state["sent"] and not state["told"]
        self._writer = EventFileWriter(str(self._path))
        # A killed writer may have sent more than it knows of: that is given again.
        first = max([state["told_step"], *state["sent"].values()]) + 1
        if not fresh:
            self._session(first)
            return
        lines = json.dumps({"config": folder.config, "environment": folder.environment}, indent=2)
        self.text("config", f"```\n{lines}\n```", 0, _created(folder))

    def branch(self, step: int, state: dict[str, Any]) -> bool:
        self._session(step)
        return False

    def scalars(self, values: Mapping[str, float], step: int, unix_seconds: float) -> None:
        summary = _proto("summary").Summary
        found = [summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(step, unix_seconds, summary=summary(value=found))

    def text(self, tag: str, line: str, step: int, unix_seconds: float) -> None:
        summary, tensor = _proto("summary"), _proto("tensor").TensorProto
        plugin = summary.SummaryMetadata.PluginData(plugin_name="text")
        value = summary.Summary.Value(
            tag=f"{tag}/text_summary",
            metadata=summary.SummaryMetadata(plugin_data=plugin),
            tensor=tensor(dtype=_proto("types").DT_STRING, string_val=[line.encode()]),
        )
        self._write(step, unix_seconds, summary=summary.Summary(value=[value]))

    def flush(self) -> None:
        self._writer.flush()

    def close(self, outcome: str, summary: Mapping[str, Any] | None) -> None:
        del outcome, summary
        self._writer.close()

    def _session(self, step: int) -> None:
        """From here on, what was written of `step` and later counts no more."""
        log = _proto("event").SessionLog
        self._write(step, time.time(), session_log=log(status=log.START))

    def _write(self, step: int, unix_seconds: float, **content: Any) -> None:
        self._writer.add_event(_proto("event").Event(wall_time=unix_seconds, step=step, **content))


def _proto(name: str) -> Any:
    return importlib.import_module(f"tensorboard.compat.proto.{name}_pb2")


def _created(folder: RunFolder) -> float:
    started = folder.events("started")
    return started[0]["time"] if started else 0.0


BACKEND = TensorBoard
