"""Batches drawn from a mixture over domains: deterministic, resumable, the same on every rank.

    sampler = MixtureSampler(corpus, batch_rows=16, seed=0)
    sampler.set_mixture(Mixture.uniform(corpus.domains))
    batch = sampler.draw(step)                    # the global batch; a rank takes batch.rows(...)

Which domains a step draws is a function of (seed, step); which rows, of the rows drawn before.
Each epoch of a domain has an order of its own.  Shapes: B rows, T tokens, K domains.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from workbench.core import Batch, DataError, Mixture, RandomStreams, stream_seed
from workbench.data.permutation import permute
from workbench.data.prepared import PreparedCorpus, sample_ids

_LOOKAHEAD_ROWS = 512


class MixtureSampler:
    """State fields: rows drawn so far per domain, the mixture, and its guaranteed rows."""

    def __init__(self, corpus: PreparedCorpus, *, batch_rows: int, seed: int):
        self.corpus = corpus
        self.batch_rows = batch_rows
        self._streams = RandomStreams(seed)
        self._drawn_K = np.zeros(len(corpus.domains), dtype=np.int64)
        self._orders = [
            _RowOrder(name, int(rows), seed)
            for name, rows in zip(corpus.domains, corpus.rows_K, strict=True)
        ]
        self._probability_K: np.ndarray | None = None
        self._guaranteed_rows = 0

    def set_mixture(self, mixture: Mixture) -> None:
        """Use `mixture` from the next draw on; uniform if never called.

        Raises:
            DataError: other domains than the corpus, or a domain with too few rows for a batch.
            PolicyError: more guaranteed rows than a batch has.
        """
        if mixture.domains != self.corpus.domains:
            raise DataError(
                f"the mixture is over {list(mixture.domains)}, the corpus has "
                f"{list(self.corpus.domains)}",
                remedy="give the domains of the corpus in its order",
            )
        effective_K = mixture.effective_K(self.batch_rows)
        for name, p, rows in zip(mixture.domains, effective_K, self.corpus.rows_K, strict=True):
            if p > 0 and rows < self.batch_rows:
                raise DataError(
                    f"domain '{name}' has {rows} rows, a batch needs {self.batch_rows}",
                    remedy="lower batch_rows or context_tokens, raise max_domain_mb, or leave the "
                    "domain out with CorpusConfig.domains",
                )
        self._probability_K = mixture.probability_K
        self._guaranteed_rows = mixture.guaranteed_rows

    def draw(self, step: int) -> Batch:
        """The global batch of a step; advances the cursors of the domains drawn."""
        if self._probability_K is None:
            self.set_mixture(Mixture.uniform(self.corpus.domains))
        assert self._probability_K is not None
        mixture = Mixture(self.corpus.domains, self._probability_K, self._guaranteed_rows)
        draw_B = self._streams.at("sampler", step).random(self.batch_rows)
        cumulative_K = np.cumsum(self._probability_K)
        domain_B = np.searchsorted(cumulative_K, draw_B * cumulative_K[-1], side="right")
        guaranteed = np.repeat(np.arange(len(cumulative_K)), self._guaranteed_rows)
        domain_B[: len(guaranteed)] = guaranteed
        row_B = np.empty(self.batch_rows, dtype=np.int64)
        for domain in np.flatnonzero(np.bincount(domain_B, minlength=len(cumulative_K))):
            mine = domain_B == domain
            count = int(mine.sum())
            row_B[mine] = self._orders[domain].rows(int(self._drawn_K[domain]), count)
            self._drawn_K[domain] += count
        return self._batch(domain_B, row_B, mixture.effective_K(self.batch_rows)[domain_B])

    def _batch(self, domain_B: np.ndarray, row_B: np.ndarray, probability_B: np.ndarray) -> Batch:
        sample_id_B = sample_ids(domain_B, row_B)
        rows = torch.from_numpy(self.corpus.tokens(sample_id_B))
        tokens_BT, labels_BT = rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
        return Batch(tokens_BT, labels_BT, sample_id_B, domain_B, probability_B)

    @property
    def epochs_K(self) -> np.ndarray:
        """Rows drawn over rows available, float64 per domain."""
        return self._drawn_K / np.maximum(self.corpus.rows_K, 1)

    def state_dict(self) -> dict[str, Any]:
        drawn = dict(zip(self.corpus.domains, self._drawn_K.tolist(), strict=True))
        mixture = None if self._probability_K is None else self._probability_K.tolist()
        return {"drawn": drawn, "mixture": mixture, "guaranteed_rows": self._guaranteed_rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken.

        Raises:
            DataError: the state is of a corpus with other domains.
        """
        domains = self.corpus.domains
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
            self._ahead = self._compute(first, max(count, _LOOKAHEAD_ROWS))
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
