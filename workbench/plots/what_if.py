"""Losses predicted for a mixture, beside what the fitted runs reached.

    plots.predicted_losses(what_if, what_if.predict({"code": 0.5, "prose": 0.5}))

Shapes: N runs, D losses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import plotly.graph_objects as go

from workbench.plots.theme import RULE, TEXT, blank, safe, style

AXIS = "nats per token above the mean of the fitted runs"
_ROW_PX = 46


class Fitted(Protocol):
    """What the figure asks of the fitted runs; `batch.what_if.WhatIf` is one."""

    @property
    def losses(self) -> Sequence[str]: ...
    @property
    def measured_ND(self) -> np.ndarray: ...


class Predicted(Protocol):
    """What the figure asks of a prediction; `batch.what_if.Prediction` is one."""

    @property
    def nats(self) -> Mapping[str, float]: ...
    @property
    def low(self) -> Mapping[str, float]: ...
    @property
    def high(self) -> Mapping[str, float]: ...
    @property
    def level(self) -> float: ...
    @property
    def outside(self) -> float: ...


def predicted_losses(fitted: Fitted, prediction: Predicted) -> go.Figure:
    """Predicted losses with their intervals; small dots are the runs the surrogate was fitted on.

    One axis for all losses: differences to their mean over the fitted runs, in nats per token.
    """
    rows = interval_rows(fitted, prediction)
    figure = blank("Predicted held-out loss", x=AXIS, height=130 + _ROW_PX * len(rows))
    names = [f"{safe(row['name'])}: {row['told']}" for row in rows]
    figure.add_scatter(
        x=[x for row in rows for x in row["seen"]],
        y=[name for name, row in zip(names, rows, strict=True) for _ in row["seen"]],
        mode="markers",
        marker={"color": TEXT, "symbol": "circle-open", "size": 6, "line": {"width": 1}},
        name="fitted runs",
        hovertemplate="%{y}<br>a fitted run, %{x:+.4f}<extra></extra>",
    )
    figure.add_trace(_intervals(names, rows, prediction))
    figure.add_vline(x=0, line={"color": RULE, "width": 1.5}, layer="below")
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1], showgrid=False)
    figure.update_yaxes(range=[-0.6, len(names) - 0.4])
    figure.update_layout(showlegend=True)
    return figure


def interval_rows(fitted: Fitted, prediction: Predicted) -> list[dict[str, Any]]:
    """One loss a row: name, at, low and high against the fitted runs' mean, told in full, seen."""
    mean_D = fitted.measured_ND.mean(axis=0)
    rows = []
    for d, name in enumerate(fitted.losses):
        nats, low, high = prediction.nats[name], prediction.low[name], prediction.high[name]
        rows.append(
            {
                "name": name,
                "at": nats - mean_D[d],
                "low": low - mean_D[d],
                "high": high - mean_D[d],
                "told": f"{nats:.3f} ({low:.3f} to {high:.3f})",
                "seen": (fitted.measured_ND[:, d] - mean_D[d]).tolist(),
            }
        )
    return rows


def _intervals(
    names: Sequence[str], rows: Sequence[Mapping[str, Any]], prediction: Predicted
) -> go.Scatter:
    look = style(1 if prediction.outside else 0)
    kind = "guessed, outside<br>the sampled mixtures" if prediction.outside else "predicted"
    return go.Scatter(
        x=[row["at"] for row in rows],
        y=list(names),
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [row["high"] - row["at"] for row in rows],
            "arrayminus": [row["at"] - row["low"] for row in rows],
            "color": look.colour,
            "thickness": 2,
            "width": 6,
        },
        mode="markers",
        marker=look.marker(size=8),
        name=f"{kind},<br>{prediction.level:.0%} interval",
        hovertemplate=f"%{{y}}<br>{kind}<extra></extra>",
    )
