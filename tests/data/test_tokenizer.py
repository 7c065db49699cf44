"""Tokenizers: trained, borrowed, and their bad inputs; the catalogue; duplicate detection."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from workbench.config import CorpusConfig, RowsConfig, TokenizerConfig
from workbench.core import DataError
from workbench.data import catalogue, planted, prepare
from workbench.data.duplicates import DuplicateCounter, sketch
from workbench.data.hub import HubSource
from workbench.data.sources import open_source
from workbench.data.tokenizer import END_OF_TEXT, SpreadSample, load_tokenizer, train_bpe

CORPUS = CorpusConfig(name="planted", max_domain_mb=0.03)
ROWS = RowsConfig(context_tokens=16)


@pytest.fixture(scope="module")
def bpe():
    return train_bpe(["some words and some more words, again and again"] * 20, 300)


def test_any_text_survives_encoding(bpe):
    texts = ["plain", "naïve — ünïcode 漢字 🙂\n\ttabs", "", f"a literal {END_OF_TEXT} inside"]
    assert [bpe.decode(ids) for ids in bpe.encode(texts)] == texts


def test_a_literal_end_of_text_is_not_the_token(bpe, tmp_path):
    assert bpe.eos_id not in bpe.encode([f"a literal {END_OF_TEXT} inside"])[0]
    bpe.save(tmp_path)
    assert load_tokenizer(tmp_path).encode([f"x{END_OF_TEXT}"]) == bpe.encode([f"x{END_OF_TEXT}"])


def test_a_vocabulary_larger_than_the_text_yields_is_recorded_as_it_is(tmp_path):
    wanted = TokenizerConfig(vocab_size=60_000, train_mb=0.02)
    corpus = prepare(CORPUS, wanted, ROWS, cache_dir=tmp_path)
    assert corpus.manifest["tokenizer"]["requested_vocab_size"] == 60_000
    assert 300 < corpus.vocab_size < 20_000
    tokens = corpus.tokens(np.arange(int(corpus.rows_K[0])))
    assert tokens.max() < corpus.vocab_size


def fast_tokenizer(bpe, folder: Path, **special) -> Path:
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, **special).save_pretrained(folder)
    return folder


def test_a_tokenizer_of_transformers_is_used_from_its_folder(bpe, tmp_path):
    folder = fast_tokenizer(bpe, tmp_path / "mine", eos_token=END_OF_TEXT)
    corpus = prepare(CORPUS, TokenizerConfig(name=str(folder)), ROWS, cache_dir=tmp_path / "c")
    assert corpus.vocab_size == bpe.vocab_size and corpus.eos_id == bpe.eos_id
    row = corpus.tokens(np.array([0]))[0].tolist()
    assert corpus.text(0) == bpe.decode(row)
    (folder / "tokenizer.json").touch()
    again = prepare(CORPUS, TokenizerConfig(name=str(folder)), ROWS, cache_dir=tmp_path / "c")
    assert again.path != corpus.path


def test_a_tokenizer_without_end_of_sequence_is_refused(bpe, tmp_path):
    folder = fast_tokenizer(bpe, tmp_path / "mine")
    with pytest.raises(DataError, match="no end-of-sequence token"):
        prepare(CORPUS, TokenizerConfig(name=str(folder)), ROWS, cache_dir=tmp_path / "c")


def test_a_tokenizer_that_cannot_be_loaded_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="cannot be loaded") as error:
        prepare(
            CORPUS, TokenizerConfig(name=str(tmp_path / "empty")), ROWS, cache_dir=tmp_path / "c"
        )
    assert "bpe" in error.value.remedy


def test_the_sample_gives_each_domain_its_share_and_stays_small():
    sample = SpreadSample(max_bytes=1000)
    for rank in range(500):
        sample.add("big", rank * 7919 % 500, f"b{rank:03d}" * 5)
        if rank % 100 == 0:
            sample.add("small", rank, f"s{rank:03d}" * 5)
    texts = list(sample.texts())
    assert sum(t.startswith("s") for t in texts) == 5
    assert 400 <= sum(len(t) for t in texts if t.startswith("b")) <= 500


def test_the_sample_does_not_depend_on_the_order_of_documents():
    forward, backward = SpreadSample(300), SpreadSample(300)
    items = [(rank, f"{rank:03d}" * 5) for rank in range(100)]
    for rank, text in items:
        forward.add("a", rank, text)
    for rank, text in reversed(items):
        backward.add("a", rank, text)
    assert list(forward.texts()) == list(backward.texts())


def sketch_of(text: str) -> np.ndarray:
    return sketch(text, hashlib.blake2b(text.encode(), digest_size=16).digest())


def jaccard(first: str, second: str) -> float:
    a, b = (
        {tuple(t.split()[i : i + 5]) for i in range(len(t.split()) - 4)} for t in (first, second)
    )
    return len(a & b) / len(a | b)


def test_near_duplicates_are_found_by_their_similarity():
    """Measured against the exact Jaccard similarity of the shingle sets."""
    rng = np.random.default_rng(0)
    found = {"above 0.85": [], "below 0.3": []}
    for _ in range(200):
        words = [f"w{i}" for i in rng.integers(0, 1000, 200)]
        changed = list(words)
        for place in rng.integers(0, 200, rng.choice([1, 2, 40])):
            changed[place] = "changed"
        first, second = " ".join(words), " ".join(changed)
        counter = DuplicateCounter(exact_slots=1 << 10, band_slots=1 << 12)
        counter.add(sketch_of(first), held_out=False)
        kind = counter.add(sketch_of(second), held_out=True)
        similarity = jaccard(first, second)
        if similarity > 0.85:
            found["above 0.85"].append(kind == "near")
        elif similarity < 0.3:
            found["below 0.3"].append(kind == "near")
    assert len(found["above 0.85"]) > 100 and np.mean(found["above 0.85"]) > 0.95
    assert len(found["below 0.3"]) > 40 and np.mean(found["below 0.3"]) < 0.02


def test_equal_documents_are_exact_and_not_also_near():
    counter = DuplicateCounter(exact_slots=1 << 10, band_slots=1 << 12)
    kinds = [counter.add(sketch_of("the same few words"), held_out=False) for _ in range(3)]
    assert kinds == ["", "exact", "exact"]


def test_leakage_sees_training_documents_read_after_the_held_out_one():
    counter = DuplicateCounter(exact_slots=1 << 10, band_slots=1 << 12)
    words = [f"w{i}" for i in range(200)]
    held_out = sketch_of(" ".join(words))
    counter.add(held_out, held_out=True)
    assert not counter.near_training(held_out)
    counter.add(sketch_of(" ".join([*words[:-1], "end"])), held_out=False)
    assert counter.near_training(held_out)


def test_a_restored_counter_goes_on_as_the_one_that_met_the_documents():
    """In tables so small that most documents displace an earlier one."""
    rng = np.random.default_rng(0)
    sketches = np.stack([sketch_of(f"{rng.integers(100)} and so on") for _ in range(300)])
    held_out_N = rng.random(300) < 0.3
    met, restored = (DuplicateCounter(exact_slots=64, band_slots=256) for _ in range(2))
    for each, held_out in zip(sketches[:200], held_out_N, strict=False):
        met.add(each, held_out=bool(held_out))
    for part in (slice(0, 90), slice(90, 200)):
        restored.restore(sketches[part], held_out_N[part])
    assert (met.near_training(sketches) == restored.near_training(sketches)).all()
    kinds = [
        [counter.add(each, held_out=False) for each in sketches[200:]]
        for counter in (met, restored)
    ]
    assert kinds[0] == kinds[1] and len(set(kinds[0])) > 1


def test_a_corpus_that_outgrew_the_counter_says_so(tmp_path, monkeypatch):
    said = "so that numbers of duplicates are lower bounds"
    small = prepare(CORPUS, TokenizerConfig(vocab_size=300), ROWS, cache_dir=tmp_path / "small")
    assert not any(said in note for note in small.notes())
    monkeypatch.setattr(DuplicateCounter.__init__, "__defaults__", (1 << 10, 1 << 10))
    outgrown = prepare(CORPUS, TokenizerConfig(vocab_size=300), ROWS, cache_dir=tmp_path / "out")
    assert any("about 73 before it, " + said in note for note in outgrown.notes())


def test_catalogue_entries_say_origin_licence_and_size():
    assert {"installed", "planted", "slimpajama-6b", "fineweb-edu", "pile-uncopyrighted"} <= set(
        catalogue.entries()
    )
    for entry in catalogue.entries().values():
        assert {"title", "origin", "licence", "size", "domain"} <= set(entry)
        if "load" in entry:
            catalogue_config = CorpusConfig(**entry["load"])
            assert entry["load"]["name"] in entry["origin"] and catalogue_config.streaming


def test_a_catalogue_name_resolves_to_dataset_and_columns_and_yields_to_the_user():
    source = open_source(CorpusConfig(name="slimpajama-6b"))
    assert isinstance(source, HubSource) and source.name == "DKYoon/SlimPajama-6B"
    assert source.config.domain_column == "meta.redpajama_set_name" and source.domains is None
    mine = open_source(CorpusConfig(name="fineweb-edu", subset="sample-100BT"))
    assert isinstance(mine, HubSource) and mine.config.subset == "sample-100BT"


def test_the_domains_of_a_listed_corpus_are_known_before_it_is_read():
    known = {"slimpajama-6b": 7, "cerebras/SlimPajama-627B": None, "wikitext-103": 1, "texts": None}
    known |= {"pile-uncopyrighted": 17, "fineweb-edu": None, "planted": len(planted.DOMAINS)}
    for name, domains in known.items():
        assert catalogue.domain_count(CorpusConfig(name=name)) == domains, name
    column = "meta.redpajama_set_name"
    fetched = CorpusConfig(name="cerebras/SlimPajama-627B", domain_column=column)
    assert catalogue.domain_count(fetched) == 7
    assert catalogue.domain_count(CorpusConfig(name="slimpajama-6b", domain_column="lang")) is None
    two = CorpusConfig(name="anything", domains=["a", "b"], noise_mb=1.0)
    assert catalogue.domain_count(two) == 3


def test_the_readme_of_the_corpora_is_the_printed_catalogue():
    readme = Path(__file__).parents[2] / "data" / "README.md"
    assert readme.read_text("utf-8") == catalogue.markdown()


def test_preparing_needs_no_torch():
    code = "import sys, workbench.data.preparation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
