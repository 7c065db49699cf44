"""Held-out loss per domain: what a model predicts of documents it never trains on.

    losses = held_out_loss(decoder, corpus, rows_per_domain=32, batch_rows=16, device="cpu")

Shapes: B rows, T tokens, R held-out rows of a domain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from workbench.core import IGNORE_INDEX, ConfigError, DataError, unknown_name

PRECISIONS = ("float32", "bfloat16")


class HeldOutCorpus(Protocol):
    """What the evaluation asks of a corpus; `data.PreparedCorpus` is one."""

    @property
    def domains(self) -> Sequence[str]: ...

    def held_out(self, domain: str, limit: int | None) -> np.ndarray:
        """int64 (R, T+1): the first `limit` held-out rows."""
        ...


class Share(Protocol):
    """This process among those that evaluate together; `training.ranks.Ranks` is one."""

    @property
    def rank(self) -> int: ...

    @property
    def world(self) -> int: ...

    def total(self, value: Tensor) -> Tensor:
        """Sum over the processes."""
        ...


@dataclass(frozen=True)
class Alone:
    """One process that evaluates by itself."""

    rank: int = 0
    world: int = 1

    def total(self, value: Tensor) -> Tensor:
        return value


def held_out_loss(
    model: nn.Module,
    corpus: HeldOutCorpus,
    *,
    rows_per_domain: int | None,
    batch_rows: int,
    device: torch.device | str,
    precision: str = "float32",
    share: Share | None = None,
) -> dict[str, float]:
    """Mean loss of every domain in nats per token, each active token counting the same.

    Draws no random number; the model is evaluated without dropout and left in the mode it was in.

    Args:
        model: `models.Decoder`, or any module with (tokens_BT, labels_BT) -> loss_B.
        rows_per_domain: rows read of each domain at most; None for all.
        batch_rows: rows of one forward pass.
        precision: "bfloat16" computes under autocast.
        share: this process among several that all ask for the same, each reading a part.
    Raises:
        ConfigError: unknown precision.
        DataError: a domain without a held-out row or without an active token.
    """
    if precision not in PRECISIONS:
        problem, remedy = unknown_name("precision", precision, PRECISIONS)
        raise ConfigError(problem, remedy=remedy)
    evaluate = _evaluator(model, torch.device(device), precision)
    was_training = model.training
    model.eval()
    try:
        return {
            domain: _domain_loss(
                domain,
                corpus.held_out(domain, rows_per_domain),
                batch_rows,
                evaluate,
                share or Alone(),
            )
            for domain in corpus.domains
        }
    finally:
        model.train(was_training)


def _evaluator(
    model: nn.Module, device: torch.device, precision: str
) -> Callable[[Tensor], Tensor]:
    """Function tokens_B(T+1) -> (2, B): loss and active tokens of each row, on the device."""

    def evaluate(rows: Tensor) -> Tensor:
        rows = rows.to(device)
        labels_BT = rows[:, 1:]
        with (
            torch.no_grad(),  # shards gathered in inference mode could not be trained afterwards
            torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"),
        ):
            loss_B = model(rows[:, :-1], labels_BT)
        return torch.stack([loss_B.float(), (labels_BT != IGNORE_INDEX).sum(dim=1).float()])

    return evaluate


def _domain_loss(
    domain: str,
    rows: np.ndarray,
    batch_rows: int,
    evaluate: Callable[[Tensor], Tensor],
    share: Share,
) -> float:
    if len(rows) == 0:
        raise DataError(
            f"domain '{domain}' has no held-out row",
            remedy="raise corpus.held_out_fraction or give the domain more documents",
        )
    tokens = torch.as_tensor(np.ascontiguousarray(rows, dtype=np.int64))
    parts = tokens.split(batch_rows)
    # A process without a part left reads the last one for nothing: where a model lies in shards,
    # all have to run it equally often.
    last, rounds = len(parts) - 1, -(-len(parts) // share.world)
    turns = range(share.rank, share.rank + rounds * share.world, share.world)
    read = [(evaluate(parts[min(turn, last)]), turn <= last) for turn in turns]
    found = [part if own else torch.zeros_like(part) for part, own in read]
    # One transfer a domain, and float64 on the host: the sum must not depend on batch_rows.
    loss_R, active_tokens_R = torch.cat(found, dim=1).cpu().double()
    sums = torch.stack([(loss_R * active_tokens_R).sum(), active_tokens_R.sum()])
    loss, active_tokens = share.total(sums).tolist()
    if active_tokens == 0:
        raise DataError(
            f"no held-out token of domain '{domain}' is active",
            remedy="check the labels of its rows",
        )
    return loss / active_tokens
