"""The pool of a selector as a map: rows by domain, cluster, influence, pulls; arms; a replay.

    cluster_map(run, colour="influence")
    arms(run); pulls_replay(run)

Near on the map is similar text; its axes have no unit.  Shapes: N rows of the pool, C clusters.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from workbench.core import ConfigError, unknown_name
from workbench.plots.choices import Choice, read_choice
from workbench.plots.series import Runs, only
from workbench.plots.theme import COLOURS, RULE, TEXT, blank, dress, safe, say_nothing_yet, style

if TYPE_CHECKING:
    import pandas as pd

COLOURINGS = ("domain", "cluster", "influence", "pulls", "accepted")
MOST_POINTS = 20_000
MOST_SVG_POINTS = 3000
MOST_LABELS = 25
MOST_ARMS = 30
ARM_PX = 17
FAINT = "rgba(127,127,127,0.35)"
INFLUENCE_COLOURS = [[0.0, "#D55E00"], [0.5, "#BDBDBD"], [1.0, "#0072B2"]]
"""Harmful to helpful around 0, told apart in every kind of colour vision, on light and on dark."""
PULL_COLOURS = [[0.0, "#C9C9C9"], [0.5, "#E69F00"], [1.0, "#B03A00"]]
LIMIT_PERCENTILE = 95
NO_MAP = "the run has no map: its selector places no rows, or has not chosen yet"


def cluster_map(run: Runs, colour: str = "domain", step: int | None = None) -> go.Figure:
    """Rows of the pool on the plane; near is similar text.

    Of more than `MOST_POINTS` rows every domain shows the same part, which the title tells.

    Args:
        colour: one of `COLOURINGS`; `pulls` counts those of a row's cluster.
        step: of the choice; the last one when None.
    Raises:
        ConfigError: unknown colour.  RunError: nothing was chosen before that step.
    """
    if colour not in COLOURINGS:
        problem, remedy = unknown_name("colour", colour, COLOURINGS)
        raise ConfigError(problem, remedy=remedy)
    choice = read_choice(only(run), step)
    if choice is None or choice.samples is None:
        return say_nothing_yet(blank(f"Pool by {colour}", height=480), NO_MAP)
    rows = choice.samples
    shown = rows.iloc[thinned(rows["domain"].to_numpy(), MOST_POINTS)]
    part = "" if len(shown) == len(rows) else f", {len(shown):,} of {len(rows):,} rows drawn"
    figure = blank(f"Pool by {colour}, choice before step {choice.step:,}{part}", height=480)
    for trace in _layers(colour, shown, choice):
        figure.add_trace(trace)
    if colour == "cluster":
        _name_clusters(figure, rows)
    _map_axes(figure)
    figure.update_layout(showlegend=colour != "cluster")
    return figure


def thinned(domain_N: np.ndarray, most: int) -> np.ndarray:
    """Places of at most about `most` rows, the same part of each domain, in order."""
    if len(domain_N) <= most:
        return np.arange(len(domain_N))
    kept = []
    for domain in np.unique(domain_N):
        place_n = np.flatnonzero(domain_N == domain)
        count = max(1, round(len(place_n) * most / len(domain_N)))
        kept.append(place_n[np.linspace(0, len(place_n) - 1, count).astype(int)])
    return np.sort(np.concatenate(kept))


def influence_limit(influence_N: np.ndarray) -> float:
    """End of a colour scale around 0: few rows lie outside, at its ends."""
    known = np.abs(influence_N[np.isfinite(influence_N)])
    return float(np.percentile(known, LIMIT_PERCENTILE)) or 1.0 if len(known) else 1.0


def _layers(colour: str, rows: pd.DataFrame, choice: Choice) -> Iterator[Any]:
    match colour:
        case "domain":
            for index, domain in enumerate(sorted(set(rows["domain"]))):
                mine = rows.loc[rows["domain"] == domain]
                yield _points(mine, safe(domain), style(index).marker(size=5), len(rows))
        case "cluster":
            for turn in range(len(COLOURS)):
                mine = rows.loc[rows["cluster"] % len(COLOURS) == turn]
                yield _points(mine, "clusters", style(turn).marker(size=5), len(rows))
        case "influence":
            yield from _by_influence(rows)
        case "pulls":
            pulls_N = _pulls_of(choice, rows["cluster"].to_numpy())
            look = {"size": 5, "color": pulls_N, "colorscale": PULL_COLOURS, "cmin": 0}
            look |= {"cmax": max(1, int(pulls_N.max(initial=0))), "showscale": True}
            look["colorbar"] = _bar("pulls of<br>its cluster")
            yield _points(rows, "rows", look, len(rows)).update(showlegend=False)
        case "accepted":
            taken = rows["accepted"].to_numpy(bool)
            faint = {"color": FAINT, "size": 4, "symbol": "x"}
            yield _points(rows.loc[~taken], "left out", faint, len(rows))
            yield _points(rows.loc[taken], "accepted", style(0).marker(size=6), len(rows))


def _by_influence(rows: pd.DataFrame) -> Iterator[Any]:
    influence_N = rows["influence"].to_numpy(float)
    limit = influence_limit(influence_N)
    unscored = rows.loc[~np.isfinite(influence_N)]
    yield _points(unscored, "not scored", {"color": FAINT, "size": 3}, len(rows))
    signs = {
        "helpful": ("triangle-up", influence_N >= 0),
        "harmful": ("triangle-down", influence_N < 0),
    }
    for number, (name, (symbol, mine)) in enumerate(signs.items()):
        look: dict[str, Any] = {"size": 8, "symbol": symbol, "colorscale": INFLUENCE_COLOURS}
        look |= {"color": influence_N[mine], "cmin": -limit, "cmax": limit}
        look |= {"showscale": number == 0, "colorbar": _bar("influence<br>per token")}
        yield _points(rows.loc[mine], name, look, len(rows))


def _points(rows: pd.DataFrame, name: str, look: dict[str, Any], total: int) -> Any:
    """One layer; SVG while few, since a page has few WebGL contexts."""
    kind = go.Scatter if total <= MOST_SVG_POINTS else go.Scattergl
    told = [_told(row) for row in rows.itertuples()]
    return kind(
        x=rows["x"].to_numpy(np.float32),
        y=rows["y"].to_numpy(np.float32),
        text=told,
        name=name,
        mode="markers",
        marker={"opacity": 0.75, **look},
        hovertemplate="%{text}<extra></extra>",
    )


def _told(row: Any) -> str:
    score = f"influence {row.influence:.4g}" if np.isfinite(row.influence) else "not scored"
    place = f"sample {row.sample_id}, cluster {row.cluster}"
    return f"{safe(row.domain)}<br>{place}<br>{score}{', accepted' if row.accepted else ''}"


def _pulls_of(choice: Choice, cluster_N: np.ndarray) -> np.ndarray:
    if choice.arms is None or "pulls" not in choice.arms:
        return np.zeros(len(cluster_N), dtype=int)
    return choice.arms.set_index("cluster")["pulls"].reindex(cluster_N).to_numpy(int)


def _bar(title: str) -> dict[str, Any]:
    return {"title": {"text": title}, "thickness": 12, "outlinewidth": 0, "len": 0.7, "y": 0.35}


def centres(rows: pd.DataFrame) -> pd.DataFrame:
    """Median place and number of rows of each cluster, most rows first."""
    middle = rows.groupby("cluster").agg(x=("x", "median"), y=("y", "median"), rows=("x", "size"))
    return middle.sort_values("rows", ascending=False)


def _name_clusters(figure: go.Figure, rows: pd.DataFrame) -> None:
    for cluster, place in centres(rows).head(MOST_LABELS).iterrows():
        figure.add_annotation(
            x=place["x"],
            y=place["y"],
            text=str(cluster),
            showarrow=False,
            font={"size": 11, "color": "#222222"},
            bgcolor="rgba(255,255,255,0.75)",
            borderpad=1,
        )


def _map_axes(figure: go.Figure) -> None:
    quiet = {"showticklabels": False, "ticks": "", "showgrid": False}
    figure.update_xaxes(title_text="map axis 1 (no unit; near: similar text)", **quiet)
    figure.update_yaxes(title_text="map axis 2", **quiet)


def arms(run: Runs, step: int | None = None) -> go.Figure:
    """Arms by mean influence with their interval, pulls, and rows accepted.

    The `MOST_ARMS` with the highest mean; the dashed line is the threshold in the end.

    Raises:
        RunError: nothing was chosen before that step.
    """
    from plotly.subplots import make_subplots

    choice = read_choice(only(run), step)
    if choice is None or choice.arms is None or "mean" not in choice.arms:
        return say_nothing_yet(blank("Arms"), "the run's selector has no arms, or none yet")
    best = choice.arms.sort_values("mean", ascending=False).head(MOST_ARMS)
    figure = make_subplots(
        1, 3, shared_yaxes=True, column_widths=[0.5, 0.25, 0.25], horizontal_spacing=0.03
    )
    some = "" if len(best) == len(choice.arms) else f", best {len(best)} of {len(choice.arms)}"
    title = f"Arms by mean influence, choice before step {choice.step:,}{some}"
    dress(figure, title, height=146 + ARM_PX * len(best))
    names = [f"cluster {cluster}" for cluster in best["cluster"]]
    _draw_means(figure, best, names)
    for column, (field, unit) in enumerate((("pulls", "pulls"), ("accepted", "rows accepted")), 2):
        look = {"color": COLOURS[column - 2], "pattern": {"shape": style(column - 2).pattern}}
        told = f"%{{y}}<br>%{{x:,}} {unit}<extra></extra>"
        bars = {"orientation": "h", "showlegend": False, "marker": look, "hovertemplate": told}
        figure.add_bar(x=best[field], y=names, name=unit, row=1, col=column, **bars)
        figure.update_xaxes(title_text=unit, rangemode="tozero", row=1, col=column)
    if choice.threshold is not None:
        line = {"color": RULE, "dash": "dash"}
        figure.add_vline(x=choice.threshold, line=line, row=1, col=1)  # pyright: ignore
    figure.update_xaxes(title_text="mean influence per token, with interval", row=1, col=1)
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1], showgrid=False)
    figure.update_layout(bargap=0.3, showlegend=True, legend={"orientation": "h", "y": 1.0})
    figure.update_layout(legend={"yanchor": "bottom", "x": 0}, margin={"t": 96})
    return figure


def _draw_means(figure: go.Figure, best: pd.DataFrame, names: list[str]) -> None:
    gave_C = best["accepted"].to_numpy() > 0
    kinds = {"gave rows": (gave_C, COLOURS[0], "circle"), "gave none": (~gave_C, TEXT, "diamond")}
    for name, (mine, colour, symbol) in kinds.items():
        some = best[mine]
        if some.empty:
            continue
        ends = {"array": some["high"] - some["mean"], "arrayminus": some["mean"] - some["low"]}
        told = "%{y}<br>mean %{x:.4g}<br>from %{customdata[0]:.4g} to %{customdata[1]:.4g}"
        figure.add_scatter(
            x=some["mean"],
            y=[label for label, is_mine in zip(names, mine, strict=True) if is_mine],
            error_x={"type": "data", "symmetric": False, "thickness": 1.5, **ends},
            customdata=some[["low", "high"]],
            mode="markers",
            name=name,
            marker={"color": colour, "symbol": symbol, "size": 8},
            text=some["scored"],
            hovertemplate=f"{told}<br>%{{text}} rows scored<extra></extra>",
            row=1,
            col=1,
        )
