"""A sink follows a run's folder and passes on what is new; it never ends or slows a run for long.

    sink = build("mlflow", "runs/run")                 # a callback of the loop
    sink.on_events(())                                 # passes on everything not yet sent

What was sent is kept in `sinks/<name>.json` of the run.  A resumed run goes on in the same place:
steps trained again under the same settings are not sent again.  Where an earlier step is trained
again under other settings, what was sent of it is void, and the backend branches.
"""

from __future__ import annotations

import importlib
import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from workbench.core import ConfigError, WorkbenchError, unknown_name
from workbench.tracking.durable import write_file
from workbench.tracking.events import ENDS
from workbench.tracking.folder import RunFolder
from workbench.tracking.sinks.flat import MEASURED, scalars, text

RETRY_SECONDS = 30.0
"""Least time between two tries after a failure."""
SINKS = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
"""Names, and the extra of this package that installs what each needs."""


class Backend(Protocol):
    """Where a sink sends; every method may fail, and is then tried again later."""

    def open(self, folder: RunFolder, state: dict[str, Any]) -> None:
        """Begin, or go on where `state` says; writes into `state` what finds the place again."""
        ...

    def branch(self, step: int, state: dict[str, Any]) -> bool:
        """Void what was sent of `step` and later; True when all has to be sent again."""
        ...

    def scalars(self, values: Mapping[str, float], step: int, unix_seconds: float) -> None: ...

    def text(self, tag: str, line: str, step: int, unix_seconds: float) -> None: ...

    def flush(self) -> None: ...

    def close(self, outcome: str, summary: Mapping[str, Any] | None) -> None: ...


class Sink:
    """A callback that passes a run's record on to a backend; see the module."""

    def __init__(self, name: str, path: str | Path, make: Callable[[], Backend]):
        self.name, self.path = name, Path(path)
        self._make = make
        self._backend: Backend | None = None
        self._folder: RunFolder | None = None
        self._position = 0
        self._state: dict[str, Any] = {}
        self._warned, self._retry_at = False, 0.0

    def on_step(self, outcome: Any) -> None:
        """Nothing: the hot loop is left alone."""

    def on_events(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Pass on what the folder has and was not sent; a failure is a warning, once."""
        ended = any(event["kind"] in ENDS for event in events)
        if time.monotonic() < self._retry_at and not ended:
            return
        try:
            self._pass_on()
        except Exception as error:  # whatever a disk, a network or another package raises
            self._retry_at = time.monotonic() + RETRY_SECONDS
            if not self._warned:
                self._warned = True
                warnings.warn(
                    f"sink '{self.name}' failed: {type(error).__name__}: {error}; the run goes on "
                    f"and its record stays whole in {self.path}; what is missing there is sent "
                    "when the sink works again, or by a resume with it",
                    stacklevel=2,
                )

    def _pass_on(self) -> None:
        backend, folder = self._opened()
        events, position = folder.follow(self._position)
        for event in events:
            if not self._known(event):
                self._send(backend, event)
        # Only now, so that a failure half-way gives the rest again; `_known` drops what was sent.
        self._position = position
        backend.flush()
        write_file(self._state_path, json.dumps(self._state).encode())
        if events and events[-1]["kind"] in ENDS:
            backend.close(events[-1]["kind"], folder.summary())
            self._backend = None

    def _opened(self) -> tuple[Backend, RunFolder]:
        if self._backend is not None and self._folder is not None:
            return self._backend, self._folder
        self._folder = RunFolder.open(self.path)
        self._state_path.parent.mkdir(exist_ok=True)
        self._state = _read(self._state_path)
        backend = self._make()
        backend.open(self._folder, self._state)
        self._backend, self._position = backend, 0
        return backend, self._folder

    @property
    def _state_path(self) -> Path:
        return self.path / "sinks" / f"{self.name}.json"

    def _known(self, event: Mapping[str, Any]) -> bool:
        """Whether it was sent: measurements by their step, all else by its time."""
        if event["kind"] in MEASURED:
            return event["step"] <= self._state["sent"].get(event["kind"], -1)
        return event["time"] <= self._state["told"]

    def _send(self, backend: Backend, event: Mapping[str, Any]) -> None:
        first_void = self._first_void(event)
        if first_void is not None:
            self._branch(backend, first_void, event)
        self._pass(backend, event)

    def _pass(self, backend: Backend, event: Mapping[str, Any]) -> None:
        step, kind = event["step"], event["kind"]
        values, line = scalars(event), text(event)
        if values:
            backend.scalars(values, step, event["time"])
        if line is not None:
            backend.text(kind, line, step, event["time"])
        if kind in MEASURED:
            self._state["sent"][kind] = step
        else:
            self._state["told"] = event["time"]
            self._state["told_step"] = step

    def _first_void(self, event: Mapping[str, Any]) -> int | None:
        """The first step already sent that is trained again under other settings, if any."""
        sent = max(self._state["sent"].values(), default=-1)
        if event["kind"] == "resumed" and event.get("superseded"):
            first = min(change["step"] for change in event["superseded"])
        elif event["kind"] == "set":
            first = event["step"]
        else:
            return None
        return first if first <= sent else None

    def _branch(self, backend: Backend, step: int, cause: Mapping[str, Any]) -> None:
        """Void `step` and later; send what the record has of them, or of all, before `cause`."""
        assert self._folder is not None
        again = backend.branch(step, self._state)
        sent = self._state["sent"]
        self._state["sent"] = (
            {} if again else {kind: min(at, step - 1) for kind, at in sent.items()}
        )
        for event in self._folder.events():
            if event["kind"] == cause["kind"] and event["time"] == cause["time"]:
                return
            # What was told of steps that are void now would lie in the future of the new run.
            due = again if event["step"] < step else event["kind"] in MEASURED
            if due:
                self._pass(backend, event)


def build(name: str, path: str | Path, **options: Any) -> Sink:
    """A sink for the run in (or to be in) the folder `path`, for `callbacks=[…]`.

    Args:
        name: `tensorboard`, `wandb` or `mlflow`.
        options: of the backend, see its module.
    Raises:
        ConfigError: unknown name, unknown option, or a package that is not installed.
    """
    if name not in SINKS:
        problem, remedy = unknown_name("sink", name, SINKS)
        raise ConfigError(problem, remedy=remedy)
    module = importlib.import_module(f"workbench.tracking.sinks.{name}")
    try:
        module.require()
    except ImportError as error:
        raise ConfigError(
            f"sink '{name}' needs a package that is not installed: {error}",
            remedy=f"pip install 'workbench[{SINKS[name]}]'",
        ) from None
    try:
        module.BACKEND(**options)
    except TypeError as error:
        raise ConfigError(f"sink '{name}': {error}", remedy="leave that option out") from None
    return Sink(name, path, lambda: module.BACKEND(**options))


def _read(path: Path) -> dict[str, Any]:
    fresh = {"sent": {}, "told": 0.0, "told_step": -1}
    try:
        return {**fresh, **json.loads(path.read_text())}
    except FileNotFoundError:
        return fresh
    except ValueError:
        raise WorkbenchError(
            f"{path} is damaged", remedy="delete it; the sink then starts another run"
        ) from None
