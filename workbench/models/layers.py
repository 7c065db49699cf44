"""Which linear maps of a decoder the gradient signals are of.

    layers = tracked_layers(decoder, count=3)   # {"model.model.layers.3.mlp.down_proj": Linear, …}
    depths_of(decoder, layers)                  # (0.5, 0.75, 1.0)

The last linear map of a block's MLP, as in AC-ODM (Ma et al. 2026).  Slots lie evenly over the
last half of the blocks, or are the last blocks where that half has too few.  The depth of block i
of n, counted from 1, is i / n: a target takes the blocks nearest to the depths of its proxy.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from torch import nn

from workbench.core import ModelError

_BLOCK = re.compile(r"(?P<block>.*\.(?:layers|h|blocks|block|layer)\.(?P<depth>\d+))\.(?P<rest>.+)")
_MLP = re.compile(r"mlp|feed_forward|ffn|fc|moe", re.IGNORECASE)


def is_linear(module: nn.Module) -> bool:
    """Whether a module is y = W a + b: `nn.Linear`, or `Conv1D` of `transformers`."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def blocks(model: nn.Module) -> list[nn.Module]:
    """The transformer blocks, by depth.

    Raises:
        ModelError: none is found.
    """
    found = {
        int(match["depth"]): match["block"]
        for name, _ in model.named_modules()
        if (match := _BLOCK.fullmatch(name))
    }
    if not found:
        raise ModelError(
            "no blocks were found in the model", remedy="use a decoder of stacked blocks"
        )
    return [model.get_submodule(found[depth]) for depth in sorted(found)]


def down_projections(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The last linear map of each block's MLP, by depth."""
    last: dict[int, tuple[str, nn.Module]] = {}
    for name, module in model.named_modules():
        match = _BLOCK.fullmatch(name)
        if match and is_linear(module) and _MLP.search(match["rest"]):
            last[int(match["depth"])] = (name, module)
    return [last[depth] for depth in sorted(last)]


def tracked_layers(
    model: nn.Module, count: int, depths: Sequence[float] | None = None
) -> dict[str, nn.Module]:
    """`count` down-projections, shallow ones first.

    Args:
        depths: take the blocks nearest to these, all different, instead of late ones.
    Raises:
        ModelError: the model has no such layers, or fewer than `count`.
    """
    found = down_projections(model)
    if not found:
        raise ModelError(
            "no linear map of an MLP was found in the model's blocks",
            remedy="use a decoder whose blocks have an MLP, or a mixer without gradient signals",
        )
    check_tracked(count, len(found))
    blocks = _late(len(found), count) if depths is None else _nearest(len(found), depths)
    return dict(found[block] for block in blocks)


def check_tracked(count: int, found: int) -> None:
    """Raise ModelError unless `count` layers can be tracked in a model that has `found`."""
    if not 1 <= count <= found:
        raise ModelError(
            f"{count} layers cannot be tracked in a model of {found} blocks",
            remedy=f"set the mixer's tracked_layers to a number from 1 to {found}",
        )


def depths_of(model: nn.Module, layers: Iterable[str]) -> tuple[float, ...]:
    """Where in the model these down-projections lie, in (0, 1]."""
    names = [name for name, _ in down_projections(model)]
    return tuple((names.index(name) + 1) / len(names) for name in layers)


def _late(blocks: int, count: int) -> list[int]:
    first = min(blocks // 2, blocks - count)
    return [first + (slot + 1) * (blocks - first) // count - 1 for slot in range(count)]


def _nearest(blocks: int, depths: Sequence[float]) -> list[int]:
    """Nearest blocks, the deeper one of two, leaving room for the slots on either side."""
    chosen = [-1]
    for slot, depth in enumerate(depths):
        nearest = math.floor(depth * blocks + 0.5 + 1e-9) - 1
        most = blocks - len(depths) + slot
        chosen.append(min(max(nearest, chosen[-1] + 1), most))
    return chosen[1:]
