"""A domain of noise beside a corpus' own."""

import pytest

from workbench.config import CorpusConfig
from workbench.core import ConfigError
from workbench.data.sources import Intake, open_source


def read(config: CorpusConfig):
    return list(Intake(config).take(open_source(config)))


@pytest.fixture
def texts(tmp_path):
    for domain in ("tales", "code"):
        (tmp_path / domain).mkdir()
        for i in range(3):
            (tmp_path / domain / f"{i}.txt").write_text(f"{domain} text {i} " * 20)
    return tmp_path


def test_noise_comes_beside_all_documents_of_the_corpus(texts):
    plain = read(CorpusConfig(name=str(texts)))
    noisy = read(CorpusConfig(name=str(texts), noise_mb=0.01))
    own = [document for document in noisy if document.domain != "noise"]
    noise = [document for document in noisy if document.domain == "noise"]
    assert own == plain and len(plain) == 6
    assert sum(len(document.text) for document in noise) == 10_000
    assert len({document.text for document in noise}) == len(noise)
    assert noisy == read(CorpusConfig(name=str(texts), noise_mb=0.01))
    assert open_source(CorpusConfig(name=str(texts), noise_mb=0.01)).domains in (
        None,
        ("code", "tales", "noise"),
    )


def test_the_cap_of_a_domain_holds_for_noise_too(texts):
    capped = read(CorpusConfig(name=str(texts), noise_mb=0.01, max_domain_mb=0.004))
    assert sum(len(d.text) for d in capped if d.domain == "noise") == 4_000


def test_a_corpus_with_noise_of_its_own_is_refused():
    with pytest.raises(ConfigError, match="domain 'noise' of its own"):
        open_source(CorpusConfig(name="planted", noise_mb=0.01))
