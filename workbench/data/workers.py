"""Encoding in several processes, with results in the order of the batches.

    with Encoder(folder, tokenizer, workers=4) as encoder:
        for batch, encoded_N in encoder.encode_all(batches): ...

The first megabytes are encoded in this process, so that a small corpus starts no other.  A worker
is a fresh interpreter (`python -m workbench.data.workers folder`) behind two pipes: nothing is
forked from a process that has threads, no script is imported again, and a worker whose parent is
gone reads the end of its pipe and ends.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol, TypeVar

from workbench.core import DataError
from workbench.data.encoding import Encoded, encode
from workbench.data.tokenizer import TextTokenizer, load_tokenizer

ALONE_BYTES = 32_000_000
"""Text that this process encodes by itself before it starts workers."""

MAX_WORKERS = 16
"""Workers started unless told otherwise: more would wait for the one process that reads, counts
duplicates and writes (`python -m benchmarks.preparation` measures what it can feed)."""

AHEAD_BATCHES = 2
"""Batches read beyond one for each worker, so that none waits for the next."""


class Texts(Protocol):
    """A batch of texts to be encoded together."""

    @property
    def texts(self) -> list[str]: ...


Batch = TypeVar("Batch", bound=Texts)


def default_workers() -> int:
    """One for each core that this process may use, at most `MAX_WORKERS`."""
    usable = getattr(os, "sched_getaffinity", None)
    cores = len(usable(0)) if usable else os.cpu_count() or 1
    return min(cores, MAX_WORKERS)


class Encoder:
    """Encodes batches with the tokenizer saved in `folder`, here or in `workers` processes.

    Args:
        workers: processes; 1 encodes in this one alone.
    """

    def __init__(self, folder: Path, tokenizer: TextTokenizer, workers: int):
        self._folder, self._tokenizer, self._count = folder, tokenizer, workers
        self._workers: list[_Worker] = []
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self._threads: ThreadPoolExecutor | None = None

    def __enter__(self) -> Encoder:
        return self

    def __exit__(self, *_: object) -> None:
        """End the workers, whatever they are at."""
        for worker in self._workers:
            worker.kill()
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in self._workers:
            worker.close()

    def encode_all(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, list[Encoded]]]:
        """Each batch with its encoded texts, in the order given.

        At most `workers` + 2 batches are read ahead of the one that is handed on.

        Raises:
            DataError: a worker ended.
        """
        alone_bytes = 0
        waiting: deque = deque()
        for batch in batches:
            if self._count == 1 or alone_bytes < ALONE_BYTES:
                alone_bytes += sum(len(text) for text in batch.texts)
                yield batch, encode(batch.texts, self._tokenizer)
                continue
            waiting.append((batch, self._started().submit(self._ask, batch.texts)))
            if len(waiting) == self._count + AHEAD_BATCHES:
                first, result = waiting.popleft()
                yield first, result.result()
        for batch, result in waiting:
            yield batch, result.result()

    def _started(self) -> ThreadPoolExecutor:
        """The threads that talk to the workers, one each."""
        if self._threads is None:
            for _ in range(self._count):
                self._workers.append(_Worker(self._folder))
                self._idle.put(self._workers[-1])
            self._threads = ThreadPoolExecutor(self._count, "encode")
        return self._threads

    def _ask(self, texts: list[str]) -> list[Encoded]:
        worker = self._idle.get()
        try:
            return worker.encode(texts)
        finally:
            self._idle.put(worker)


class _Worker:
    """One process; what it prints is kept, to be told if it ends."""

    def __init__(self, folder: Path):
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
        own = {"PYTHONPATH": paths, "TOKENIZERS_PARALLELISM": "false"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "workbench.data.workers", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            env=os.environ | own,
            # Ctrl-C in a terminal is for the parent, which then ends the workers itself.
            process_group=0,
        )

    def encode(self, texts: list[str]) -> list[Encoded]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            pickle.dump(texts, self._process.stdin)
            self._process.stdin.flush()
            return pickle.load(self._process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):
            raise self._ended() from None

    def _ended(self) -> DataError:
        status = self._process.wait()
        self._printed.seek(0)
        lines = self._printed.read().decode("utf-8", "replace").strip().splitlines()
        how = f"by signal {-status}" if status < 0 else f"with exit status {status}"
        return DataError(
            f"a worker that encodes text ended {how}{': ' + lines[-1] if lines else ''}",
            remedy="run again: it continues where it stopped; if memory ran out, lower "
            "corpus.workers",
        )

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        """After `kill`, and when no thread talks to it any more."""
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._printed):
            try:
                assert pipe is not None
                pipe.close()
            except BrokenPipeError:
                continue  # part of a batch had not been sent


def _serve(folder: Path) -> None:
    """Encode batches from standard input until it ends."""
    results = os.fdopen(os.dup(1), "wb")
    # What a library prints must not come between the results.
    os.dup2(2, 1)
    tokenizer = load_tokenizer(folder)
    while True:
        try:
            texts = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(encode(texts, tokenizer), results)
        results.flush()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
