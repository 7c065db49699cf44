"""One preparation at work: tokenise, split by content, pack, count duplicates, resume.

    Preparation(folder, corpus, tokenizer, rows, source, progress).run(key)

Files of the folder are append-only.  `progress.json` records up to where they are valid and where
the source was then; a killed preparation cuts the files there, and continues to the same bytes.
`manifest.json`, written last, declares it finished.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from workbench.config import CorpusConfig, RowsConfig, TokenizerConfig
from workbench.core import DataError, unknown_name
from workbench.data.duplicates import SKETCH, DuplicateCounter
from workbench.data.encoding import Encoded, content_digest, stored_type
from workbench.data.prepared import FORMAT
from workbench.data.reading import Progress, Reading
from workbench.data.shards import StreamWriter, cut_file
from workbench.data.sources import Document, Intake, Source
from workbench.data.tokenizer import (
    SpreadSample,
    TextTokenizer,
    load_tokenizer,
    pretrained,
    train_bpe,
)
from workbench.data.workers import Encoder, default_workers

SPLITS = ("train", "held_out")
TOKENIZER_READS = 2.0
"""Text read per domain to choose the tokenizer's sample from, as a multiple of `train_mb`."""

SKETCH_RECORD = np.dtype([("sketch", SKETCH), ("domain", "<u2"), ("held_out", "u1")])


class Preparation:
    """One preparation in its folder.

    State fields: documents consumed, the mark up to which the source is read, chained content hash,
    the streams' states, domains in order of appearance, and counts per domain.
    """

    def __init__(
        self,
        folder: Path,
        corpus: CorpusConfig,
        tokenizer: TokenizerConfig,
        rows: RowsConfig,
        source: Source,
        progress: Progress | None,
    ):
        self.folder = folder
        self.corpus, self.tokenizer_config, self.rows = corpus, tokenizer, rows
        self.source = source
        self._report = progress or (lambda what, done, total: None)
        self._sketches_path = folder / "sketches.bin"

    def _begin(self) -> None:
        self.consumed = 0
        self.mark: dict[str, Any] | None = None
        self.content_hash = ""
        self.counts: dict[str, dict[str, int]] = {}
        self._writers: dict[tuple[str, str], StreamWriter] = {}
        self._duplicates = DuplicateCounter()
        self._sketches: BinaryIO | None = None

    def run(self, key: str) -> None:
        """Prepare or continue, and finish."""
        started = time.time()
        self.tokenizer = self._tokenizer()
        self.dtype = stored_type(self.tokenizer.vocab_size)
        self._restore()
        reading = Reading(
            self.corpus,
            self.source,
            mark=self.mark,
            consumed=self.consumed,
            report=self._report,
        )
        try:
            self._encode(reading)
            self._finish(key, reading.intake, started)
        finally:
            self._close()

    def _encode(self, reading: Reading) -> None:
        workers = self.corpus.workers or default_workers()
        with Encoder(self.folder, self.tokenizer, workers) as encoder:
            for batch, encoded_N in encoder.encode_all(reading.batches()):
                for document, encoded in zip(batch.documents, encoded_N, strict=True):
                    self._add(document, encoded)
                self._report("tokenising, kB", self._kilobytes(), self._expected_kilobytes())
                if batch.mark is not None:
                    self._checkpoint(batch.mark)
        self._checkpoint(reading.end())

    # The tokenizer

    def _tokenizer(self) -> TextTokenizer:
        if (self.folder / "tokenizer.done").exists():
            return load_tokenizer(self.folder)
        if self.tokenizer_config.name == "bpe":
            tokenizer = self._train()
        else:
            tokenizer = pretrained(self.tokenizer_config.name)
        tokenizer.save(self.folder)
        (self.folder / "tokenizer.done").touch()
        return tokenizer

    def _train(self) -> TextTokenizer:
        """BPE on an equal share of each domain's training documents."""
        max_bytes = self.tokenizer_config.train_mb * 1e6
        sample = SpreadSample(max_bytes)
        intake = Intake(self.corpus, TOKENIZER_READS * max_bytes)
        total = self._expected_kilobytes()
        for number, document in enumerate(intake.take(self.source)):
            digest = content_digest(document.text)
            if not _is_held_out(digest, self.corpus.held_out_fraction):
                sample.add(document.domain, int.from_bytes(digest[8:], "little"), document.text)
            if number % 100 == 0:
                read = intake.bytes.total() // 1000
                self._report("reading for the tokenizer, kB", read, total)
        self._require_text(intake)
        self._report("training the tokenizer", 0, None)
        return train_bpe(sample.texts(), self.tokenizer_config.vocab_size)

    # Documents

    def _add(self, document: Document, encoded: Encoded) -> None:
        name = encoded.digest.hex()
        held_out = _is_held_out(encoded.digest, self.corpus.held_out_fraction)
        kind = self._count(document.domain, encoded, held_out)
        record = {
            "document": name,
            "origin": document.origin,
            "duplicate": kind,
            "bytes": encoded.text_bytes,
        }
        self._writer(document.domain, SPLITS[held_out]).add(encoded.ids, record)
        chained = f"{self.content_hash}{document.domain}\0{name}"
        self.content_hash = hashlib.blake2b(chained.encode(), digest_size=16).hexdigest()
        self.consumed += 1

    def _count(self, domain: str, encoded: Encoded, held_out: bool) -> str:
        counts = self._domain_counts(domain)
        kind = self._duplicates.add(encoded.sketch, held_out=held_out)
        if self._sketches is None:
            self._sketches = self._sketches_path.open("ab")
        index = list(self.counts).index(domain)
        self._sketches.write(_sketch_record(encoded.sketch, index, held_out).tobytes())
        counts["documents"] += 1
        counts["bytes"] += encoded.text_bytes
        counts["exact_duplicates"] += kind == "exact"
        counts["near_duplicates"] += kind == "near"
        return kind

    def _domain_counts(self, domain: str) -> dict[str, int]:
        names = ("documents", "bytes", "exact_duplicates", "near_duplicates")
        return self.counts.setdefault(domain, dict.fromkeys(names, 0))

    def _writer(self, domain: str, split: str) -> StreamWriter:
        if (domain, split) not in self._writers:
            index = list(self.counts).index(domain)
            token_mib = self.dtype.itemsize / 2**20
            shard_rows = int(self.rows.shard_mib / (self.rows.context_tokens * token_mib))
            self._writers[domain, split] = StreamWriter(
                self.folder / f"domain_{index:03d}" / split,
                self.dtype,
                self.rows.context_tokens,
                max(1, shard_rows),
            )
        return self._writers[domain, split]

    # Progress

    def _checkpoint(self, mark: dict[str, Any]) -> None:
        """Everything up to `mark` is in the files."""
        for writer in self._writers.values():
            writer.flush()
        if self._sketches is not None:
            self._sketches.flush()
        streams = [
            {"domain": domain, "split": split, **writer.state()}
            for (domain, split), writer in self._writers.items()
        ]
        progress = {
            "consumed": self.consumed,
            "mark": mark,
            "content_hash": self.content_hash,
            "counts": self.counts,
            "streams": streams,
        }
        write_json(self.folder / "progress.json", progress)

    def _restore(self) -> None:
        path = self.folder / "progress.json"
        self._begin()
        if path.exists():
            try:
                self._continue_from(json.loads(path.read_text("utf-8")))
                return
            except (DataError, ValueError) as error:
                # After a power failure the record can outlive the bytes, or be torn itself.
                self._report(f"starting again: {error}", 0, None)
                self._close()
                self._begin()
        path.unlink(missing_ok=True)
        self._sketches_path.unlink(missing_ok=True)
        for folder in self.folder.glob("domain_*"):
            shutil.rmtree(folder)

    def _continue_from(self, state: dict[str, Any]) -> None:
        self.consumed, self.content_hash = state["consumed"], state["content_hash"]
        self.mark = state.get("mark")
        self.counts = state["counts"]
        cut_file(self._sketches_path, self.consumed * SKETCH_RECORD.itemsize)
        for stream in state["streams"]:
            self._writer(stream["domain"], stream["split"]).restore(stream)
        recorded = {(stream["domain"], stream["split"]) for stream in state["streams"]}
        for index, domain in enumerate(self.counts):
            for split in SPLITS:
                if (domain, split) not in recorded:
                    shutil.rmtree(self.folder / f"domain_{index:03d}" / split, ignore_errors=True)
        for folder in sorted(self.folder.glob("domain_*"))[len(self.counts) :]:
            shutil.rmtree(folder)
        for block_N in self._read_sketches():
            self._duplicates.restore(block_N["sketch"], block_N["held_out"])

    def _read_sketches(self) -> Iterator[np.ndarray]:
        with self._sketches_path.open("rb") as file:
            while block := file.read(1024 * SKETCH_RECORD.itemsize):
                yield np.frombuffer(block, dtype=SKETCH_RECORD)

    def _close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        if self._sketches is not None:
            self._sketches.close()
            self._sketches = None

    # The end

    def _finish(self, key: str, intake: Intake, started: float) -> None:
        self._require_text(intake)
        self._report("checksums", 0, None)
        near_training = self._leakage()
        entries = [
            {
                "domain": domain,
                **self.counts[domain],
                "held_out_near_training": near_training.get(domain, 0),
                "cut_documents": intake.cut[domain],
                "skipped": intake.skipped[domain],
                **{split: self._writer(domain, split).finish(self.folder) for split in SPLITS},
            }
            for domain in self._ordered_domains()
        ]
        self._require_rows(entries)
        manifest = {
            "format": FORMAT,
            "key": key,
            "corpus": settings_of(self.corpus),
            "rows": self.rows.model_dump(mode="json"),
            "tokenizer": {
                **self.tokenizer_config.model_dump(mode="json"),
                "requested_vocab_size": self.tokenizer_config.vocab_size,
                "vocab_size": self.tokenizer.vocab_size,
                "eos_id": self.tokenizer.eos_id,
            },
            "dtype": self.dtype.str,
            "content_hash": self.content_hash,
            "domains": entries,
            "skipped": intake.skipped.total(),
            "skip_examples": intake.skip_examples,
            "notes": [*self.source.notes, *intake.notes, *self._forgotten()],
            "seconds": round(time.time() - started, 2),
        }
        self._close()
        write_json(self.folder / "manifest.json", manifest, sync=True)
        for leftover in [self._sketches_path, *self.folder.glob("domain_*/*/documents.jsonl")]:
            leftover.unlink(missing_ok=True)
        (self.folder / "progress.json").unlink(missing_ok=True)

    def _ordered_domains(self) -> list[str]:
        """The order the user gave, else the source's, else that of appearance."""
        order = self.corpus.domains or self.source.domains or tuple(self.counts)
        return [domain for domain in order if domain in self.counts]

    def _leakage(self) -> dict[str, int]:
        """Held-out documents that nearly equal a training document, per domain."""
        names = list(self.counts)
        found = dict.fromkeys(names, 0)
        for block_N in self._read_sketches():
            held_out_n = block_N[block_N["held_out"] == 1]
            near_n = self._duplicates.near_training(held_out_n["sketch"])
            for domain in held_out_n["domain"][near_n].tolist():
                found[names[domain]] += 1
        return found

    def _forgotten(self) -> list[str]:
        """What the table sizes cost, said of a corpus that outgrew them."""
        remembered = self._duplicates.remembers_documents
        if self.consumed <= remembered:
            return []
        return [
            f"each of {self.consumed:,} documents was compared with about {remembered:,} before "
            "it, so that numbers of duplicates are lower bounds"
        ]

    def _require_text(self, intake: Intake) -> None:
        for domain in self.corpus.domains or ():
            if not intake.bytes[domain]:
                problem, remedy = unknown_name("domain", domain, intake.seen)
                raise DataError(f"{problem} in corpus '{self.corpus.name}'", remedy=remedy)
        if not intake.bytes:
            first = f", such as: {intake.skip_examples[0]}" if intake.skip_examples else ""
            raise DataError(
                f"corpus '{self.corpus.name}' yields no text "
                f"({intake.skipped.total()} files or records skipped{first})",
                remedy="give whole files of UTF-8 text, or name the column that holds text",
            )

    def _require_rows(self, entries: list[dict[str, Any]]) -> None:
        context = self.rows.context_tokens
        for entry in entries:
            for split in SPLITS:
                tokens, name = entry[split]["tokens"], split.replace("_", "-")
                if entry[split]["rows"]:
                    continue
                where = f"of domain '{entry['domain']}' ({entry['documents']} documents)"
                raise DataError(
                    f"context_tokens = {context} is longer than the {tokens} {name} tokens {where}"
                    if tokens
                    else f"no {name} document {where}",
                    remedy="lower context_tokens, raise max_domain_mb or held_out_fraction, "
                    "add text, or leave the domain out with CorpusConfig.domains",
                )

    def _kilobytes(self) -> int:
        return sum(counts["bytes"] for counts in self.counts.values()) // 1000

    def _expected_kilobytes(self) -> int | None:
        known, megabytes = self.corpus.domains or self.source.domains, self.corpus.max_domain_mb
        return int(len(known) * megabytes * 1000) if known and megabytes else None


def _sketch_record(signature: np.ndarray, domain: int, held_out: bool) -> np.ndarray:
    record = np.zeros((), dtype=SKETCH_RECORD)
    record["sketch"], record["domain"], record["held_out"] = signature, domain, held_out
    return record


def _is_held_out(digest: bytes, fraction: float) -> bool:
    """Decided by content alone, so that equal documents fall on the same side."""
    return int.from_bytes(digest[:8], "big") < fraction * 2.0**64


def settings_of(corpus: CorpusConfig) -> dict[str, Any]:
    """The settings that the prepared bytes depend on."""
    return corpus.model_dump(mode="json", exclude={"workers"})


def write_json(path: Path, value: Any, *, sync: bool = False) -> None:
    """Write aside and rename, so that readers see the old file or the new one."""
    aside = path.with_suffix(".aside")
    with aside.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    aside.replace(path)
