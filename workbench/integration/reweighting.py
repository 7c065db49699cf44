"""A registered reweighter for a training loop of your own.

    reweigh = SampleReweighter("linupper", temperature=0.4)
    weight_B = reweigh(loss_B, step=step)              # mean 1 over the rows of the step
    (weight_B * loss_B).mean().backward()

Call it once per optimiser step with all its rows.  Under `torch.distributed` each rank gives its
own rows and gets their weights; the mean is 1 over the rows of all ranks.  With micro-batches, see
`ahead`.  Shapes: B rows of a step, b of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import workbench.reweighting  # noqa: F401  (registers them)
from workbench.core import (
    REWEIGHTERS,
    ConfigError,
    PolicyError,
    Reweighter,
    Scope,
    StreamingReweighter,
)
from workbench.integration.ranks import gathered


@dataclass(frozen=True)
class Weighed:
    """Rows of this rank in a finished step: loss, final weight, and whether it counts; (B,) each.

    factor: what the gradient of the given weights is multiplied with to be that of the final ones.
    """

    loss_B: Tensor
    weight_B: Tensor
    valid_B: Tensor
    factor: Tensor


class SampleReweighter:
    """State: the reweighter's.

    Args:
        name: of any registered reweighter, with its options.
    Raises:
        ConfigError: unknown name or option (the nearest is suggested), or `norm_matched`, which
            takes a second backward pass.
    """

    def __init__(self, name: str, **options: Any):
        self.name = name
        self.reweighter: Reweighter = REWEIGHTERS.build(name, **options)
        if self.reweighter.norm_matched:
            raise ConfigError(
                f"'{name}' with control='norm_matched' takes a second backward pass, which only "
                "the loop of workbench.train makes",
                remedy="leave control out, or use workbench.train",
            )
        self.last: Weighed | None = None
        self._step = 0
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []

    @property
    def scope(self) -> Scope:
        """How it deals with micro-batches: see `ahead`."""
        return self.reweighter.scope

    def __call__(self, loss_B: Tensor, *, step: int, valid_B: Tensor | None = None) -> Tensor:
        """Weights of a whole step's rows; float32, detached, 0 for a row that is not valid.

        Args:
            loss_B: nats per token of this rank's rows.
            step: the optimiser step, counted from 0; temperatures follow it.
            valid_B: rows that predict anything; all when None.
        """
        self._require_closed("a step is weighed at once")
        loss_B, valid_B = _rows(loss_B, valid_B)
        every_B, own = gathered(loss_B)
        weight_B = self.reweighter.weigh(every_B, gathered(valid_B)[0], step)[own]
        self._end(loss_B, weight_B, valid_B, step, torch.ones((), device=loss_B.device))
        return weight_B

    def ahead(self, loss_b: Tensor, *, step: int, valid_b: Tensor | None = None) -> Tensor:
        """Weights of one micro-batch, to be back-propagated with; then call `finish`.

        Scope `micro` has mean 1 over the micro-batch; scope `stream` is up to a factor that only
        `finish` knows.

        Raises:
            PolicyError: scope `step`, which needs the losses of the whole step at once.
        """
        loss_b, valid_b = _rows(loss_b, valid_b)
        if self.scope is Scope.MICRO:
            weight_b = self.reweighter.weigh(loss_b, valid_b, step)
        elif self.scope is Scope.STREAM and isinstance(self.reweighter, StreamingReweighter):
            self._require_stream(self.reweighter)
            weight_b = self.reweighter.weigh_ahead(loss_b, valid_b, step)
        else:
            raise PolicyError(
                f"'{self.name}' with scope='step' needs the losses of the whole step at once",
                remedy="make them first without a gradient and call the reweighter with all, or "
                "give scope='stream'",
            )
        self._step = step
        self._parts.append((loss_b, weight_b, valid_b))
        return weight_b

    def finish(self) -> Tensor:
        """Factor for the gradient of the step's micro-batches, after which weights have mean 1.

        Multiply every `parameter.grad` with it before clipping; it is 1 unless the scope is
        `stream`.
        """
        if not self._parts:
            raise PolicyError("no micro-batch was weighed", remedy="call `ahead` for each first")
        loss_B, weight_B, valid_B = (torch.cat(part) for part in zip(*self._parts, strict=True))
        self._parts = []
        factor = torch.ones((), device=loss_B.device)
        if self.scope is Scope.STREAM:
            total = gathered(weight_B)[0].sum().clamp(min=torch.finfo(torch.float32).tiny)
            factor = gathered(valid_B)[0].sum() / total
        self._end(loss_B, weight_B * factor, valid_B, self._step, factor)
        return factor

    def diagnostics(self) -> dict[str, float]:
        """Of the last step, over all ranks: effective sample size as a fraction of the rows,
        largest weight, and what the reweighter says.  Reads the device."""
        if self.last is None:
            return {}
        weight_B, count = gathered(self.last.weight_B)[0], gathered(self.last.valid_B)[0].sum()
        squares = (weight_B**2).sum() * count.clamp(min=1)
        found: dict[str, Any] = {
            "ess_fraction": weight_B.sum() ** 2
            / squares.clamp(min=torch.finfo(torch.float32).tiny),
            "max_weight": weight_B.max(),
            **self.reweighter.diagnostics(self._step),
        }
        return {name: float(value) for name, value in found.items()}

    def state_dict(self) -> dict[str, Any]:
        self._require_closed("a state is taken between steps")
        return {"name": self.name, "state": self.reweighter.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken.

        Raises:
            PolicyError: it is of another reweighter.
        """
        if state["name"] != self.name:
            raise PolicyError(
                f"the saved state is of reweighter '{state['name']}', this is '{self.name}'",
                remedy="resume with the reweighter it was saved with",
            )
        self._parts, self.last = [], None
        self.reweighter.load_state_dict(state["state"])

    def _end(
        self, loss_B: Tensor, weight_B: Tensor, valid_B: Tensor, step: int, factor: Tensor
    ) -> None:
        self._step = step
        self.last = Weighed(loss_B, weight_B, valid_B, factor)
        self.reweighter.observe(gathered(loss_B)[0], gathered(valid_B)[0], step)

    def _require_stream(self, reweighter: StreamingReweighter) -> None:
        if not reweighter.streams:
            raise PolicyError(
                f"'{self.name}' cannot weigh a micro-batch before it knows the others, with the "
                "options it has",
                remedy="give scope='step' or scope='micro'",
            )

    def _require_closed(self, why: str) -> None:
        if self._parts:
            raise PolicyError(
                f"{why}, and {len(self._parts)} micro-batches were not finished",
                remedy="call `finish` after the last micro-batch",
            )


def _rows(loss_b: Tensor, valid_b: Tensor | None) -> tuple[Tensor, Tensor]:
    loss_b = loss_b.detach()
    if loss_b.dim() != 1:
        raise PolicyError(
            f"losses have shape {tuple(loss_b.shape)}: one number for the batch hides the rows",
            remedy="give one loss per row; integration.row_losses makes them from logits",
        )
    return loss_b, torch.ones_like(loss_b, dtype=torch.bool) if valid_b is None else valid_b
