"""Lines, bands and marked events on a figure.

panel = Panel(figure, row=1, col=2)
panel.line(line, label="uniform", style=style(0), unit="nats per token")
mark_events(figure, grouped(runs))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from workbench.plots.series import Groups, Line, thin
from workbench.plots.theme import RULE, TAG, TAG_TEXT, Style, safe

MARKED = ("set", "selected", "paused", "unpaused", "resumed", "stopped", "failed")
_MAX_LABELS = 12
_NEAR = 0.02


@dataclass(frozen=True)
class Panel:
    """One pair of axes of a figure; None for a figure that has no other."""

    figure: go.Figure
    row: int | None = None
    col: int | None = None

    def add(self, trace: Any) -> None:
        self.figure.add_trace(trace, row=self.row, col=self.col)

    def line(
        self,
        line: Line,
        *,
        label: str,
        style: Style,
        unit: str,
        digits: int = 3,
        markers: bool = False,
        in_legend: bool = True,
        x: str = "step %{x:,}",
    ) -> None:
        """A curve, and behind it the band from the lowest to the highest run.

        x: how the hover text tells where a point is.
        """
        if line.runs > 1:
            self._band(line, style, label)
        kept = thin(line.x_S, line.y_S)
        told = f"{safe(label)}<br>{x}<br>%{{y:,.{digits}f}} {unit}"
        name = safe(label)
        if line.runs > 1:
            told += (
                f", mean of {line.runs} runs<br>lowest %{{customdata[0]:,.{digits}f}}, "
                f"highest %{{customdata[1]:,.{digits}f}}"
            )
            name += f"<br>mean of {line.runs}, band: min to max"
        self.add(
            go.Scatter(
                x=line.x_S[kept],
                y=line.y_S[kept],
                customdata=np.stack([line.low_S, line.high_S], axis=1)[kept],
                name=name,
                legendgroup=label,
                showlegend=in_legend,
                mode="lines+markers" if markers or len(kept) == 1 else "lines",
                line=style.line(),
                marker=style.marker(),
                hovertemplate=told + "<extra></extra>",
            )
        )

    def _band(self, line: Line, style: Style, label: str) -> None:
        low, high = thin(line.x_S, line.low_S), thin(line.x_S, line.high_S)[::-1]
        self.add(
            go.Scatter(
                x=np.concatenate([line.x_S[low], line.x_S[high]]),
                y=np.concatenate([line.low_S[low], line.high_S[high]]),
                name=safe(label),
                legendgroup=label,
                showlegend=False,
                mode="lines",
                line={"width": 0, "color": style.faded(0)},
                fill="toself",
                fillcolor=style.faded(0.18),
                hoverinfo="skip",
            )
        )

    def faint(self, x_S: np.ndarray, y_S: np.ndarray, *, label: str, style: Style) -> None:
        """Values before smoothing, behind their line and without hover text."""
        kept = thin(x_S, y_S)
        self.add(
            go.Scatter(
                x=x_S[kept],
                y=y_S[kept],
                name=safe(label),
                legendgroup=label,
                showlegend=False,
                mode="lines",
                line={"width": 1, "color": style.faded(0.4)},
                hoverinfo="skip",
            )
        )


def mark_events(figure: go.Figure, groups: Groups, panels: Sequence[Panel] = ()) -> None:
    """Changes and interruptions as labelled vertical lines; the label stands in the first panel."""
    marks = _merged(_marks(groups))
    for number, panel in enumerate(panels or (Panel(figure),)):
        where = {} if panel.row is None else {"row": panel.row, "col": panel.col}
        for step, text in marks:
            line = {"color": RULE, "width": 1, "dash": "dot"}
            figure.add_vline(x=step, line=line, layer="below", **where)
            if number == 0 and len(marks) <= _MAX_LABELS:
                figure.add_annotation(
                    x=step,
                    y=1,
                    yref="y domain",
                    text=safe(text),
                    textangle=-90,
                    showarrow=False,
                    xanchor="right",
                    yanchor="top",
                    font={"size": 10, "color": TAG_TEXT},
                    bgcolor=TAG,
                    borderpad=1,
                    **where,
                )


def _marks(groups: Groups) -> list[tuple[int, str]]:
    several = len(groups) > 1
    found: dict[tuple[int, str], None] = {}
    for label, runs in groups.items():
        for run in runs:
            events = [event for event in run.events() if event["kind"] in MARKED]
            paused = {event["step"] for event in events if event["kind"] == "paused"}
            for event in events:
                if event["kind"] == "unpaused" and event["step"] in paused:
                    continue
                text = _told(event)
                found[event["step"], f"{label}: {text}" if several else text] = None
    return sorted(found)


def _told(event: dict[str, Any]) -> str:
    if event["kind"] == "set":
        changes = event["changes"].items()
        return ", ".join(f"{name.split('.')[-1]} = {value}" for name, value in changes)
    if event["kind"] == "selected":
        return f"selected {event['rows']:,} rows"
    return event["kind"]


def _merged(marks: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Marks closer than their labels are wide share one line, at the first of them."""
    if not marks:
        return []
    reach = _NEAR * max(step for step, _ in marks)
    merged: list[tuple[int, list[str]]] = []
    for step, text in marks:
        if merged and step - merged[-1][0] <= reach:
            if text not in merged[-1][1]:
                merged[-1][1].append(text)
        else:
            merged.append((step, [text]))
    return [(step, ", ".join(texts)) for step, texts in merged]
