"""A registered selector over rows of your own, judged with any causal language model.

    chosen = choose_rows("quad", dataset, model, reference=held_out_MT, share=0.2)
    dataset = dataset.select(np.sort(chosen.sample_id_N))

Shapes: N rows of the pool, M of the reference set, T + 1 tokens of a row, K domains.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import workbench.selection  # noqa: F401  (registers them)
from workbench.core import (
    SELECTORS,
    ConfigError,
    DataError,
    Pool,
    Progress,
    Selection,
    SelectionTask,
    Selector,
    silent,
)


class TokenRows:
    """Rows of token ids as a `SampleSource`; the id of a row is its place.

    Args:
        rows: int ids (N, T + 1) as array or tensor, or a `datasets.Dataset` whose column
            `input_ids` holds rows of one length.
        domain: of each row, names or numbers, (N,); one domain when None.
        tokenizer: with `decode`; without one, a row's text is its numbers.
    Raises:
        DataError: rows of several lengths, or padded ones.
    """

    def __init__(self, rows: Any, domain: Sequence[Any] | None = None, tokenizer: Any = None):
        self._rows_NT = _token_matrix(rows)
        labels = np.zeros(len(self._rows_NT), int) if domain is None else np.asarray(domain)
        if len(labels) != len(self._rows_NT):
            raise DataError(
                f"{len(labels)} domains for {len(self._rows_NT)} rows", remedy="give one per row"
            )
        names, self.domain_N = np.unique(labels.astype(str), return_inverse=True)
        self.domains: tuple[str, ...] = tuple(names.tolist())
        self._tokenizer = tokenizer
        self.content_hash = hashlib.blake2b(self._rows_NT.tobytes(), digest_size=16).hexdigest()

    def __len__(self) -> int:
        return len(self._rows_NT)

    @property
    def context_tokens(self) -> int:
        """T: tokens of a row that predict the next one."""
        return self._rows_NT.shape[1] - 1

    def tokens(self, sample_id_B: np.ndarray) -> np.ndarray:
        """int64 (B, T + 1)."""
        return self._rows_NT[np.asarray(sample_id_B)]

    def text(self, sample_id: int) -> str:
        ids = self._rows_NT[int(sample_id)].tolist()
        return " ".join(map(str, ids)) if self._tokenizer is None else self._tokenizer.decode(ids)

    def pool(self) -> Pool:
        """All rows as candidates."""
        tokens_N = np.full(len(self), self.context_tokens, dtype=np.int64)
        return Pool(np.arange(len(self)), self.domain_N.astype(np.int64), tokens_N)


def choose_rows(
    selector: str,
    rows: Any,
    model: Any,
    *,
    reference: Any = None,
    share: float = 0.2,
    domain: Sequence[Any] | None = None,
    tokenizer: Any = None,
    seed: int = 0,
    batch_rows: int = 16,
    cache_dir: str | Path | None = None,
    progress: Progress = silent,
    **options: Any,
) -> Selection:
    """Rows that a selector chooses, by place, each with the reason.

    Args:
        selector: registered name, with its options.
        rows, domain, tokenizer: see `TokenRows`.
        model: a causal language model of `transformers` that judges; it stays as it is.
        reference: rows of what the model should become better at, as `rows`; needed by a selector
            that scores influence.
        share: part of the pool's tokens that may be chosen.
        cache_dir: where scores are kept so that work cut short is not done twice.
    Raises:
        WorkbenchError: rows that are padded, a model whose logits are not hidden @ head.T, no
            reference set where one is needed, or a selector's own health gate.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"share = {share} is no part of the pool", remedy="give 0 to 1, above 0")
    SELECTORS.check(selector, options)
    source = TokenRows(rows, domain, tokenizer)
    uses_reference = getattr(SELECTORS.get(selector), "uses_reference", True)
    task = SelectionTask(
        source=source,
        reference_MT=_reference(selector, reference, source, needed=uses_reference),
        seed=seed,
        device=str(model.device),
        batch_rows=batch_rows,
        cache_dir=None if cache_dir is None else Path(cache_dir),
        progress=progress,
    )
    built: Selector = SELECTORS.build(selector, task, **options)
    pool = source.pool()
    return built.select(pool, int(share * pool.tokens_N.sum()), _decoder(model, source))


def _decoder(model: Any, source: TokenRows) -> Any:
    from workbench.models import Decoder
    from workbench.models.probe import require_plain_head

    require_plain_head(model)
    return Decoder(model, context_tokens=source.context_tokens)


def _reference(selector: str, reference: Any, source: TokenRows, *, needed: bool) -> np.ndarray:
    if not needed or reference is None:
        if needed:
            raise DataError(
                f"selector '{selector}' judges by a reference set",
                remedy="add reference=…, rows of the text the model should become better at",
            )
        return np.empty((0, source.context_tokens + 1), dtype=np.int64)
    rows_MT = _token_matrix(reference)
    wanted = source.context_tokens + 1
    if rows_MT.shape[1] != wanted:
        raise DataError(
            f"reference rows have {rows_MT.shape[1]} tokens, the pool's {wanted}",
            remedy="pack both to the same length",
        )
    return rows_MT


def _token_matrix(rows: Any) -> np.ndarray:
    """int64 (N, T + 1)."""
    names = getattr(rows, "column_names", None)
    if names is not None and "input_ids" not in names:
        raise DataError(
            f"the dataset has columns {names}", remedy="tokenise it into a column input_ids"
        )
    masked = names is not None and "attention_mask" in names
    if masked and not all(all(mask) for mask in rows["attention_mask"]):
        raise DataError("some rows are padded", remedy="pack the text into full rows")
    ids = rows["input_ids"] if names is not None else rows
    try:
        matrix_NT = np.asarray(ids, dtype=np.int64)
    except ValueError:
        matrix_NT = np.empty((0, 0))
    if matrix_NT.ndim != 2 or matrix_NT.shape[1] < 2:
        raise DataError(
            "rows of token ids must have one length, of 2 tokens or more",
            remedy="pack the text into rows of equal length",
        )
    return matrix_NT
