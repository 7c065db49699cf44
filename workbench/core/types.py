"""The vocabulary: what travels between the loop, the policies and the record.

Shapes: B rows of the global batch, T tokens of a row, K domains, C clusters, N pool.
Losses are nats per token; weights have mean 1 over the valid rows of the global batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from workbench.core.errors import PolicyError

if TYPE_CHECKING:
    from torch import Tensor

IGNORE_INDEX = -100
"""Label of a token that is not predicted, as in `torch.nn.functional.cross_entropy`."""


class Signal(StrEnum):
    """What a mixer may ask the loop to compute; the loop computes only what is asked for."""

    DOMAIN_GRADIENTS = "domain_gradients"
    """`DomainGradients`: inner products of the domains' mean gradients."""
    ROW_GRADIENTS = "row_gradients"
    """float64 (K,): mean over a domain's rows of the squared norm of a row's gradient."""
    TRACKED_NORMS = "tracked_norms"
    """`TrackedNorms`: norms of the tracked weights and of their change in the step."""
    EXCESS_LOSS = "excess_loss"
    """float32 (B,) on the host: mean over tokens of max(loss - reference model's loss, 0)."""


class Scope(StrEnum):
    """Over which rows a reweighter normalises when a step is split into micro-batches."""

    MICRO = "micro"
    STEP = "step"
    STREAM = "stream"


@dataclass(frozen=True)
class Batch:
    """Rows of one optimiser step, on the host, in sampling order.

    tokens_BT: int64 inputs; labels_BT: int64 next tokens, `IGNORE_INDEX` where not predicted; both
    0 in rows that only another rank has read; sample_id_B, domain_B: int64; probability_B:
    float64, chance of the row's domain when drawn.
    """

    tokens_BT: Tensor
    labels_BT: Tensor
    sample_id_B: np.ndarray
    domain_B: np.ndarray
    probability_B: np.ndarray

    def __len__(self) -> int:
        return len(self.sample_id_B)

    def rows(self, rows: slice) -> Batch:
        """A part of the batch, such as one micro-batch."""
        return Batch(
            self.tokens_BT[rows],
            self.labels_BT[rows],
            self.sample_id_B[rows],
            self.domain_B[rows],
            self.probability_B[rows],
        )


@dataclass(frozen=True)
class MixingTask:
    """What a mixer is built for: the K domains of a corpus, and the run it drives.

    names: the domains in order; rows_K: training rows of each; batch_rows: rows of a step.
    """

    names: tuple[str, ...]
    rows_K: np.ndarray
    batch_rows: int = 16
    total_steps: int = 1000
    seed: int = 0

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Mixture:
    """Probabilities over K named domains; validated on construction.

    guaranteed_rows: rows of every batch that each domain gets before the rest is drawn.
    """

    domains: tuple[str, ...]
    probability_K: np.ndarray
    guaranteed_rows: int = 0

    def __post_init__(self):
        p = np.asarray(self.probability_K, dtype=np.float64)
        if p.shape != (len(self.domains),):
            raise PolicyError(
                f"mixture has shape {p.shape} for {len(self.domains)} domains",
                remedy="give one probability per domain",
            )
        if not np.isfinite(p).all() or (p < 0).any() or abs(p.sum() - 1) > 1e-6:
            raise PolicyError(
                f"mixture {p.tolist()} is not a probability vector",
                remedy="give finite, non-negative probabilities that sum to 1",
            )
        # Dividing what already sums to 1 would change last bits and so break an exact resume.
        scaled = p if abs(p.sum() - 1) < 1e-12 else p / p.sum()
        object.__setattr__(self, "probability_K", scaled)

    @classmethod
    def uniform(cls, domains: Sequence[str]) -> Mixture:
        return cls(tuple(domains), np.full(len(domains), 1 / len(domains)))

    def effective_K(self, batch_rows: int) -> np.ndarray:
        """Expected shares of a batch: (g + (N - g K) a) / N with g guaranteed rows of N.

        Raises:
            PolicyError: the batch has fewer rows than are guaranteed.
        """
        rest = batch_rows - self.guaranteed_rows * len(self.domains)
        if rest < 0:
            raise PolicyError(
                f"{self.guaranteed_rows} guaranteed rows for each of {len(self.domains)} domains "
                f"do not fit a batch of {batch_rows} rows",
                remedy="raise batch_rows, or set the mixer's guaranteed_rows=0",
            )
        return (self.guaranteed_rows + rest * self.probability_K) / batch_rows

    def as_dict(self) -> dict[str, float]:
        return dict(zip(self.domains, self.probability_K.tolist(), strict=True))


def entropy_nats(probability_K: np.ndarray) -> float:
    """-sum p log p, with 0 log 0 = 0; at most ln K."""
    positive = probability_K[probability_K > 0]
    return -float((positive * np.log(positive)).sum())


@dataclass(frozen=True)
class Tracking:
    """Which weights the gradient signals are of.

    layers: how many linear maps: L slots, see `models.layers`.
    projection_width: columns of the random projection of each side of a weight gradient; exact
        products when None.
    depths: where in the model the slots lie, in (0, 1], as in the run an agent comes from; evenly
        over the last half when None.
    """

    layers: int = 3
    projection_width: int | None = None
    depths: tuple[float, ...] | None = None


@dataclass(frozen=True)
class DomainGradients:
    """Inner products of the domains' mean gradients over the tracked weights, of one step.

    gram_KK: float64, <g_i, g_j>; zero in row and column of a domain without rows.
    count_K: int64, valid rows of each domain.
    sampling_error: relative standard error that a random projection adds; 0 when exact.
    """

    gram_KK: np.ndarray
    count_K: np.ndarray
    sampling_error: float = 0.0


@dataclass(frozen=True)
class TrackedNorms:
    """Frobenius norms of the L tracked weights after a step and of their change in it, float64.

    depth_L: where in the model they lie, in (0, 1]; None where that is not known.
    """

    weight_L: np.ndarray
    change_L: np.ndarray
    depth_L: tuple[float, ...] | None = None


@dataclass(frozen=True)
class StepOutcome:
    """What one optimiser step showed, given to the mixer after the step.

    loss_B: float32 per-row loss on the step's device; weight_B: the weights used; valid_B: bool.
    domain_B: int64 on the host.  signals: what the mixer's `needs` asked for; see `Signal`.
    """

    step: int
    domain_B: np.ndarray
    sample_id_B: np.ndarray
    loss_B: Tensor
    weight_B: Tensor
    valid_B: Tensor
    signals: dict[Signal, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pool:
    """Candidate rows a selector may choose from.

    sample_id_N, domain_N: int64; tokens_N: active tokens of each row.
    """

    sample_id_N: np.ndarray
    domain_N: np.ndarray
    tokens_N: np.ndarray

    def __len__(self) -> int:
        return len(self.sample_id_N)


@dataclass(frozen=True)
class Selection:
    """Chosen rows, each with the reason for it, and what was judged on the way.

    cluster_N: int32, the cluster each row came from; influence_N: float32, its predicted decrease
    of the reference loss per token, NaN where the row itself was not scored.  None where a
    selector knows no such thing.
    """

    sample_id_N: np.ndarray
    reason_N: Sequence[str]
    cluster_N: np.ndarray | None = None
    influence_N: np.ndarray | None = None

    def __post_init__(self):
        columns = {"reasons": self.reason_N}
        columns |= {"clusters": self.cluster_N} if self.cluster_N is not None else {}
        columns |= {"influence scores": self.influence_N} if self.influence_N is not None else {}
        for name, values in columns.items():
            if len(self.sample_id_N) != len(values):
                raise PolicyError(
                    f"{len(self.sample_id_N)} rows selected with {len(values)} {name}",
                    remedy=f"give one entry of {name} per row",
                )
        if len(np.unique(self.sample_id_N)) != len(self.sample_id_N):
            raise PolicyError(
                "a row is selected more than once", remedy="return every sample_id once"
            )

    def __len__(self) -> int:
        return len(self.sample_id_N)


class SampleSource(Protocol):
    """Rows by stable id and their text, as a prepared corpus has them."""

    domains: tuple[str, ...]
    content_hash: str

    def tokens(self, sample_id_B: np.ndarray) -> np.ndarray:
        """int64 (B, T + 1): inputs are [:, :-1], labels [:, 1:]."""
        ...

    def text(self, sample_id: int) -> str: ...


Progress = Callable[[Mapping[str, Any]], None]
"""Told what long work has done: `stage`, `done`, `total`, and what else the stage knows."""


def silent(event: Mapping[str, Any]) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class SelectionTask:
    """What a selector is built for.

    source: the candidates' rows; reference_MT: int64 (M, T + 1), rows of the reference set.
    cache_dir: where embeddings, factors and scores are kept shard by shard, so that work cut
    short is not done twice; None keeps nothing.  progress: told of every stage.
    """

    source: SampleSource
    reference_MT: np.ndarray
    seed: int = 0
    device: str = "cpu"
    batch_rows: int = 16
    cache_dir: Path | None = None
    progress: Progress = silent
