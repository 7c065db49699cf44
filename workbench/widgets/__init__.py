"""Live panels in a notebook: curves, samples and controls of a run, sliders over the theory."""

from workbench.widgets.panel import Panel, panel
from workbench.widgets.sample_weights import SampleWeights, sample_weights
from workbench.widgets.theory import TheoryExplorer, theory_explorer

__all__ = [
    "Panel",
    "SampleWeights",
    "TheoryExplorer",
    "panel",
    "sample_weights",
    "theory_explorer",
]
