"""Which samples the pool offers: embeddings, clusters, the bandit, Quad, and its baselines.

Importing registers the selectors and loads none of the packages they may need later.
"""

from workbench.selection.bandit import OFFICIAL, Bandit
from workbench.selection.baselines import ClusterUniform, Perplexity, Random
from workbench.selection.clustered_pool import ClusteredPool
from workbench.selection.clustering import Clusters, cluster
from workbench.selection.duplicates import near_duplicates
from workbench.selection.embedders import EMBEDDERS, embed
from workbench.selection.ordered import TooFewDistinct
from workbench.selection.projection import project
from workbench.selection.quad import Quad
from workbench.selection.reference import reference_rows
from workbench.selection.top_influence import TopInfluence

__all__ = [
    "EMBEDDERS",
    "OFFICIAL",
    "Bandit",
    "ClusterUniform",
    "ClusteredPool",
    "Clusters",
    "Perplexity",
    "Quad",
    "Random",
    "TooFewDistinct",
    "TopInfluence",
    "cluster",
    "embed",
    "near_duplicates",
    "project",
    "reference_rows",
]
