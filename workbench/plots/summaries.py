"""Figures without a time axis: a corpus at a glance, and verdicts.

summaries.corpus(prepared.overview())
summaries.verdicts([verdict])
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import plotly.graph_objects as go

from workbench.plots.theme import COLOURS, RULE, TEXT, blank, dress, safe, say_nothing_yet

_OUTCOMES = {
    "better": (COLOURS[2], "triangle-up"),
    "worse": (COLOURS[1], "triangle-down"),
    "within noise": (TEXT, "circle"),
    "undecided": (TEXT, "diamond"),
}


class VerdictLike(Protocol):
    """What the figure asks of a verdict; `evaluation.Verdict` is one."""

    @property
    def name(self) -> str: ...
    @property
    def baseline_name(self) -> str: ...
    @property
    def mean_difference(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def n(self) -> int: ...
    @property
    def outcome(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def seeds_needed(self) -> int | None: ...
    @property
    def bootstrap_low(self) -> float: ...
    @property
    def bootstrap_high(self) -> float: ...
    @property
    def noise_floor(self) -> float: ...


def verdicts(items: Sequence[VerdictLike], title: str = "Verdicts") -> go.Figure:
    """Difference to the baseline with its interval, one line a comparison."""
    items = list(items)
    unit = items[0].unit if items else ""
    height = 130 + 44 * max(1, len(items))
    figure = blank(title, x=f"difference to the baseline ({unit})", height=height)
    if not items:
        return say_nothing_yet(figure, "nothing compared yet")
    names = [f"{safe(v.name)} against {safe(v.baseline_name)}" for v in items]
    for outcome, (colour, symbol) in _OUTCOMES.items():
        mine = [(name, v) for name, v in zip(names, items, strict=True) if v.outcome == outcome]
        if mine:
            figure.add_trace(_interval(mine, outcome, colour, symbol))
    figure.add_vline(x=0, line={"color": RULE, "width": 1.5}, layer="below")
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1], showgrid=False)
    figure.update_yaxes(range=[-0.6, len(names) - 0.4])
    figure.update_layout(showlegend=True)
    return figure


def _interval(
    items: Sequence[tuple[str, VerdictLike]], outcome: str, colour: str, symbol: str
) -> go.Scatter:
    def reach(end: float, middle: float) -> float | None:
        return abs(end - middle) if math.isfinite(end) else None

    return go.Scatter(
        x=[v.mean_difference for _, v in items],
        y=[name for name, _ in items],
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [reach(v.high, v.mean_difference) for _, v in items],
            "arrayminus": [reach(v.low, v.mean_difference) for _, v in items],
            "color": colour,
            "thickness": 2,
            "width": 6,
        },
        mode="markers",
        marker={"color": colour, "symbol": symbol, "size": 15},
        name=outcome,
        customdata=[[support(v), v.unit] for _, v in items],
        hovertemplate=f"%{{y}}: {outcome}<br>%{{x:+.4f}} %{{customdata[1]}}<br>%{{customdata[0]}}"
        "<extra></extra>",
    )


def support(v: VerdictLike) -> str:
    """What a verdict rests on, for a hover: intervals, seeds, and the noise floor if there is one.

    Lines are parted by `<br>`.
    """
    lines = ["no interval from one seed"]
    if math.isfinite(v.high - v.low):
        lines = [
            f"interval {v.low:+.4f} to {v.high:+.4f}",
            f"bootstrap {v.bootstrap_low:+.4f} to {v.bootstrap_high:+.4f}",
        ]
    if v.noise_floor:
        lines.append(f"repeats alone differ by {v.noise_floor:.4f}")
    needed = "" if v.seeds_needed is None else f", {v.seeds_needed} needed"
    return "<br>".join([*lines, f"{v.n} seed{'s' if v.n > 1 else ''}{needed}"])


def corpus(overview: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Size of each domain in 10^6 bytes, and which share of its documents are duplicates.

    Args:
        overview: rows of `PreparedCorpus.overview()`, one per domain.
    """
    from plotly.subplots import make_subplots

    rows = list(overview)[::-1]
    if not rows:
        return say_nothing_yet(blank("Corpus", x="megabytes"), "no domains")
    figure = make_subplots(cols=2, shared_yaxes=True, horizontal_spacing=0.06)
    dress(figure, "Corpus by domain", height=130 + 34 * len(rows))
    names = [safe(row["domain"]) for row in rows]
    figure.add_bar(
        x=[row["megabytes"] for row in rows],
        y=names,
        orientation="h",
        name="text",
        marker={"color": COLOURS[0]},
        showlegend=False,
        text=[f"{_short(row['tokens'])} tokens" for row in rows],
        customdata=[[row["documents"], row["train_rows"], row["held_out_rows"]] for row in rows],
        hovertemplate="%{y}<br>%{x:.2f} MB, %{text}<br>%{customdata[0]:,} documents<br>"
        "%{customdata[1]:,} training rows, %{customdata[2]:,} held out<extra></extra>",
        row=1,
        col=1,
    )
    for field, name, colour, pattern in (
        ("exact_duplicates", "exact duplicates", COLOURS[1], ""),
        ("near_duplicates", "near-duplicates", COLOURS[4], "/"),
    ):
        figure.add_bar(
            x=[row[field] / max(1, row["documents"]) for row in rows],
            y=names,
            orientation="h",
            name=name,
            marker={"color": colour, "pattern": {"shape": pattern}},
            customdata=[row[field] for row in rows],
            hovertemplate=f"%{{y}}<br>%{{customdata:,}} {name}, %{{x:.1%}} of its documents"
            "<extra></extra>",
            row=1,
            col=2,
        )
    figure.update_layout(barmode="stack", bargap=0.35, legend={"traceorder": "normal"})
    figure.update_xaxes(title_text="megabytes of text", rangemode="tozero", row=1, col=1)
    figure.update_xaxes(
        title_text="share of documents", tickformat=".0%", rangemode="tozero", row=1, col=2
    )
    figure.update_yaxes(showgrid=False)
    return figure


def _short(count: int) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g} {letter}"
    return str(count)
