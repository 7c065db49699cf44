"""Live panels in a notebook: curves, samples, mixture and controls of a run, sliders on theory."""

from workbench.widgets.panel import Panel, panel
from workbench.widgets.policy import PolicyPanel, policy
from workbench.widgets.sample_weights import SampleWeights, sample_weights
from workbench.widgets.theory import TheoryExplorer, theory_explorer

__all__ = [
    "Panel",
    "PolicyPanel",
    "SampleWeights",
    "TheoryExplorer",
    "panel",
    "policy",
    "sample_weights",
    "theory_explorer",
]
