"""A finished run's mixture as a figure that replays without a kernel.

    figure = policy_replay(run)
    Path("replay.html").write_text(html([figure], title="Replay"))

Shapes: S steps, F frames, K domains.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from workbench.plots.curves import recorded_domains
from workbench.plots.mixing import corners, draw_simplex, smooth_mixtures
from workbench.plots.series import Recorded, Runs, only, per_step
from workbench.plots.theme import GRID, RULE, TEXT, blank, safe, say_nothing_yet, style

FRAMES = 120
FRAME_MS = 80
HEIGHT = 540
PATH_WIDTH = 0.56
BARS_FROM = 0.68


def policy_replay(run: Runs) -> go.Figure:
    """The way over the simplex and the mixture of each domain, with a slider over the steps.

    A bar is the share in effect, a diamond the one asked for.  At most `FRAMES` steps are kept;
    the path is smoothed as in `policy_path`, the bars are not.  A picture shows the last step.
    """
    own = only(run)
    domains = recorded_domains({"": [own]})
    figure = blank("Replay of the mixture", height=HEIGHT)
    if not domains:
        return say_nothing_yet(figure)
    smooth_SK, step_S = smooth_mixtures(own, domains)
    kept = np.unique(np.linspace(0, len(step_S) - 1, min(len(step_S), FRAMES)).astype(int))
    step_F, corner_K2 = step_S[kept].astype(int), corners(len(domains))
    # Single precision halves the page and is finer than a screen.
    point_F2 = (smooth_SK[kept] @ corner_K2).astype(np.float32)
    asked_FK = _shares(own, "mixture", domains)[kept]
    used_SK = _shares(own, "effective_mixture", domains)
    used_FK = used_SK[kept] if len(used_SK) == len(step_S) else None
    _still(figure, domains, corner_K2, point_F2)
    places = [_places(point_F2, asked_FK, used_FK, f) for f in range(len(kept))]
    still: Any = figure.data
    moving = [
        trace.update(place) for trace, place in zip(_looks(domains), places[-1], strict=False)
    ]
    figure.add_traces(moving)
    figure.frames = [
        go.Frame(
            name=str(step),
            data=[type(trace)(**moved) for trace, moved in zip(moving, place, strict=True)],
            traces=list(range(len(still), len(still) + len(moving))),
        )
        for step, place in zip(step_F, places, strict=True)
    ]
    _axes(figure, domains, float(max(asked_FK.max(), 0 if used_FK is None else used_FK.max())))
    play_controls(figure, step_F)
    return figure


def _shares(run: Recorded, field: str, domains: list[str]) -> np.ndarray:
    """A mixture of each step, (S, K); no rows if never recorded."""
    columns = [
        per_step(run, lambda event, d=domain: event.get(field, {}).get(d))[1] for domain in domains
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _still(
    figure: go.Figure, domains: list[str], corner_K2: np.ndarray, point_F2: np.ndarray
) -> None:
    """What no frame changes: the simplex, the whole way behind, its start."""
    draw_simplex(figure, domains, corner_K2)
    common: Any = {"showlegend": False, "hoverinfo": "skip"}
    figure.add_scatter(
        x=point_F2[:, 0],
        y=point_F2[:, 1],
        mode="lines",
        line={"color": GRID, "width": 1.5},
        **common,
    )
    figure.add_scatter(
        x=point_F2[:1, 0],
        y=point_F2[:1, 1],
        mode="markers",
        marker={"color": style(0).colour, "symbol": "square", "size": 7},
        **common,
    )


def _places(
    point_F2: np.ndarray, asked_FK: np.ndarray, used_FK: np.ndarray | None, frame: int
) -> list[dict[str, np.ndarray]]:
    """What one frame moves: the way so far, where it is, shares asked for and in effect."""
    way, here = point_F2[: frame + 1], point_F2[frame : frame + 1]
    moved = [{"x": xy[:, 0], "y": xy[:, 1]} for xy in (way, here)]
    shares = [asked_FK] if used_FK is None else [asked_FK, used_FK]
    return moved + [{"x": share_FK[frame]} for share_FK in shares]


def _looks(domains: list[str]) -> list[Any]:
    """The traces that `_places` moves, in its order."""
    look, quiet = style(0), {"showlegend": False, "hoverinfo": "skip"}
    names = [safe(domain) for domain in domains]
    shares: dict[str, Any] = {"y": names, "xaxis": "x2", "yaxis": "y2", "showlegend": False}
    return [
        go.Scatter(mode="lines", line={"color": look.colour, "width": 2}, **quiet),
        go.Scatter(mode="markers", marker=look.marker(size=11), **quiet),
        go.Scatter(
            mode="markers",
            marker={"color": TEXT, "symbol": "diamond", "size": 10},
            hovertemplate="%{y}<br>%{x:.1%} asked for<extra></extra>",
            **shares,
        ),
        go.Bar(
            orientation="h",
            marker={"color": [style(k).colour for k in range(len(domains))]},
            hovertemplate="%{y}<br>%{x:.1%} in effect<extra></extra>",
            **shares,
        ),
    ]


def _axes(figure: go.Figure, domains: list[str], top: float) -> None:
    plain: dict[str, Any] = {"linecolor": RULE, "zeroline": False, "showline": True}
    figure.update_layout(
        xaxis={"visible": False, "range": [-1.45, 1.45], "domain": [0, PATH_WIDTH]},
        yaxis={"visible": False, "range": [-1.15, 1.15], "scaleanchor": "x"},
        xaxis2={
            **plain,
            "domain": [BARS_FROM, 1],
            "anchor": "y2",
            "range": [0, min(1.0, 1.08 * top)],
            "tickformat": ".0%",
            "gridcolor": GRID,
            "title": {"text": "bar: in effect, diamond: asked for", "standoff": 8},
        },
        yaxis2={
            **plain,
            "anchor": "x2",
            "categoryorder": "array",
            "categoryarray": [safe(domain) for domain in reversed(domains)],
            "showgrid": False,
        },
        bargap=0.35,
        margin={"b": 124},
    )


def play_controls(figure: go.Figure, step_F: np.ndarray, prefix: str = "step ") -> None:
    """Play, pause, and a slider at the last frame; playing there starts from the first."""
    at_once = {"mode": "immediate", "frame": {"duration": 0}, "transition": {"duration": 0}}
    playing = {**at_once, "frame": {"duration": FRAME_MS}, "fromcurrent": True}
    font, soft = {"color": TEXT}, "rgba(128,128,128,0.2)"
    steps = [
        {"label": f"{step:,}", "method": "animate", "args": [[str(step)], at_once]}
        for step in step_F.tolist()
    ]
    figure.update_layout(
        sliders=[
            {
                "steps": steps,
                "active": len(steps) - 1,
                "currentvalue": {"prefix": prefix, "font": font},
                "font": {"color": "rgba(0,0,0,0)"},
                "x": 0.16,
                "len": 0.84,
                "pad": {"t": 48},
                "bgcolor": soft,
                "bordercolor": RULE,
                "tickcolor": "rgba(0,0,0,0)",
            }
        ],
        updatemenus=[
            {
                "type": "buttons",
                "direction": "left",
                "showactive": False,
                "x": 0,
                "xanchor": "left",
                "y": 0,
                "yanchor": "top",
                "pad": {"t": 62},
                "font": font,
                "bgcolor": soft,
                "bordercolor": RULE,
                "buttons": [
                    {"label": "Play", "method": "animate", "args": [None, playing]},
                    {"label": "Pause", "method": "animate", "args": [[None], at_once]},
                ],
            }
        ],
    )
