"""How a run's model lies over its ranks: whole on one, whole on each (DDP), or in shards (FSDP2).

    spread = spread_out(model, config.training, shape, whole)
    spread.expect(last=True)                       # before a forward pass that is differentiated
    spread.losses(tokens_bT, labels_bT).sum().backward()
    spread.clip(1.0); spread.whole()

After the last backward pass of a step every gradient is the sum over ranks, whichever it is.
Shapes: b rows of this rank, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from workbench.config import TrainingConfig
from workbench.core import ConfigError
from workbench.models import Decoder
from workbench.models.parallel import fill, shard
from workbench.training.ranks import Ranks


class Spread:
    """The whole model on a single rank."""

    group: dist.ProcessGroup | None = None
    """For writing shards, where there are any, beside the messages of the steps."""

    def __init__(self, model: Decoder):
        self.model = model

    def losses(self, tokens_bT: Tensor, labels_bT: Tensor) -> Tensor:
        """Loss of each row, (b,)."""
        return self.model(tokens_bT, labels_bT)

    def expect(self, *, last: bool) -> None:
        """A backward pass comes, the last of its step or not: ranks exchange gradients once."""

    def norm(self) -> Tensor:
        """Norm of the gradient of all parameters."""
        return plain(torch.nn.utils.get_total_norm(self._gradients()))

    def clip(self, most: float) -> Tensor:
        """Scale the gradient down to a norm of `most`; the norm it had."""
        return plain(torch.nn.utils.clip_grad_norm_(self.model.parameters(), most))

    def scale(self, factor: Tensor) -> None:
        for gradient in self._gradients():
            local(gradient).mul_(factor)

    def finite(self) -> Tensor:
        """Whether every parameter is finite, on every rank."""
        checks = [local(p).isfinite().all() for p in self.model.parameters()]
        return torch.stack(checks).all()

    def whole(self) -> Decoder:
        """The model with all of its parameters on this rank, for a selector."""
        return self.model

    def _gradients(self) -> list[Tensor]:
        return [p.grad for p in self.model.parameters() if p.grad is not None]


class Replicated(Spread):
    """The whole model on every rank."""

    def __init__(self, model: Decoder):
        super().__init__(model)
        device = next(model.parameters()).device
        self._engine = nn.parallel.DistributedDataParallel(
            model,
            device_ids=[device] if device.type == "cuda" else None,
            forward_sync_buffers=False,
            gradient_as_bucket_view=True,
        )
        # The engine's own mean would divide a loss that is a share of all ranks' rows already.
        self._engine.register_comm_hook(None, _sum_over_ranks)

    def losses(self, tokens_bT: Tensor, labels_bT: Tensor) -> Tensor:
        return self._engine(tokens_bT, labels_bT)

    def expect(self, *, last: bool) -> None:
        self._engine.require_backward_grad_sync = last


class Sharded(Spread):
    """A part of every parameter, gradient and optimiser state on each rank.

    The model comes without its weights, which rank 0 alone has in one piece, on its host.
    """

    def __init__(
        self,
        model: Decoder,
        shape: Callable[[], Decoder],
        whole: Callable[[], Decoder],
        *,
        device: str,
        dtype: torch.dtype | None,
    ):
        super().__init__(model)
        self._shape = shape
        self._units = shard(model, device=device, dtype=dtype)
        fill(model, whole() if Ranks.here().leads else None, device=device)
        group = dist.new_group(backend="gloo")
        assert isinstance(group, dist.ProcessGroup)
        self.group = group

    def expect(self, *, last: bool) -> None:
        self._units[-1].set_requires_gradient_sync(last)

    def finite(self) -> Tensor:
        return Ranks.here().total(super().finite().int()) == Ranks.here().world

    def whole(self) -> Decoder:
        """A copy, gathered from all ranks: every rank must ask for it."""
        state = {name: plain(value) for name, value in self.model.state_dict().items()}
        copied = self._shape()
        copied.load_state_dict(state, assign=True)
        for (name, empty), (_, buffer) in zip(
            list(copied.named_buffers()), list(self.model.named_buffers()), strict=True
        ):
            if empty.is_meta:
                owner, _, last = name.rpartition(".")
                copied.get_submodule(owner).register_buffer(last, buffer, persistent=False)
        copied.model.tie_weights()
        return copied.train(self.model.training)


def in_shards(training: TrainingConfig) -> bool:
    """Whether no rank of this process group holds the whole model."""
    return Ranks.here().world > 1 and training.parallel == "fsdp"


def spread_out(
    model: Decoder,
    training: TrainingConfig,
    shape: Callable[[], Decoder],
    whole: Callable[[], Decoder],
) -> Spread:
    """Lay a model out over the ranks of this process group and move it to its device, in place.

    Args:
        model: with its weights, or without them where they come `in_shards`.
        shape: makes the same model without its weights.
        whole: makes it with them.
    """
    if in_shards(training):
        on_cuda = torch.device(training.device).type == "cuda"
        halved = training.precision == "bfloat16" and on_cuda
        dtype = torch.bfloat16 if halved else None
        return Sharded(model, shape, whole, device=training.device, dtype=dtype)
    model.to(training.device)
    return Spread(model) if Ranks.here().world == 1 else Replicated(model)


def check_world(training: TrainingConfig, world: int) -> None:
    """Raise ConfigError where a step's rows or its device cannot be dealt to `world` ranks."""
    rows, device = training.batch_rows, training.device
    if world > 1 and ":" in device:
        raise ConfigError(
            f"device = '{device}' is one device, for {world} ranks",
            remedy="set device=cuda: every rank takes its own of those of its machine",
        )
    if rows < world:
        raise ConfigError(
            f"batch_rows = {rows} leaves some of {world} ranks without a row",
            remedy=f"set batch_rows to {world} or more",
        )
    if training.parallel == "fsdp" and rows % world:
        raise ConfigError(
            f"batch_rows = {rows} is not a multiple of {world} ranks, which shards of a model need "
            "so that all of them meet at every layer",
            remedy=f"set batch_rows to {rows // world * world}, or parallel='ddp'",
        )


def plain(value: Tensor) -> Tensor:
    """The whole of a tensor that may lie in shards; every rank must ask for it."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value  # pyright: ignore


def local(value: Tensor) -> Tensor:
    """This rank's part of a tensor that may lie in shards."""
    return value.to_local() if hasattr(value, "to_local") else value  # pyright: ignore


def _sum_over_ranks(_state, bucket):
    done = dist.all_reduce(bucket.buffer(), async_op=True)
    assert done is not None
    return done.get_future().then(lambda future: future.value()[0])
