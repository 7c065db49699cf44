"""AC-ODM: an actor-critic sets the domain mixture.  Ma et al. 2026 (arXiv 2505.23878)."""

from workbench.mixing.acodm.mixer import AcOdm, direct, frozen_random

__all__ = ["AcOdm", "direct", "frozen_random"]
