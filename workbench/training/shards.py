"""Parameters and optimiser states in parts, written by all ranks at once and read by any number.

    writing = save_shards(model, optimizer, folder, group)   # goes on in the background
    writing.result()
    load_shards(model, optimizer, folder)                    # into any layout
    load_whole(model, optimizer, saved_model, saved_optimizer)

The format is that of `torch.distributed.checkpoint`: it names tensors by their full name and knows
their whole shape, so that a run resumes on more or fewer ranks than it was saved on.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

FOLDER = "shards"


def save_shards(
    model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path, group: dist.ProcessGroup
) -> Future[Any]:
    """Copy this rank's parts to the host now, and write them while training goes on.

    Every rank must take part.

    Args:
        group: of processes, for this alone: its messages travel beside those of the steps.
    """
    from torch.distributed.checkpoint.state_dict_saver import async_save

    parts = _parts(model, optimizer, stepped=bool(optimizer.state))
    writing = async_save(parts, checkpoint_id=folder, process_group=group)
    assert isinstance(writing, Future)
    return writing


def load_shards(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Read what this rank needs of a folder written by any number of ranks."""
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict import set_state_dict
    from torch.distributed.checkpoint.state_dict_loader import load

    saved = FileSystemReader(folder).read_metadata().state_dict_metadata
    stepped = any(name.startswith("optimizer.state.") for name in saved)
    parts = _parts(model, optimizer, stepped=stepped)
    load(parts, checkpoint_id=folder, no_dist=not dist.is_initialized())
    set_state_dict(
        model,
        optimizer,
        model_state_dict=parts["model"],
        optim_state_dict=parts["optimizer"],
    )
    if not stepped:
        optimizer.state.clear()


def load_model_shards(model: nn.Module, folder: Path) -> None:
    """The parameters alone, into a model that lies on this process."""
    from torch.distributed.checkpoint.state_dict_loader import load

    parts = {"model": model.state_dict()}
    load(parts, checkpoint_id=folder, no_dist=True)
    model.load_state_dict(parts["model"])


def load_whole(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    saved_model: Mapping[str, Any],
    saved_optimizer: Mapping[str, Any],
) -> None:
    """Take from whole states, which this rank has, its own parts of them."""
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        set_model_state_dict,
        set_optimizer_state_dict,
    )

    options = StateDictOptions(full_state_dict=True)
    set_model_state_dict(model, dict(saved_model), options=options)
    names = _names_in_order(model, optimizer)
    by_name = {
        "state": {names[i]: state for i, state in saved_optimizer["state"].items()},
        "param_groups": [
            {**group, "params": [names[i] for i in group["params"]]}
            for group in saved_optimizer["param_groups"]
        ],
    }
    set_optimizer_state_dict(model, optimizer, by_name, options=options)
    if not by_name["state"]:
        optimizer.state.clear()


def _names_in_order(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """Names of the parameters, by the number that the optimiser's own state has for them."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [names[p] for group in optimizer.param_groups for p in group["params"]]


def _parts(model: nn.Module, optimizer: torch.optim.Optimizer, *, stepped: bool) -> dict[str, Any]:
    """This rank's parts, or where to read them; of an optimiser that never stepped, no state."""
    from torch.distributed.checkpoint.state_dict import get_state_dict

    of_model, of_optimizer = get_state_dict(model, optimizer)
    if not stepped:
        # torch makes a state to ask for, by an empty step, which AdamW's bias correction counts.
        of_optimizer["state"] = {}
        optimizer.state.clear()
    return {"model": of_model, "optimizer": of_optimizer}
