"""Memory of preparing and sampling stays flat while the corpus grows tenfold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from workbench.config import CorpusConfig, RowsConfig, TokenizerConfig
from workbench.data import prepare, shards

MEASURED = """
import sys, threading
from pathlib import Path
from workbench.config import CorpusConfig, RowsConfig, TokenizerConfig
from workbench.data import MixtureSampler, prepare, workers

peak_kb, done = 0, threading.Event()

def watch():
    global peak_kb
    while not done.wait(0.002):
        status = Path("/proc/self/status").read_text()
        peak_kb = max(peak_kb, int(status.partition("RssAnon:")[2].split()[0]))

watching = threading.Thread(target=watch)
watching.start()
workers.ALONE_BYTES = 500_000
corpus = prepare(
    CorpusConfig(name=sys.argv[1], domain_column="set", max_domain_mb=None, workers=2),
    TokenizerConfig(vocab_size=300, train_mb=0.05),
    RowsConfig(context_tokens=64, shard_mib=0.25),
    cache_dir=sys.argv[1] + ".cache",
)
sampler = MixtureSampler(corpus, batch_rows=32, seed=0)
for step in range(200):
    sampler.draw(step)
done.set()
watching.join()
print(corpus.rows_K.sum(), peak_kb / 1e3)
"""

LARGEST_SLOPE = 0.5
"""Growth in bytes for each byte of text more; rows that were kept would be 2, text alone 1.  Not 0:
buffers are not full with little text."""
SIZES_MB = (0.8, 8.0)


def write_text(path: Path, megabytes: float) -> None:
    rng = np.random.default_rng(0)
    letters = np.frombuffer(b"abcdefghij     ", np.uint8)
    with path.open("w") as file:
        while file.tell() < megabytes * 1e6:
            text = rng.choice(letters, 200).tobytes().decode()
            file.write(json.dumps({"text": text, "set": f"d{rng.integers(2)}"}) + "\n")


def test_ten_times_the_text_takes_no_more_memory(tmp_path):
    peaks = {}
    for megabytes in SIZES_MB:
        path = tmp_path / f"{megabytes:g}.jsonl"
        write_text(path, megabytes)
        # Arenas and threads of the allocator would blur what is kept.
        quiet = {"MALLOC_ARENA_MAX": "1", "TOKENIZERS_PARALLELISM": "false"}
        ran = subprocess.run(
            [sys.executable, "-c", MEASURED, str(path)],
            env=os.environ | quiet,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        rows, peak_mb = ran.stdout.split()
        assert int(rows) > megabytes * 1e6 / 64 / 4
        peaks[megabytes] = float(peak_mb)
    small, large = SIZES_MB
    assert (peaks[large] - peaks[small]) / (large - small) < LARGEST_SLOPE, peaks


def test_few_shards_are_mapped_at_a_time(tmp_path, monkeypatch):
    """A process may have a thousand files open; a corpus has tens of thousands of shards."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "a.jsonl"
    write_text(path, 0.3)
    corpus = prepare(
        CorpusConfig(name=str(path)),
        TokenizerConfig(vocab_size=300, train_mb=0.05),
        RowsConfig(context_tokens=64, shard_mib=0.0005),
        cache_dir=tmp_path / "cache",
    )
    files = len(corpus.manifest["domains"][0]["train"]["shards"])
    opened = len(os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert files > shards.MAPS_OPEN + 100
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + shards.MAPS_OPEN + 50, hard))
    try:
        rows = corpus.tokens(corpus.pool().sample_id_N)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(rows) == corpus.rows_K.sum() and (rows[:-1, -1] == rows[1:, 0]).all()
