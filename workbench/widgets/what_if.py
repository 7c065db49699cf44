"""Sliders over the mixture: which losses a run of it would reach, said before it is trained.

    wb.widgets.what_if("runs/trials")                  # or a list of finished runs
    wb.widgets.what_if(wb.batch.fit_runs("runs/trials", method="lightgbm"), out_dir="runs/tests")

Moving a share scales the others, so that they sum to 1; a held one stays.
`Best predicted mixture` moves all of them.  `Record prediction` writes to `predictions.jsonl` in
`out_dir`, where `Score` looks for runs of what was predicted.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench import plots
from workbench.batch.predictions import record_prediction, score_predictions
from workbench.batch.what_if import MEAN, Prediction, WhatIf, fit_runs
from workbench.config import Policy, RunConfig
from workbench.core import WorkbenchError
from workbench.core.frontend import has_front_end
from workbench.plots.theme import style
from workbench.plots.what_if import AXIS, interval_rows
from workbench.training import Run, start
from workbench.widgets.simplex import Shares

if TYPE_CHECKING:
    from workbench.batch.comparison import Runs

SLIDER_STEP = 0.01
_MARGIN = 0.04
"""Free space beside the outermost value, as a part of the axis."""


def what_if(
    runs: WhatIf | Runs | str | Path,
    *,
    mixture: Mapping[str, float] | None = None,
    out_dir: str | Path | None = None,
    live: bool | None = None,
    **options: Any,
) -> WhatIfExplorer | WhatIfTwin:
    """Explore what another mixture would lead to.

    Args:
        runs: finished runs that differ in their mixture alone, a folder of them, or what
            `batch.fit_runs` made of them.
        mixture: where the sliders start; the mean of the runs' mixtures if None.
        out_dir: of predictions and of runs that test them; that of the first run if None.
        live: sliders (True) or a plain figure of `mixture` (False); None finds out whether
            anybody could move a slider here.
        options: of `batch.fit_runs`: method, level, without.
    Raises:
        WorkbenchError: runs that no surrogate can be fitted on, as in `batch.fit_runs`.
    """
    fitted = runs if isinstance(runs, WhatIf) else fit_runs(runs, **options)
    if mixture is None:
        mixture = dict(zip(fitted.domains, fitted.mixture_NK.mean(axis=0).tolist(), strict=True))
    if not (has_front_end() if live is None else live):
        return WhatIfTwin(fitted, mixture)
    return WhatIfExplorer(fitted, mixture, Path(out_dir or fitted.runs[0].parent))


def told(fitted: WhatIf, prediction: Prediction) -> str:
    """How far to trust the figure, in words."""
    trust = fitted.trust[0].upper() + fitted.trust[1:]
    return f"{prediction.warning or 'Inside the sampled mixtures.'} {trust}."


class WhatIfTwin:
    """The explorer where nobody can move a slider: one mixture as a plain figure."""

    def __init__(self, fitted: WhatIf, mixture: Mapping[str, float]):
        self._fitted = fitted
        self.prediction = fitted.predict(mixture)

    def __repr__(self) -> str:
        return f"WhatIfTwin({_shares(self.prediction.mixture)})"

    def _ipython_display_(self) -> None:
        print(f"{self._fitted!r}\n{_shares(self.prediction.mixture)}")
        plots.show(plots.predicted_losses(self._fitted, self.prediction))
        print(told(self._fitted, self.prediction))


class WhatIfExplorer:
    """The widget; displays itself.  `sliders` and `holds` have its controls by domain.

    A slider stands at the whole step nearest to its share, `readings` tell the share itself.
    """

    def __init__(self, fitted: WhatIf, mixture: Mapping[str, float], out_dir: Path):
        import ipywidgets

        from workbench.widgets.view import Intervals

        self.out_dir, self._fitted = out_dir, fitted
        self.prediction = fitted.predict(mixture)
        self.run: Run | None = None
        self._shares, self._moving = Shares(self.prediction.mixture), False
        self.sliders = {name: _slider(name, share) for name, share in self._shares.now.items()}
        self.holds = {name: _hold(name) for name in self.sliders}
        self.readings = {name: ipywidgets.Label(layout={"width": "60px"}) for name in self.sliders}
        self.view = Intervals(chart=chart(fitted, self.prediction))
        self._trust, self._said = ipywidgets.HTML(), ipywidgets.HTML()
        self.buttons = {
            "Best predicted mixture": self._button("Best predicted mixture", self.best),
            "Record prediction": self._button("Record prediction", self.record),
            "Record and train": self._button("Record and train", self.train),
            "Score": self._button("Score", self.score),
        }
        rows = [
            ipywidgets.HBox([self.sliders[name], self.readings[name], self.holds[name]])
            for name in fitted.domains
        ]
        wrap = ipywidgets.Layout(flex_flow="row wrap")
        self.widget = ipywidgets.VBox(
            [
                ipywidgets.Box(rows, layout=wrap),
                self.view,
                self._trust,
                ipywidgets.Box(list(self.buttons.values()), layout=wrap),
                self._said,
            ]
        )
        for name, slider in self.sliders.items():
            slider.observe(self._moved(name), names="value")
        self._draw()

    def __repr__(self) -> str:
        return f"WhatIfExplorer({_shares(self.mixture)})"

    @property
    def mixture(self) -> dict[str, float]:
        """Where the sliders stand; sums to 1."""
        return dict(self._shares.now)

    @property
    def text(self) -> str:
        """How far to trust the figure."""
        return html.unescape(self._trust.value)

    @property
    def said(self) -> str:
        """What the last button led to."""
        return html.unescape(self._said.value.replace("<br>", "\n"))

    def best(self) -> Prediction:
        """Put every slider, held ones too, where the predicted mean loss is lowest."""
        best = self._fitted.best()
        self._shares = Shares(best.mixture)
        self._draw()
        self._say(
            f"Lowest predicted {MEAN} inside the sampled mixtures: {best.nats[MEAN]:.4f} nats per "
            f"token, {best.level:.0%} interval {best.low[MEAN]:.4f} to {best.high[MEAN]:.4f}. As "
            "the lowest of many it is more often too low than too high: train it."
        )
        return best

    def record(self) -> Prediction:
        """Write down what the figure shows, before a run of it exists."""
        prediction = record_prediction(self._fitted, self.mixture, self.out_dir)
        self._say(f"Recorded in {self.out_dir}: {_shares(prediction.mixture)}")
        return prediction

    def train(self) -> Run:
        """Record, then train this mixture in the background, all else as in the fitted runs."""
        self.record()
        name = f"what_if_{datetime.now():%Y%m%d_%H%M%S}"
        mixer = Policy("static", mixture=self.mixture)
        config = RunConfig(**self._fitted.config).replace(name=name, mixer=mixer)
        self._say(f"Recorded; preparing {self.out_dir / name}")
        self.run = start(config, self.out_dir)
        self._say(f"Recorded; training {self.run.path}. Press Score when it has finished.")
        return self.run

    def score(self) -> None:
        """Hold the recorded predictions against the runs in `out_dir`."""
        self._say(str(score_predictions(self.out_dir, self.out_dir)))

    def close(self) -> None:
        """Take the widget away in every view."""
        self.widget.close()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = self.widget._repr_mimebundle_(**options)
        content, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return {**(content or {}), "text/plain": repr(self)}, metadata

    def _moved(self, name: str) -> Callable[[Any], None]:
        def moved(change: Any) -> None:
            # The browser sends a slider that was set from here back as it stands there, which is
            # within half a step; a hand moves it further.
            echo = abs(change["new"] - self._shares.now[name]) <= SLIDER_STEP / 2 + 1e-9
            if self._moving or echo:
                return
            held = {other for other, hold in self.holds.items() if hold.value}
            self._shares.move(name, change["new"], held=held)
            self._draw()

        return moved

    def _draw(self) -> None:
        self._moving = True
        try:
            for name, share in self._shares.now.items():
                self.sliders[name].value = round(round(share / SLIDER_STEP) * SLIDER_STEP, 9)
                self.readings[name].value = f"{share:.1%}"
        finally:
            self._moving = False
        self.prediction = self._fitted.predict(self._shares.now)
        self.view.chart = chart(self._fitted, self.prediction)
        self._trust.value = html.escape(told(self._fitted, self.prediction), quote=False)

    def _button(self, name: str, press: Callable[[], Any]) -> Any:
        import ipywidgets

        def pressed(_button: Any) -> None:
            try:
                press()
            except WorkbenchError as error:
                self._say(str(error))

        button = ipywidgets.Button(description=name, layout=ipywidgets.Layout(width="190px"))
        button.on_click(pressed)
        return button

    def _say(self, text: str) -> None:
        self._said.value = html.escape(text, quote=False).replace("\n", "<br>")


def chart(fitted: WhatIf, prediction: Prediction) -> dict[str, Any]:
    """The figure as the browser draws it: the same rows as `plots.predicted_losses`."""
    rows = interval_rows(fitted, prediction)
    values = [x for row in rows for x in (*row["seen"], row["low"], row["high"], 0.0)]
    low, high = min(values), max(values)
    pad = _MARGIN * (high - low) or 1.0
    look = style(1 if prediction.outside else 0)
    return {
        "title": "Predicted held-out loss",
        "unit": f"nats per token, {prediction.level:.0%} intervals; rings: the fitted runs",
        "x_label": AXIS,
        "range": [low - pad, high + pad],
        "rows": rows,
        "colour": look.colour,
        "marker": look.symbol,
        "dash": "4 3" if prediction.outside else None,
    }


def _slider(name: str, share: float) -> Any:
    import ipywidgets

    return ipywidgets.FloatSlider(
        share,
        min=0,
        max=1,
        step=SLIDER_STEP,
        readout=False,
        description=name,
        style={"description_width": "110px"},
        layout=ipywidgets.Layout(width="350px"),
    )


def _hold(name: str) -> Any:
    import ipywidgets

    return ipywidgets.Checkbox(
        description="hold",
        tooltip=f"Keep the share of {name} while others move",
        indent=False,
        layout=ipywidgets.Layout(width="70px"),
    )


def _shares(mixture: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:.1%}" for name, share in mixture.items())
