"""Which samples the pool offers: embeddings, clusters, the bandit, Quad, and its baselines.

Importing registers the selectors and loads none of the packages they may need later.
"""

from workbench.selection.baselines import ClusterUniform, Perplexity, Random
from workbench.selection.clustered_pool import ClusteredPool
from workbench.selection.clustering import Clusters, cluster
from workbench.selection.duplicates import near_duplicates
from workbench.selection.embedders import EMBEDDERS, embed
from workbench.selection.projection import project
from workbench.selection.reference import reference_rows

__all__ = [
    "EMBEDDERS",
    "ClusterUniform",
    "ClusteredPool",
    "Clusters",
    "Perplexity",
    "Random",
    "cluster",
    "embed",
    "near_duplicates",
    "project",
    "reference_rows",
]
