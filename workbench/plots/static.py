"""A still picture of our own figures, drawn by matplotlib: no browser needed.

    content = png(loss(run))                 # bytes
    png(loss(run), "loss.png")               # and written to a file

Knows what `workbench.plots` draws: scatter (lines, markers, bands, stacks, error bars), bars,
heat maps, straight shapes, annotations, panels, legend.  The background is white, since PNG
readers differ in what they put behind a transparent one.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from workbench.plots.lettering import break_names, fitted, label_powers, plain
from workbench.plots.theme import TEXT

WIDTH_PX = 900
_DPI = 100
_DASHES = {
    "solid": "-",
    "dash": (0, (5, 3)),
    "dot": (0, (1, 2)),
    "dashdot": (0, (5, 2, 1, 2)),
    "longdash": (0, (9, 3)),
    "longdashdot": (0, (9, 3, 1, 3)),
}
_SYMBOLS = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "triangle-up": "^",
    "triangle-down": "v",
    "x": "X",
    "cross": "P",
    "star": "*",
}
_POINT = 72 / 96
_PX_PER_LETTER = 7
_LEGEND_KEY_PX = 56
_CATEGORY_TICK_PX = 30
_Y_LABEL_PX = 78
_SCALE_PX = 84
_MOST_OF_WIDTH = 0.4
"""That the names beside the panels take on either side; longer ones are broken into lines."""


def png(figure: go.Figure, path: str | Path | None = None, *, width: int = WIDTH_PX) -> bytes:
    """The figure as PNG, `width` pixels wide at scale 1, in double resolution.

    Args:
        path: also write it there.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layout: Any = figure.layout
    height = layout.height or 400
    # Text from a corpus may hold a $ sign, which is no formula.
    with mpl.rc_context({"text.parse_math": False, "font.size": 9, "hatch.linewidth": 0.5}):
        canvas = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
        FigureCanvasAgg(canvas)
        _Drawing(figure, canvas, width, height).draw()
        content = io.BytesIO()
        canvas.savefig(content, format="png", dpi=2 * _DPI)
    if path is not None:
        Path(path).write_bytes(content.getvalue())
    return content.getvalue()


class _Drawing:
    def __init__(self, figure: Any, canvas: Any, width: int, height: int):
        self.figure, self.canvas = figure, canvas
        margin = figure.layout.margin
        named = [trace for trace in figure.data if trace.name and trace.showlegend is not False]
        self.named = named if figure.layout.showlegend is not False and len(named) > 0 else []
        letters = max((len(line) for t in named for line in plain(t.name).split("\n")), default=0)
        scales = any(t.type != "bar" and t.marker.showscale for t in figure.data if "marker" in t)
        most = _MOST_OF_WIDTH * width
        room = max(
            min(_LEGEND_KEY_PX + _PX_PER_LETTER * letters, most) if self.named else 0,
            _SCALE_PX if scales else 0,
        )
        left = max(_Y_LABEL_PX, min(_CATEGORY_TICK_PX + self._longest_category(), most))
        self.legend_letters, self.category_letters = (
            int((most - taken) / _PX_PER_LETTER) for taken in (_LEGEND_KEY_PX, _CATEGORY_TICK_PX)
        )
        self.x0, self.x1 = left / width, 1 - ((margin.r or 20) + room) / width
        self.y0, self.y1 = (margin.b or 50) / height, 1 - (margin.t or 60) / height
        self.axes: dict[tuple[str, str], Any] = {}
        self.stacks: dict[tuple, Any] = {}
        self.handles: list[Any] = []

    def _longest_category(self) -> float:
        names = [
            y
            for trace in self.figure.data
            for y in (trace.y if trace.y is not None else ())
            if isinstance(y, str)
        ]
        return _PX_PER_LETTER * max((len(plain(name)) for name in names), default=0)

    def draw(self) -> None:
        if not self.figure.data:
            self._pair("x", "y")
        for trace in self.figure.data:
            axes = self._pair(trace.xaxis or "x", trace.yaxis or "y")
            if isinstance(trace, go.Bar):
                self._bar(axes, trace)
            elif isinstance(trace, go.Heatmap):
                self._heatmap(axes, trace)
            else:
                self._scatter(axes, trace)
        for (x, y), axes in self.axes.items():
            _dress(axes, self.figure.layout[_axis(x)], self.figure.layout[_axis(y)])
            self._shapes(axes, x, y)
            break_names(axes.yaxis, self.category_letters)
        self._annotations()
        title = self.figure.layout.title
        if title.text:
            self.canvas.text(self.x0, 0.985, plain(title.text), va="top", fontsize=11.5)
        if self.named:
            self._legend()

    def _pair(self, x: str, y: str) -> Any:
        if (x, y) not in self.axes:
            order = self.figure.layout[_axis(y)].categoryarray
            across = self.figure.layout[_axis(x)].domain or (0, 1)
            up = self.figure.layout[_axis(y)].domain or (0, 1)
            width, height = self.x1 - self.x0, self.y1 - self.y0
            place = (
                self.x0 + across[0] * width,
                self.y0 + up[0] * height,
                (across[1] - across[0]) * width,
                (up[1] - up[0]) * height,
            )
            self.axes[x, y] = self.canvas.add_axes(place)
            if order is not None:
                # The first categories an axis meets fix their order.
                self.axes[x, y].yaxis.update_units([plain(name) for name in order])
                self.axes[x, y].set_ylim(-0.6, len(order) - 0.4)
        return self.axes[x, y]

    def _scatter(self, axes: Any, trace: Any) -> None:
        if trace.marker.colorscale is not None:
            return self._coloured(axes, trace)
        x, y = _list(trace.x), [plain(v) if isinstance(v, str) else v for v in _list(trace.y)]
        colour, opacity = _colour(trace.line.color or trace.marker.color)
        if trace.fill == "toself":
            fill, alpha = _colour(trace.fillcolor)
            axes.fill(x, y, color=fill, alpha=alpha, linewidth=0)
            return
        if "stackgroup" in trace and trace.stackgroup:
            self._stack(axes, trace, x, y)
            return
        mode, size = trace.mode or "lines", trace.marker.size
        (handle,) = axes.plot(
            x,
            y,
            color=colour,
            alpha=opacity,
            linestyle=_DASHES[trace.line.dash or "solid"] if "lines" in mode else "none",
            linewidth=(trace.line.width or 2) * _POINT,
            marker=_symbol(trace.marker.symbol) if "markers" in mode else None,
            fillstyle="none" if str(trace.marker.symbol).endswith("-open") else "full",
            markersize=(size if isinstance(size, (int, float)) else 7) * _POINT,
            markerfacecolor=_colour(trace.marker.color or trace.line.color)[0],
            markeredgewidth=trace.marker.line.width or 0,
            markevery=None if size is None or isinstance(size, (int, float)) else _shown(size),
            label=plain(trace.name),
        )
        if trace.error_x.array is not None:
            handle = self._error_bars(axes, trace, x, y)
        self._keep(trace, handle)

    def _coloured(self, axes: Any, trace: Any) -> None:
        """Points whose colours are numbers on a scale."""
        look, size = trace.marker, trace.marker.size
        diameter = [one * _POINT for one in ([size] if isinstance(size, (int, float)) else size)]
        handle = axes.scatter(
            _list(trace.x),
            _list(trace.y),
            c=_list(look.color),
            s=[one**2 for one in diameter],
            cmap=_colours(look.colorscale),
            vmin=look.cmin,
            vmax=look.cmax,
            marker=_symbol(look.symbol),
            alpha=look.opacity,
            linewidths=0,
            label=plain(trace.name),
        )
        if look.showscale:
            # Inside the panel's own width, so that the axes keep the place the layout gives them.
            beside = axes.inset_axes((1.02, 0.0, 0.02, 0.6))
            bar = self.canvas.colorbar(handle, cax=beside)
            bar.outline.set_visible(False)
            beside.set_title(plain(look.colorbar.title.text), fontsize=8, loc="left")
        self._keep(trace, handle)

    def _error_bars(self, axes: Any, trace: Any, x: list, y: list) -> Any:
        ends = [trace.error_x.arrayminus, trace.error_x.array]
        return axes.errorbar(
            x,
            y,
            xerr=[[0 if end is None else end for end in side] for side in ends],
            fmt=_SYMBOLS[trace.marker.symbol],
            color=trace.marker.color,
            markersize=trace.marker.size * _POINT,
            capsize=4,
            label=plain(trace.name),
        )

    def _stack(self, axes: Any, trace: Any, x: list, y: list) -> None:
        key = (trace.xaxis, trace.yaxis, trace.stackgroup)
        below = self.stacks.get(key, [0.0] * len(y))
        above = [low + value for low, value in zip(below, y, strict=True)]
        fill, alpha = _colour(trace.fillcolor)
        hatch = {"x": "xx"}.get(trace.fillpattern.shape, 2 * (trace.fillpattern.shape or ""))
        handle = axes.fill_between(
            x, below, above, facecolor=(fill, alpha), edgecolor=TEXT, hatch=hatch, linewidth=0.4
        )
        handle.set_label(plain(trace.name))
        self.stacks[key] = above
        self._keep(trace, handle)

    def _heatmap(self, axes: Any, trace: Any) -> None:
        colours = _colours(trace.colorscale)
        across, down = ([plain(name) for name in names] for names in (trace.x, trace.y))
        axes.imshow(trace.z, cmap=colours, vmin=trace.zmin, vmax=trace.zmax, aspect="auto")
        axes.set_xticks(range(len(across)), across, rotation=20)
        axes.set_yticks(range(len(down)), down)
        for row, values in enumerate(trace.z):
            for column, value in enumerate(values):
                told = f"{value:.2f}" if trace.text is None else plain(trace.text[row][column])
                axes.text(column, row, told, ha="center", va="center", color="#333333")

    def _bar(self, axes: Any, trace: Any) -> None:
        names, values = [plain(name) for name in trace.y], _list(trace.x)
        left = self.stacks.get((trace.xaxis, "bars"), [0.0] * len(values))
        handle = axes.barh(
            names,
            values,
            left=left,
            height=1 - (self.figure.layout.bargap or 0.2),
            color=trace.marker.color,
            hatch=2 * (trace.marker.pattern.shape or ""),
            edgecolor="white",
            linewidth=0,
            label=plain(trace.name),
        )
        for name, value, text in zip(names, values, trace.text or (), strict=False):
            axes.annotate(
                plain(text), (value, name), (4, 0), textcoords="offset points", va="center"
            )
        if trace.text is not None:
            axes.margins(x=0.35)
        self.stacks[trace.xaxis, "bars"] = [a + b for a, b in zip(left, values, strict=True)]
        self._keep(trace, handle)

    def _keep(self, trace: Any, handle: Any) -> None:
        if any(trace is one for one in self.named):
            self.handles.append(handle)

    def _shapes(self, axes: Any, x: str, y: str) -> None:
        for shape in self.figure.layout.shapes:
            look = {
                "color": _colour(shape.line.color)[0],
                "linewidth": (shape.line.width or 1) * _POINT,
                "linestyle": _DASHES[shape.line.dash or "solid"],
                "zorder": 0.5,
            }
            if shape.yref == f"{y} domain" and shape.xref == x:
                axes.axvline(shape.x0, **look)
            elif shape.xref == f"{x} domain" and shape.yref == y:
                axes.axhline(shape.y0, **look)

    def _annotations(self) -> None:
        width, height = self.x1 - self.x0, self.y1 - self.y0
        for note in self.figure.layout.annotations:
            look = {
                "ha": note.xanchor or "center",
                "va": {"middle": "center"}.get(note.yanchor, note.yanchor) or "center",
                "rotation": -(note.textangle or 0),
                "fontsize": (note.font.size or 11) * _POINT + 0.5,
                "color": "#444444",
            }
            if note.xref == "paper":
                x, y = self.x0 + note.x * width, self.y0 + note.y * height
                self.canvas.text(x, y, plain(note.text), **look)
            else:
                axes = self.axes[note.xref or "x", (note.yref or "y").removesuffix(" domain")]
                of_panel = str(note.yref).endswith(" domain")
                place = axes.get_xaxis_transform() if of_panel else axes.transData
                fill, alpha = _colour(note.bgcolor or "#FFFFFF")
                box = {"facecolor": fill, "alpha": alpha, "linewidth": 0, "pad": 1}
                axes.text(note.x, note.y, plain(note.text), transform=place, bbox=box, **look)

    def _legend(self) -> None:
        handles = self.handles
        if str(self.figure.layout.legend.traceorder).startswith("reversed"):
            handles = handles[::-1]
        self.canvas.legend(
            handles=handles,
            labels=[fitted(handle.get_label(), self.legend_letters) for handle in handles],
            loc="upper left",
            bbox_to_anchor=(self.x1 + 0.008, self.y1 + 0.02),
            frameon=False,
            handlelength=2.4,
        )


def _dress(axes: Any, x: Any, y: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(colors="#444444")
    axes.set_axisbelow(True)
    for side, axis in (("x", x), ("y", y)):
        if axis.showgrid is not False:
            axes.grid(True, axis=side, color="#DDDDDD", linewidth=0.6)
        getattr(axes, f"set_{side}label")(plain(axis.title.text or ""), color="#333333")
        logarithmic = axis.type == "log"
        if logarithmic:
            getattr(axes, f"set_{side}scale")("log")
            label_powers(getattr(axes, f"{side}axis"))
        if axis.range:
            ends = [10**end for end in axis.range] if logarithmic else axis.range
            getattr(axes, f"set_{side}lim")(*ends)
        elif axis.rangemode == "tozero":
            getattr(axes, f"set_{side}lim")(**{"left" if side == "x" else "bottom": 0})
        if axis.ticks == "":
            axes.tick_params(axis=side, length=0)
        if axis.showticklabels is False:
            getattr(axes, f"set_{side}ticklabels")([])
        if axis.tickformat == ".0%":
            from matplotlib.ticker import PercentFormatter

            getattr(axes, f"{side}axis").set_major_formatter(PercentFormatter(1, decimals=0))
    if y.matches:
        axes.tick_params(labelleft=False)
    if x.visible is False and y.visible is False:
        axes.set_axis_off()
    if y.scaleanchor:
        axes.set_aspect("equal", adjustable="box")


def _axis(reference: str) -> str:
    return f"{reference[0]}axis{reference[1:]}"


def _symbol(name: str | None) -> str:
    return _SYMBOLS[(name or "circle").removesuffix("-open")]


def _colours(scale: Any) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("", [tuple(stop) for stop in scale])


def _list(values: Any) -> list:
    return [float("nan") if value is None else value for value in values]


def _shown(sizes: Any) -> list[int]:
    return [index for index, size in enumerate(sizes) if size]


def _colour(text: str | None) -> tuple[Any, float]:
    """Colour and opacity of `#rrggbb` or `rgba(r,g,b,a)`."""
    match = re.fullmatch(r"rgba\((\d+),(\d+),(\d+),([\d.]+)\)", text or "")
    if not match:
        return text or TEXT, 1.0
    return tuple(int(match[i]) / 255 for i in (1, 2, 3)), float(match[4])
