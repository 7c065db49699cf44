"""Going on from a position gives the rest of the documents, and reads little twice."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tests.data.folders import contents
from workbench.config import CorpusConfig, RowsConfig, TokenizerConfig
from workbench.data import packing, prepare, reading, records
from workbench.data.hub import HubSource
from workbench.data.shards import StreamWriter
from workbench.data.sources import Document, Intake, Source, open_source

TOKENIZER = TokenizerConfig(vocab_size=300, train_mb=0.02)
ROWS = RowsConfig(context_tokens=8)
SUFFIXES = ["jsonl", "jsonl.gz", "jsonl.zst", "parquet"]


def write_records(path: Path, values: list[dict], *, bad_lines: bool = True) -> None:
    """The records in the format of the suffix; with lines that are none, where there are lines."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(values), path, row_group_size=7)
        return
    lines = [json.dumps(value) for value in values]
    if bad_lines:
        lines[3:3] = ["", "no record"]
        lines.append("{")
    data = "\n".join(lines).encode() + b"\n"
    pack = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}
    path.write_bytes(pack.get(path.suffix, bytes)(data))


def some_records(name: str, count: int) -> list[dict]:
    return [{"text": f"{name} {i} says é" if i != 5 else None, "set": "a"} for i in range(count)]


def assert_every_position_leads_on(config: CorpusConfig, new: type[Source] | None = None) -> None:
    def source() -> Source:
        return new(config) if new else open_source(config)  # pyright: ignore[reportCallIssue]

    def rest(intake: Intake, after=None) -> list[Document]:
        return list(intake.take(source(), after))

    whole = Intake(config)
    documents = rest(whole)
    assert len(documents) > 10
    begun_source, begun = source(), Intake(config)
    for place, _ in enumerate(begun.take(begun_source)):
        mark = json.loads(json.dumps([begun_source.position(), begun.state_dict()]))
        resumed = Intake(config)
        resumed.load_state_dict(mark[1])
        assert rest(resumed, mark[0]) == documents[place + 1 :]
        assert resumed.state_dict() == whole.state_dict()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("settings", [{}, {"domain_column": "set"}, {"max_domain_mb": 0.0004}])
def test_every_position_in_files_of_records_leads_to_the_rest(tmp_path, suffix, settings):
    for domain in ("b", "c"):
        (tmp_path / domain).mkdir()
        for i in range(2):
            path = tmp_path / domain / f"{i}.{suffix}"
            write_records(path, some_records(f"{domain}{i}", 16))
    assert_every_position_leads_on(CorpusConfig(name=str(tmp_path), **settings))


def test_every_position_in_a_folder_of_texts_and_damaged_files_leads_to_the_rest(tmp_path):
    (tmp_path / "d").mkdir()
    for i in range(8):
        (tmp_path / "d" / f"{i}.txt").write_text(f"text {i}")
    (tmp_path / "d" / "bad.txt").write_bytes(b"\xff")
    for suffix in ("jsonl.gz", "jsonl.zst"):
        path = tmp_path / "d" / f"r.{suffix}"
        write_records(path, some_records("r", 800))
        path.write_bytes(path.read_bytes()[:-900])
        write_records(path.with_name(f"whole.{suffix}"), some_records("w", 3))
    config = CorpusConfig(name=str(tmp_path), max_domain_mb=0.0009)
    assert_every_position_leads_on(config)


def test_noise_before_a_corpus_keeps_its_positions(tmp_path):
    write_records(tmp_path / "a.jsonl", some_records("a", 16))
    source = open_source(CorpusConfig(name=str(tmp_path), noise_mb=0.002))
    intake = Intake(CorpusConfig(name=str(tmp_path), noise_mb=0.002))
    positions = [source.position() for _ in intake.take(source)]
    assert positions[:4] == [None] * 4 and positions[4]["file"] == 0
    after = open_source(CorpusConfig(name=str(tmp_path), noise_mb=0.002))
    rest = list(after.documents(Intake(CorpusConfig()), positions[4]))
    assert [d.domain for d in rest] == [tmp_path.name] * 14


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("streaming", [True, False])
def test_every_position_in_a_dataset_leads_to_the_rest(tmp_path, monkeypatch, suffix, streaming):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    for i in range(2):
        path = tmp_path / "data" / f"train-{i}.{suffix}"
        write_records(path, some_records(f"f{i}", 9), bad_lines=False)
    config = CorpusConfig(name=str(tmp_path / "data"), streaming=streaming)
    assert_every_position_leads_on(config, HubSource)


class Killed(BaseException):
    """Stands for the end of the process."""


def stop_after(documents: int, monkeypatch) -> None:
    add, added = StreamWriter.add, []

    def dying(self, ids, record):
        added.append(1)
        if len(added) > documents:
            raise Killed
        add(self, ids, record)

    monkeypatch.setattr(StreamWriter, "add", dying)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_preparation_killed_near_its_end_opens_the_last_files_and_reads_the_last_records(
    tmp_path, monkeypatch, suffix
):
    monkeypatch.setattr(reading, "BATCH_DOCUMENTS", 20)
    monkeypatch.setattr(reading, "BATCHES_PER_CHECKPOINT", 2)
    (tmp_path / "in").mkdir()
    for i in range(10):
        write_records(tmp_path / "in" / f"{i}.{suffix}", some_records(f"long record {i}", 101))
    config = CorpusConfig(name=str(tmp_path / "in"))
    straight = prepare(config, TOKENIZER, ROWS, cache_dir=tmp_path / "straight")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        stop_after(899, patch)
        prepare(config, TOKENIZER, ROWS, cache_dir=tmp_path / "resumed")

    opened, documents = [], []
    read_records, documents_of = records.read_records, records.documents_of

    def seen_file(path, *arguments):
        opened.append(path)
        return read_records(path, *arguments)

    def seen_records(pairs, *arguments, **settings):
        return documents_of((documents.append(1) or pair for pair in pairs), *arguments, **settings)

    monkeypatch.setattr(records, "read_records", seen_file)
    monkeypatch.setattr(records, "documents_of", seen_records)
    resumed = prepare(config, TOKENIZER, ROWS, cache_dir=tmp_path / "resumed")
    assert contents(resumed.path) == contents(straight.path)
    assert len(opened) == 2 and len(documents) <= 1000 - 880 + 2


def test_a_preparation_stopped_while_finishing_reads_nothing_again(tmp_path, monkeypatch):
    write_records(tmp_path / "a.jsonl", some_records("words", 200))
    config = CorpusConfig(name=str(tmp_path / "a.jsonl"))
    straight = prepare(config, TOKENIZER, ROWS, cache_dir=tmp_path / "straight")

    def dying(*_):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(packing.Preparation, "_finish", dying)
        prepare(config, TOKENIZER, ROWS, cache_dir=tmp_path / "resumed")
    monkeypatch.setattr(records, "read_records", dying)
    resumed = prepare(config, TOKENIZER, ROWS, cache_dir=tmp_path / "resumed")
    assert contents(resumed.path) == contents(straight.path)
    assert resumed.manifest["skipped"] == 3
