"""How much of each domain the model sees."""

from workbench.mixing.static import Static

__all__ = ["Static"]
