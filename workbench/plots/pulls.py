"""The rounds of a bandit as a figure that replays without a kernel.

    figure = pulls_replay(run)
    Path("pulls.html").write_text(html([figure], title="Pulls"))

Shapes: N rows of the pool, C clusters, F frames.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from workbench.plots.choices import arm_history, pull_rounds, read_choice
from workbench.plots.clusters import (
    FAINT,
    INFLUENCE_COLOURS,
    NO_MAP,
    centres,
    influence_limit,
    thinned,
)
from workbench.plots.replay import FRAMES, HEIGHT, play_controls
from workbench.plots.series import Runs, only
from workbench.plots.theme import TEXT, blank, say_nothing_yet

MOST_ROWS = 3000
MOST_ARMS = 300
SMALLEST_PX, LARGEST_PX = 5, 26


def pulls_replay(run: Runs, step: int | None = None) -> go.Figure:
    """Arms on the map of the pool, with a slider over the rounds.

    A disc is a cluster: larger the more often it was pulled, coloured by its mean reward so far; a
    ring is one pulled in the round shown.  At most `FRAMES` rounds, `MOST_ROWS` rows and the
    `MOST_ARMS` most pulled arms are kept.  A picture shows the last round.

    Raises:
        RunError: nothing was chosen before that step.
    """
    own = only(run)
    choice = read_choice(own, step)
    figure = blank("Replay of the pulls", height=HEIGHT)
    if choice is None or choice.samples is None:
        return say_nothing_yet(figure, NO_MAP)
    rounds = pull_rounds(own.events("selecting"), choice.step)
    if not rounds:
        return say_nothing_yet(figure, "the run's selector pulled no arms")
    rows = choice.samples
    pulls_RC, mean_RC = arm_history(rounds, int(rows["cluster"].to_numpy().max()) + 1)
    place = centres(rows)
    known = np.sort(place.index.to_numpy())
    arm_c = known[np.argsort(-pulls_RC[-1, known], kind="stable")[:MOST_ARMS]]
    kept_F = np.unique(np.linspace(0, len(rounds) - 1, min(len(rounds), FRAMES)).astype(int))
    xy_c2 = place.loc[arm_c, ["x", "y"]].to_numpy(np.float32)
    shown = rows.iloc[thinned(rows["domain"].to_numpy(), MOST_ROWS)]
    figure.add_scatter(
        x=shown["x"].to_numpy(np.float32),
        y=shown["y"].to_numpy(np.float32),
        mode="markers",
        marker={"color": FAINT, "size": 3},
        hoverinfo="skip",
        showlegend=False,
    )
    pulled_RC = np.diff(pulls_RC, axis=0, prepend=0) > 0
    states = [
        _state(xy_c2, pulls_RC[:, arm_c], mean_RC[frame, arm_c], pulled_RC[:, arm_c], frame)
        for frame in kept_F
    ]
    moving = [
        trace.update(state)
        for trace, state in zip(_looks(arm_c, xy_c2, mean_RC), states[-1], strict=True)
    ]
    figure.add_traces(moving)
    figure.frames = [
        go.Frame(name=str(frame), data=[go.Scatter(state) for state in states_], traces=[1, 2])
        for frame, states_ in zip(kept_F, states, strict=True)
    ]
    figure.update_xaxes(title_text="", showticklabels=False, ticks="", showgrid=False)
    figure.update_yaxes(title_text="map axis 2", showticklabels=False, ticks="", showgrid=False)
    figure.update_layout(showlegend=False, margin={"b": 124})
    play_controls(figure, kept_F, "round ")
    return figure


def _state(
    xy_c2: np.ndarray, pulls_Rc: np.ndarray, mean_c: np.ndarray, pulled_Rc: np.ndarray, frame: int
) -> list[dict[str, Any]]:
    """What one frame moves: size and colour of the discs, and which have a ring."""
    share_c = np.sqrt(pulls_Rc[frame] / max(1, pulls_Rc[-1].max()))
    size_c = np.where(pulls_Rc[frame] > 0, SMALLEST_PX + (LARGEST_PX - SMALLEST_PX) * share_c, 0)
    ringed = np.flatnonzero(pulled_Rc[frame])
    told = [
        f"{pulls} pulls<br>mean reward {mean:.4g}" if np.isfinite(mean) else f"{pulls} pulls"
        for pulls, mean in zip(pulls_Rc[frame], mean_c, strict=True)
    ]
    discs = {
        "marker": {"size": size_c.astype(np.float32), "color": np.nan_to_num(mean_c)},
        "text": told,
    }
    return [discs, {"x": xy_c2[ringed, 0], "y": xy_c2[ringed, 1]}]


def _looks(arm_c: np.ndarray, xy_c2: np.ndarray, mean_RC: np.ndarray) -> list[Any]:
    """The discs and the rings that `_state` moves."""
    limit = influence_limit(mean_RC[-1])
    bar = {"title": {"text": "mean reward<br>so far"}, "thickness": 12, "outlinewidth": 0}
    scale = {"colorscale": INFLUENCE_COLOURS, "cmin": -limit, "cmax": limit, "showscale": True}
    discs = go.Scatter(
        x=xy_c2[:, 0],
        y=xy_c2[:, 1],
        customdata=arm_c,
        mode="markers",
        marker={**scale, "colorbar": bar, "opacity": 0.85, "line": {"width": 0}},
        hovertemplate="cluster %{customdata}<br>%{text}<extra></extra>",
    )
    ring = {"symbol": "circle-open", "size": LARGEST_PX + 6, "color": TEXT, "line": {"width": 2}}
    return [discs, go.Scatter(mode="markers", marker=ring, hoverinfo="skip")]
