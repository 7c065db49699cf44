"""Sliders over a linear regression: how temperature, noise, outliers and redundancy change a path.

    wb.widgets.theory_explorer()

Each move of a slider descends three times from the start and redraws the charts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from workbench import plots
from workbench.core.frontend import has_front_end
from workbench.plots.theme import style
from workbench.plots.theory import Path, slider_lines
from workbench.theory import STRATEGIES, Exploration, explore

DEFAULTS: dict[str, Any] = {
    "strategy": "linupper",
    "temperature": 1.0,
    "noise": 0.0,
    "outliers": 0.0,
    "redundancy": 0.0,
}


def theory_explorer(
    *, seed: int = 0, steps: int = 120, live: bool | None = None, **settings: Any
) -> TheoryExplorer | TheoryTwin:
    """Explore one fixed batch of 128 rows and 50 parameters at η = 1/L.

    Args:
        live: sliders (True) or a plain figure of the settings (False); None finds out whether
            anybody could move a slider here.
        settings: where the sliders start: strategy, temperature, noise, outliers, redundancy.
    """
    kind = TheoryExplorer if (has_front_end() if live is None else live) else TheoryTwin
    return kind({**DEFAULTS, **settings}, seed=seed, steps=steps)


def labelled(result: Exploration) -> dict[str, Path]:
    """The three paths by the names they have in the legend."""
    return {
        "uniform": result.uniform,
        "weighted": result.weighted,
        "weighted, steps matched": result.norm_matched,
    }


def told(result: Exploration) -> str:
    """What the figure shows, in words and numbers."""
    weighted, problem = result.weighted, result.problem
    total = weighted.covariance_S.sum()
    effect = "lower" if total > 0 else "raise"
    if problem.interpolates:
        meaning = f"One θ* fits every row, so the bound holds, and the weights {effect} it"
    else:
        meaning = "No θ* fits every row, so no bound is promised"
    return (
        f"Test loss after {len(weighted.step_size_S)} steps: weighted / uniform = "
        f"{result.test_ratio:.2f}, with steps as long as uniform's {result.matched_ratio:.2f}. "
        f"Σ C_t = {total:.1f}. {meaning}."
    )


class TheoryTwin:
    """The explorer where nobody can move a slider: one setting as a plain figure."""

    def __init__(self, settings: dict[str, Any], *, seed: int, steps: int):
        self.settings = settings
        self._result = explore(seed=seed, steps=steps, **settings)

    def __repr__(self) -> str:
        return f"TheoryTwin({', '.join(f'{k} = {v}' for k, v in self.settings.items())})"

    def _ipython_display_(self) -> None:
        print(", ".join(f"{k} = {v}" for k, v in self.settings.items()))
        plots.show(plots.theory_sliders(labelled(self._result)))
        print(told(self._result))


class TheoryExplorer:
    """The widget; displays itself.  `sliders` holds its controls by the name of the setting."""

    def __init__(self, settings: dict[str, Any], *, seed: int, steps: int):
        import ipywidgets

        from workbench.widgets.view import Charts

        self._seed, self._steps = seed, steps
        self.sliders = _sliders(settings)
        result = explore(seed=seed, steps=steps, **settings)
        self.charts = Charts(charts=charts(result))
        self._text = ipywidgets.HTML(told(result))
        wrap = ipywidgets.Layout(flex_flow="row wrap", align_items="center")
        controls = ipywidgets.Box(list(self.sliders.values()), layout=wrap)
        self.widget = ipywidgets.VBox([controls, self.charts, self._text])
        for slider in self.sliders.values():
            slider.observe(self._redraw, names="value")

    def __repr__(self) -> str:
        return f"TheoryExplorer({', '.join(f'{k} = {v}' for k, v in self.settings.items())})"

    @property
    def settings(self) -> dict[str, Any]:
        """Where the sliders stand."""
        return {name: slider.value for name, slider in self.sliders.items()}

    @property
    def text(self) -> str:
        """The sentences under the charts."""
        return self._text.value

    def close(self) -> None:
        """Take the widget away in every view."""
        self.widget.close()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = self.widget._repr_mimebundle_(**options)
        content, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return {**(content or {}), "text/plain": repr(self)}, metadata

    def _redraw(self, _change: Any) -> None:
        result = explore(seed=self._seed, steps=self._steps, **self.settings)
        self.charts.charts = charts(result)
        self._text.value = told(result)


def charts(result: Exploration) -> list[dict[str, Any]]:
    """Test loss and Σ C_t of the three paths, as the browser's charts take them."""
    lines = slider_lines(labelled(result))
    shared = {
        "x_label": "step",
        "x_end": len(lines[0][1]) - 1,
        "marks": [],
        "empty": "",
    }
    loss = [_line(i, label, np.log10(loss_S)) for i, (label, loss_S, _) in enumerate(lines)]
    total = [_line(i, label, total_S) for i, (label, _, total_S) in enumerate(lines)]
    return [
        {"title": "Test loss", "unit": "log₁₀", "lines": loss, **shared},
        {"title": "Σ C_t", "unit": "loss, summed over the steps", "lines": total, **shared},
    ]


def _line(index: int, name: str, y_S: np.ndarray) -> dict[str, Any]:
    look = style(index)
    return {
        "name": name,
        "colour": look.colour,
        "dash": look.dash,
        "marker": None,
        "faint": False,
        "group": None,
        "x": list(range(len(y_S))),
        "y": np.round(y_S, 4).tolist(),
    }


def _sliders(settings: dict[str, Any]) -> dict[str, Any]:
    import ipywidgets

    look: dict[str, Any] = {
        "style": {"description_width": "initial"},
        "layout": ipywidgets.Layout(width="290px"),
    }

    def share(name: str, top: float, step: float) -> Any:
        return ipywidgets.FloatSlider(
            settings[name.lower()],
            min=0,
            max=top,
            step=step,
            readout_format=".1%" if step < 0.01 else ".0%",
            description=name,
            **look,
        )

    return {
        "strategy": ipywidgets.Dropdown(
            options=[name for name in STRATEGIES if name != "uniform"],
            value=settings["strategy"],
            description="Strategy",
            **look,
        ),
        "temperature": ipywidgets.FloatLogSlider(
            settings["temperature"], min=-1, max=1, step=0.05, description="Temperature r", **look
        ),
        "noise": ipywidgets.FloatSlider(
            settings["noise"], min=0, max=2, step=0.05, description="Label noise (sd)", **look
        ),
        "outliers": share("Outliers", 0.1, 0.005),
        "redundancy": share("Redundancy", 0.95, 0.05),
    }
