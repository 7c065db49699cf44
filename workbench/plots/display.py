"""Figures in notebooks and pages.

show(loss(run))                                    # in a cell: live, and a PNG for offline
Path("figures.html").write_text(html({"Loss": loss(run)}, title="Run a"))
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from workbench.core.frontend import has_front_end
from workbench.plots.static import png
from workbench.plots.theme import CONFIG, safe

PLOTLY_MIME = "application/vnd.plotly.v1+json"


def bundle(figure: go.Figure) -> dict[str, Any]:
    """The figure for every reader of a notebook: interactive, PNG, and its title in words."""
    layout: Any = figure.layout
    content = json.loads(figure.to_json() or "{}")
    return {
        PLOTLY_MIME: {**content, "config": CONFIG},
        "image/png": base64.b64encode(png(figure)).decode(),
        "text/plain": f"Figure: {layout.title.text or 'untitled'}",
    }


def show(figure: go.Figure) -> None:
    """Display in a notebook: live where a browser watches, else with a PNG that shows anywhere."""
    from IPython.display import display

    content = bundle(figure)
    if has_front_end():
        # Plotly's renderer would show the PNG, white and cut off, until the mouse enters it.
        del content["image/png"]
    display(content, raw=True)


def fragment(figure: go.Figure, *, with_library: bool = False) -> str:
    """One figure as an HTML element; a page needs plotly.js (4.8 MB) once."""
    return figure.to_html(
        full_html=False, include_plotlyjs=with_library, config=CONFIG, auto_play=False
    )


def html(figures: Mapping[str, go.Figure] | Sequence[go.Figure], title: str) -> str:
    """A page that opens offline, light or dark as the reader prefers; plotly.js is in it once.

    Args:
        figures: heading -> figure, or figures without headings.
    """
    if isinstance(figures, Mapping):
        items = list(figures.items())
    else:
        items = [("", figure) for figure in figures]
    parts = []
    for number, (heading, figure) in enumerate(items):
        head = f"<h2>{safe(heading)}</h2>" if heading else ""
        parts.append(f"<section>{head}{fragment(figure, with_library=number == 0)}</section>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" '
        f'content="light dark"><title>{safe(title)}</title><style>{_STYLE}</style></head><body>'
        f"<h1>{safe(title)}</h1>{''.join(parts)}</body></html>"
    )


_STYLE = (
    "body{font-family:system-ui,sans-serif;max-width:1100px;margin:1rem auto;padding:0 1rem;"
    "color:CanvasText;background:Canvas}h1{font-size:1.4rem}h2{font-size:1.1rem}"
)
