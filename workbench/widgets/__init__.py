"""Live panels in a notebook: figures and controls over a run folder."""

from workbench.widgets.panel import Panel, panel

__all__ = ["Panel", "panel"]
