"""Figures of `workbench.theory`: bounds, covariance, paths over contours, controls side by side.

    theory_bound({"uniform": a, "linupper": b})        # label -> trajectory
    theory_controls(run_conditions())                  # condition -> strategy -> one path a seed

Shapes: S steps, D parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import plotly.graph_objects as go

from workbench.plots.curves import small_multiples
from workbench.plots.draw import Panel
from workbench.plots.theme import RULE, Style, blank, dress, safe, style

LOSS_FLOOR = 1e-8
"""Lower end of the panels of test losses: below, only rounding is compared."""
_LEVELS = 7
_UNIFORM = style(6)


class Path(Protocol):
    """What the figures ask of a path; `theory.Trajectory` is one."""

    @property
    def theta_SD(self) -> np.ndarray: ...
    @property
    def test_loss_S(self) -> np.ndarray: ...
    @property
    def covariance_S(self) -> np.ndarray: ...
    @property
    def average_excess_S(self) -> np.ndarray: ...
    @property
    def bound_S(self) -> np.ndarray: ...


class Plane(Protocol):
    """What `theory_paths` asks of a problem; `theory.LinearRegression` is one."""

    @property
    def optimum_D(self) -> np.ndarray: ...
    def losses(self, theta_D: np.ndarray) -> np.ndarray: ...
    def level_set(self, height: float) -> np.ndarray: ...


def theory_bound(paths: Mapping[str, Path], baseline: str = "uniform") -> go.Figure:
    """The summed excess loss of each path, its bound, and the bound of the baseline."""
    figure, panels = small_multiples(
        "Excess loss summed over the steps, and its bound",
        list(paths),
        y="summed loss",
        legend=True,
    )
    reference_S = paths[baseline].bound_S
    for number, (panel, (label, path)) in enumerate(zip(panels, paths.items(), strict=True)):
        first = number == 0
        steps = np.arange(1, len(path.bound_S) + 1)
        _curve(panel, steps, steps * path.average_excess_S, "measured", style(0), in_legend=first)
        _curve(panel, steps, steps * path.bound_S, "bound", style(1), in_legend=first)
        if label != baseline:
            name = f"bound of {baseline}"
            _curve(panel, steps, steps * reference_S, name, _UNIFORM, in_legend=number == 1)
    top = max(float((path.bound_S * len(path.bound_S))[-1]) for path in paths.values())
    figure.update_yaxes(range=[0, 1.1 * top])
    return figure


def theory_covariance(paths: Mapping[str, Path]) -> go.Figure:
    """Σ C_t over the steps so far: above zero the weights have lowered the bound."""
    figure = blank("Covariance of weight and excess loss, accumulated", x="step", y="Σ C_t (loss)")
    for index, (label, path) in enumerate(paths.items()):
        total_S = np.cumsum(path.covariance_S)
        _curve(Panel(figure), np.arange(1, len(total_S) + 1), total_S, label, style(index))
        figure.update_xaxes(range=[0, len(total_S)])
    figure.add_hline(y=0, line={"color": RULE, "width": 1}, layer="below")
    return figure


def theory_paths(problem: Plane, paths: Mapping[str, Path]) -> go.Figure:
    """Paths of two parameters over the level sets of the mean loss."""
    figure = blank("Paths over the contours of the mean loss", x="θ₁", y="θ₂", height=460)
    start_D = next(iter(paths.values())).theta_SD[0]
    height = problem.losses(start_D).mean() - problem.losses(problem.optimum_D).mean()
    figure.add_trace(_contours(problem, height))
    for index, (label, path) in enumerate(paths.items()):
        theta_SD, look = path.theta_SD, style(index)
        figure.add_scatter(
            x=theta_SD[:, 0],
            y=theta_SD[:, 1],
            mode="lines+markers",
            line=look.line(width=1.5),
            marker=look.marker(size=6),
            name=safe(label),
            customdata=np.arange(len(theta_SD)),
            hovertemplate=f"{safe(label)}, after %{{customdata}} steps<br>θ = "
            "(%{x:.3f}, %{y:.3f})<extra></extra>",
        )
    points = np.stack([start_D, problem.optimum_D])
    figure.add_scatter(
        x=points[1:, 0],
        y=points[1:, 1],
        mode="markers",
        marker={"symbol": "star", "size": 14, "color": _UNIFORM.colour},
        name="optimum θ*",
        hovertemplate="optimum θ* = (%{x:.3f}, %{y:.3f})<extra></extra>",
    )
    visited = np.concatenate([points, *(path.theta_SD for path in paths.values())])
    margin = 0.25 * np.ptp(visited, axis=0).max()
    low, high = visited.min(axis=0) - margin, visited.max(axis=0) + margin
    figure.update_xaxes(range=[low[0], high[0]])
    figure.update_yaxes(range=[low[1], high[1]])
    return figure


def _contours(problem: Plane, height: float) -> go.Scatter:
    """Level sets as one trace, up to twice the height of the start."""
    rings = [problem.level_set(2 * height * (k / _LEVELS) ** 2) for k in range(1, _LEVELS + 1)]
    gap = np.full((1, 2), np.nan)
    line = np.concatenate([part for ring in rings for part in (ring, gap)])
    return go.Scatter(
        x=line[:, 0],
        y=line[:, 1],
        mode="lines",
        line={"color": _UNIFORM.faded(0.6), "width": 1},
        name="equal mean loss",
        hoverinfo="skip",
    )


def theory_controls(results: Mapping[str, Mapping[str, Sequence[Path]]]) -> go.Figure:
    """Test loss over the steps: one panel a condition, one line a strategy, bands over seeds."""
    figure, panels = small_multiples(
        "Streaming toy and its controls", list(results), y="test loss", legend=True
    )
    for number, (panel, paths) in enumerate(zip(panels, results.values(), strict=True)):
        last, lowest, highest = 1, np.inf, LOSS_FLOOR
        for index, (label, seeds) in enumerate(paths.items()):
            steps = min(len(path.test_loss_S) for path in seeds)
            loss_RS = np.stack([path.test_loss_S[:steps] for path in seeds])
            shown = _above_floor(loss_RS.max(axis=0))
            last = max(last, shown - 1)
            band = (loss_RS.min(axis=0)[:shown], loss_RS.max(axis=0)[:shown])
            mean_S = loss_RS.mean(axis=0)[:shown]
            lowest, highest = min(lowest, mean_S.min()), max(highest, mean_S.max())
            look, first = style(index), number == 0
            _curve(panel, np.arange(shown), mean_S, label, look, in_legend=first, band=band)
        where: dict[str, Any] = {"row": panel.row, "col": panel.col}
        figure.update_xaxes(range=[0, last], **where)
        ends = np.log10([max(LOSS_FLOOR, lowest / 2), 2 * highest])
        figure.update_yaxes(type="log", exponentformat="power", range=ends.tolist(), **where)
        if np.ptp(ends) < 3:
            # Labels at 1, 2 and 5 only: all nine would run into each other.
            figure.update_yaxes(dtick="D2", **where)
    return figure


def theory_sliders(paths: Mapping[str, Path]) -> go.Figure:
    """The explorer's two panels: test loss, and Σ C_t, of the same paths."""
    from plotly.subplots import make_subplots

    figure = make_subplots(cols=2, horizontal_spacing=0.12)
    dress(figure, "What the weights do")
    for (label, loss_S, total_S), index in zip(slider_lines(paths), range(len(paths)), strict=True):
        steps = np.arange(len(loss_S))
        _curve(Panel(figure, 1, 1), steps, loss_S, label, style(index))
        _curve(Panel(figure, 1, 2), steps, total_S, label, style(index), in_legend=False)
    figure.update_xaxes(title_text="step")
    figure.update_yaxes(title_text="test loss", type="log", row=1, col=1)
    figure.update_yaxes(exponentformat="power", row=1, col=1)
    figure.update_yaxes(title_text="Σ C_t (loss)", row=1, col=2)
    return figure


def slider_lines(paths: Mapping[str, Path]) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Label, test loss and Σ C_t before each step and after the last, in the figure's order."""
    return [
        (label, path.test_loss_S, np.concatenate([[0.0], np.cumsum(path.covariance_S)]))
        for label, path in paths.items()
    ]


def _above_floor(value_S: np.ndarray) -> int:
    """How many values to draw: up to and with the first below the floor."""
    below = np.flatnonzero(value_S < LOSS_FLOOR)
    return int(below[0]) + 1 if len(below) else len(value_S)


def _curve(
    panel: Panel,
    x_S: np.ndarray,
    y_S: np.ndarray,
    label: str,
    look: Style,
    *,
    in_legend: bool = True,
    band: tuple[np.ndarray, np.ndarray] | None = None,
) -> None:
    """A line whose hover text keeps three significant digits, over the band of the seeds."""
    shared: dict[str, Any] = {"name": safe(label), "legendgroup": label, "mode": "lines"}
    if band is not None:
        panel.add(
            go.Scatter(
                x=np.concatenate([x_S, x_S[::-1]]),
                y=np.concatenate([band[0], band[1][::-1]]),
                showlegend=False,
                line={"width": 0, "color": look.faded(0)},
                fill="toself",
                fillcolor=look.faded(0.18),
                hoverinfo="skip",
                **shared,
            )
        )
    panel.add(
        go.Scatter(
            x=x_S,
            y=y_S,
            showlegend=in_legend,
            line=look.line(),
            hovertemplate=f"{safe(label)}<br>step %{{x}}<br>%{{y:.3g}}<extra></extra>",
            **shared,
        )
    )
