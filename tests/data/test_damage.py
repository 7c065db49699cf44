"""Truncated and corrupt files of records: what is before the damage is read, the rest is named."""

from __future__ import annotations

import gzip
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from workbench.config import CorpusConfig, RowsConfig, TokenizerConfig
from workbench.core import DataError
from workbench.data import prepare, reading
from workbench.data.shards import StreamWriter
from workbench.data.sources import Intake, open_source

RNG = random.Random(0)
RECORDS = [{"text": f"record {i}: {RNG.randbytes(100).hex()}", "n": i} for i in range(2000)]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()
TOKENIZER = TokenizerConfig(vocab_size=300, train_mb=0.05)
ROWS = RowsConfig(context_tokens=8)


def read(path, **settings):
    """The texts read and the intake that counted the skips."""
    config = CorpusConfig(name=str(path), **settings)
    intake = Intake(config)
    return [document.text for document in intake.take(open_source(config))], intake


def pack(suffix: str, data: bytes = LINES) -> bytes:
    if suffix == "gz":
        return gzip.compress(data)
    return zstandard.ZstdCompressor().compress(data)


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_truncated_archive_gives_what_is_whole_and_one_skip_that_says_where(tmp_path, suffix):
    path = tmp_path / f"data.jsonl.{suffix}"
    packed = pack(suffix)
    path.write_bytes(packed[: len(packed) * 2 // 3])
    texts, intake = read(path)
    assert 0 < len(texts) < len(RECORDS)
    assert texts == [record["text"] for record in RECORDS[: len(texts)]]
    assert intake.skip_examples == [f"{path} is truncated after record {len(texts)}"]
    with pytest.raises(DataError, match=f"{path.name} is truncated after record {len(texts)}"):
        read(path, strict=True)


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_an_archive_cut_at_its_beginning_is_refused_as_truncated(tmp_path, suffix):
    path = tmp_path / f"data.jsonl.{suffix}"
    path.write_bytes(pack(suffix)[:40])
    with pytest.raises(DataError, match="is truncated after record 0") as error:
        prepare(CorpusConfig(name=str(path)), TOKENIZER, ROWS, cache_dir=tmp_path / "cache")
    assert "whole files" in error.value.remedy


def test_every_frame_of_a_zstd_file_is_read_and_its_last_byte_matters(tmp_path):
    path = tmp_path / "data.jsonl.zst"
    half = LINES.index(b"\n", len(LINES) // 2) + 1
    packed = pack("zst", LINES[:half]) + pack("zst", LINES[half:])
    path.write_bytes(packed)
    texts, intake = read(path)
    assert texts == [record["text"] for record in RECORDS] and not intake.skipped
    path.write_bytes(packed[:-1])
    assert "is truncated" in read(path)[1].skip_examples[0]


def test_a_gzip_file_with_a_wrong_checksum_is_named(tmp_path):
    path = tmp_path / "data.jsonl.gz"
    packed = bytearray(pack("gz"))
    packed[-8] ^= 255
    path.write_bytes(packed)
    _, intake = read(path)
    assert intake.skipped.total() == 1
    assert f"{path} is corrupt after record 2000: CRC" in intake.skip_examples[0]


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_damage_in_the_middle_of_an_archive_is_named(tmp_path, suffix):
    path = tmp_path / f"data.jsonl.{suffix}"
    packed = bytearray(pack(suffix))
    middle = len(packed) // 2
    packed[middle : middle + 99] = b"\xff" * 99
    path.write_bytes(packed)
    _, intake = read(path)
    assert f"{path} is corrupt after record" in intake.skip_examples[0]


def test_a_file_that_is_no_archive_is_named(tmp_path):
    for suffix in ("gz", "zst"):
        (tmp_path / f"data.jsonl.{suffix}").write_bytes(LINES)
    texts, intake = read(tmp_path)
    assert not texts and all("cannot be read" in e for e in intake.skip_examples)
    assert intake.skipped.total() == 2


def test_a_corrupt_page_of_parquet_ends_the_file_with_a_skip(tmp_path):
    path = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_pylist(RECORDS), path, row_group_size=500)
    column = pq.ParquetFile(path).metadata.row_group(2).column(0)
    data = bytearray(path.read_bytes())
    middle = column.data_page_offset + 60
    data[middle : middle + 200] = b"\xff" * 200
    path.write_bytes(data)
    texts, intake = read(path)
    assert texts == [record["text"] for record in RECORDS[: len(texts)]]
    assert f"{path} is corrupt after record {len(texts)}: " in intake.skip_examples[0]
    with pytest.raises(DataError, match=r"data\.parquet is corrupt after record"):
        read(path, strict=True)


def test_a_truncated_parquet_file_is_named(tmp_path):
    path = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_pylist(RECORDS), path)
    path.write_bytes(path.read_bytes()[:-100])
    texts, intake = read(path)
    assert not texts and f"{path} cannot be read" in intake.skip_examples[0]


def test_text_that_is_not_utf8_in_parquet_is_a_skip(tmp_path):
    path = tmp_path / "data.parquet"
    text = pa.array([b"\xff\xfe"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": text}), path)
    assert "cannot be read" in read(path)[1].skip_examples[0]


@pytest.mark.parametrize("line", ["[1,2]", "3", "null", '"words"', "[" * 100_000, "{"])
def test_a_line_that_is_no_record_is_a_skip(tmp_path, line):
    path = tmp_path / "data.jsonl"
    path.write_text(f'{{"text": "one"}}\n{line}\n{{"text": "two"}}\n')
    texts, intake = read(path)
    assert texts == ["one", "two"] and f"{path}:2 is " in intake.skip_examples[0]
    with pytest.raises(DataError, match=r"data\.jsonl:2 is") as error:
        read(path, strict=True)
    assert "strict=False" in error.value.remedy


def test_a_last_line_that_stops_within_its_record_is_named_as_such(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_bytes(LINES[:-5])
    texts, intake = read(path)
    assert len(texts) == 1999
    assert intake.skip_examples == [f"{path}:2000 ends the file within a record"]


def test_a_missing_column_is_a_skip_after_the_first_record_of_a_file(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text('[1]\n{"text": "one", "set": "a"}\n{"text": "two"}\n{"set": "a"}\n')
    texts, intake = read(path, domain_column="set")
    assert texts == ["one"]
    assert [e.partition(" ")[2] for e in intake.skip_examples[1:]] == [
        "has no field 'set'",
        "has no field 'text'",
    ]
    path.write_text('[1]\n{"body": "one"}\n')
    with pytest.raises(DataError, match=r"data\.jsonl:2 has no field 'text'") as error:
        read(path)
    assert "one of: body" in error.value.remedy


def test_a_missing_column_of_parquet_lists_all_there_are(tmp_path):
    path = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_pylist([{"set": "a", "body": "x"}]), path)
    with pytest.raises(DataError, match="no field 'text'") as error:
        read(path, domain_column="set")
    assert "body, set" in error.value.remedy


def test_a_broken_link_is_noted(tmp_path):
    (tmp_path / "a.txt").write_text("words")
    (tmp_path / "b.txt").symlink_to(tmp_path / "none.txt")
    source = open_source(CorpusConfig(name=str(tmp_path)))
    assert "1 broken link or device" in source.notes[0] and source.fingerprint()


def test_a_preparation_with_damaged_files_continues_to_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "BATCH_DOCUMENTS", 50)
    monkeypatch.setattr(reading, "BATCHES_PER_CHECKPOINT", 1)
    (tmp_path / "in" / "set").mkdir(parents=True)
    for i, suffix in enumerate(["gz", "zst"]):
        packed = pack(suffix)
        (tmp_path / "in" / "set" / f"{i}.jsonl.{suffix}").write_bytes(packed[: -len(packed) // 3])
    corpus = CorpusConfig(name=str(tmp_path / "in"))
    straight = prepare(corpus, TOKENIZER, ROWS, cache_dir=tmp_path / "straight")
    add, added = StreamWriter.add, []

    def dying(self, ids, record):
        added.append(1)
        if len(added) % 900 == 0:
            raise KeyboardInterrupt
        add(self, ids, record)

    monkeypatch.setattr(StreamWriter, "add", dying)
    while True:
        try:
            resumed = prepare(corpus, TOKENIZER, ROWS, cache_dir=tmp_path / "resumed")
            break
        except KeyboardInterrupt:
            assert len(added) < 20_000
    manifests = [{**c.manifest, "seconds": 0} for c in (straight, resumed)]
    assert len(added) > 2000 and manifests[0] == manifests[1]
    assert straight.manifest["skipped"] == 2
