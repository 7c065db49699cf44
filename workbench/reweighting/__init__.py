"""How much each sample counts, decided from its own loss."""

from workbench.reweighting.reweighters import LossBased, Uniform
from workbench.reweighting.strategies import STRATEGIES, strategy
from workbench.reweighting.weights import sample_weights

__all__ = ["STRATEGIES", "LossBased", "Uniform", "sample_weights", "strategy"]
