"""The browser's half of panel, samples and explorer: anywidgets made of `chart.js` and scripts.

    View(heading="linupper")
    Charts(charts=[…])

Messages from a `View` carry `view` (its id) and `kind`: `next` (with `have`, the revision of the
curves it shows), `pause`, `resume`, `stop`, or `set` with `changes`.  Each is answered by one frame
addressed `to` that view.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import anywidget
import traitlets

_STATIC = files("workbench.widgets") / "static"


def _script(*names: str) -> str:
    return "\n".join((_STATIC / name).read_text() for name in names)


class View(anywidget.AnyWidget):
    """Draws the frames it is sent and asks for the next when drawn."""

    _esm = _script("chart.js", "panel.js", "panel_entry.js")
    _css = (_STATIC / "panel.css").read_text()
    heading = traitlets.Unicode().tag(sync=True)

    def open(self) -> None:
        super().open()
        self._listen_where_asked()

    def answer(self, frame: dict[str, Any]) -> None:
        """Send a frame to the views; each takes those addressed to it."""
        self.send(frame)
        self._listen_where_asked()

    def _listen_where_asked(self) -> None:
        # ipykernel 7.4 takes a view's messages to the loop that last sent to it.  That is the
        # cells' loop at first, where Stop would wait for the cell that waits for the run.
        # Without this note they go to the subshell that the front end names.
        if self.comm is not None:
            vars(self.comm).pop("_reply_subshell_id", None)


class SampleView(View):
    """A `View` of one run that also shows the samples of a step.

    Its messages carry `step` (None to follow the newest) and `key` (of the samples it shows), and
    may be of the kind `read`, with the `sample` whose text is asked for.
    """

    _esm = _script(
        "chart.js", "panel.js", "scrub.js", "texts.js", "sample_plots.js", "sample_weights.js"
    )
    _css = _script("panel.css", "scrub.css", "sample_weights.css")


class PolicyView(View):
    """A `View` of one run that also shows the mixture of a step, asked for as samples are."""

    _esm = _script("chart.js", "panel.js", "scrub.js", "policy.js")
    _css = _script("panel.css", "scrub.css", "table.css", "policy.css")


class ClusterView(View):
    """A `View` of one run that also shows the pool of a choice, and one of its rounds as a step.

    Its messages carry `choice` (None for the newest), `pool` (the key of the pool it shows), and
    may be of the kind `read`, with the `rows` whose text is asked for.
    """

    _esm = _script(
        *("chart.js", "panel.js", "scrub.js", "texts.js", "sample_plots.js"),
        *("colouring.js", "point_map.js", "arm_table.js", "cluster_map.js"),
    )
    _css = _script("panel.css", "scrub.css", "sample_weights.css", "table.css", "cluster_map.css")

    def answer(self, frame: dict[str, Any]) -> None:
        """Rows travel as bytes beside the frame."""
        self.send(frame, frame.pop("buffers", None))
        self._listen_where_asked()


class Charts(anywidget.AnyWidget):
    """Charts side by side, in the panel's look, that follow the data they are given."""

    _esm = _script("chart.js", "explorer.js")
    _css = (_STATIC / "panel.css").read_text()
    charts = traitlets.List(traitlets.Dict()).tag(sync=True)


class Intervals(anywidget.AnyWidget):
    """One chart of intervals, in the panel's look, that follows the data it is given."""

    _esm = _script("chart.js", "intervals.js")
    _css = _script("panel.css", "intervals.css")
    chart = traitlets.Dict().tag(sync=True)
