"""The mixture that a policy asks for while a model trains, or in any recorded run.

    run = wb.start(config, "runs")
    wb.widgets.policy(run)
    wb.widgets.policy(wb.open_run("runs/acodm"))

The way over the simplex, the mixture of one step, reward and signal-to-noise of each domain.  It
follows the newest step, or holds the one that the slider is on, or replays them all.
"""

from __future__ import annotations

from typing import Any

from workbench import plots
from workbench.core.frontend import has_front_end
from workbench.training import Run
from workbench.widgets.panel import wait
from workbench.widgets.policy_curves import PolicyCurves, mixture_at, path, policy_charts
from workbench.widgets.scrub import ScrubPanel


def policy(run: Run, *, live: bool | None = None) -> PolicyPanel | PolicyTwin:
    """Watch the mixture of a run, and steer it.

    Args:
        live: a widget (True) or plain figures (False); None finds out.  Without a front end a run
            of this process is waited for.
    Raises:
        WorkbenchError: what a run failed with, where it is waited for.
    """
    if has_front_end() if live is None else live:
        return PolicyPanel(run)
    wait(run.path.name, run)
    return PolicyTwin(run)


class PolicyPanel(ScrubPanel[PolicyCurves]):
    """The widget; displays itself.  `close()` takes it away."""

    part = "mixture"

    def __init__(self, run: Run):
        super().__init__(run, PolicyCurves(run.folder))

    def _view(self, title: str) -> Any:
        from workbench.widgets.view import PolicyView

        return PolicyView(heading=title)

    def _charts(self) -> list[dict[str, Any]]:
        return policy_charts(self._curve)

    def _recorded(self) -> tuple[int, int] | None:
        return self._curve.recorded

    def _at(self, step: int) -> dict[str, Any]:
        return mixture_at(self._curve, step)

    def _frame(self, *, have: int) -> dict[str, Any]:
        frame = super()._frame(have=have)
        if "charts" in frame and self._curve.recorded:
            frame["path"] = path(self._curve)
        return frame


class PolicyTwin:
    """The view where nobody can press a button: path, mixture and rewards as figures."""

    def __init__(self, run: Run):
        self._run = run

    def __repr__(self) -> str:
        steps = len(self._run.events("step"))
        return f"PolicyTwin({self._run.path.name}: {self._run.status()} after {steps} steps)"

    def _ipython_display_(self) -> None:
        print(repr(self))
        for figure in (plots.policy_path, plots.mixture, plots.rewards):
            plots.show(figure(self._run))
