"""Figures of influence scores: how near to the exact inverse, how predictive, how much to trust.

    plots.inverse_cosines(found, damping=0.1)
    plots.damping_slider(found)                    # a slider that needs no kernel
    plots.lds({"ekfac": estimate, …}); plots.control_scores({"healthy": …})

Shapes: G dampings, L linear maps, N candidate rows, n rows of a group.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import plotly.graph_objects as go

from workbench.plots.draw import Panel
from workbench.plots.theme import GRID, RULE, TEXT, Style, blank, dress, safe, style

LOOKS = ("identity", "kfac", "ekfac", "random")
NAMES = {"identity": "identity", "kfac": "K-FAC", "ekfac": "EK-FAC"}
_MAP = re.compile(r"\.(\d+)\.(?:.*\.)?([^.]+)$")
_ROW_PX = 24
_RANKS = [-0.03, 1.03]
"""From the lowest score to the highest: a single extreme row would squeeze scores themselves."""


class Inverses(Protocol):
    """What these figures ask of `influence.InverseComparison`."""

    @property
    def damping_G(self) -> np.ndarray: ...
    @property
    def maps(self) -> tuple[str, ...]: ...
    @property
    def cosine(self) -> dict[str, np.ndarray]: ...
    @property
    def score(self) -> dict[str, np.ndarray]: ...
    def agreement(self, name: str) -> np.ndarray: ...
    def at(self, damping: float) -> int: ...


class EstimateLike(Protocol):
    """What `lds` asks of an estimate; `influence.Estimate` is one."""

    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def subsets(self) -> int: ...
    @property
    def queries(self) -> int: ...


class Controls(Protocol):
    """What `control_scores` asks of a checkpoint; `influence.ControlScores` is one."""

    @property
    def score(self) -> dict[str, dict[str, np.ndarray]]: ...
    def clean_share(self, scorer: str, control: str) -> float: ...


def inverse_cosines(found: Inverses, *, damping: float = 0.1) -> go.Figure:
    """Cosine between each preconditioner's direction and the exact one, map by map."""
    place = found.at(damping)
    names = [_short(name) for name in found.maps]
    figure = blank(
        f"Nearness to the exact inverse, damping {found.damping_G[place]:g}",
        x="cosine to the exact direction",
        height=130 + _ROW_PX * len(names),
    )
    for name, cosine_GL in found.cosine.items():
        look = _look(name)
        figure.add_scatter(
            x=cosine_GL[place],
            y=names,
            mode="markers",
            marker=look.marker(size=10),
            name=_told(name),
            hovertemplate=f"%{{y}}<br>{_told(name)}: %{{x:.3f}}<extra></extra>",
        )
    figure.update_xaxes(range=[0, 1.02])
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1])
    return figure


def score_scatter(found: Inverses, *, damping: float = 0.1) -> go.Figure:
    """Ranks by estimated against ranks by exact score, a panel a preconditioner."""
    from plotly.subplots import make_subplots

    place, names = found.at(damping), list(found.cosine)
    titles = [
        f"{_told(name)}: rank correlation {found.agreement(name)[place]:.3f}" for name in names
    ]
    figure = make_subplots(cols=len(names), subplot_titles=titles, horizontal_spacing=0.07)
    dress(figure, f"Order of the rows, damping {found.damping_G[place]:g}", height=360)
    figure.update_layout(showlegend=False, margin={"t": 76})
    figure.update_annotations(font={"size": 12})
    for col, name in enumerate(names, start=1):
        panel = Panel(figure, 1, col)
        panel.add(_diagonal())
        panel.add(_cloud(found, name, place))
    figure.update_xaxes(title_text="rank by exact score")
    figure.update_yaxes(title_text="rank by estimate", col=1)
    figure.update_xaxes(range=_RANKS)
    figure.update_yaxes(range=_RANKS)
    return figure


def damping_slider(found: Inverses) -> go.Figure:
    """Agreement over all dampings; the slider moves a mark, and the ranks at its damping.

    A picture shows the whole curve, and the ranks at the middle of the grid.
    """
    from plotly.subplots import make_subplots

    figure = make_subplots(cols=2, column_widths=[0.54, 0.46], horizontal_spacing=0.12)
    dress(figure, "Damping: from curvature to no curvature", height=480)
    for name in found.cosine:
        figure.add_trace(_curve(found, name), row=1, col=1)
    figure.add_trace(_diagonal(), row=1, col=2)
    still, middle = len(figure.data), len(found.damping_G) // 2  # pyright: ignore[reportArgumentType]
    figure.add_trace(_mark(found, middle), row=1, col=1)
    for name in found.cosine:
        figure.add_trace(_cloud(found, name, middle), row=1, col=2)
    names = [f"{damping:.3g}" for damping in found.damping_G]
    moving = list(range(still, still + 1 + len(found.cosine)))
    figure.frames = [
        go.Frame(
            name=name,
            data=[_mark(found, place), *(_cloud(found, of, place) for of in found.cosine)],
            traces=moving,
        )
        for place, name in enumerate(names)
    ]
    figure.update_xaxes(
        title_text="damping (× mean eigenvalue)", type="log", exponentformat="power", col=1
    )
    figure.update_yaxes(title_text="rank correlation with exact scores", col=1)
    figure.update_yaxes(range=_ends(found), row=1, col=1)
    figure.update_xaxes(title_text="rank by exact score", col=2)
    figure.update_yaxes(title_text="rank by estimate", col=2)
    figure.update_xaxes(range=_RANKS, row=1, col=2)
    figure.update_yaxes(range=_RANKS, row=1, col=2)
    _slider(figure, names, middle)
    return figure


def lds(estimates: Mapping[str, EstimateLike]) -> go.Figure:
    """Linear datamodeling score with its interval, one line a scorer."""
    one = next(iter(estimates.values()))
    names = [_told(name) for name in estimates]
    figure = blank(
        f"Do scores predict retraining? {one.subsets} subsets, {one.queries} queries",
        x="linear datamodeling score, 95 % interval",
        height=140 + 40 * len(names),
    )
    for name, estimate in estimates.items():
        look = _look(name)
        figure.add_scatter(
            x=[estimate.value],
            y=[_told(name)],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [estimate.high - estimate.value],
                "arrayminus": [estimate.value - estimate.low],
                "color": look.colour,
                "thickness": 2,
                "width": 6,
            },
            mode="markers",
            marker=look.marker(size=13),
            name=_told(name),
            showlegend=False,
            hovertemplate=f"%{{y}}<br>%{{x:.3f}}, interval {estimate.low:.3f} to "
            f"{estimate.high:.3f}<extra></extra>",
        )
    figure.add_vline(x=0, line={"color": RULE, "width": 1.5}, layer="below")
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1], showgrid=False)
    figure.update_yaxes(range=[-0.6, len(names) - 0.4])
    return figure


def control_scores(checkpoints: Mapping[str, Controls]) -> go.Figure:
    """Scores of clean and control rows: a row of panels a checkpoint, a column a scorer.

    A diamond is the median of a group; scores are in standard deviations of their panel.
    """
    from plotly.subplots import make_subplots

    scorers = list(next(iter(checkpoints.values())).score)
    rows, height = len(checkpoints), 90 + 180 * len(checkpoints)
    figure = make_subplots(
        rows=rows,
        cols=len(scorers),
        shared_yaxes=True,
        subplot_titles=[
            f"{safe(label)}: {_told(scorer)}" for label in checkpoints for scorer in scorers
        ],
        horizontal_spacing=0.04,
        vertical_spacing=min(0.4, 62 / (height - 110)),
    )
    dress(figure, "Who scores highest: clean rows or controls?", height=height)
    figure.update_layout(showlegend=False, margin={"t": 76})
    figure.update_annotations(font={"size": 12})
    for row, one in enumerate(checkpoints.values(), start=1):
        for col, scorer in enumerate(scorers, start=1):
            _groups(Panel(figure, row, col), one, scorer)
    figure.update_xaxes(title_text="score, higher is preferred", row=rows)
    return figure


def _groups(panel: Panel, one: Controls, scorer: str) -> None:
    """A strip of points and a median for each group, the first on top."""
    groups = one.score[scorer]
    every = np.concatenate(list(groups.values()))
    scale = float(every.std()) or 1.0
    for index, (group, score_n) in enumerate(groups.items()):
        look, value_n = style(index), (score_n - every.mean()) / scale
        told = "" if index == 0 else f"<br>clean above in {one.clean_share(scorer, group):.0%}"
        shared: dict[str, Any] = {"mode": "markers", "name": safe(group)}
        panel.add(
            go.Scatter(
                x=value_n,
                y=[safe(group)] * len(value_n),
                marker={"color": look.faded(0.35), "symbol": look.symbol, "size": 6},
                hoverinfo="skip",
                **shared,
            )
        )
        panel.add(
            go.Scatter(
                x=[float(np.median(value_n))],
                y=[safe(group)],
                marker={"color": look.colour, "symbol": "diamond", "size": 13},
                hovertemplate=f"{safe(group)}: median %{{x:.2f}}{told}<extra></extra>",
                **shared,
            )
        )
    where: dict[str, Any] = {"row": panel.row, "col": panel.col}
    names = [safe(group) for group in groups]
    panel.figure.update_yaxes(
        categoryorder="array", categoryarray=names[::-1], range=[-0.6, len(names) - 0.4], **where
    )


def _curve(found: Inverses, name: str) -> go.Scatter:
    look = _look(name)
    return go.Scatter(
        x=found.damping_G,
        y=found.agreement(name),
        mode="lines+markers",
        line=look.line(),
        marker=look.marker(),
        name=_told(name),
        legendgroup=name,
        hovertemplate=f"{_told(name)}<br>damping %{{x:.3g}}<br>rank correlation %{{y:.3f}}"
        "<extra></extra>",
    )


def _mark(found: Inverses, place: int) -> go.Scatter:
    """The damping in view, as a line of the curve's height."""
    return go.Scatter(
        x=[found.damping_G[place]] * 2,
        y=_ends(found),
        mode="lines",
        line={"color": RULE, "width": 2, "dash": "dot"},
        showlegend=False,
        hoverinfo="skip",
    )


def _cloud(found: Inverses, name: str, place: int) -> go.Scatter:
    look = _look(name)
    return go.Scatter(
        x=_ranks(found.score["exact"][place]),
        y=_ranks(found.score[name][place]),
        mode="markers",
        marker={"color": look.faded(0.7), "symbol": look.symbol, "size": 6},
        name=_told(name),
        legendgroup=name,
        showlegend=False,
        hovertemplate=f"{_told(name)}<br>rank by exact score %{{x:.2f}}, by estimate %{{y:.2f}}"
        "<extra></extra>",
    )


def _diagonal() -> go.Scatter:
    """Where estimate and truth agree."""
    return go.Scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        line={"color": GRID, "width": 2},
        showlegend=False,
        hoverinfo="skip",
    )


def _ends(found: Inverses) -> list[float]:
    """Range of the axis of rank correlations, with room below the lowest."""
    lowest = min(float(found.agreement(name).min()) for name in found.cosine)
    return [min(0.0, lowest - 0.05), 1.02]


def _ranks(score_N: np.ndarray) -> np.ndarray:
    """0 for the lowest score, 1 for the highest."""
    return score_N.argsort().argsort() / max(len(score_N) - 1, 1)


def _slider(figure: go.Figure, names: list[str], active: int) -> None:
    at_once = {"mode": "immediate", "frame": {"duration": 0}, "transition": {"duration": 0}}
    figure.update_layout(
        margin={"b": 124},
        sliders=[
            {
                "steps": [
                    {"label": name, "method": "animate", "args": [[name], at_once]}
                    for name in names
                ],
                "active": active,
                "currentvalue": {"prefix": "damping ", "font": {"color": TEXT}},
                "font": {"color": TEXT},
                "pad": {"t": 48},
                "bgcolor": "rgba(128,128,128,0.2)",
                "bordercolor": RULE,
                "tickcolor": RULE,
            }
        ],
    )


def _look(name: str) -> Style:
    return style(LOOKS.index(name) if name in LOOKS else len(LOOKS))


def _told(name: str) -> str:
    return NAMES.get(name, safe(name))


def _short(name: str) -> str:
    """Layer and last part of a map's path: "0 q_proj"."""
    found = _MAP.search(name)
    return safe(f"{found[1]} {found[2]}" if found else name)
