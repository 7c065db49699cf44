"""What a decoder takes in memory and operations, known from its shape without making its weights.

    found = footprint(ModelConfig(name="llama-7b"), vocab_size=32_000, context_tokens=4096,
                      precision="bfloat16")
    found.parameters, found.row.kept_mib, found.flops_per_token

The forward pass runs on tensors that have shapes and no memory, and what it keeps for the backward
pass is added up.  Attention is that of the CPU; flash attention on a GPU keeps the same.
Shapes: T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from workbench.models.build import build_shape
from workbench.models.decoder import Decoder
from workbench.models.layers import blocks, down_projections

if TYPE_CHECKING:
    from workbench.config import ModelConfig

MIB = 2**20


@dataclass(frozen=True)
class Kept:
    """MiB that one forward pass keeps for its backward pass.

    blocks: of each block; outside: of the rest of the body; inputs: of all blocks' inputs alone.
    """

    blocks: tuple[float, ...]
    outside: float
    inputs: float

    @property
    def kept_mib(self) -> float:
        return sum(self.blocks) + self.outside

    @property
    def recomputed_mib(self) -> float:
        """With activation checkpointing: inputs of blocks, and one block at a time."""
        return self.inputs + max(self.blocks) + self.outside


@dataclass(frozen=True)
class Footprint:
    """Of a decoder at one context and precision.

    parameters: tied ones once; largest_block: of one block; outside_blocks: of the embeddings and
    the last norm; vocab_size, width: of the output embedding; down_projections: shape of the
    weight of the last linear map of each block's MLP, by depth; row: what one row adds;
    fixed_mib: what is kept however many rows there are, such as weights converted to bfloat16.
    """

    parameters: int
    largest_block: int
    outside_blocks: int
    vocab_size: int
    width: int
    down_projections: tuple[tuple[int, int], ...]
    flops_per_token: float
    row: Kept
    fixed_mib: float


def footprint(
    config: ModelConfig, *, vocab_size: int, context_tokens: int, precision: str
) -> Footprint:
    """Measure a shape.

    Args:
        config, vocab_size, context_tokens: as in `build_model`.
        precision: "float32" or "bfloat16", as in training.
    Raises:
        ConfigError, ModelError: as in `build_model`.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        decoder = build_shape(config, vocab_size=vocab_size, context_tokens=context_tokens)
        one, two = (_kept(decoder, rows, precision) for rows in (1, 2))
        sizes = [sum(p.numel() for p in block.parameters()) for block in blocks(decoder)]
    row = Kept(
        tuple(b - a for a, b in zip(one.blocks, two.blocks, strict=True)),
        two.outside - one.outside,
        two.inputs - one.inputs,
    )
    return Footprint(
        parameters=decoder.parameter_count,
        largest_block=max(sizes),
        outside_blocks=decoder.parameter_count - sum(sizes),
        vocab_size=decoder.head_VD.shape[0],
        width=decoder.head_VD.shape[1],
        down_projections=_shapes(decoder),
        flops_per_token=decoder.flops_per_token,
        row=row,
        fixed_mib=one.kept_mib - row.kept_mib,
    )


def _shapes(decoder: Decoder) -> tuple[tuple[int, int], ...]:
    weights = [layer.get_parameter("weight") for _, layer in down_projections(decoder)]
    return tuple((weight.shape[0], weight.shape[1]) for weight in weights)


class _Meter:
    """Bytes of the storages that autograd keeps, by the block that made them."""

    def __init__(self, decoder: Decoder, rows: int):
        self._weights = {p.untyped_storage()._cdata for p in decoder.parameters()}
        # Only a traced pass builds the causal mask: a real one leaves it to the kernel.
        self._mask = (rows, 1, decoder.context_tokens, decoder.context_tokens)
        self._seen: dict[int, Tensor] = {}
        self.by_block: dict[int | None, int] = {}
        self.input_bytes = 0
        self.block: int | None = None

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        known = storage._cdata in self._weights or storage._cdata in self._seen
        if not known and tuple(tensor.shape) != self._mask:
            # Held, so that no later storage takes its place in memory and its number.
            self._seen[storage._cdata] = tensor
            self.by_block[self.block] = self.by_block.get(self.block, 0) + storage.nbytes()
        return tensor

    @contextmanager
    def watching(self, decoder: Decoder) -> Iterator[None]:
        handles = []
        for number, block in enumerate(blocks(decoder)):
            handles.append(block.register_forward_pre_hook(partial(self._enter, number)))
            handles.append(block.register_forward_hook(self._leave))
        try:
            with torch.autograd.graph.saved_tensors_hooks(self.pack, lambda tensor: tensor):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, number: int, _block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.block = number
        self.input_bytes += inputs[0].numel() * inputs[0].element_size()

    def _leave(self, *_args: object) -> None:
        self.block = None


def _kept(decoder: Decoder, rows: int, precision: str) -> Kept:
    meter = _Meter(decoder, rows)
    narrow = precision == "bfloat16"
    with torch.autocast("cpu", torch.bfloat16) if narrow else nullcontext():
        tokens_BT = torch.zeros(rows, decoder.context_tokens, dtype=torch.long)
        with meter.watching(decoder):
            decoder.hidden(tokens_BT)
    depths = range(len(blocks(decoder)))
    return Kept(
        tuple(meter.by_block.get(depth, 0) / MIB for depth in depths),
        meter.by_block.get(None, 0) / MIB,
        meter.input_bytes / MIB,
    )
