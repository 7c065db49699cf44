"""How much of each domain the model sees."""

from workbench.mixing.acodm import AcOdm
from workbench.mixing.descent import AlignmentDescent, Doge, Pike
from workbench.mixing.doremi import DoReMi
from workbench.mixing.exp3 import Exp3
from workbench.mixing.regmix import RegMix
from workbench.mixing.static import Static

__all__ = ["AcOdm", "AlignmentDescent", "DoReMi", "Doge", "Exp3", "Pike", "RegMix", "Static"]
