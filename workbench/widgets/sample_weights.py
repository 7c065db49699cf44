"""The weights of single samples while a model trains, or in any recorded run.

    run = wb.start(config, "runs")
    wb.widgets.sample_weights(run)
    wb.widgets.sample_weights(wb.open_run("runs/linupper"))

Losses and weights of one step, weight against loss, the text of the heaviest and the lightest rows,
effective rows and implied mixture over the steps.  It follows the newest step of the ledger or
holds the one that the slider is on; `training.ledger_every_steps` says how often new ones come.
"""

from __future__ import annotations

from typing import Any

from workbench import plots
from workbench.core.frontend import has_front_end
from workbench.training import Run
from workbench.widgets.panel import wait
from workbench.widgets.sample_frames import Readable, Texts, drawn, step_samples, table, texts_of
from workbench.widgets.scrub import ScrubPanel
from workbench.widgets.weight_curves import WeightCurves, weight_charts


def sample_weights(
    run: Run, *, corpus: Readable | None = None, live: bool | None = None
) -> SampleWeights | SampleTwin:
    """Watch the weights of a run's samples, and steer it.

    Args:
        corpus: where the rows' text is read; the prepared corpus the run was started on when None.
            Where that is not on this machine, the view says so and shows everything but text.
        live: a widget (True) or plain figures (False); None finds out.  Without a front end a run
            of this process is waited for.
    Raises:
        WorkbenchError: what a run failed with, where it is waited for.
    """
    texts = texts_of(run, corpus)
    if has_front_end() if live is None else live:
        return SampleWeights(run, texts)
    wait(run.path.name, run)
    return SampleTwin(run, texts)


class SampleWeights(ScrubPanel[WeightCurves]):
    """The widget; displays itself.  `close()` takes it away."""

    part = "samples"

    def __init__(self, run: Run, texts: Texts):
        super().__init__(run, WeightCurves(run.folder))
        self._texts = texts

    def _view(self, title: str) -> Any:
        from workbench.widgets.view import SampleView

        return SampleView(heading=title)

    def _charts(self) -> list[dict[str, Any]]:
        return weight_charts(self._curve)

    def _frame(self, *, have: int) -> dict[str, Any]:
        frame = super()._frame(have=have)
        if "sample" in self._wanted:
            sample = self._wanted["sample"]
            frame["read"] = {"sample": sample, **self._texts.read(int(sample))}
        return frame

    def _recorded(self) -> tuple[int, int] | None:
        return self._run.ledger.steps()

    def _at(self, step: int) -> dict[str, Any]:
        samples = step_samples(self._run.ledger.step(step), step, self._curve.domains)
        policy, temperature = self._curve.policy_at(step)
        return {
            **drawn(samples, self._texts),
            "policy": policy.name,
            "temperature": temperature,
        }


class SampleTwin:
    """The view where nobody can press a button: the newest step as figures and a table."""

    def __init__(self, run: Run, texts: Texts):
        self._run, self._texts = run, texts

    def __repr__(self) -> str:
        recorded = self._run.ledger.steps()
        steps = f"steps {recorded[0]} to {recorded[1]} in the ledger" if recorded else "no rows yet"
        return f"SampleTwin({self._run.path.name}: {self._run.status()}, {steps})"

    def _ipython_display_(self) -> None:
        from IPython.display import display

        print(repr(self))
        run = self._run
        for figure in (
            plots.weights(run, excerpt=self._texts.excerpt),
            plots.weight_histograms(run),
            plots.ess(run),
            plots.implied_mixture(run),
        ):
            plots.show(figure)
        recorded = run.ledger.steps()
        if recorded:
            newest = step_samples(run.ledger.step(recorded[1]), recorded[1], [])
            display(table(newest, self._texts))
            if self._texts.missing:
                print(self._texts.missing)
