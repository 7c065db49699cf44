"""Pieces of one self-contained HTML page; every text is escaped here and nowhere else.

    page("Runs compared", [section("Verdicts", paragraph("…"), table(rows, caption="…"))])

Works offline: styles, scripts and plotly.js are in the file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape, unescape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go

_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --quiet: #57606a; --page: #ffffff;
  --line: #d0d7de; --grid: #e6e9ec; --accent: #0b6bcb; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e9ec; --quiet: #9aa4ae; --page: #14171a; --line: #3a4148; --grid: #2a2f35;
    --accent: #6cb6ff; } }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem; color: var(--text);
  background: var(--page); font: 1rem/1.5 system-ui, sans-serif; }
h1 { margin: 0 0 .25rem; } h2 { margin: 2.5rem 0 .5rem; }
.quiet, figcaption, caption { color: var(--quiet); }
a { color: var(--accent); }
table { border-collapse: collapse; margin: .75rem 0; display: block; overflow-x: auto; }
caption { text-align: left; padding: .25rem 0; }
th, td { padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; font-variant-numeric: tabular-nums; }
td.number, th.number { text-align: right; }
figure { margin: .75rem 0 1.5rem; } nav ul { padding-left: 1.2rem; }
strong.better::before { content: "▲ "; } strong.worse::before { content: "▼ "; }
"""

# Figures have no colours of the page in them; their text takes on the page's, for contrast, also
# when the system changes between light and dark.
_SCRIPT = """
(function () {
  function recolour() {
    const text = getComputedStyle(document.documentElement).getPropertyValue('--text');
    document.querySelectorAll('.plotly-graph-div').forEach(
      div => Plotly.relayout(div, {'font.color': text.trim()}));
  }
  window.addEventListener('load', recolour);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', recolour);
})();
"""


def page(title: str, sections: Iterable[str], *, subtitle: str = "", figures: bool = True) -> str:
    """A whole document; `figures` puts plotly.js into it, once."""
    from plotly.offline import get_plotlyjs

    library = f"<script>{get_plotlyjs()}</script>" if figures else ""
    script = f"<script>{_SCRIPT}</script>" if figures else ""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>{library}</head>\n"
        f'<body><header><h1>{escape(title)}</h1><p class="quiet">{escape(subtitle)}</p></header>'
        f"\n<main>\n{chr(10).join(sections)}\n</main>{script}</body></html>\n"
    )


def section(heading: str, *parts: str) -> str:
    """A part of the page under a heading of its own; the parts are HTML already."""
    body = "\n".join(part for part in parts if part)
    return f"<section><h2>{escape(heading)}</h2>\n{body}\n</section>"


def paragraph(text: str, *, quiet: bool = False) -> str:
    return f'<p class="quiet">{escape(text)}</p>' if quiet else f"<p>{escape(text)}</p>"


def finding(text: str, outcome: str) -> str:
    """A sentence that matters; its outcome is marked by a sign, not by colour alone."""
    return f'<p><strong class="{escape(outcome, quote=True)}">{escape(text)}</strong></p>'


def table(rows: Sequence[Mapping[str, Any]], *, caption: str) -> str:
    """Rows as a table with the keys of the first as its head; numbers align to the right."""
    if not rows:
        return ""
    names = list(rows[0])
    numeric = {name for name in names if all(_is_number(row.get(name)) for row in rows)}

    def css(name: str) -> str:
        return ' class="number"' if name in numeric else ""

    head = "".join(f'<th scope="col"{css(n)}>{escape(n.replace("_", " "))}</th>' for n in names)
    body = "\n".join(
        "<tr>" + "".join(f"<td{css(n)}>{escape(shown(row.get(n)))}</td>" for n in names) + "</tr>"
        for row in rows
    )
    return (
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def folded(summary: str, html: str) -> str:
    """HTML that a reader opens when wanted; nothing where there is none."""
    return f"<details><summary>{escape(summary)}</summary>{html}</details>" if html else ""


def figure(drawn: go.Figure, *, name: str, caption: str) -> str:
    """A live figure with a text alternative: its caption as label, its numbers as a table."""
    from workbench.plots import fragment

    rows = [row for row in (_line_row(drawn, trace) for trace in drawn.data) if row]
    numbers = table(rows, caption=f"{caption}: first, last, lowest and highest value of each line")
    return (
        f'<figure id="{escape(name, quote=True)}">'
        f'<div role="img" aria-label="{escape(caption, quote=True)}">{fragment(drawn)}</div>'
        f"<figcaption>{escape(caption)}</figcaption>"
        f"{folded('Numbers of this figure', numbers)}</figure>"
    )


def _line_row(drawn: go.Figure, trace: Any) -> dict[str, Any] | None:
    values = [float(y) for y in _or_empty(getattr(trace, "y", None)) if _is_number(y)]
    values = [y for y in values if math.isfinite(y)]
    # What gives no answer to the mouse is a band or a decoration.
    if not trace.name or trace.hoverinfo == "skip" or not values:
        return None
    return {
        "line": unescape(trace.name.split("<br>")[0]),
        **_panel(drawn, trace),
        "points": len(values),
        "first": values[0],
        "last": values[-1],
        "lowest": min(values),
        "highest": max(values),
    }


def _panel(drawn: go.Figure, trace: Any) -> dict[str, str]:
    """The heading of the trace's panel, in a figure that has several: headings come in order."""
    if not trace.xaxis:
        return {}
    number = int(trace.xaxis.removeprefix("x") or 1) - 1
    return {"panel": unescape(drawn.layout.annotations[number].text)}


def _or_empty(values: Any) -> Any:
    return () if values is None else values


def _is_number(value: Any) -> bool:
    return hasattr(value, "__float__") and not isinstance(value, (str, bool))


def shown(value: Any) -> str:
    """A value as a reader wants it: four digits of a fraction, no quotes, a dash for nothing."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(shown, value))
    return str(value)
