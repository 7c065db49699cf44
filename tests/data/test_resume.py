"""A preparation that is killed continues to the same bytes; full disks and races lose nothing."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from tests.data.folders import contents
from workbench.config import CorpusConfig, RowsConfig, TokenizerConfig
from workbench.core import DataError
from workbench.data import packing, prepare, reading
from workbench.data.shards import StreamWriter

CORPUS = CorpusConfig(name="planted", max_domain_mb=0.04)
TOKENIZER = TokenizerConfig(vocab_size=300, train_mb=0.05)
ROWS = RowsConfig(context_tokens=32, shard_mib=0.005)

COMMAND = """
import sys
from workbench.config import CorpusConfig, RowsConfig, TokenizerConfig
from workbench.data import prepare, reading
reading.BATCH_DOCUMENTS, reading.BATCHES_PER_CHECKPOINT = 16, 1
prepare(
    CorpusConfig(name="planted", max_domain_mb={mb}),
    TokenizerConfig(vocab_size=300, train_mb=0.05),
    RowsConfig(context_tokens=32, shard_mib=0.005),
    cache_dir=sys.argv[1],
)
"""


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(reading, "BATCH_DOCUMENTS", 16)
    monkeypatch.setattr(reading, "BATCHES_PER_CHECKPOINT", 2)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return prepare(CORPUS, TOKENIZER, ROWS, cache_dir=tmp_path_factory.mktemp("straight"))


class Killed(BaseException):
    """Stands for the end of the process: not an Exception that anything may catch."""


@pytest.mark.parametrize("seed", range(3))
def test_preparation_stopped_at_random_points_gives_the_same_bytes(
    straight, tmp_path, monkeypatch, seed
):
    import random

    rng = random.Random(seed)
    add = StreamWriter.add

    def dying(self, ids, record):
        if rng.random() < 1 / 150:
            raise Killed
        add(self, ids, record)

    monkeypatch.setattr(StreamWriter, "add", dying)
    stops = 0
    while True:
        try:
            resumed = prepare(CORPUS, TOKENIZER, ROWS, cache_dir=tmp_path)
            break
        except Killed:
            stops += 1
            assert stops < 100
    assert stops > 0
    assert contents(resumed.path) == contents(straight.path)


@pytest.mark.parametrize("moment", ["finish", "_leakage", "_close"])
def test_preparation_stopped_while_finishing_gives_the_same_bytes(
    straight, tmp_path, monkeypatch, moment
):
    owner = StreamWriter if moment == "finish" else packing.Preparation
    original, calls = getattr(owner, moment), []

    def dying(self, *arguments):
        result = original(self, *arguments)
        calls.append(1)
        if len(calls) == 3 or moment != "finish":
            raise Killed
        return result

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(owner, moment, dying)
        prepare(CORPUS, TOKENIZER, ROWS, cache_dir=tmp_path)
    resumed = prepare(CORPUS, TOKENIZER, ROWS, cache_dir=tmp_path)
    assert contents(resumed.path) == contents(straight.path)


def test_sigkill_in_the_middle_loses_nothing(tmp_path):
    corpus = CorpusConfig(name="planted", max_domain_mb=0.1)
    command = [sys.executable, "-c", COMMAND.format(mb=0.1), str(tmp_path / "killed")]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 30
    while not list((tmp_path / "killed").glob("*/progress.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not list((tmp_path / "killed").glob("*/manifest.json"))
    resumed = prepare(corpus, TOKENIZER, ROWS, cache_dir=tmp_path / "killed")
    whole = prepare(corpus, TOKENIZER, ROWS, cache_dir=tmp_path / "whole")
    assert contents(resumed.path) == contents(whole.path)


def test_a_file_shorter_than_recorded_starts_again(straight, tmp_path, monkeypatch):
    """As after a power failure, when the record outlived the bytes."""
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(packing.Preparation, "_finish", lambda *_: (_ for _ in ()).throw(Killed()))
        prepare(CORPUS, TOKENIZER, ROWS, cache_dir=tmp_path)
    shard = next(tmp_path.glob("*/domain_000/train/00000.bin"))
    os.truncate(shard, 10)
    said = []
    resumed = prepare(
        CORPUS, TOKENIZER, ROWS, cache_dir=tmp_path, progress=lambda what, *_: said.append(what)
    )
    assert any(what.startswith("starting again") for what in said)
    assert contents(resumed.path) == contents(straight.path)


def test_a_full_disk_is_one_error_and_the_next_run_continues(straight, tmp_path, monkeypatch):
    checkpoint, calls = packing.Preparation._checkpoint, []

    def full(self, mark):
        calls.append(1)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        checkpoint(self, mark)

    with monkeypatch.context() as patch, pytest.raises(DataError) as error:
        patch.setattr(packing.Preparation, "_checkpoint", full)
        prepare(CORPUS, TOKENIZER, ROWS, cache_dir=tmp_path)
    assert "disk full" in str(error.value) and "free space" in error.value.remedy
    said = []
    resumed = prepare(
        CORPUS, TOKENIZER, ROWS, cache_dir=tmp_path, progress=lambda what, *_: said.append(what)
    )
    assert "continuing, documents" in said
    assert contents(resumed.path) == contents(straight.path)


def test_two_processes_preparing_the_same_corpus_agree(straight, tmp_path):
    command = [sys.executable, "-c", COMMAND.format(mb=0.04), str(tmp_path)]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    (folder,) = tmp_path.iterdir()
    assert contents(folder) == contents(straight.path)


PREPARING = """
import sys, time
from workbench.config import CorpusConfig, RowsConfig, TokenizerConfig
from workbench.data import prepare, reading, workers
reading.BATCH_DOCUMENTS, reading.BATCHES_PER_CHECKPOINT, workers.ALONE_BYTES = 16, 1, 12_000

def report(what, done, total):
    print(what, flush=True)
    if sys.argv[2] == "hold" and what.startswith("tokenising") and done > 100:
        time.sleep(60)

prepare(
    CorpusConfig(name="planted", max_domain_mb=0.04, workers=2),
    TokenizerConfig(vocab_size=300, train_mb=0.05),
    RowsConfig(context_tokens=32, shard_mib=0.005),
    cache_dir=sys.argv[1],
    progress=report,
)
"""


def wait_for(path: Path, text: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 40
    while text not in (path.read_text() if path.exists() else ""):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


def test_a_process_that_waits_says_so_and_continues_what_a_killed_one_began(straight, tmp_path):
    """As the ranks of a job may: all prepare at once, and the one at work dies."""

    def start(role: str) -> subprocess.Popen:
        with (tmp_path / f"{role}.txt").open("w") as said:
            command = [sys.executable, "-c", PREPARING, str(tmp_path / "cache"), role]
            return subprocess.Popen(command, stdout=said)

    first = start("hold")
    wait_for(tmp_path / "hold.txt", "tokenising", first)
    second = start("wait")
    wait_for(tmp_path / "wait.txt", "waiting for another process", second)
    first.kill()
    first.wait()
    assert second.wait(timeout=60) == 0
    said = (tmp_path / "wait.txt").read_text()
    assert "continuing" in said and "training" not in said
    (folder,) = (tmp_path / "cache").iterdir()
    assert contents(folder) == contents(straight.path)


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(DataError, match="has no locks") as error:
        prepare(CORPUS, TOKENIZER, ROWS, cache_dir=tmp_path)
    assert "cache_dir" in error.value.remedy


def test_progress_counts_up_to_the_expected_size(tmp_path):
    seen = []
    prepare(
        CORPUS, TOKENIZER, ROWS, cache_dir=tmp_path, progress=lambda *report: seen.append(report)
    )
    tokenising = [(done, total) for what, done, total in seen if what.startswith("tokenising")]
    assert tokenising == sorted(tokenising) and tokenising[-1][1] == 240
    assert 0.95 < tokenising[-1][0] / tokenising[-1][1] < 1.1


def test_memory_does_not_grow_with_the_corpus(straight, tmp_path):
    """Four times the text: 0.4 MB more of it, and more as ids, if it were kept.

    `straight` has imported everything before, so that imports are not measured.
    """
    peaks = []
    for megabytes in (0.02, 0.08):
        corpus = CorpusConfig(name="planted", max_domain_mb=megabytes)
        tracemalloc.start()
        prepare(corpus, TOKENIZER, RowsConfig(context_tokens=32), cache_dir=tmp_path)
        peaks.append(tracemalloc.get_traced_memory()[1] / 1e6)
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 0.25, peaks
