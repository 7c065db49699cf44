"""The panel's figures where nobody can press a button: papermill, nbval, exported pages.

Twin({"linupper": run}, "linupper")        # displays the curves as figures with a PNG inside
"""

from __future__ import annotations

from collections.abc import Mapping

from workbench import plots
from workbench.training import Run


class Twin:
    """Training loss and held-out loss of runs as plain figures; displays itself."""

    def __init__(self, runs: Mapping[str, Run], title: str):
        self.title = title
        self._runs = dict(runs)

    def __repr__(self) -> str:
        states = [
            f"{label}: {run.status()} after {len(run.events('step'))} steps"
            for label, run in self._runs.items()
        ]
        return f"Twin({', '.join(states)})"

    def _ipython_display_(self) -> None:
        print(f"{self.title} — {self!r}")
        for figure in (plots.loss(self._runs), plots.held_out(self._runs)):
            plots.show(figure)
