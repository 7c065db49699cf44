"""From scores of tokens to scores of the documents that packed rows are made of.

    scores = score_rows(model, corpus.tokens(ids), direction, tokens=True)
    document_scores(scores.token_NT, [corpus.provenance(i) for i in ids])    # {document: score}

Shapes: N rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from workbench.core import DataError


def document_scores(
    token_NT: np.ndarray, provenance_N: Sequence[Sequence[Mapping[str, Any]]]
) -> dict[str, float]:
    """Sum of the parts of each document's tokens, over all the rows that it is in.

    A token's part includes what it does to later tokens of its row, those of the next document
    too, and is a share of the row's mean loss: a document's score belongs to its rows as packed.

    Args:
        token_NT: `Scores.token_NT`.
        provenance_N: of each row its documents, as `PreparedCorpus.provenance` tells them:
            `document`, and `first` and `last`, the tokens of the row that it fills.  The last
            token of a row is a label alone and has no part.
    Raises:
        DataError: not one provenance for each row.
    """
    if len(token_NT) != len(provenance_N):
        raise DataError(
            f"{len(provenance_N)} provenances for {len(token_NT)} rows",
            remedy="give the documents of each scored row, in order",
        )
    found: dict[str, float] = {}
    for token_T, parts in zip(token_NT, provenance_N, strict=True):
        for part in parts:
            own = float(token_T[part["first"] : part["last"] + 1].sum(dtype=np.float64))
            found[part["document"]] = found.get(part["document"], 0.0) + own
    return found
