"""The exact curvature of every map of a small decoder, and its damped inverse.

    curvature = exact_curvature(decoder, rows_NT, maps)            # dense blocks, float64
    exact = curvature.inverse(damping=0.1)                         # a Preconditioner like K-FAC
    reference_direction(decoder, reference_MT, exact, maps)

Nothing is approximated but what every estimate here leaves out: blocks between different maps.
Shapes: N rows, T tokens, D width, V vocabulary, O outputs, I inputs, P = O · I.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from workbench.core import ConfigError, unknown_name
from workbench.influence.preconditioners import damped
from workbench.influence.rows import require_rows
from workbench.models.decoder import Decoder
from workbench.models.linear_maps import LinearMap, at_rest, linear_maps

MAX_PARAMETERS = 2048
"""Of one map: its block then has 4 million entries, and takes seconds to diagonalise."""


@dataclass(frozen=True)
class Block:
    """Eigenvalues (P,), ascending, and eigenvectors (P, P) as columns, of one map; float64."""

    values_P: Tensor
    vectors_PP: Tensor


@dataclass(frozen=True)
class ExactCurvature:
    """The Gauss-Newton block of each map, per token, in its eigenbasis."""

    blocks: dict[str, Block]
    rows: int

    def inverse(self, *, damping: float = 0.1) -> ExactInverse:
        """(F + damping · mean eigenvalue)^{-1}.

        Raises:
            ConfigError: negative damping.
        """
        if damping < 0:
            raise ConfigError(f"damping = {damping} is negative", remedy="give 0.1, or 0 for none")
        return ExactInverse(self, damping)


@dataclass(frozen=True)
class ExactInverse:
    """Division by the eigenvalues of the exact block plus relative damping; a `Preconditioner`."""

    curvature: ExactCurvature
    damping: float

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "preconditioner": "exact",
            "damping": self.damping,
            "rows": self.curvature.rows,
        }

    def apply(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Map name to (O, I), in and out.

        Raises:
            ConfigError: a map whose curvature was not computed.
            NumericsError: curvature that cannot be inverted, naming the map.
        """
        return {name: self._solve(name, gradient) for name, gradient in gradients.items()}

    def _solve(self, name: str, gradient_OI: Tensor) -> Tensor:
        if name not in self.curvature.blocks:
            problem, remedy = unknown_name("map of the curvature", name, self.curvature.blocks)
            raise ConfigError(problem, remedy=remedy)
        block = self.curvature.blocks[name]
        vectors_PP = block.vectors_PP.to(gradient_OI.device)
        divisor_P = damped(block.values_P, self.damping, name).to(gradient_OI.device)
        own_P = vectors_PP.T @ gradient_OI.double().flatten()
        return (vectors_PP @ (own_P / divisor_P)).view_as(gradient_OI).to(gradient_OI)


def exact_curvature(
    model: Decoder, rows_NT: np.ndarray, maps: Sequence[LinearMap]
) -> ExactCurvature:
    """Mean over tokens of J^T (diag(p) - p p^T) J, J the Jacobian of a token's logits.

    Equals the Fisher matrix of labels drawn from the model (Martens 2020, arXiv 1412.1193,
    section 9), which K-FAC and EK-FAC estimate.  Works on a float64 copy of the model.

    Args:
        rows_NT: int64 (N, T + 1), full rows; T · D backward passes, batched, for each.
    Raises:
        ConfigError: a map of more than `MAX_PARAMETERS`, or the head, which the Jacobian of
            hidden states does not know.
        DataError: no rows, or rows of another shape, type or vocabulary.
    """
    require_rows(model, rows_NT, "rows to take the curvature of", some=True)
    for found in maps:
        _require_small(found)
    twin = copy.deepcopy(model).double()
    maps = linear_maps(twin, names=tuple(found.name for found in maps))
    sums = {found.name: torch.zeros((), dtype=torch.float64) for found in maps}
    # Fused attention has no batched derivative.
    with at_rest(twin), sdpa_kernel(SDPBackend.MATH):
        for found in maps:
            found.weight.requires_grad_(True)
        for row_T in torch.from_numpy(rows_NT[:, :-1]).to(twin.head_VD.device):
            for name, root_RP in _roots(twin, maps, row_T).items():
                sums[name] = sums[name].to(root_RP.device) + root_RP.T @ root_RP
    tokens = len(rows_NT) * (rows_NT.shape[1] - 1)
    blocks = {name: Block(*torch.linalg.eigh(total / tokens)) for name, total in sums.items()}
    return ExactCurvature(blocks, len(rows_NT))


def _require_small(found: LinearMap) -> None:
    size = found.outputs * found.inputs
    if found.kind == "head":
        raise ConfigError(
            f"the exact curvature of the head '{found.name}' is not implemented",
            remedy="leave it out with linear_maps(…, head=False)",
        )
    if size > MAX_PARAMETERS:
        raise ConfigError(
            f"'{found.name}' has {size} parameters: its exact curvature has {size**2} entries, "
            f"{size**2 * 8 / 2**20:.0f} MiB; at most {MAX_PARAMETERS} parameters are taken",
            remedy="use a narrower decoder, or fit_factors(…, kind='ekfac') on this one",
        )


def _roots(model: Decoder, maps: Sequence[LinearMap], row_T: Tensor) -> dict[str, Tensor]:
    """R of each map, (T·D, P), with R^T R the sum of the blocks of a row's tokens."""
    hidden_TD = model.hidden(row_T[None])[0]
    root_TDD = _output_roots(hidden_TD.detach(), model.head_VD.detach())
    each = torch.zeros(*hidden_TD.shape, *hidden_TD.shape).to(hidden_TD)
    places = torch.arange(len(hidden_TD))
    # Column r of a token's root, as the gradient of that token's hidden state alone.
    each[places, :, places] = root_TDD.mT
    gradients = torch.autograd.grad(
        hidden_TD, [found.weight for found in maps], each.flatten(0, 1), is_grads_batched=True
    )
    return {
        found.name: torch.stack([found.to_OI(one) for one in gradient]).flatten(1)
        for found, gradient in zip(maps, gradients, strict=True)
    }


def _output_roots(hidden_TD: Tensor, head_VD: Tensor) -> Tensor:
    """B of each token, (T, D, D), with B B^T = head^T (diag(p) - p p^T) head."""
    p_TV = (hidden_TD @ head_VD.T).softmax(dim=-1)
    mean_TD = p_TV @ head_VD
    second_TDD = torch.einsum("tv,vd,ve->tde", p_TV, head_VD, head_VD)
    values_TD, vectors_TDD = torch.linalg.eigh(second_TDD - mean_TD[:, :, None] * mean_TD[:, None])
    return vectors_TDD * values_TD.clamp(min=0).sqrt()[:, None]
