"""AC-ODM: an actor-critic sets the domain mixture.  Ma et al. 2026 (arXiv 2505.23878)."""

from workbench.mixing.acodm.controls import direct, frozen_random
from workbench.mixing.acodm.mixer import AcOdm

__all__ = ["AcOdm", "direct", "frozen_random"]
