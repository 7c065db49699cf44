"""Several processes give the bytes of one, are fed no faster than they work, and leave none behind.

All worker processes here are of `workbench.data.workers`: a fresh interpreter behind two pipes.
"""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass

import psutil
import pytest

from tests.data.folders import contents
from workbench.config import CorpusConfig, RowsConfig, TokenizerConfig
from workbench.core import DataError
from workbench.data import prepare, reading, workers
from workbench.data.encoding import encode
from workbench.data.shards import StreamWriter
from workbench.data.tokenizer import train_bpe

CORPUS = CorpusConfig(name="planted", max_domain_mb=0.04)
TOKENIZER = TokenizerConfig(vocab_size=300, train_mb=0.05)
ROWS = RowsConfig(context_tokens=32, shard_mib=0.005)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """Workers start after two dozen documents, and a batch is short."""
    monkeypatch.setattr(reading, "BATCH_DOCUMENTS", 16)
    monkeypatch.setattr(reading, "BATCHES_PER_CHECKPOINT", 2)
    monkeypatch.setattr(workers, "ALONE_BYTES", 12_000)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    return prepare(CORPUS.replace(workers=1), TOKENIZER, ROWS, cache_dir=folder)


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_bpe(["some words to learn from " * 20], 300).save(folder)
    return folder


def own_workers() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        # A child may end while it is looked at.
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if "workbench.data.workers" in child.cmdline():
                found.append(child)
    return found


@dataclass(frozen=True)
class Numbered:
    number: int

    @property
    def texts(self) -> list[str]:
        return [f"text {self.number} " * (1 + 400 * (self.number % 3 == 0)), f"and {self.number}"]


@pytest.mark.parametrize("count", [2, 3])
def test_the_bytes_and_the_folder_do_not_depend_on_the_number_of_workers(alone, tmp_path, count):
    corpus = prepare(CORPUS.replace(workers=count), TOKENIZER, ROWS, cache_dir=tmp_path)
    assert corpus.path.name == alone.path.name
    assert contents(corpus.path) == contents(alone.path)
    assert not own_workers()


def test_a_small_corpus_starts_no_process(tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("a worker was started")

    monkeypatch.setattr(workers, "ALONE_BYTES", 32_000_000)
    monkeypatch.setattr(workers, "_Worker", refuse)
    prepare(CORPUS.replace(workers=4), TOKENIZER, ROWS, cache_dir=tmp_path)


def test_results_keep_the_order_and_reading_stays_two_batches_ahead(tokenizer_folder, monkeypatch):
    monkeypatch.setattr(workers, "ALONE_BYTES", 0)
    tokenizer = workers.load_tokenizer(tokenizer_folder)
    drawn = []

    def batches():
        for number in range(40):
            drawn.append(number)
            yield Numbered(number)

    with workers.Encoder(tokenizer_folder, tokenizer, 2) as encoder:
        for place, (batch, encoded_N) in enumerate(encoder.encode_all(batches())):
            assert batch.number == place and len(drawn) <= place + 2 + workers.AHEAD_BATCHES
            expected = encode(batch.texts, tokenizer)
            assert [e.ids.tolist() for e in encoded_N] == [e.ids.tolist() for e in expected]
            assert [e.digest for e in encoded_N] == [e.digest for e in expected]
            assert all(
                (a.sketch == b.sketch).all() for a, b in zip(encoded_N, expected, strict=True)
            )
    assert place == 39 and not own_workers()


def test_a_worker_that_dies_is_one_error_with_a_remedy_and_the_next_run_continues(
    alone, tmp_path, monkeypatch
):
    add, killed = StreamWriter.add, []

    def killing(self, ids, record):
        if own_workers() and not killed:
            killed.append(1)
            for worker in own_workers():
                worker.kill()
        add(self, ids, record)

    corpus = CORPUS.replace(workers=2)
    with monkeypatch.context() as patch, pytest.raises(DataError) as error:
        patch.setattr(StreamWriter, "add", killing)
        prepare(corpus, TOKENIZER, ROWS, cache_dir=tmp_path)
    assert "ended by signal 9" in str(error.value) and "corpus.workers" in error.value.remedy
    assert not own_workers()
    assert contents(prepare(corpus, TOKENIZER, ROWS, cache_dir=tmp_path).path) == contents(
        alone.path
    )


def test_a_worker_that_cannot_start_says_why(tokenizer_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "ALONE_BYTES", 0)
    tokenizer = workers.load_tokenizer(tokenizer_folder)
    with (
        pytest.raises(DataError, match="exit status 1: Exception: No such file"),
        workers.Encoder(tmp_path / "nothing", tokenizer, 2) as encoder,
    ):
        list(encoder.encode_all([Numbered(0)]))


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(5, "as from a disk")])
def test_an_interrupt_and_an_error_leave_no_process(tmp_path, monkeypatch, stop):
    add = StreamWriter.add

    def stopping(self, ids, record):
        if own_workers():
            raise stop
        add(self, ids, record)

    monkeypatch.setattr(StreamWriter, "add", stopping)
    with pytest.raises((KeyboardInterrupt, OSError)):
        prepare(CORPUS.replace(workers=3), TOKENIZER, ROWS, cache_dir=tmp_path)
    assert not own_workers()


COMMAND = """
import sys
from workbench.config import CorpusConfig, RowsConfig, TokenizerConfig
from workbench.data import prepare, reading, workers
reading.BATCH_DOCUMENTS, workers.ALONE_BYTES = 16, 0
prepare(
    CorpusConfig(name="planted", max_domain_mb=5, workers=2),
    TokenizerConfig(vocab_size=300, train_mb=0.05),
    RowsConfig(context_tokens=32),
    cache_dir=sys.argv[1],
)
"""


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_process_they_work_for(tmp_path, kind):
    """Not a script that guards its main part: workers must not run it again."""
    script = tmp_path / "script.py"
    script.write_text(COMMAND)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "cache")], stderr=subprocess.PIPE
    )
    watched, deadline = psutil.Process(process.pid), time.monotonic() + 40
    while len(children := watched.children()) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, kind)
    errors = process.communicate(timeout=20)[1]
    assert process.returncode == -kind
    assert errors.count(b"Traceback") == (1 if kind == signal.SIGINT else 0)
    assert not psutil.wait_procs(children, timeout=20)[1]


def test_bad_input_is_named_as_it_is_without_workers(tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    lines = [json.dumps({"text": f"record {i} of many, {i * i}"}).encode() for i in range(600)]
    lines[550] = b"not JSON"
    (texts / "a.jsonl").write_bytes(b"\n".join(lines))
    packed = gzip.compress(b"\n".join(lines[:500]))
    (texts / "b.jsonl.gz").write_bytes(packed[: len(packed) * 2 // 3])
    corpora = [
        prepare(
            CorpusConfig(name=str(texts), workers=count),
            TOKENIZER,
            ROWS,
            cache_dir=tmp_path / str(count),
        )
        for count in (1, 2)
    ]
    assert contents(corpora[0].path) == contents(corpora[1].path)
    examples = " ".join(corpora[1].manifest["skip_examples"])
    assert "a.jsonl:551 is not JSON" in examples and "b.jsonl.gz is truncated after" in examples
    with pytest.raises(DataError, match=r"a\.jsonl:551 is not JSON|truncated"):
        prepare(
            CorpusConfig(name=str(texts), workers=2, strict=True),
            TOKENIZER,
            ROWS,
            cache_dir=tmp_path / "strict",
        )
    assert not own_workers()
