"""Live panels in a notebook: figures and controls over a run folder, sliders over the theory."""

from workbench.widgets.panel import Panel, panel
from workbench.widgets.theory import TheoryExplorer, theory_explorer

__all__ = ["Panel", "TheoryExplorer", "panel", "theory_explorer"]
