"""Batches drawn from a mixture over domains: deterministic, resumable, the same on every rank.

    sampler = MixtureSampler(corpus, batch_rows=16, seed=0)
    sampler.set_mixture(Mixture.uniform(corpus.domains))
    batch = sampler.draw(step)                    # the global batch
    batch = sampler.draw(step, slice(0, 8))       # the same rows, of which these alone are read

Which domains a step draws is a function of (seed, step); which rows, of the rows drawn before.
Each epoch of a domain has an order of its own.  Shapes: B rows, T tokens, K domains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from workbench.core import Batch, DataError, Mixture, RandomStreams, stream_seed
from workbench.data.permutation import permute
from workbench.data.prepared import PreparedCorpus, sample_ids, split_ids

_LOOKAHEAD_ROWS = 512


@dataclass(frozen=True)
class Supply:
    """What a batch is drawn from, per domain: rows on offer, how often they were drawn, int64 and
    float64 (K,), and the share of a batch that the mixture in use gives the domain."""

    rows_K: np.ndarray
    epochs_K: np.ndarray
    share_K: np.ndarray


@dataclass(frozen=True)
class Drawn:
    """Rows of one step: ids as of `sample_ids`, their domains, and the chance of each domain when
    drawn; (B,) each."""

    sample_id_B: np.ndarray
    domain_B: np.ndarray
    probability_B: np.ndarray


class RowSampler:
    """Ids of rows of some domains, of whatever the rows are made.

    State fields: rows drawn so far per domain, the mixture, and its guaranteed rows.  What the rows
    were restricted to is not part of it: restrict before loading a state.

    Args:
        domains: names in index order.
        rows_K: rows of each, int64.
        batch_rows: rows of one draw.
    """

    def __init__(self, domains: tuple[str, ...], rows_K: np.ndarray, *, batch_rows: int, seed: int):
        self.domains = domains
        self._every_K = rows_K
        self.batch_rows = batch_rows
        self._seed = seed
        self._streams = RandomStreams(seed)
        self.restrict(None)
        self._probability_K: np.ndarray | None = None
        self._guaranteed_rows = 0

    def restrict(self, sample_id_N: np.ndarray | None, *, once: bool = False) -> None:
        """Draw from these rows alone, or from all; the count of drawn rows starts again.

        A domain without a row among them is left out, and its share goes to the others.

        Args:
            once: repeat no row while another is left: a domain whose rows are used up leaves its
                share to the others too.
        """
        self._once = once
        domains = self.domains
        if sample_id_N is None:
            self._chosen: list[np.ndarray] | None = None
            self._rows_K = self._every_K
        else:
            domain_N, row_N = split_ids(np.sort(sample_id_N))
            self._chosen = [row_N[domain_N == k] for k in range(len(domains))]
            self._rows_K = np.array([len(rows) for rows in self._chosen], dtype=np.int64)
        self._drawn_K = np.zeros(len(domains), dtype=np.int64)
        self._orders = [
            _RowOrder(name, int(rows), self._seed)
            for name, rows in zip(domains, self._rows_K, strict=True)
        ]

    def set_mixture(self, mixture: Mixture) -> None:
        """Use `mixture` from the next draw on; uniform if never called.

        Raises:
            DataError: other domains than the corpus, a domain with too few rows for a batch, or
                none of the domains it wants is among the rows that were chosen.
            PolicyError: more guaranteed rows than a batch has.
        """
        if mixture.domains != self.domains:
            raise DataError(
                f"the mixture is over {list(mixture.domains)}, the corpus has {list(self.domains)}",
                remedy="give the domains of the corpus in its order",
            )
        effective_K = mixture.effective_K(self.batch_rows)
        if not mixture.probability_K[self._rows_K > 0].sum() > 0:
            shares = zip(mixture.domains, mixture.probability_K, strict=True)
            wanted = [name for name, p in shares if p > 0]
            raise DataError(
                f"no chosen row is of the domains that the mixture asks for: {', '.join(wanted)}",
                remedy="raise the mixer's floor, or selection.share",
            )
        for name, p, rows in zip(mixture.domains, effective_K, self._every_K, strict=True):
            if p > 0 and rows < self.batch_rows:
                raise DataError(
                    f"domain '{name}' has {rows} rows, a batch needs {self.batch_rows}",
                    remedy="lower batch_rows or context_tokens, raise max_domain_mb, or leave the "
                    "domain out with CorpusConfig.domains",
                )
        self._probability_K = mixture.probability_K
        self._guaranteed_rows = mixture.guaranteed_rows

    def draw_ids(self, step: int) -> Drawn:
        """The rows of a step's global batch; advances the cursors of the domains drawn."""
        if self._probability_K is None:
            self.set_mixture(Mixture.uniform(self.domains))
        assert self._probability_K is not None
        rng = self._streams.at("sampler", step)
        domain_B = _domains(self._probability_K * (self._rows_K > 0), rng.random(self.batch_rows))
        guaranteed = np.repeat(np.flatnonzero(self._rows_K), self._guaranteed_rows)
        domain_B[: len(guaranteed)] = guaranteed
        if self._once:
            self._avoid_repeats(domain_B, rng)
        row_B = np.empty(self.batch_rows, dtype=np.int64)
        for domain in np.unique(domain_B):
            mine = domain_B == domain
            count = int(mine.sum())
            place_B = self._orders[domain].rows(int(self._drawn_K[domain]), count)
            row_B[mine] = place_B if self._chosen is None else self._chosen[domain][place_B]
            self._drawn_K[domain] += count
        return Drawn(sample_ids(domain_B, row_B), domain_B, self._share_K()[domain_B])

    def _avoid_repeats(self, domain_B: np.ndarray, rng: np.random.Generator) -> None:
        """Redraw, in place, the rows by which a domain exceeds what it has left."""
        assert self._probability_K is not None
        left_K = np.maximum(self._rows_K - self._drawn_K, 0)
        if left_K.sum() < len(domain_B):
            return
        # A domain filled in one pass gets no row in the next, so K passes are enough.
        for _ in left_K:
            count_K = np.bincount(domain_B, minlength=len(left_K))
            surplus = [
                np.flatnonzero(domain_B == k)[left_K[k] :] for k in np.flatnonzero(count_K > left_K)
            ]
            if not surplus:
                return
            place_n = np.concatenate(surplus)
            share_K = self._probability_K * (left_K > count_K)
            if not share_K.sum() > 0:
                share_K = np.maximum(left_K - count_K, 0).astype(float)
            domain_B[place_n] = _domains(share_K, rng.random(len(place_n)))

    def _share_K(self) -> np.ndarray:
        """Expected share of a batch, float64 (K,), zero for a domain that has no row."""
        assert self._probability_K is not None
        offered_K, share_K = self._rows_K > 0, self._probability_K
        if not offered_K.all():
            share_K = share_K * offered_K / share_K[offered_K].sum()
        given_K = self._guaranteed_rows * offered_K
        return (given_K + (self.batch_rows - given_K.sum()) * share_K) / self.batch_rows

    @property
    def rows_K(self) -> np.ndarray:
        """Rows on offer, int64 per domain."""
        return self._rows_K

    @property
    def epochs_K(self) -> np.ndarray:
        """Rows drawn over rows available, float64 per domain."""
        return self._drawn_K / np.maximum(self._rows_K, 1)

    @property
    def supply(self) -> Supply:
        """Of the batch drawn last."""
        return Supply(self._rows_K, self.epochs_K, self._share_K())

    def state_dict(self) -> dict[str, Any]:
        drawn = dict(zip(self.domains, self._drawn_K.tolist(), strict=True))
        mixture = None if self._probability_K is None else self._probability_K.tolist()
        return {"drawn": drawn, "mixture": mixture, "guaranteed_rows": self._guaranteed_rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken.

        Raises:
            DataError: the state is of a corpus with other domains.
        """
        domains = self.domains
        if tuple(state["drawn"]) != domains:
            raise DataError(
                f"the sampler's state is of domains {list(state['drawn'])}, the corpus has "
                f"{list(domains)}",
                remedy="resume with the corpus the run was started on",
            )
        self._drawn_K = np.array([state["drawn"][name] for name in domains], dtype=np.int64)
        # Not through Mixture, which divides by the sum again and may change the last bit.
        mixture = state["mixture"]
        self._probability_K = None if mixture is None else np.array(mixture)
        self._guaranteed_rows = state["guaranteed_rows"]


class MixtureSampler(RowSampler):
    """Batches of a prepared corpus.  State: see `RowSampler`."""

    def __init__(self, corpus: PreparedCorpus, *, batch_rows: int, seed: int):
        super().__init__(corpus.domains, corpus.rows_K, batch_rows=batch_rows, seed=seed)
        self.corpus = corpus

    def draw(self, step: int, read: slice = slice(None)) -> Batch:
        """The global batch of a step; advances the cursors of the domains drawn.

        Args:
            read: rows that the caller trains on; tokens and labels of the others are 0.
        """
        drawn = self.draw_ids(step)
        rows = torch.from_numpy(self.corpus.tokens(drawn.sample_id_B[read]))
        tokens_BT = rows.new_zeros(self.batch_rows, self.corpus.context_tokens)
        labels_BT = torch.zeros_like(tokens_BT)
        tokens_BT[read], labels_BT[read] = rows[:, :-1], rows[:, 1:]
        return Batch(tokens_BT, labels_BT, drawn.sample_id_B, drawn.domain_B, drawn.probability_B)


def _domains(share_K: np.ndarray, draw_B: np.ndarray) -> np.ndarray:
    """Domain indices for uniform draws in [0, 1), in proportion to the shares."""
    cumulative_K = np.cumsum(share_K)
    return np.searchsorted(cumulative_K, draw_B * cumulative_K[-1], side="right")


class _RowOrder:
    """The rows of one domain, epoch after epoch, each in an order of its own.

    Rows are computed a few hundred at a time; what is kept follows from the position alone.
    """

    def __init__(self, domain: str, rows: int, seed: int):
        self._domain, self._rows, self._seed = domain, rows, seed
        self._first = 0
        self._ahead = np.empty(0, dtype=np.int64)

    def rows(self, first: int, count: int) -> np.ndarray:
        """Rows at the positions [first, first + count), counted over all epochs."""
        offset = first - self._first
        if offset < 0 or offset + count > len(self._ahead):
            self._first, offset = first, 0
            self._ahead = self._compute(first, max(count, min(_LOOKAHEAD_ROWS, self._rows)))
        return self._ahead[offset : offset + count]

    def _compute(self, first: int, count: int) -> np.ndarray:
        position_N = np.arange(first, first + count)
        epoch_N, within_N = np.divmod(position_N, self._rows)
        parts = [
            permute(
                within_N[epoch_N == epoch],
                n=self._rows,
                seed=stream_seed(self._seed, f"row order {self._domain}", int(epoch)),
            )
            for epoch in np.unique(epoch_N)
        ]
        return np.concatenate(parts)
