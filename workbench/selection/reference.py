"""The reference set: rows that say what the model should get better at.

    reference_MT = reference_rows(corpus, config.selection, evaluated_rows=32, progress=print)

Held-out rows that no evaluation reads, or the user's own text.  A reference row that the pool or
the evaluation also holds would reward copying, so such rows are dropped, counted and told.
Shapes: M reference rows, T tokens, K domains, R rows compared with, G runs of tokens of a row.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from workbench.config import CorpusConfig, SelectionConfig
from workbench.core import DataError, Progress, silent, unknown_name
from workbench.data import PreparedCorpus
from workbench.data.files import is_path
from workbench.data.sources import Intake, open_source

RUN_TOKENS = 13
"""Equal runs of 13 tokens count as the same text (Brown et al. 2020, appendix C, of words)."""
SAME_SHARE = 0.8
"""A row is a near-duplicate when runs found elsewhere cover this share of its tokens: wherever the
copy stands in its rows, and with a word changed here and there."""
MAX_OVERLAP = 0.25
_CHUNK_ROWS = 4096
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def reference_rows(
    corpus: PreparedCorpus,
    config: SelectionConfig,
    evaluated_rows: int,
    *,
    max_overlap: float = MAX_OVERLAP,
    progress: Progress = silent,
) -> np.ndarray:
    """The reference set of a run, int64 (M, T + 1), at most `config.reference_rows` rows.

    Held-out rows of all domains, where none is named, are those that can be had: a domain with
    too few gives fewer, and copies are dropped.  What was named is given in full or refused.

    Args:
        evaluated_rows: first held-out rows of every domain that evaluation reads; never used.
        max_overlap: share of rows found in the pool or the evaluation rows that is dropped
            without complaint; above it a named set is refused.
        progress: told of the check, with `dropped`, `in_pool` and `in_evaluation` in rows, and
            `short`: rows of the domains that have less than their share.
    Raises:
        DataError: unknown domain, too few rows, no such text, or too much overlap.
    """
    named = config.reference is not None or config.reference_domains is not None
    short: dict[str, int] = {}
    if config.reference is None:
        rows_MT, short = _held_out_rows(corpus, config, evaluated_rows, in_full=named)
    else:
        rows_MT = _text_rows(corpus, config)
    evaluated = (corpus.held_out(domain, evaluated_rows) for domain in corpus.domains)
    in_evaluation_M = _found(rows_MT, evaluated, len(corpus.domains), "evaluation", progress)
    pool_parts = -(-int(corpus.rows_K.sum()) // _CHUNK_ROWS)
    in_pool_M = _found(rows_MT, _pool_rows(corpus), pool_parts, "pool", progress)
    dropped_M = in_evaluation_M | in_pool_M
    counts = {
        "dropped": int(dropped_M.sum()),
        "in_pool": int(in_pool_M.sum()),
        "in_evaluation": int(in_evaluation_M.sum()),
        "short": short,
    }
    if dropped_M.all() or (named and dropped_M.mean() > max_overlap):
        raise DataError(
            f"{counts['dropped']} of {len(rows_MT)} reference rows ({dropped_M.mean():.0%}) repeat "
            f"text of the pool ({counts['in_pool']}) or of the evaluation rows "
            f"({counts['in_evaluation']}); at most {max_overlap:.0%} may",
            remedy="choose reference_domains or a reference text without copies of the corpus",
        )
    progress({"stage": "reference", "done": len(rows_MT), "total": len(rows_MT), **counts})
    return rows_MT[~dropped_M]


def _held_out_rows(
    corpus: PreparedCorpus, config: SelectionConfig, evaluated_rows: int, *, in_full: bool
) -> tuple[np.ndarray, dict[str, int]]:
    """Rows (M, T + 1), and how many there are of each domain that has less than its share."""
    parts, short = [], {}
    for domain, wanted in _shares(config, corpus.domains).items():
        if domain not in corpus.domains:
            problem, remedy = unknown_name("reference domain", domain, corpus.domains)
            raise DataError(problem, remedy=remedy)
        rows = corpus.held_out(domain, wanted, first=evaluated_rows)
        if len(rows) < wanted:
            short[domain] = len(rows)
        if len(rows) < wanted and in_full:
            there = int(corpus.held_out_rows_K[corpus.domains.index(domain)])
            raise DataError(
                f"domain '{domain}' has {there} held-out rows, of which evaluation reads "
                f"{min(there, evaluated_rows)}; its share of the reference set is {wanted}",
                remedy="lower reference_rows or held_out_rows, raise held_out_fraction or "
                "max_domain_mb, or leave the domain out of reference_domains",
            )
        parts.append(rows)
    rows_MT = np.concatenate(parts)
    if not len(rows_MT):
        raise DataError(
            f"evaluation reads all held-out rows of every domain ({evaluated_rows} of each at "
            "most), so none is left for the reference set",
            remedy="lower held_out_rows, raise held_out_fraction or max_domain_mb, or give a "
            "reference text",
        )
    return rows_MT, short


def _shares(config: SelectionConfig, domains: tuple[str, ...]) -> dict[str, int]:
    """Rows of each reference domain, the first ones one more where it is not even."""
    names = list(dict.fromkeys(config.reference_domains or domains))
    if config.reference_rows < len(names):
        raise DataError(
            f"{config.reference_rows} reference rows of {len(names)} domains",
            remedy=f"set reference_rows to at least {len(names)}, or choose reference_domains",
        )
    base, more = divmod(config.reference_rows, len(names))
    return {name: base + (place < more) for place, name in enumerate(names)}


def _text_rows(corpus: PreparedCorpus, config: SelectionConfig) -> np.ndarray:
    """The user's text, packed in rows as a corpus is; a domain may give less than its share."""
    assert config.reference is not None
    if not is_path(config.reference):
        raise DataError(
            f"reference '{config.reference}' is not a file or folder that exists here",
            remedy="give text, JSON lines or parquet as for a corpus, or leave reference out",
        )
    text = CorpusConfig(
        name=config.reference,
        domains=config.reference_domains,
        max_domain_mb=None,
        max_document_kb=None,
    )
    source = open_source(text)
    wanted = _shares(config, source.domains or ())
    intake, ids_of = Intake(text), {domain: [] for domain in wanted}
    for document in intake.take(source):
        ids = ids_of[document.domain]
        ids += [*corpus.tokenizer.encode([document.text])[0], corpus.eos_id]
        if len(ids) > wanted[document.domain] * corpus.context_tokens:
            intake.full.add(document.domain)
    for domain, ids in ids_of.items():
        if len(ids) <= corpus.context_tokens:
            raise DataError(
                f"domain '{domain}' of reference '{config.reference}' has {len(ids)} tokens, fewer "
                f"than a row of {corpus.context_tokens + 1}",
                remedy="give it more text, or name the other domains in reference_domains",
            )
    packed = [_packed(ids, corpus.context_tokens)[: wanted[name]] for name, ids in ids_of.items()]
    return np.concatenate(packed)


def _packed(ids: list[int], context_tokens: int) -> np.ndarray:
    rows = (len(ids) - 1) // context_tokens
    first = np.arange(rows)[:, None] * context_tokens
    return np.array(ids, dtype=np.int64)[first + np.arange(context_tokens + 1)]


def _pool_rows(corpus: PreparedCorpus) -> Iterator[np.ndarray]:
    sample_id_N = corpus.pool().sample_id_N
    for first in range(0, len(sample_id_N), _CHUNK_ROWS):
        yield corpus.tokens(sample_id_N[first : first + _CHUNK_ROWS])


def _found(
    rows_MT: np.ndarray, others: Iterator[np.ndarray], parts: int, where: str, progress: Progress
) -> np.ndarray:
    """Whether each reference row repeats text of `others`, bool (M,); in memory of the former."""
    run_MG = _runs(rows_MT)
    known = np.unique(run_MG)
    seen = np.zeros(len(known), dtype=bool)
    for done, other_RT in enumerate(others, start=1):
        run = np.unique(_runs(other_RT))
        place = np.minimum(np.searchsorted(known, run), len(known) - 1)
        seen[place[known[place] == run]] = True
        progress({"stage": f"reference against {where}", "done": done, "total": parts})
    found_MG = seen[np.searchsorted(known, run_MG)]
    covered_MT = np.zeros(rows_MT.shape, dtype=bool)
    for place in range(rows_MT.shape[1] - run_MG.shape[1] + 1):
        covered_MT[:, place : place + run_MG.shape[1]] |= found_MG
    return covered_MT.mean(axis=1) >= SAME_SHARE


def _runs(rows_RT: np.ndarray) -> np.ndarray:
    """Hashes of a row's runs of `RUN_TOKENS` tokens (all of a shorter row), uint64 (R, G)."""
    size = min(RUN_TOKENS, rows_RT.shape[1])
    count = rows_RT.shape[1] - size + 1
    tokens = rows_RT.astype(np.uint64) + np.uint64(1)
    hashes = np.zeros((len(rows_RT), count), dtype=np.uint64)
    for place in range(size):
        hashes = hashes * _FACTOR + tokens[:, place : place + count]
    return hashes
