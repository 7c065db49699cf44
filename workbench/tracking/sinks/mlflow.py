"""MLflow: one of its runs per run, in a local store or on a server.

build("mlflow", "runs/run")                            # its own default store
build("mlflow", "runs/run", tracking_uri="file:store", experiment="mixtures")

Its values are never taken back, so a run rewound under other settings goes on in a new one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from workbench.tracking.folder import RunFolder
from workbench.tracking.sinks.flat import flat

LONGEST_PARAMETER = 500
MOST_AT_ONCE = 100
"""Parameters of one call."""
_NOT_OF_A_NAME = re.compile(r"[^\w\-. /]")
STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


def require() -> None:
    """Raise ImportError unless the package is there."""
    import mlflow.tracking  # noqa: F401  # pyright: ignore[reportMissingImports]


class MlFlow:
    """Args: tracking_uri: of the store, MLflow's own default when None; experiment: its name."""

    def __init__(self, *, tracking_uri: str | None = None, experiment: str = "workbench"):
        self._uri, self._experiment = tracking_uri, experiment
        self._client: Any = None
        self._folder: RunFolder | None = None
        self._id = ""

    def open(self, folder: RunFolder, state: dict[str, Any]) -> None:
        from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]

        self._folder, self._client = folder, MlflowClient(tracking_uri=self._uri)
        state.setdefault("branches", 0)
        if "id" in state:
            self._id = state["id"]
            self._client.update_run(self._id, status="RUNNING")
        else:
            self._create(state)

    def branch(self, step: int, state: dict[str, Any]) -> bool:
        self._client.set_terminated(self._id, status="KILLED")
        state["branches"] += 1
        before = self._id
        self._create(state)
        self._client.set_tag(self._id, "branched_from", f"{before} at step {step}")
        return True

    def scalars(self, values: Mapping[str, float], step: int, unix_seconds: float) -> None:
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]

        moment = int(unix_seconds * 1000)
        metrics = [Metric(_name(tag), value, moment, step) for tag, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def text(self, tag: str, line: str, step: int, unix_seconds: float) -> None:
        self._client.log_text(self._id, line, f"events/{step:09d}-{tag}-{unix_seconds:.3f}.txt")

    def flush(self) -> None:
        """Every call is written at once."""

    def close(self, outcome: str, summary: Mapping[str, Any] | None) -> None:
        if summary is not None:
            self._client.log_text(self._id, json.dumps(summary, default=str), "summary.json")
        self._client.set_terminated(self._id, status=STATUS[outcome])

    def _create(self, state: dict[str, Any]) -> None:
        from mlflow.entities import Param  # pyright: ignore[reportMissingImports]

        assert self._folder is not None
        number, name = state["branches"], self._folder.path.name
        run = self._client.create_run(
            self._experiment_id(), run_name=name + (f" ({number + 1})" if number else "")
        )
        self._id = state["id"] = run.info.run_id
        settings = [
            Param(_name(path), str(value)[:LONGEST_PARAMETER])
            for path, value in flat(self._folder.config)
        ]
        for first in range(0, len(settings), MOST_AT_ONCE):
            self._client.log_batch(self._id, params=settings[first : first + MOST_AT_ONCE])
        self._client.set_tag(self._id, "run_folder", str(self._folder.path.absolute()))

    def _experiment_id(self) -> str:
        known = self._client.get_experiment_by_name(self._experiment)
        return known.experiment_id if known else self._client.create_experiment(self._experiment)


def _name(tag: str) -> str:
    return _NOT_OF_A_NAME.sub("_", tag)


BACKEND = MlFlow
