"""What the name of a corpus or tokenizer means, and one line when it means nothing."""

from __future__ import annotations

import errno

import datasets
import httpx
import huggingface_hub
import pytest
from huggingface_hub import errors

from workbench.config import CorpusConfig, RowsConfig, TokenizerConfig
from workbench.core import DataError
from workbench.data import prepare
from workbench.data.files import is_path
from workbench.data.hub import HubSource, is_repository_name
from workbench.data.sources import Intake, open_source
from workbench.data.tokenizer import pretrained


def refusal(kind, status: int):
    request = httpx.Request("GET", "http://localhost/name")
    return kind("refused\n\nfor a long reason", response=httpx.Response(status, request=request))


@pytest.fixture
def hub(monkeypatch):
    """Make the hub fail with a given error; a client that is asked all the same is a failure."""

    def fail_with(error: Exception) -> None:
        def failing(*_, **__):
            raise error

        def not_to_be_asked(*_, **__):
            raise AssertionError("asked a client that retries")

        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", failing)
        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", failing)
        monkeypatch.setattr(datasets, "load_dataset", not_to_be_asked)

    return fail_with


def read(name: str, **settings):
    config = CorpusConfig(name=name, **settings)
    return list(Intake(config).take(open_source(config)))


@pytest.mark.parametrize(
    "name",
    [
        "texts/",
        "./texts",
        "../texts",
        ".texts",
        "/texts",
        "~/texts",
        "a/b/c",
        "texts/*",
        "my texts",
        "notes.txt",
        "dump/all.jsonl.zst",
        "texts//",
        "texts/.hidden",
        "dump/[ab]@1",
        "-texts",
    ],
)
def test_a_name_that_looks_like_a_path_is_one_and_the_remedy_says_it_is_not_there(name):
    assert is_path(name)
    with pytest.raises(DataError) as error:
        open_source(CorpusConfig(name=name))
    if "*" not in name and "[" not in name:
        assert f"corpus '{name}' does not exist" in str(error.value)
        assert "no such file or folder exists here" in error.value.remedy


@pytest.mark.parametrize("name", ["owner/name", "name", "owner/name@refs/pr/1", "o-w/n.a_m-e.v2"])
def test_a_name_the_hub_could_have_is_a_dataset_unless_it_is_here(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not is_path(name) and isinstance(open_source(CorpusConfig(name=name)), HubSource)
    folder = tmp_path / name
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("words")
    assert is_path(name) and read(name)[0].text == "words"


@pytest.mark.parametrize("name", ["/x", "x/", "a/b/c", "a--b", "a..b", "a.", "", "x" * 97, "ä/b"])
def test_names_against_the_rules_of_the_hub_are_never_sent_there(name):
    assert not is_repository_name(name)


def test_only_a_really_near_catalogue_name_is_suggested(hub):
    hub(httpx.ConnectError("Name or service not known"))
    with pytest.raises(DataError, match="no file or folder here") as error:
        read("texts")
    assert "did you mean" not in str(error.value)
    with pytest.raises(DataError, match="did you mean 'wikitext-2'") as error:
        read("wikitext2")
    assert "no such file or folder exists here" in error.value.remedy


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (httpx.ConnectError("[Errno -2] Name or service not known"), "the hub does not answer"),
        (errors.OfflineModeIsEnabled("offline"), "the hub does not answer"),
        (refusal(errors.RepositoryNotFoundError, 404), "the hub knows no such name"),
        (refusal(errors.GatedRepoError, 403), "it is gated"),
        (refusal(errors.RevisionNotFoundError, 404), "RevisionNotFoundError: refused"),
    ],
)
def test_a_dataset_that_is_not_to_be_had_is_one_line(hub, failure, reason):
    hub(failure)
    with pytest.raises(DataError, match=reason) as error:
        read("owner/name")
    assert "\n" not in str(error.value) and error.value.remedy
    answered = "does not answer" not in reason
    assert answered or "`installed`, `planted` and local files work" in error.value.remedy


def test_no_network_is_told_before_any_work_and_leaves_local_text_to_prepare(hub, tmp_path):
    hub(httpx.ConnectError("Name or service not known"))
    settings = (TokenizerConfig(vocab_size=300), RowsConfig(context_tokens=32))
    with pytest.raises(DataError, match="the hub does not answer"):
        prepare(CorpusConfig(name="owner/name", workers=2), *settings, cache_dir=tmp_path)
    corpus = CorpusConfig(name="planted", max_domain_mb=0.02)
    assert prepare(corpus, *settings, cache_dir=tmp_path).rows_K.all()


def test_a_dataset_read_before_is_still_sought_in_the_cache_without_network(hub, monkeypatch):
    hub(httpx.ConnectError("Name or service not known"))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: [{"text": "kept"}])
    assert [d.text for d in read("owner/name", streaming=False)] == ["kept"]


def test_a_stream_that_breaks_is_one_line_and_a_full_disk_stays_a_full_disk(hub, monkeypatch):
    hub(refusal(errors.HfHubHTTPError, 503))

    def breaking(error):
        def records(*_, **__):
            yield {"text": "first"}
            raise error

        return records

    monkeypatch.setattr(datasets, "load_dataset", breaking(httpx.ReadTimeout("slow\nvery")))
    with pytest.raises(DataError, match="broke off after record 1: ReadTimeout: slow —") as error:
        read("owner/name")
    assert "continues" in error.value.remedy
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(datasets, "load_dataset", breaking(full))
    with pytest.raises(OSError, match="No space left"):
        read("owner/name")


def test_strict_refusal_of_a_record_is_not_taken_for_a_broken_stream(hub, monkeypatch):
    hub(refusal(errors.HfHubHTTPError, 503))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: [{"text": None}])
    with pytest.raises(DataError, match="owner/name/train:0 has no text"):
        read("owner/name", strict=True)


def test_a_tokenizer_path_that_is_not_there_is_never_sent_to_the_hub(hub):
    hub(AssertionError("asked the hub"))
    for name in ("/nonexist", "./nonexist", "nonexist/"):
        with pytest.raises(DataError, match="no such folder exists here"):
            pretrained(name)


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (httpx.ConnectError("Name or service not known"), "cannot be loaded"),
        (refusal(errors.RepositoryNotFoundError, 401), "the hub knows no such name"),
    ],
)
def test_an_unknown_tokenizer_is_one_line(hub, failure, reason):
    hub(failure)
    with pytest.raises(DataError, match=reason) as error:
        pretrained("nobody/has-this-tokenizer")
    assert "\n" not in str(error.value)
