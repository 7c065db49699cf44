"""Preparing a corpus: megabytes of text a second against the number of processes that encode.

    python -m benchmarks.preparation
    python -m benchmarks.preparation --megabytes 64 --rounds 5

Generated JSON lines, a tokenizer trained before.  `1 worker` is this process with the threads that
`tokenizers` starts by itself, `1 worker, 1 thread` without them; more workers are processes of one
thread each, their start included.  Two limits, from processor time alone: what threads could reach
with cores without end, since all but tokenising stays in one thread; and what one process can feed
workers with, since it reads, counts duplicates and writes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

from benchmarks.measure import compare, record
from workbench.config import CorpusConfig, RowsConfig, TokenizerConfig
from workbench.data import prepare, workers
from workbench.data.planted import PlantedSource
from workbench.data.sources import Intake
from workbench.data.tokenizer import BytePairTokenizer

DOCUMENT_PARTS = 5
"""Generated documents put together, for one of about 2.5 kB."""

TOKENIZER = TokenizerConfig(vocab_size=4096, train_mb=1)
ROWS = RowsConfig(context_tokens=512)


def generate(path: Path, megabytes: float) -> None:
    """Write JSON lines of generated text, of four domains."""
    config = CorpusConfig(name="planted", max_domain_mb=megabytes)
    parts: dict[str, list[str]] = {}
    with path.open("w") as file:
        for document in Intake(config).take(PlantedSource(config)):
            own = parts.setdefault(document.domain, [])
            own.append(document.text)
            if len(own) == DOCUMENT_PARTS:
                file.write(json.dumps({"text": " ".join(own), "set": document.domain}) + "\n")
                own.clear()
            if file.tell() >= megabytes * 1e6:
                return


class Contenders:
    """Preparations of one file, each in a new folder that has the tokenizer already."""

    def __init__(self, path: Path, scratch: Path):
        self.corpus = CorpusConfig(name=str(path), domain_column="set", max_domain_mb=None)
        self._scratch = scratch
        self._first = prepare(self.corpus, TOKENIZER, ROWS, cache_dir=scratch / "first")
        self.megabytes = sum(entry["megabytes"] for entry in self._first.overview())
        self.own_seconds: list[float] = []
        self.untokenised_seconds: list[float] = []

    def with_workers(self, count: int) -> Callable[[], None]:
        def run() -> None:
            began = time.process_time()
            self._prepare(count)
            if count > 1:
                self.own_seconds.append(time.process_time() - began)

        return run

    def one_thread(self) -> None:
        began, tokenising = time.process_time(), 0.0
        tokenise = BytePairTokenizer.encode

        def timed(tokenizer: BytePairTokenizer, texts: list[str]) -> list[list[int]]:
            nonlocal tokenising
            since = time.process_time()
            ids = tokenise(tokenizer, texts)
            tokenising += time.process_time() - since
            return ids

        with (
            patch.dict(os.environ, TOKENIZERS_PARALLELISM="false"),
            patch.object(BytePairTokenizer, "encode", timed),
        ):
            self._prepare(1)
        self.untokenised_seconds.append(time.process_time() - began - tokenising)

    def _prepare(self, count: int) -> None:
        with tempfile.TemporaryDirectory(dir=self._scratch) as cache:
            folder = Path(cache) / self._first.path.name
            folder.mkdir()
            shutil.copy(self._first.path / "tokenizer.json", folder)
            (folder / "tokenizer.done").touch()
            corpus = self.corpus.replace(workers=count)
            found = prepare(corpus, TOKENIZER, ROWS, cache_dir=cache)
            assert found.content_hash == self._first.content_hash


def worker_counts(cores: int) -> Iterator[int]:
    """2, 4, 8, … up to the cores."""
    count = 2
    while count <= max(2, cores):
        yield count
        count *= 2


def measure(megabytes: float, rounds: int, scratch: Path) -> dict[str, object]:
    path = scratch / "text.jsonl"
    generate(path, megabytes)
    ours = Contenders(path, scratch)
    workers.ALONE_BYTES = 0
    runs: dict[str, Callable[[], object]] = {"1 worker": ours.with_workers(1)}
    runs["1 worker, 1 thread"] = ours.one_thread
    for count in worker_counts(workers.default_workers()):
        runs[f"{count} workers"] = ours.with_workers(count)
    times = compare(runs, baseline="1 worker", rounds=rounds)
    speeds = {name: ours.megabytes / timing.median_seconds for name, timing in times.items()}
    for name, timing in times.items():
        print(f"  {name:20} {speeds[name]:6.2f} MB/s   time {timing}")
    threads = ours.megabytes / min(ours.untokenised_seconds)
    fed = ours.megabytes / min(ours.own_seconds)
    print(f"  limit of threads     {threads:6.2f} MB/s")
    print(f"  limit of workers     {fed:6.2f} MB/s")
    return {
        "megabytes": ours.megabytes,
        "time": times,
        "megabytes_per_second": speeds,
        "limit_megabytes_per_second": {"threads": threads, "workers": fed},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        results = measure(options.megabytes, options.rounds, Path(scratch))
    options_text = f"--megabytes {options.megabytes:g} --rounds {options.rounds}"
    command = f"python -m benchmarks.preparation {options_text}"
    print("written:", record("preparation", results, command=command).name)


if __name__ == "__main__":
    main()
