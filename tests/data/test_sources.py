"""Users' own text in each form, and each kind of bad input with its remedy."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from workbench.config import CorpusConfig, RowsConfig, TokenizerConfig
from workbench.core import DataError
from workbench.data import installed, prepare
from workbench.data.hub import HubSource
from workbench.data.planted import PlantedSource
from workbench.data.sources import Document, Intake, open_source

TOKENIZER = TokenizerConfig(vocab_size=300, train_mb=0.05)
ROWS = RowsConfig(context_tokens=8)


def read(config: CorpusConfig) -> list[Document]:
    return list(Intake(config).take(open_source(config)))


def by_domain(documents: list[Document]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for document in documents:
        found.setdefault(document.domain, []).append(document.text)
    return {domain: sorted(texts) for domain, texts in sorted(found.items())}


RECORDS = [
    {"body": "one", "meta": {"set": "a"}},
    {"body": "two", "meta": {"set": "b"}},
    {"body": "three", "meta": {"set": "a"}},
]
EXPECTED = {"a": ["one", "three"], "b": ["two"]}


@pytest.fixture
def texts(tmp_path):
    """Two domains in folders, with the files nobody wants beside them."""
    root = tmp_path / "texts"
    for domain, count in (("notes", 60), ("code", 40)):
        (root / domain / "deep").mkdir(parents=True)
        for i in range(count):
            suffix = ".md" if domain == "notes" else ".py"
            text = f"{domain} number {i} says {' '.join(str(j * i) for j in range(30))}"
            (root / domain / "deep" / f"{i}{suffix}").write_text(text)
    (root / "notes" / "picture.png").write_bytes(b"\x89PNG")
    (root / ".git").mkdir()
    (root / ".git" / "config.txt").write_text("not text of the corpus")
    return root


def test_folder_gives_a_domain_per_folder(texts):
    found = by_domain(read(CorpusConfig(name=str(texts))))
    assert {domain: len(t) for domain, t in found.items()} == {"code": 40, "notes": 60}
    assert open_source(CorpusConfig(name=str(texts))).notes == [
        "ignored 1 files of other kinds: 1 .png"
    ]


def test_glob_takes_what_it_matches(texts):
    found = by_domain(read(CorpusConfig(name=f"{texts}/*/deep/1*.md")))
    assert list(found) == ["notes"] and len(found["notes"]) == 11


def test_links_to_a_file_are_read_once(texts):
    (texts / "code" / "again.py").symlink_to(texts / "code" / "deep" / "1.py")
    assert len(by_domain(read(CorpusConfig(name=str(texts))))["code"]) == 40


def test_a_new_file_leaves_the_order_of_the_others(texts):
    config = CorpusConfig(name=str(texts))
    before = [document.origin for document in read(config)]
    (texts / "notes" / "new.md").write_text("a new one")
    after = [document.origin for document in read(config)]
    assert [o for o in after if not o.endswith("new.md")] == before
    assert before != sorted(before)


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "jsonl.zst", "parquet"])
def test_records_take_their_domain_from_a_nested_column(tmp_path, suffix):
    path = tmp_path / f"data.{suffix}"
    lines = "\n".join(json.dumps(record) for record in RECORDS).encode()
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(RECORDS), path)
    else:
        pack = {"jsonl": bytes, "jsonl.gz": gzip.compress}.get(
            suffix, zstandard.ZstdCompressor().compress
        )
        path.write_bytes(pack(lines))
    config = CorpusConfig(name=str(path), text_column="body", domain_column="meta.set")
    assert by_domain(read(config)) == EXPECTED
    assert {d.origin.rpartition(":")[0] for d in read(config)} == {str(path)}


@pytest.mark.parametrize("streaming", [True, False])
def test_a_dataset_streams_through_datasets(tmp_path, streaming, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "owned"
    folder.mkdir()
    (folder / "train.jsonl").write_text("\n".join(json.dumps(record) for record in RECORDS))
    config = CorpusConfig(
        name=str(folder), text_column="body", domain_column="meta.set", streaming=streaming
    )
    assert by_domain(list(Intake(config).take(HubSource(config)))) == EXPECTED


def test_a_dataset_without_domain_column_is_one_domain(tmp_path):
    (tmp_path / "train.jsonl").write_text(json.dumps({"text": "alone"}))
    config = CorpusConfig(name=str(tmp_path))
    assert by_domain(list(Intake(config).take(HubSource(config)))) == {tmp_path.name: ["alone"]}


def test_a_dataset_that_cannot_be_loaded_names_the_reason(tmp_path):
    config = CorpusConfig(name=str(tmp_path / "nothing"))
    with pytest.raises(DataError, match="as a dataset it cannot be read") as error:
        list(HubSource(config).documents(Intake(config)))
    assert "local folder" in error.value.remedy


def test_a_wrong_column_lists_the_fields_there(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(RECORDS[0]))
    with pytest.raises(DataError, match="no field 'text'") as error:
        read(CorpusConfig(name=str(path)))
    assert "body, meta" in error.value.remedy
    with pytest.raises(DataError, match=r"no field 'meta\.name'"):
        read(CorpusConfig(name=str(path), text_column="body", domain_column="meta.name"))


def test_missing_folder_and_pattern_are_named(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        open_source(CorpusConfig(name=str(tmp_path / "none")))
    with pytest.raises(DataError, match="no file matches"):
        open_source(CorpusConfig(name=f"{tmp_path}/*.txt"))


def test_empty_folder_says_what_it_holds(tmp_path):
    with pytest.raises(DataError, match=r"no text in corpus .* \(it is empty\)"):
        open_source(CorpusConfig(name=str(tmp_path)))
    (tmp_path / "a.png").write_bytes(b"1")
    with pytest.raises(DataError, match=r"1 \.png"):
        open_source(CorpusConfig(name=str(tmp_path)))


def test_a_misspelt_name_suggests_the_nearest():
    with pytest.raises(DataError, match="did you mean 'planted'"):
        open_source(CorpusConfig(name="plantd"))


def test_a_file_of_another_encoding_is_skipped_counted_and_named(texts, tmp_path):
    (texts / "notes" / "latin.txt").write_bytes("café".encode("latin-1") * 50)
    (texts / "notes" / "binary.txt").write_bytes(b"a\0b" * 50)
    config = CorpusConfig(name=str(texts), held_out_fraction=0.3)
    corpus = prepare(config, TOKENIZER, ROWS, cache_dir=tmp_path / "cache")
    skipped = {entry["domain"]: entry["skipped_files"] for entry in corpus.overview()}
    assert skipped == {"code": 0, "notes": 2}
    examples = " ".join(corpus.manifest["skip_examples"])
    assert "latin.txt is not UTF-8 (byte 3)" in examples and "binary.txt is binary" in examples


def test_strict_refuses_a_file_of_another_encoding(texts, tmp_path):
    (texts / "notes" / "latin.txt").write_bytes("café".encode("latin-1") * 50)
    with pytest.raises(DataError, match=r"latin\.txt is not UTF-8") as error:
        prepare(
            CorpusConfig(name=str(texts), strict=True), TOKENIZER, ROWS, cache_dir=tmp_path / "c"
        )
    assert "strict=False" in error.value.remedy


def test_a_bad_line_of_json_is_skipped_and_named(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'{"text": "good"}\n{"text": \n\xff\n{"text": null}\n')
    config = CorpusConfig(name=str(path))
    intake = Intake(config)
    assert [d.text for d in intake.take(open_source(config))] == ["good"]
    assert intake.skipped.total() == 3 and "data.jsonl:2" in intake.skip_examples[0]


def test_only_unreadable_files_is_an_error_with_an_example(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe" * 99)
    with pytest.raises(
        DataError, match=r"yields no text \(1 files or records skipped, such as: .*a\.txt"
    ):
        prepare(CorpusConfig(name=str(tmp_path)), TOKENIZER, ROWS, cache_dir=tmp_path / "cache")


def test_a_changed_file_makes_another_corpus(texts, tmp_path):
    config = CorpusConfig(name=str(texts), held_out_fraction=0.3)
    first = prepare(config, TOKENIZER, ROWS, cache_dir=tmp_path / "cache")
    assert prepare(config, TOKENIZER, ROWS, cache_dir=tmp_path / "cache").path == first.path
    (texts / "notes" / "deep" / "1.md").write_text("another text altogether, and a longer one")
    second = prepare(config, TOKENIZER, ROWS, cache_dir=tmp_path / "cache")
    assert second.path != first.path and second.content_hash != first.content_hash


def test_a_row_longer_than_a_domain_is_refused_with_the_remedy(texts, tmp_path):
    with pytest.raises(DataError, match="context_tokens = 100000 is longer than the") as error:
        prepare(
            CorpusConfig(name=str(texts)),
            TOKENIZER,
            RowsConfig(context_tokens=100_000),
            cache_dir=tmp_path / "cache",
        )
    assert "lower context_tokens" in error.value.remedy


def test_a_domain_without_held_out_document_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "texts" / "lonely").mkdir(parents=True)
    (tmp_path / "texts" / "lonely" / "only.txt").write_text("one document alone " * 20)
    with pytest.raises(DataError, match="no held-out document of domain 'lonely'") as error:
        prepare(
            CorpusConfig(name=str(tmp_path / "texts"), held_out_fraction=1e-6),
            TOKENIZER,
            ROWS,
            cache_dir=tmp_path / "cache",
        )
    assert "held_out_fraction" in error.value.remedy


def test_an_unknown_wanted_domain_suggests_the_nearest(texts, tmp_path):
    with pytest.raises(DataError, match="did you mean 'notes'"):
        prepare(
            CorpusConfig(name=str(texts), domains=("note",)),
            TOKENIZER,
            ROWS,
            cache_dir=tmp_path / "cache",
        )


def test_documents_and_domains_are_cut_at_their_limits(texts):
    config = CorpusConfig(name=str(texts), max_document_kb=0.05, max_domain_mb=0.001)
    intake = Intake(config)
    documents = list(intake.take(open_source(config)))
    assert max(len(d.text.encode()) for d in documents) <= 50
    assert all(1000 <= size < 1050 for size in intake.bytes.values())
    assert intake.cut["notes"] == sum(d.domain == "notes" for d in documents)


def test_a_cut_never_splits_a_character(tmp_path):
    (tmp_path / "a.txt").write_text("é" * 100, encoding="utf-8")
    (document,) = read(CorpusConfig(name=str(tmp_path), max_document_kb=0.051))
    assert document.text == "é" * 25


def test_a_stream_stops_once_nobody_wants_more(monkeypatch):
    """With unknown domains, a long stretch of unwanted documents ends the reading."""
    monkeypatch.setattr("workbench.data.sources.PATIENCE_DOCUMENTS", 50)
    config = CorpusConfig(name="planted", max_domain_mb=0.001)
    read_count = []

    class Endless(PlantedSource):
        domains = property(lambda self: None, lambda self, value: None)

        def documents(self, intake, after=None):
            for number in range(10_000):
                read_count.append(number)
                yield Document("some words " * 20, "only", str(number))

    source = Endless(config)
    intake = Intake(config)
    documents = list(intake.take(source))
    assert len(documents) == 5 and len(read_count) == 55
    assert intake.notes == [
        "the rest of the text was left unread after 50 documents in a row that no domain wanted"
    ]


def test_planted_is_a_function_of_its_seed():
    texts = [
        [d.text for d in read(CorpusConfig(name="planted", max_domain_mb=0.01, seed=s))]
        for s in (0, 0, 1)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_planted_shuffled_has_the_words_but_not_the_order_of_clean_text():
    found = by_domain(read(CorpusConfig(name="planted", max_domain_mb=0.05)))
    words = {d: set(" ".join(found[d]).split()) for d in ("clean_prose", "shuffled")}
    pairs = {
        d: [p for t in found[d] for p in zip(t.split(), t.split()[1:], strict=False)]
        for d in ("clean_prose", "shuffled")
    }
    assert len(words["shuffled"] & words["clean_prose"]) > 0.7 * len(words["shuffled"])
    repeated = {d: 1 - len(set(pairs[d])) / len(pairs[d]) for d in pairs}
    assert repeated["clean_prose"] > 2 * repeated["shuffled"]


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """A made-up Python installation with seven kinds of text."""
    stdlib, packages = tmp_path / "lib", tmp_path / "lib" / "site-packages"
    files = {
        stdlib / "module{i}.py": "x = 1  # code\n" * 50,
        stdlib / "test" / "test{i}.py": "left out\n" * 99,
        packages / "numpy" / "m{i}.py": 'def f():\n    """' + "Long words. " * 90 + '"""\n',
        packages / "p{i}.dist-info" / "METADATA": "Name: p\n\n" + "A project. " * 90,
        packages / "p{i}.dist-info" / "LICENSE": "You may use it. " * 90,
        packages / "inc" / "h{i}.h": "int f(int);\n" * 90,
        packages / "conf" / "c{i}.json": '{"key": 1}\n' * 90,
        packages / "web" / "w{i}.js": "var x=1;" * 90,
        packages / "web" / "w{i}.html": "<p>" * 90,
    }
    for pattern, text in files.items():
        for i in range(4):
            path = type(pattern)(str(pattern).format(i=i))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + str(i))
    (stdlib / "link.py").symlink_to(stdlib / "module0.py")
    (packages / "conf" / "bad.json").write_bytes(b"\xff" * 600)
    paths = {"stdlib": stdlib, "purelib": packages, "platlib": packages, "data": tmp_path}
    monkeypatch.setattr(
        installed.sysconfig, "get_paths", lambda: {k: str(v) for k, v in paths.items()}
    )
    return packages


def test_installed_sorts_files_by_kind_and_reads_each_once(environment):
    config = CorpusConfig(name="installed", max_domain_mb=0.0004)
    source = open_source(config)
    assert source.domains == tuple(d for d in installed.DOMAINS if d != "html_css")
    assert source.notes == ["left out 'html_css': 0 kB of text"]
    intake = Intake(CorpusConfig(name="installed"))
    found = by_domain(list(intake.take(source)))
    assert {domain: len(texts) for domain, texts in found.items()} == dict.fromkeys(
        sorted(source.domains), 4
    )
    assert "def f" not in "".join(found["api_prose"])
    assert "Name:" not in "".join(found["project_prose"])
    assert intake.skipped == {"json_yaml": 1}


def test_installed_with_too_few_domains_is_refused(environment):
    source = open_source(CorpusConfig(name="installed"))
    with pytest.raises(DataError, match="text for 0 domains, 5 are needed"):
        list(source.documents(Intake(CorpusConfig())))


def test_installed_fingerprint_follows_what_is_installed(environment):
    before = open_source(CorpusConfig(name="installed")).fingerprint()
    assert open_source(CorpusConfig(name="installed")).fingerprint() == before
    (environment / "new-1.0.dist-info").mkdir()
    assert open_source(CorpusConfig(name="installed")).fingerprint() != before
