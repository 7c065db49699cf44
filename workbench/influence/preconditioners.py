"""What stands for the inverse curvature in g_ref^T (F + damping)^{-1} g, behind one interface.

    precondition = preconditioner("ekfac", factors, damping=0.1)
    direction = precondition.apply(gradients)          # map name -> (O, I), same for the result

Every one of them is P = Q_S [(Q_S^T V Q_A) / (eigenvalues + damping)] Q_A^T in bases of its own.
Damping is relative: `damping` times the mean of a map's eigenvalues, whatever their scale.
Shapes: O outputs, I inputs of a linear map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from workbench.core import ConfigError, NumericsError, unknown_name
from workbench.influence.curvature import Factors, MapFactors

PRECONDITIONERS = ("identity", "adam", "kfac", "ekfac")
SERVED_BY = {"adam": ("adam",), "kfac": ("kfac", "ekfac"), "ekfac": ("ekfac",)}
"""Kinds of factors that each preconditioner can use."""


class Preconditioner(Protocol):
    """From gradients to the direction in which the reference loss falls; linear."""

    @property
    def settings(self) -> dict[str, Any]:
        """Name, damping and factors: what a direction was made with."""
        ...

    def apply(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Map name to (O, I), in and out.

        Raises:
            ConfigError: a map without factors.
            NumericsError: curvature that cannot be inverted, naming the map.
        """
        ...


@dataclass(frozen=True)
class Identity:
    """No curvature: the direction is the gradient."""

    @property
    def settings(self) -> dict[str, Any]:
        return {"preconditioner": "identity"}

    def apply(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(gradients)


@dataclass(frozen=True)
class Fitted:
    """Division by a map's eigenvalues, plus relative damping, in the bases of its factors."""

    name: str
    factors: Factors
    damping: float

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "preconditioner": self.name,
            "damping": self.damping,
            "factors": self.factors.settings,
        }

    def apply(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: self._solve(name, gradient) for name, gradient in gradients.items()}

    def _solve(self, name: str, gradient_OI: Tensor) -> Tensor:
        part = self.factors.of(name)
        divisor_OI = damped(self._eigenvalues(part), self.damping, name).to(gradient_OI.device)
        return part.from_bases(part.to_bases(gradient_OI) / divisor_OI).to(gradient_OI)

    def _eigenvalues(self, part: MapFactors) -> Tensor:
        if self.name == "kfac":
            return part.kronecker_OI
        # Adam divides by the root of the mean square (Kingma & Ba 2015), not by the mean square.
        return part.corrected_OI.sqrt() if self.name == "adam" else part.corrected_OI


def preconditioner(
    name: str, factors: Factors | None = None, *, damping: float = 0.1
) -> Preconditioner:
    """One of `PRECONDITIONERS`.

    Args:
        factors: from `fit_factors` of the same kind; "kfac" also takes those of "ekfac".
        damping: times the mean eigenvalue of a map; 0.1 as in Grosse et al. 2023.
    Raises:
        ConfigError: unknown name, negative damping, or factors missing or of another kind.
    """
    if name not in PRECONDITIONERS:
        problem, remedy = unknown_name("preconditioner", name, PRECONDITIONERS)
        raise ConfigError(problem, remedy=remedy)
    if name == "identity":
        return Identity()
    if damping < 0:
        raise ConfigError(f"damping = {damping} is negative", remedy="give 0.1, or 0 for none")
    if factors is None or factors.kind not in SERVED_BY[name]:
        given = "none were given" if factors is None else f"these are of kind '{factors.kind}'"
        raise ConfigError(
            f"preconditioner '{name}' needs factors, and {given}",
            remedy=f"fit_factors(…, kind='{name}')",
        )
    return Fitted(name, factors, damping)


def damped(eigenvalues_OI: Tensor, damping: float, name: str) -> Tensor:
    """Eigenvalues plus `damping` times their mean: what a map's gradient is divided by.

    Raises:
        NumericsError: the result is not finite, or as good as 0 somewhere.
    """
    divisor_OI = eigenvalues_OI + damping * eigenvalues_OI.mean()
    smallest, largest = float(divisor_OI.min()), float(divisor_OI.max())
    if not largest < float("inf"):
        raise NumericsError(
            f"curvature of '{name}' is not finite",
            remedy="fit the factors in float32, of a checkpoint whose loss is finite",
        )
    if smallest <= torch.finfo(divisor_OI.dtype).eps * largest:
        raise NumericsError(
            f"curvature of '{name}' is singular: eigenvalues plus damping reach from "
            f"{smallest:.3g} to {largest:.3g}",
            remedy="raise damping, fit on more rows, or leave the map out with names=",
        )
    return divisor_OI
