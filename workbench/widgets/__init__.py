"""Live panels in a notebook: curves, samples, mixture, pool; sliders on theory and what-if."""

from workbench.widgets.cluster_map import ClusterMap, cluster_map
from workbench.widgets.panel import Panel, panel
from workbench.widgets.policy import PolicyPanel, policy
from workbench.widgets.sample_weights import SampleWeights, sample_weights
from workbench.widgets.theory import TheoryExplorer, theory_explorer
from workbench.widgets.what_if import WhatIfExplorer, what_if

__all__ = [
    "ClusterMap",
    "Panel",
    "PolicyPanel",
    "SampleWeights",
    "TheoryExplorer",
    "WhatIfExplorer",
    "cluster_map",
    "panel",
    "policy",
    "sample_weights",
    "theory_explorer",
    "what_if",
]
