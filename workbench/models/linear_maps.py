"""Every linear map y = W a of a decoder, and what of the model is none.

    maps = linear_maps(decoder)                    # attention q, k, v, o and the MLP, by depth
    maps.share, maps.skipped                       # part of the parameters tracked; the rest, why
    with observed(decoder, maps, see):             # see(map, a_bTI, s_bTO) in the backward pass
        decoder(tokens_bT, labels_bT).sum().backward()

Shapes: b rows of a micro-batch, T tokens, O outputs, I inputs of a map.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.core import ModelError, unknown_name
from workbench.models.decoder import Decoder
from workbench.models.layers import is_linear

_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
_MLP = re.compile(r"mlp|feed_forward|ffn|fc|moe|dense", re.IGNORECASE)
_BLOCK = re.compile(r".*\.(?:layers|h|blocks|block|layer)\.\d+\.(?P<rest>.+)")

See = Callable[["LinearMap", Tensor, Tensor], None]
"""Given a map, its inputs a (b, T, I) and the gradient s (b, T, O) of its outputs."""


@dataclass(frozen=True)
class LinearMap:
    """One linear map of a decoder; fused ones, such as qkv, are one map.

    name: path in the decoder's `named_modules`; module: `nn.Linear`, or `Conv1D`, whose weight is
    stored (I, O); kind: "attention", "mlp", "head" or "other".
    """

    name: str
    module: nn.Module
    kind: str

    @property
    def weight(self) -> nn.Parameter:
        """In the module's own layout."""
        return self.module.weight  # pyright: ignore[reportReturnType]

    @property
    def transposed(self) -> bool:
        return not isinstance(self.module, nn.Linear)

    @property
    def outputs(self) -> int:
        return self.to_OI(self.weight).shape[0]

    @property
    def inputs(self) -> int:
        return self.to_OI(self.weight).shape[1]

    def to_OI(self, weight_like: Tensor) -> Tensor:
        """A weight, or its gradient, from the module's layout to (O, I); a view."""
        return weight_like.T if self.transposed else weight_like

    def from_OI(self, matrix_OI: Tensor) -> Tensor:
        """(O, I) to the module's layout; a view."""
        return matrix_OI.T if self.transposed else matrix_OI


@dataclass(frozen=True)
class Skipped:
    """A module whose own parameters are not tracked, why, and their share of the model's."""

    name: str
    reason: str
    share: float


@dataclass(frozen=True)
class LinearMaps(Sequence[LinearMap]):
    """Linear maps in the order of the model, and what is left out."""

    maps: tuple[LinearMap, ...]
    skipped: tuple[Skipped, ...] = field(default=(), repr=False)

    @overload
    def __getitem__(self, index: int) -> LinearMap: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[LinearMap, ...]: ...

    def __getitem__(self, index: int | slice) -> LinearMap | tuple[LinearMap, ...]:
        return self.maps[index]

    def __len__(self) -> int:
        return len(self.maps)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(found.name for found in self.maps)

    @property
    def share(self) -> float:
        """Part of the model's parameters that is tracked."""
        return 1.0 - sum(skip.share for skip in self.skipped)


def linear_maps(
    model: nn.Module,
    *,
    attention: bool = True,
    mlp: bool = True,
    head: bool = False,
    names: tuple[str, ...] | None = None,
) -> LinearMaps:
    """The linear maps of a model, each with its kind; the rest is named in `skipped`.

    Args:
        attention, mlp: take the maps of attention (q, k, v, o; fused ones too) and of the MLPs.
        head: take the output embedding, unless it is tied to the input embedding, which makes
            its gradient that of a lookup as well.
        names: exactly these maps, whatever their kind.
    Raises:
        ModelError: a name that is no linear map; nothing left to track.
    """
    total = sum(p.numel() for p in model.parameters())
    wanted = {"attention": attention, "mlp": mlp, "head": head, "other": True}
    output = model.model.get_output_embeddings() if isinstance(model, Decoder) else None
    found, skipped, owners = [], [], {}
    for name, module in model.named_modules():
        own = {k: p for k, p in module.named_parameters(recurse=False) if id(p) not in owners}
        tied = next(
            (owners[id(p)] for p in module.parameters(recurse=False) if id(p) in owners), ""
        )
        owners |= {id(p): name for p in own.values()}
        kind = "head" if module is output else _kind(name)
        reason = _reason(module, tied) or _unwanted(name, kind, wanted, names)
        if not reason:
            found.append(LinearMap(name, module, kind))
            own.pop("weight")
            reason = "bias: a map is its weight alone"
        if own or tied:
            skipped.append(Skipped(name, reason, sum(p.numel() for p in own.values()) / total))
    _require_names(names, found, skipped)
    if not found:
        raise ModelError("no linear map is left to track", remedy="ask for attention or mlp maps")
    return LinearMaps(tuple(found), tuple(skipped))


def token_loss(model: Decoder, maps: Sequence[LinearMap], rows_BT1: Tensor) -> Tensor:
    """Mean loss per token of each row, (B,), made so that a tracked head is called as well.

    Args:
        rows_BT1: int64 (B, T + 1): inputs are [:, :-1], labels [:, 1:].
    """
    tokens_BT, labels_BT = rows_BT1[:, :-1], rows_BT1[:, 1:]
    heads = [found.module for found in maps if found.kind == "head"]
    if not heads:
        return model(tokens_BT, labels_BT)
    logits_BTV = heads[0](model.hidden(tokens_BT))
    return F.cross_entropy(logits_BTV.mT, labels_BT, reduction="none").mean(dim=1)


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradient for any weight, nothing compiled; as they were afterwards."""
    modes = {module: module.training for module in model.modules()}
    needed = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        model.eval()
        for parameter in needed:
            parameter.requires_grad_(False)
        with as_written():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, was in needed.items():
            parameter.requires_grad_(was)


def as_written() -> AbstractContextManager[Any]:
    """Run compiled blocks as Python: what was compiled without a hook never calls it."""
    return torch.compiler.set_stance("force_eager")


@contextmanager
def observed(model: nn.Module, maps: Sequence[LinearMap], see: See) -> Iterator[None]:
    """Show `see` the inputs and output gradients of every map, in the backward pass.

    Weights get no gradient meanwhile: a backward pass then costs as much as a forward pass.
    Dropout is off meanwhile.  The model is left as it was.  Outside autograd nothing is seen.

    Raises:
        ModelError: a map is given something else than (b, T, I) or (b·T, I), as an expert of a
            mixture is: its rows cannot be told.
    """
    rows = _Rows()
    hooks = [found.module.register_forward_hook(_watch(found, rows, see)) for found in maps]
    hooks += [
        module.register_forward_hook(rows.start)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
    ]
    try:
        with at_rest(model):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def input_leaders(model: Decoder, maps: Sequence[LinearMap], tokens_BT: Tensor) -> dict[str, str]:
    """The first map that is given the very same inputs, for each map: q for k and v.

    Statistics of inputs are then made once for all of them.  One forward pass finds out.
    """
    given: dict[int, tuple[str, Tensor]] = {}
    leaders = {}

    def watch(found: LinearMap) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            # The tensor is kept as well: an id is unique only as long as its object lives.
            leaders[found.name] = given.setdefault(id(inputs[0]), (found.name, inputs[0]))[0]

        return hook

    hooks = [found.module.register_forward_pre_hook(watch(found)) for found in maps]
    try:
        with torch.no_grad(), as_written():
            model.hidden(tokens_BT)
    finally:
        for hook in hooks:
            hook.remove()
    return {found.name: leaders.get(found.name, found.name) for found in maps}


@dataclass
class _Rows:
    """Shape (b, T) of the tokens that the embeddings of this forward pass were given."""

    shape: tuple[int, ...] = (0, 0)

    def start(self, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """With weights frozen, embeddings are where a graph begins."""
        if inputs[0].dim() == 2 and inputs[0].numel() >= math.prod(self.shape):
            self.shape = tuple(inputs[0].shape)
        return output if output.requires_grad else output.detach().requires_grad_()

    def apart(self, found: LinearMap, tensor: Tensor) -> Tensor:
        """(b, T, …) of a map's inputs or output gradients, which may come as (b·T, …)."""
        if tensor.dim() == 3:
            return tensor
        if tensor.dim() != 2 or len(tensor) != math.prod(self.shape):
            raise ModelError(
                f"layer '{found.name}' is given a tensor of shape {tuple(tensor.shape)} for tokens "
                f"{self.shape}: its rows cannot be told apart",
                remedy="leave it out with names=",
            )
        return tensor.view(*self.shape, -1)


def _watch(found: LinearMap, rows: _Rows, see: See) -> Callable[..., None]:
    def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if output.requires_grad:
            a_bTI = rows.apart(found, inputs[0].detach())
            output.register_hook(lambda s: see(found, a_bTI, rows.apart(found, s)))

    return hook


def _kind(name: str) -> str:
    inside = _BLOCK.fullmatch(name)
    if not inside:
        return "other"
    if _ATTENTION.search(inside["rest"]):
        return "attention"
    return "mlp" if _MLP.search(inside["rest"]) else "other"


def _reason(module: nn.Module, tied: str) -> str:
    """Why a module cannot be tracked; empty where it can."""
    if tied:
        return f"tied to '{tied}': its gradient is not that of a linear map alone"
    if isinstance(module, nn.Embedding):
        return "embedding: looked up, not multiplied"
    if not is_linear(module):
        return f"{type(module).__name__} is no linear map"
    return ""


def _unwanted(name: str, kind: str, wanted: dict[str, bool], names: tuple[str, ...] | None) -> str:
    if names is not None:
        return "" if name in names else "not among the names asked for"
    return "" if wanted[kind] else f"{kind} not asked for"


def _require_names(
    names: tuple[str, ...] | None, found: list[LinearMap], skipped: list[Skipped]
) -> None:
    reasons = {skip.name: skip.reason for skip in skipped}
    for name in set(names or ()) - {one.name for one in found}:
        if name in reasons:
            raise ModelError(f"'{name}' cannot be tracked: {reasons[name]}", remedy="leave it out")
        problem, remedy = unknown_name("linear map", name, {one.name for one in found} | {*reasons})
        raise ModelError(problem, remedy=remedy)
