"""Live panels in a notebook: curves, samples, mixture, pool, controls; sliders on theory."""

from workbench.widgets.cluster_map import ClusterMap, cluster_map
from workbench.widgets.panel import Panel, panel
from workbench.widgets.policy import PolicyPanel, policy
from workbench.widgets.sample_weights import SampleWeights, sample_weights
from workbench.widgets.theory import TheoryExplorer, theory_explorer

__all__ = [
    "ClusterMap",
    "Panel",
    "PolicyPanel",
    "SampleWeights",
    "TheoryExplorer",
    "cluster_map",
    "panel",
    "policy",
    "sample_weights",
    "theory_explorer",
]
