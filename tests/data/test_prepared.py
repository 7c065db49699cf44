"""What a prepared corpus promises: rows, ids, split, provenance, reuse, checks at open."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest

from workbench.config import CorpusConfig, RowsConfig, TokenizerConfig
from workbench.core import DataError
from workbench.data import PreparedCorpus, prepare
from workbench.data.planted import DOMAINS, PlantedSource
from workbench.data.prepared import sample_ids
from workbench.data.sources import Intake

CORPUS = CorpusConfig(name="planted", max_domain_mb=0.05)
TOKENIZER = TokenizerConfig(vocab_size=320, train_mb=0.1)
ROWS = RowsConfig(context_tokens=32, shard_mib=0.01)


def documents_of(corpus: PreparedCorpus, split: str) -> dict[str, str]:
    """Content hash to origin, over all domains."""
    found = {}
    for entry in corpus.manifest["domains"]:
        for record in pq.read_table(corpus.path / entry[split]["table"]).to_pylist():
            found[record["document"]] = record["origin"]
    return found


def stream_of(corpus: PreparedCorpus, domain: int) -> np.ndarray:
    """The whole training stream of a domain, rebuilt from its rows."""
    rows = corpus.tokens(sample_ids(np.array(domain), np.arange(corpus.rows_K[domain])))
    return np.concatenate([rows[:, :-1].ravel(), rows[-1, -1:]])


def test_rows_share_one_token_so_that_each_is_predicted_once(planted):
    rows = planted.tokens(sample_ids(np.array(0), np.arange(planted.rows_K[0])))
    assert rows.dtype == np.int64 and rows.shape[1] == 33
    assert (rows[:-1, -1] == rows[1:, 0]).all()


def test_rows_in_order_spell_the_documents_of_the_domain(planted):
    intake = Intake(CORPUS)
    texts = [d.text for d in intake.take(PlantedSource(CORPUS)) if d.domain == "clean_records"]
    decoded = planted.tokenizer.decode(stream_of(planted, 2).tolist())
    pieces = [piece for piece in decoded.split("<|endoftext|>")[:-1] if piece]
    training = [text for text in texts if text in set(pieces)]
    assert pieces == training and len(pieces) > 50


def test_several_shards_are_written_and_rows_never_span_two(planted):
    shards = planted.manifest["domains"][0]["train"]["shards"]
    assert len(shards) > 2
    tokens_per_full_shard = planted.manifest["domains"][0]["train"]["shard_rows"] * 32 + 1
    assert all(s["bytes"] == 2 * tokens_per_full_shard for s in shards[:-1])


def test_dropped_tokens_are_counted(planted):
    for entry in planted.manifest["domains"]:
        for split in ("train", "held_out"):
            stream = entry[split]
            assert stream["tokens"] == stream["rows"] * 32 + 1 + stream["dropped_tokens"]
            assert 0 <= stream["dropped_tokens"] < 32


def test_held_out_rows_can_be_read_from_any_row_on(planted):
    whole = planted.held_out("noise")
    assert len(whole) == planted.held_out_rows_K[planted.domains.index("noise")]
    assert np.array_equal(planted.held_out("noise", 3, first=2), whole[2:5])
    assert np.array_equal(planted.held_out("noise", first=2), whole[2:])
    assert planted.held_out("noise", 3, first=len(whole) - 1).shape == (1, 33)
    assert planted.held_out("noise", 3, first=len(whole) + 5).shape == (0, 33)


def test_sample_id_leads_back_to_domain_and_row(planted):
    ids = sample_ids(np.array([0, 3, 5]), np.array([0, 7, 11]))
    assert planted.domain_of(ids).tolist() == [0, 3, 5]
    assert (ids & ((1 << 40) - 1)).tolist() == [0, 7, 11]


def test_unknown_sample_is_refused(planted):
    with pytest.raises(DataError, match="not in this corpus"):
        planted.tokens(np.array([int(planted.rows_K[0])]))


def test_text_of_a_row_is_the_decoded_row(planted):
    sample = int(sample_ids(np.array(1), np.array(5)))
    tokens = planted.tokens(np.array([sample]))[0].tolist()
    assert planted.text(sample) == planted.tokenizer.decode(tokens)


def test_provenance_covers_the_row_and_names_the_right_documents(planted):
    texts = {d.origin: d.text for d in Intake(CORPUS).take(PlantedSource(CORPUS))}
    for row in (0, 1, 40, int(planted.rows_K[0]) - 1):
        parts = planted.provenance(row)
        assert parts[0]["first"] == 0 and parts[-1]["last"] == 32
        assert all(a["last"] + 1 == b["first"] for a, b in pairwise(parts))
        tokens = planted.tokens(np.array([row]))[0]
        for part in parts:
            span = tokens[part["first"] : part["last"] + 1]
            words = planted.tokenizer.decode(span[span != planted.eos_id].tolist())
            assert words in texts[part["origin"]]


def test_held_out_documents_are_disjoint_from_training_by_content(planted):
    train, held_out = documents_of(planted, "train"), documents_of(planted, "held_out")
    assert held_out and not set(train) & set(held_out)


def test_copies_of_a_document_fall_on_one_side(planted):
    sides: dict[str, set[str]] = {}
    for split in ("train", "held_out"):
        table = planted.manifest["domains"][DOMAINS.index("duplicated")][split]["table"]
        for record in pq.read_table(planted.path / table).to_pylist():
            if "#copy" in record["origin"]:
                original = record["origin"].partition("#")[0]
                sides.setdefault(original, set()).add(split)
    assert len(sides) >= 40 and all(len(side) == 1 for side in sides.values())


def test_every_domain_has_held_out_rows(planted):
    for domain in planted.domains:
        rows = planted.held_out(domain, 3)
        assert rows.shape == (3, 33)
    assert len(planted.held_out("noise", None)) == planted.overview()[-1]["held_out_rows"]


def test_unknown_domain_suggests_the_nearest(planted):
    with pytest.raises(DataError, match="did you mean 'noise'"):
        planted.held_out("nois", 1)


def test_overview_counts_what_was_planted(planted):
    overview = {entry["domain"]: entry for entry in planted.overview()}
    origins = [
        d.origin for d in Intake(CORPUS).take(PlantedSource(CORPUS)) if d.domain == "duplicated"
    ]
    later_copies = sum("#copy" in o and not o.endswith("#copy0") for o in origins)
    near = sum("#near" in o for o in origins)
    assert overview["duplicated"]["exact_duplicates"] == later_copies > 5
    assert near * 0.8 <= overview["duplicated"]["near_duplicates"] <= near
    assert overview["duplicated"]["held_out_near_training"] > 0
    for clean in ("clean_prose", "clean_tales", "clean_records", "noise"):
        assert overview[clean]["exact_duplicates"] == overview[clean]["near_duplicates"] == 0
        assert overview[clean]["held_out_near_training"] == 0
    assert overview["noise"]["bytes_per_token"] < overview["clean_prose"]["bytes_per_token"]


def test_pool_lists_every_training_row_once(planted):
    pool = planted.pool()
    assert len(pool) == planted.rows_K.sum() == len(set(pool.sample_id_N.tolist()))
    assert np.bincount(pool.domain_N).tolist() == planted.rows_K.tolist()
    assert (pool.tokens_N == 32).all()


def test_a_second_prepare_reads_and_writes_nothing(planted, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a finished corpus was read again")

    monkeypatch.setattr(PlantedSource, "documents", refuse)
    again = prepare(CORPUS, TOKENIZER, ROWS, cache_dir=planted.path.parent)
    assert again.path == planted.path and again.content_hash == planted.content_hash


def test_each_setting_changes_the_folder_and_nothing_else_does(monkeypatch, tmp_path):
    folders = []

    def note(self, key):
        folders.append(self.folder)
        raise InterruptedError

    monkeypatch.setattr("workbench.data.preparation.Preparation.run", note)
    changes = [{}, {"seed": 1}, {"max_domain_mb": 0.06}, {"held_out_fraction": 0.2}]
    settings = [(CORPUS.replace(**change), TOKENIZER, ROWS) for change in changes]
    settings.append((CORPUS, TokenizerConfig(vocab_size=321, train_mb=0.1), ROWS))
    settings.append((CORPUS, TOKENIZER, RowsConfig(context_tokens=33, shard_mib=0.01)))
    for corpus, tokenizer, rows in [*settings, settings[0]]:
        with pytest.raises(InterruptedError):
            prepare(corpus, tokenizer, rows, cache_dir=tmp_path)
    assert folders[-1] == folders[0] and len(set(folders)) == len(settings)


def test_content_hash_follows_the_text_alone(planted, tmp_path):
    longer = prepare(
        CORPUS, TOKENIZER, RowsConfig(context_tokens=16, shard_mib=0.01), cache_dir=tmp_path
    )
    other = prepare(CORPUS.replace(seed=1), TOKENIZER, ROWS, cache_dir=tmp_path)
    assert longer.content_hash == planted.content_hash != other.content_hash


def test_sample_ids_of_a_domain_do_not_change_when_another_is_left_out(planted, tmp_path):
    fewer = prepare(
        CORPUS.replace(domains=("clean_prose", "noise")), TOKENIZER, ROWS, cache_dir=tmp_path
    )
    assert fewer.domains == ("clean_prose", "noise")
    assert documents_of(fewer, "train").items() <= documents_of(planted, "train").items()


@pytest.fixture
def copy(planted, tmp_path):
    return shutil.copytree(planted.path, tmp_path / "copy")


def test_a_changed_byte_names_shard_and_checksum(planted, copy):
    shard = planted.manifest["domains"][2]["train"]["shards"][1]
    data = bytearray((copy / shard["file"]).read_bytes())
    data[100] ^= 1
    (copy / shard["file"]).write_bytes(data)
    with pytest.raises(DataError) as error:
        PreparedCorpus.open(copy)
    assert shard["file"] in str(error.value) and shard["blake2b"] in str(error.value)
    assert "delete" in error.value.remedy


def test_a_large_corpus_is_verified_only_on_demand(planted, copy, monkeypatch):
    monkeypatch.setattr("workbench.data.prepared.VERIFIED_AT_OPEN_MIB", 0)
    shard = copy / planted.manifest["domains"][0]["train"]["shards"][0]["file"]
    data = bytearray(shard.read_bytes())
    data[0] ^= 1
    shard.write_bytes(data)
    PreparedCorpus.open(copy)
    with pytest.raises(DataError, match="corrupt"):
        PreparedCorpus.open(copy, verify=True)


@pytest.mark.parametrize("harm", ["missing", "short"])
def test_a_missing_or_short_shard_is_named(planted, copy, harm):
    shard = copy / planted.manifest["domains"][0]["held_out"]["shards"][0]["file"]
    if harm == "missing":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(DataError, match=shard.name):
        PreparedCorpus.open(copy)


def test_a_folder_that_is_no_corpus_or_of_another_format_is_refused(tmp_path, copy):
    with pytest.raises(DataError, match="not a prepared corpus"):
        PreparedCorpus.open(tmp_path)
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "format": 0}))
    with pytest.raises(DataError, match="format 0"):
        PreparedCorpus.open(copy)


def test_documents_of_many_rows_are_those_of_their_provenance(planted):
    ids = np.random.default_rng(0).permutation(planted.pool().sample_id_N)[:60]
    expected = [[part["document"] for part in planted.provenance(int(i))] for i in ids]
    assert planted.documents(ids) == expected
    assert planted.documents(ids[:0]) == []
