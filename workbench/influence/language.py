"""A language whose next token has a known distribution, to try estimates on in seconds.

    language = ChainLanguage(vocab_size=64, likelihood=0.7)
    rows_NT = language.rows(600, seed=0)              # int64 (600, T + 1)
    language.entropy_nats                             # loss per token of whoever knows it

Shapes: N rows, T tokens, V vocabulary, R successors of a token.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workbench.core import DataError, RandomStreams


@dataclass(frozen=True)
class ChainLanguage:
    """A Markov chain: the r-th of a token's R successors has likelihood · (1 - likelihood)^r.

    Two languages of one seed have the same successors, in the same order: at a higher likelihood
    the text is easier, and nothing else.

    Raises:
        DataError: a likelihood outside (0, 1), or more successors than tokens.
    """

    vocab_size: int = 64
    context_tokens: int = 12
    likelihood: float = 0.7
    successors: int = 8
    seed: int = 0

    def __post_init__(self):
        if not 0 < self.likelihood < 1 or not 1 < self.successors <= self.vocab_size:
            raise DataError(
                f"no language of {self.vocab_size} tokens with {self.successors} successors, the "
                f"first with likelihood {self.likelihood}",
                remedy="take a likelihood between 0 and 1, and no more successors than tokens",
            )

    @property
    def probability_R(self) -> np.ndarray:
        """Of each successor; what lies beyond the last goes to the last."""
        probability_R = self.likelihood * (1 - self.likelihood) ** np.arange(self.successors)
        probability_R[-1] += 1 - probability_R.sum()
        return probability_R

    @property
    def entropy_nats(self) -> float:
        """Of the next token: the lowest loss per token that any model can reach."""
        probability_R = self.probability_R
        return float(-(probability_R * np.log(probability_R)).sum())

    def rows(self, count: int, *, seed: int = 0) -> np.ndarray:
        """Rows int64 (count, T + 1), each from a first token drawn uniformly."""
        table_VR = self._successors()
        rng = RandomStreams(seed)["chain rows"]
        rows_NT = rng.integers(self.vocab_size, size=(count, self.context_tokens + 1))
        drawn_NT = rng.choice(
            self.successors, p=self.probability_R, size=(count, self.context_tokens)
        )
        for t in range(self.context_tokens):
            rows_NT[:, t + 1] = table_VR[rows_NT[:, t], drawn_NT[:, t]]
        return rows_NT

    def _successors(self) -> np.ndarray:
        """Distinct successors of each token, the likeliest first, (V, R)."""
        order_VV = np.tile(np.arange(self.vocab_size), (self.vocab_size, 1))
        rng = RandomStreams(self.seed)["chain successors"]
        return rng.permuted(order_VV, axis=1)[:, : self.successors]
