"""Which linear maps of a decoder the gradient signals are of.

    tracked_layers(decoder, count=3)        # {"model.model.layers.3.mlp.down_proj": Linear, …}

The last linear map of a block's MLP, as in AC-ODM (Ma et al. 2026).  Slots lie evenly over the
last half of the depth, so that slot l of a proxy and of a deeper target are at like depths.
"""

from __future__ import annotations

import re

from torch import nn

from workbench.core import ModelError

_BLOCK = re.compile(r"(?P<block>.*\.(?:layers|h|blocks|block|layer)\.(?P<depth>\d+))\.(?P<rest>.+)")
_MLP = re.compile(r"mlp|feed_forward|ffn|fc|moe", re.IGNORECASE)


def is_linear(module: nn.Module) -> bool:
    """Whether a module is y = W a + b: `nn.Linear`, or `Conv1D` of `transformers`."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def down_projections(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The last linear map of each block's MLP, by depth."""
    last: dict[int, tuple[str, nn.Module]] = {}
    for name, module in model.named_modules():
        match = _BLOCK.fullmatch(name)
        if match and is_linear(module) and _MLP.search(match["rest"]):
            last[int(match["depth"])] = (name, module)
    return [last[depth] for depth in sorted(last)]


def tracked_layers(model: nn.Module, count: int) -> dict[str, nn.Module]:
    """`count` down-projections, evenly over the last half of the depth, shallow ones first.

    Raises:
        ModelError: the model has no such layers, or fewer than `count`.
    """
    found = down_projections(model)
    if not found:
        raise ModelError(
            "no linear map of an MLP was found in the model's blocks",
            remedy="use a decoder whose blocks have an MLP, or a mixer without gradient signals",
        )
    if not 1 <= count <= len(found):
        raise ModelError(
            f"{count} layers cannot be tracked in a model of {len(found)} blocks",
            remedy=f"set the mixer's tracked_layers to a number from 1 to {len(found)}",
        )
    first = min(len(found) // 2, len(found) - count)
    late = found[first:]
    chosen = [late[(slot + 1) * len(late) // count - 1] for slot in range(count)]
    return dict(chosen)
