"""A decoder spread over processes, or made to compute activations twice, on PyTorch's own engine.

    recompute_activations(model, again)       # each block again in the backward pass
    shard(model, device="cuda", dtype=None)   # FSDP2: every rank keeps a part of each tensor
    fill(model, whole, device="cuda")         # shards of a model without weights get rank 0's

All work in place and leave the names of parameters as they were.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from workbench.core import ModelError
from workbench.models.decoder import Decoder
from workbench.models.layers import blocks

Context = Callable[[], AbstractContextManager[Any]]


def recompute_activations(model: Decoder, again: Context = nullcontext) -> None:
    """Keep only the input of each block in training, and compute the rest again when it is needed.

    Args:
        again: entered around each recomputation, such as to observe layers as in the first pass.
    Raises:
        ModelError: the model's type cannot do it.
    """
    if not getattr(model.model, "supports_gradient_checkpointing", False):
        raise ModelError(
            f"model type '{model.config.model_type}' cannot compute activations again",
            remedy="set activation_checkpointing=False, and fewer micro_batch_rows if it is large",
        )
    contexts = functools.partial(_contexts, again)
    model.model.activation_checkpointing_enable(
        activation_checkpointing_kwargs={"use_reentrant": False, "context_fn": contexts}
    )


def _contexts(again: Context) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    return nullcontext(), again()


def shard(model: Decoder, *, device: str, dtype: torch.dtype | None) -> list[FSDPModule]:
    """Keep a part of each parameter on every rank, gathering a block's when it is needed.

    Gradients are sums over ranks.  The process group must be initialised.

    Args:
        dtype: parameters travel and multiply in this type; None for that of the parameters.
            Gradients are summed in float32.
    Returns:
        What is gathered together: the blocks, and the model, which has the rest.
    """
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh(torch.device(device).type, (torch.distributed.get_world_size(),))
    precision = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    units: list[nn.Module] = [*blocks(model), model]
    for unit in units:
        fully_shard(unit, mesh=mesh, mp_policy=precision)
    register_fsdp_forward_method(model, "hidden")
    # GPT-2's hidden states are a view, which nothing changes in place: they go into the loss.
    warnings.filterwarnings(
        "ignore", r"FSDP2-wrapped module \(FSDPDecoder\) returned a view", UserWarning
    )
    sharded: list[FSDPModule] = [unit for unit in units if isinstance(unit, FSDPModule)]
    for unit in sharded:
        # The loss is divided by the rows of all ranks already.
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)
    return sharded


def fill(model: Decoder, whole: Decoder | None, *, device: str) -> None:
    """Give a model that was sharded on the meta device its weights and buffers, to the bit.

    One tensor at a time travels from rank 0 to all, each of which keeps its own part.

    Args:
        whole: the same model with its weights, on rank 0; None on the others.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    model.to_empty(device=torch.device(device))
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(model, dict(whole.state_dict()) if whole else {}, options=options)
    # Not all buffers are part of a state: those of rotary positions follow from the config.
    given = dict(whole.named_buffers()) if whole else {}
    for name, buffer in model.named_buffers():
        if whole:
            buffer.copy_(given[name])
        torch.distributed.broadcast(buffer, src=0)
