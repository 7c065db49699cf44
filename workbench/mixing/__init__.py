"""How much of each domain the model sees."""

from workbench.mixing.acodm import AcOdm
from workbench.mixing.static import Static

__all__ = ["AcOdm", "Static"]
