"""A prepared corpus: rows by stable id, their text, and the documents they came from.

    corpus = PreparedCorpus.open(folder)
    tokens = corpus.tokens(np.array([0, 1]))          # int64 (B, T + 1)
    corpus.provenance(0); corpus.overview()

`sample_id = domain_index << 40 | row_index` needs no lookup table and does not change when another
domain grows.  Shapes: B rows, T tokens, K domains, R held-out rows.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from workbench.core import DataError, Pool, unknown_name
from workbench.data.shards import TokenStream
from workbench.data.tokenizer import TextTokenizer, load_tokenizer

DOMAIN_SHIFT = 40
FORMAT = 1
VERIFIED_AT_OPEN_MIB = 512


def sample_ids(domain_B: np.ndarray, row_B: np.ndarray) -> np.ndarray:
    """Stable ids of rows, int64."""
    return (domain_B.astype(np.int64) << DOMAIN_SHIFT) | row_B


def split_ids(sample_id_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Domain index and row index of each id, int64; the inverse of `sample_ids`."""
    sample_id_B = np.asarray(sample_id_B, dtype=np.int64)
    return sample_id_B >> DOMAIN_SHIFT, sample_id_B & ((1 << DOMAIN_SHIFT) - 1)


class PreparedCorpus:
    """Read-only rows of a finished preparation; get one from `prepare` or `PreparedCorpus.open`.

    domains: names in index order; content_hash: of all documents in order; vocab_size: ids are
    below it; context_tokens: T; eos_id: the id between documents; rows_K, held_out_rows_K: training
    and held-out rows, int64.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]):
        self.path = path
        self.manifest = manifest
        self.domains: tuple[str, ...] = tuple(entry["domain"] for entry in manifest["domains"])
        self.content_hash: str = manifest["content_hash"]
        self.vocab_size: int = manifest["tokenizer"]["vocab_size"]
        self.eos_id: int = manifest["tokenizer"]["eos_id"]
        self.context_tokens: int = manifest["rows"]["context_tokens"]
        self._train = [self._stream(entry["train"]) for entry in manifest["domains"]]
        self._held_out = [self._stream(entry["held_out"]) for entry in manifest["domains"]]
        self.rows_K = np.array([stream.rows for stream in self._train], dtype=np.int64)
        self.held_out_rows_K = np.array([stream.rows for stream in self._held_out], dtype=np.int64)

    @classmethod
    def open(cls, path: Path | str, *, verify: bool = False) -> PreparedCorpus:
        """Open a finished preparation.

        Sizes of shards are always checked; checksums too when they are at most 512 MiB in all,
        or with `verify`.

        Raises:
            DataError: not a prepared corpus, another format, or a missing or corrupt shard.
        """
        path = Path(path)
        try:
            manifest = json.loads((path / "manifest.json").read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(
                f"{path} is not a prepared corpus: {error}", remedy="run `workbench prepare`"
            ) from None
        if manifest.get("format") != FORMAT:
            raise DataError(
                f"{path} has format {manifest.get('format')}, this version reads {FORMAT}",
                remedy="delete it and prepare the corpus again",
            )
        corpus = cls(path, manifest)
        streams = corpus._train + corpus._held_out
        if verify or sum(s.bytes() for s in streams) <= VERIFIED_AT_OPEN_MIB << 20:
            for stream in streams:
                stream.verify()
        return corpus

    def _stream(self, entry: dict[str, Any]) -> TokenStream:
        dtype = np.dtype(self.manifest["dtype"])
        return TokenStream(self.path, entry, dtype, self.context_tokens)

    def tokens(self, sample_id_B: np.ndarray) -> np.ndarray:
        """Tokens of training rows, int64 (B, T + 1): inputs are [:, :-1], labels [:, 1:]."""
        tokens = np.empty((len(sample_id_B), self.context_tokens + 1), dtype=np.int64)
        for place, sample_id in enumerate(np.asarray(sample_id_B).tolist()):
            domain, row = self._locate(sample_id)
            tokens[place] = self._train[domain].row(row)
        return tokens

    def held_out(self, domain: str, limit: int | None = None, *, first: int = 0) -> np.ndarray:
        """At most `limit` held-out rows of a domain, from row `first` on; int64 (R, T + 1)."""
        stream = self._held_out[self._index(domain)]
        end = stream.rows if limit is None else min(first + limit, stream.rows)
        rows = np.empty((max(0, end - first), self.context_tokens + 1), dtype=np.int64)
        for place in range(len(rows)):
            rows[place] = stream.row(first + place)
        return rows

    def text(self, sample_id: int) -> str:
        """Decoded text of a training row, all its T + 1 tokens."""
        return self.tokenizer.decode(self.tokens(np.array([sample_id]))[0].tolist())

    def provenance(self, sample_id: int) -> list[dict[str, Any]]:
        """The documents of a training row, in order.

        Each has `document` (content hash), `origin`, `duplicate` ("exact", "near" or "" when
        it was read), and `first`, `last`: the tokens of the row, 0 … T, that it fills.
        """
        domain, row = self._locate(int(sample_id))
        first = row * self.context_tokens
        last = first + self.context_tokens
        return [
            {
                "document": record["document"],
                "origin": record["origin"],
                "duplicate": record["duplicate"],
                "first": max(record["first_token"], first) - first,
                "last": min(record["first_token"] + record["tokens"] - 1, last) - first,
            }
            for record in self._train[domain].documents(first, last)
        ]

    def documents(self, sample_id_N: np.ndarray) -> list[list[str]]:
        """Content hashes of the documents of each training row; `provenance` says more of one."""
        domain_N, row_N = split_ids(sample_id_N)
        found: list[list[str]] = [[]] * len(row_N)
        for domain in np.unique(domain_N):
            place_n = np.flatnonzero(domain_N == domain)
            names = self._train[domain].document_names(row_N[place_n])
            for place, own in zip(place_n, names, strict=True):
                found[place] = own
        return found

    def domain_of(self, sample_id_B: np.ndarray) -> np.ndarray:
        """Domain index of each id, int64 (B,)."""
        return np.asarray(sample_id_B, dtype=np.int64) >> DOMAIN_SHIFT

    def overview(self) -> list[dict[str, Any]]:
        """One entry per domain: sizes, rows, duplicates, leakage, bytes per token, skips."""
        return [
            {
                "domain": entry["domain"],
                "documents": entry["documents"],
                "megabytes": entry["bytes"] / 1e6,
                "tokens": entry["train"]["tokens"] + entry["held_out"]["tokens"],
                "train_rows": entry["train"]["rows"],
                "held_out_rows": entry["held_out"]["rows"],
                "exact_duplicates": entry["exact_duplicates"],
                "near_duplicates": entry["near_duplicates"],
                "held_out_near_training": entry["held_out_near_training"],
                "bytes_per_token": entry["bytes"]
                / (entry["train"]["tokens"] + entry["held_out"]["tokens"]),
                "cut_documents": entry["cut_documents"],
                "skipped_files": entry["skipped"],
            }
            for entry in self.manifest["domains"]
        ]

    def notes(self) -> list[str]:
        """What a user should know of how the text was read: remarks, then skips with examples."""
        skipped = self.manifest["skipped"]
        examples = [f"skipped: {example}" for example in self.manifest["skip_examples"]]
        more = skipped - len(examples)
        rest = [f"{more} more skipped"] if more > 0 and examples else []
        return [*self.manifest["notes"], *examples, *rest]

    def pool(self) -> Pool:
        """All training rows as candidates of a selector: 16 bytes a row, which training on the
        whole corpus does without."""
        domain_N = np.repeat(np.arange(len(self.domains)), self.rows_K)
        row_N = np.concatenate([np.arange(rows) for rows in self.rows_K])
        tokens_N = np.broadcast_to(np.int64(self.context_tokens), row_N.shape)
        return Pool(sample_ids(domain_N, row_N), domain_N, tokens_N)

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        """What the rows were made with; its `encode` and `decode` go between text and tokens."""
        return load_tokenizer(self.path)

    def _index(self, domain: str) -> int:
        if domain not in self.domains:
            problem, remedy = unknown_name("domain", domain, self.domains)
            raise DataError(problem, remedy=remedy)
        return self.domains.index(domain)

    def _locate(self, sample_id: int) -> tuple[int, int]:
        domain, row = sample_id >> DOMAIN_SHIFT, sample_id & ((1 << DOMAIN_SHIFT) - 1)
        if not 0 <= domain < len(self._train) or row >= self._train[domain].rows:
            raise DataError(
                f"sample {sample_id} (domain {domain}, row {row}) is not in this corpus",
                remedy="use the corpus whose content_hash the run recorded",
            )
        return domain, row
