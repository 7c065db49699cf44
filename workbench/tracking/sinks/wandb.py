"""Weights & Biases: one of its runs per run, offline or online as its own settings say.

build("wandb", "runs/run", mode="offline")             # later: wandb sync runs/run/wandb/offline-*
build("wandb", "runs/run", project="mixtures")

Its steps only go up, so a run rewound under other settings goes on in a new one of the same group.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from workbench.core import stream_seed
from workbench.tracking.folder import RunFolder


def require() -> None:
    """Raise ImportError unless the package is there."""
    import wandb  # noqa: F401


class WeightsAndBiases:
    """Args: project; mode: `online`, `offline` or `disabled`, its own default when
    None."""

    def __init__(self, *, project: str = "workbench", mode: str | None = None):
        self._project, self._mode = project, mode
        self._run: Any = None
        self._step = 0
        self._folder: RunFolder | None = None

    def open(self, folder: RunFolder, state: dict[str, Any]) -> None:
        self._folder = folder
        state.setdefault("branches", 0)
        state.setdefault("id", _identity(folder, 0))
        self._step = max([0, *state["sent"].values()])
        self._init(state)

    def branch(self, step: int, state: dict[str, Any]) -> bool:
        assert self._folder is not None
        self._run.finish()
        self._step = 0
        state["branches"] += 1
        state["id"] = _identity(self._folder, state["branches"])
        self._init(state)
        self._run.config.update({"branched_at_step": step})
        return True

    def scalars(self, values: Mapping[str, float], step: int, unix_seconds: float) -> None:
        self._step = max(self._step, step)
        self._run.log(dict(values), step=step)

    def text(self, tag: str, line: str, step: int, unix_seconds: float) -> None:
        # A resume is told of at a step whose numbers were sent before it.
        self._step = max(self._step, step)
        self._run.log({f"events/{tag}": line}, step=self._step)

    def flush(self) -> None:
        """Its own process writes."""

    def close(self, outcome: str, summary: Mapping[str, Any] | None) -> None:
        self._run.summary.update({"outcome": outcome, **(summary or {})})
        self._run.finish(exit_code=1 if outcome == "failed" else 0)

    def _init(self, state: Mapping[str, Any]) -> None:
        import wandb

        assert self._folder is not None
        self._wait_for_a_folder_of_its_own(state["id"])
        number = state["branches"]
        self._run = wandb.init(  # pyright: ignore[reportAttributeAccessIssue]
            project=self._project,
            mode=self._mode,  # pyright: ignore[reportArgumentType]
            id=state["id"],
            name=self._folder.path.name + (f" ({number + 1})" if number else ""),
            group=self._folder.path.name,
            dir=str(self._folder.path),
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True),  # pyright: ignore[reportAttributeAccessIssue]
            config={**self._folder.config, "environment": self._folder.environment},
        )

    def _wait_for_a_folder_of_its_own(self, identity: str) -> None:
        # Folders are named by the second they were made in, and one is written over by the next.
        assert self._folder is not None
        made = self._folder.path / "wandb"
        while any(made.glob(f"*{time.strftime('%Y%m%d_%H%M%S')}-{identity}")):
            time.sleep(0.05)


def _identity(folder: RunFolder, branch: int) -> str:
    """An id of its own for each run and branch, the same whenever it is asked for."""
    started = folder.events("started")
    moment = int(started[0]["time"] * 1000) if started else 0
    return f"{stream_seed(moment, folder.path.name, branch):016x}"


BACKEND = WeightsAndBiases
