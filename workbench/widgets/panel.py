"""The live panel of a run: curves, numbers and controls in one line of a notebook.

    run = wb.start(config, "runs")
    wb.widgets.panel(run)
    wb.widgets.panel({"uniform": first, "linupper": second})      # laid over each other

The browser asks for a frame when it has drawn the last one, at most five times a second, and the
panel answers from the run folder.  So nothing queues up, a panel nobody looks at costs nothing, and
where the kernel has subshells the controls work while a cell runs.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from workbench.core import ConfigError, WorkbenchError
from workbench.core.frontend import has_front_end
from workbench.training import Run
from workbench.widgets.controls import changes_asked, live_controls
from workbench.widgets.curves import RunCurves, told_stage
from workbench.widgets.fork_rows import ForkRows
from workbench.widgets.frames import charts, head, throughput
from workbench.widgets.twin import Twin

TELL_SECONDS = 10.0
MOST_WARNINGS = 20
"""The newest; all are events of the run."""
ENDED = ("finished", "stopped", "failed", "interrupted")


def panel(
    run: Run | Mapping[str, Run], *, title: str | None = None, live: bool | None = None
) -> Panel | Twin:
    """Watch and steer a run, or several laid over each other; controls act on the live one.

    Args:
        run: a run, or labels and runs.  A run on disk (`open_run`) is shown as it is.
        title: heading; the name of the run when None.
        live: a widget (True) or plain figures (False).  None finds out: without a front end
            (papermill, nbval, plain Python) nobody could press a button, so the runs of this
            process are waited for and what they came to is shown as figures.
    Raises:
        ConfigError: no run given.
        WorkbenchError: what a run failed with, where it is waited for.
    """
    runs = dict(run) if isinstance(run, Mapping) else {run.path.name: run}
    if not runs:
        raise ConfigError("a panel of no runs", remedy="give a run, or labels and runs")
    title = title or " · ".join(runs)
    if has_front_end() if live is None else live:
        return Panel(runs, title)
    for label, each in runs.items():
        wait(label, each)
    return Twin(runs, title)


def wait(label: str, run: Run) -> None:
    """Until the run ends; a line now and then, where nobody sees the curves grow."""
    told = -1
    while run.live:
        run.wait(TELL_SECONDS)
        last = (run.events("step") or [{"step": -1}])[-1]
        if run.live and last["step"] > told:
            told = last["step"]
            print(f"{label}: step {told + 1}, loss {last['loss']:.3f} nats per token")
    run.wait()


class Panel:
    """The widget of one or several runs; displays itself.  `close()` takes it away."""

    def __init__(self, runs: Mapping[str, Run], title: str):
        self.title = title
        self._runs = dict(runs)
        self._curves = {label: RunCurves(run.folder) for label, run in runs.items()}
        self._forks = ForkRows(next(iter(runs.values())).folder)
        self._revision = 0
        self._notice: dict[str, str] | None = None
        self._asked: str | None = None
        # Front ends deliver messages on another thread than the cells'.
        self._turn = threading.Lock()
        self.widget = self._view(title)
        self.widget.on_msg(self._on_message)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = self.widget._repr_mimebundle_(**options)
        content, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return {**(content or {}), "text/plain": repr(self)}, metadata

    def __repr__(self) -> str:
        states = [f"{label}: {run.status()}" for label, run in self._runs.items()]
        return f"Panel({', '.join(states)})"

    def close(self) -> None:
        """Take the widget away in every view; the runs go on."""
        self.widget.close()

    @property
    def controlled(self) -> Run | None:
        """The run that the controls act on: the first that trains in this process."""
        return next((run for run in self._runs.values() if run.live), None)

    def _view(self, title: str) -> Any:
        from workbench.widgets.view import View

        return View(heading=title)

    def _charts(self) -> list[dict[str, Any]]:
        return charts(self._curves)

    def _on_message(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        with self._turn:
            try:
                self._obey(content)
                frame = self._frame(have=content.get("have", -1))
            except WorkbenchError as error:
                frame = {"notice": {"problem": error.problem, "remedy": error.remedy}}
            except Exception as error:
                # Raised here it would only reach the log of the server.
                frame = {"notice": _unexpected(error)}
            answers = {"to": content["view"], "answers": content["kind"]}
            self.widget.answer({**frame, **answers})

    def _obey(self, content: dict[str, Any]) -> None:
        kind = content["kind"]
        if kind == "next":
            return
        self._notice = None
        try:
            self._act(kind, content)
        except WorkbenchError as error:
            self._notice = {"problem": error.problem, "remedy": error.remedy}

    def _act(self, kind: str, content: dict[str, Any]) -> None:
        run = self.controlled or next(iter(self._runs.values()))
        if kind in ("pause", "resume", "stop"):
            getattr(run, kind)()
            self._asked = kind
        elif kind == "set":
            run.set(**changes_asked(content["changes"], self._controls_of(run)))

    def _controls_of(self, run: Run) -> list:
        label = next(name for name, each in self._runs.items() if each is run)
        return live_controls(self._curves[label].config)

    def _frame(self, *, have: int) -> dict[str, Any]:
        """The state of the runs, and their curves unless the view has them already."""
        # The status is read first: an end seen here has all its events in the folder.
        states = {label: run.status() for label, run in self._runs.items()}
        if any([curves.refresh() for curves in self._curves.values()]):
            self._revision += 1
        controlled = self.controlled
        shown = next((la for la, run in self._runs.items() if run is controlled), None)
        label = shown or self._latest_label()
        self._settle(states[label])
        frame = {
            "revision": self._revision,
            "runs": [
                head(name, curves, states[name], index=index, live=self._runs[name].live)
                for index, (name, curves) in enumerate(self._curves.items())
            ],
            "shown": label,
            "asked": self._asked,
            "said": self._said(label, states[label]),
            "notice": self._notice or self._failure(),
            "forks": self._forks.now(),
            "warnings": [asdict(mark) for mark in self._curves[label].warnings[-MOST_WARNINGS:]],
            "over": all(s in ENDED and not self._runs[n].live for n, s in states.items()),
        }
        if have != self._revision:
            frame["charts"] = self._charts()
            frame["throughput"] = throughput(self._curves[label])
            frame["controls"] = [c.to_dict() for c in live_controls(self._curves[label].config)]
        return frame

    def _latest_label(self) -> str:
        return list(self._runs)[-1]

    def _settle(self, status: str) -> None:
        """Forget what was asked once it happened."""
        reached = {"pause": ("paused",), "resume": ("running",), "stop": ()}
        if self._asked and status in (*reached[self._asked], *ENDED):
            self._asked = None

    def _said(self, label: str, status: str) -> str:
        """The state in a sentence, for eyes and screen readers."""
        run, curves = self._runs[label], self._curves[label]
        path = str(run.path)
        resume = f'Continue with workbench.resume("{path}", background=True)'
        match status:
            case "running" if curves.stage is not None:
                return f"Selecting before step {curves.stage['step']}: {told_stage(curves.stage)}"
            case "running" if not run.live:
                return "Trained by another process; steer it there"
            case "paused":
                return f"Holds before step {curves.steps_done}; everything so far is on disk"
            case "stopped":
                return f"Checkpoint of step {curves.steps_done} is kept. {resume}"
            case "interrupted":
                return f"Its process ended without a word. {resume}"
            case "finished":
                return f"All {curves.steps_done} steps are done"
        return ""

    def _failure(self) -> dict[str, str] | None:
        """Why a run failed, from its folder or, when even writing failed, from its thread."""
        for label, run in self._runs.items():
            failure = self._curves[label].failure
            if failure is None and isinstance(run.error, WorkbenchError):
                failure = {"problem": run.error.problem, "remedy": run.error.remedy}
            elif failure is None and run.error is not None:
                failure = _unexpected(run.error)
            if failure is not None:
                prefix = f"{label}: " if len(self._runs) > 1 else ""
                return {**failure, "problem": prefix + failure["problem"]}
        return None


def _unexpected(error: BaseException) -> dict[str, str]:
    return {"problem": f"{type(error).__name__}: {error}", "remedy": ""}
