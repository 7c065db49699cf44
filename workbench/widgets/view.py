"""The browser's half of the panel: an anywidget made of `chart.js`, `panel.js` and `panel.css`.

    View(heading="linupper")

Messages from a view carry `view` (its id) and `kind`: `next` (with `have`, the revision of the
curves it shows), `pause`, `resume`, `stop`, or `set` with `changes`.  Each is answered by one frame
addressed `to` that view.
"""

from __future__ import annotations

from importlib.resources import files

import anywidget
import traitlets

_STATIC = files("workbench.widgets") / "static"


class View(anywidget.AnyWidget):
    """Draws the frames it is sent and asks for the next when drawn."""

    _esm = "\n".join((_STATIC / name).read_text() for name in ("chart.js", "panel.js"))
    _css = (_STATIC / "panel.css").read_text()
    heading = traitlets.Unicode().tag(sync=True)
