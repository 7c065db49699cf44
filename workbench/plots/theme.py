"""How every figure looks: colours, dashes and symbols in a fixed order, on any background.

    figure = blank("Training loss", x="step", y="loss (nats per token)")
    figure.add_scatter(line=style(0).line(), ...)

Paper is transparent and text a grey that reads on white and on black, so that a figure fits light
and dark pages.  Colours are Okabe and Ito's without black; a dash or symbol goes with each, so
that colour is never the only cue.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#8C8C8C",
    "#B8A900",
)
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "triangle-down", "cross", "star")
PATTERNS = ("", "/", "\\", "x", "-", "|", "+", ".")
TEXT = "#7F7F7F"
TAG_TEXT = "#333333"
TAG = "rgba(255,255,255,0.7)"
GRID = "rgba(128,128,128,0.22)"
RULE = "rgba(128,128,128,0.8)"
FONT_SIZE = 12
HEIGHT = 380

CONFIG: dict[str, Any] = {
    "displaylogo": False,
    "displayModeBar": "hover",
    "responsive": True,
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d", "sendDataToCloud"],
}
"""Options that Plotly keeps outside the figure; `show` and `html` pass them on."""


@dataclass(frozen=True)
class Style:
    """One line's or domain's look."""

    colour: str
    dash: str
    symbol: str
    pattern: str

    def line(self, *, width: float = 2) -> dict[str, Any]:
        return {"color": self.colour, "dash": self.dash, "width": width}

    def marker(self, *, size: float = 7) -> dict[str, Any]:
        return {"color": self.colour, "symbol": self.symbol, "size": size}

    def faded(self, opacity: float) -> str:
        red, green, blue = (int(self.colour[i : i + 2], 16) for i in (1, 3, 5))
        return f"rgba({red},{green},{blue},{opacity})"


def style(index: int) -> Style:
    """The look of the `index`-th line; the dash changes with each round of the colours too."""
    turn = index // len(COLOURS)
    return Style(
        COLOURS[index % len(COLOURS)],
        DASHES[(index + turn) % len(DASHES)],
        SYMBOLS[(index + turn) % len(SYMBOLS)],
        PATTERNS[(index + turn) % len(PATTERNS)],
    )


def safe(text: object) -> str:
    """Text from outside, such as a domain's name, that Plotly must not read as markup."""
    return html.escape(str(text), quote=False)


def blank(title: str, *, x: str = "", y: str = "", height: int = HEIGHT) -> go.Figure:
    """A figure without traces; `x` and `y` title the axes and name their unit."""
    figure = go.Figure()
    dress(figure, title, height=height)
    figure.update_xaxes(title_text=x)
    figure.update_yaxes(title_text=y)
    return figure


def dress(figure: go.Figure, title: str, *, height: int = HEIGHT) -> None:
    """Give any figure, also one of several panels, the common look."""
    figure.update_layout(
        template="none",
        title={"text": title, "x": 0, "xref": "paper", "font": {"size": 15}},
        height=height,
        autosize=True,
        margin={"l": 64, "r": 16, "t": 56, "b": 48},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": TEXT, "size": FONT_SIZE, "family": "system-ui, sans-serif"},
        hoverlabel={"bgcolor": "#FFFFFF", "font": {"color": "#222222"}, "align": "left"},
        hovermode="closest",
        legend={"bgcolor": "rgba(0,0,0,0)"},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": TEXT, "activecolor": COLOURS[0]},
        # Zoom and hidden lines survive a redraw with more data.
        uirevision=title,
    )
    axis = {"gridcolor": GRID, "linecolor": RULE, "zeroline": False, "showline": True}
    figure.update_xaxes(**axis, ticks="outside", tickcolor=RULE, title_standoff=8)
    figure.update_yaxes(**axis, automargin=True, title_standoff=8)


def say_nothing_yet(figure: go.Figure, text: str = "no steps recorded yet") -> go.Figure:
    """Label a figure that has no data; returns it."""
    figure.add_annotation(
        text=text, xref="paper", yref="paper", x=0.5, y=0.5, showarrow=False, font={"size": 14}
    )
    figure.update_xaxes(range=[0, 1], showticklabels=False)
    figure.update_yaxes(range=[0, 1], showticklabels=False)
    return figure
