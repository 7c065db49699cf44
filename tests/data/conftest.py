"""A small prepared corpus, made once for the whole room."""

from __future__ import annotations

import pytest

from workbench.config import CorpusConfig, RowsConfig, TokenizerConfig
from workbench.data import prepare

CORPUS = CorpusConfig(name="planted", max_domain_mb=0.05)
TOKENIZER = TokenizerConfig(vocab_size=320, train_mb=0.1)
ROWS = RowsConfig(context_tokens=32, shard_mib=0.01)


@pytest.fixture(scope="session")
def planted(tmp_path_factory):
    """Six domains of 50 kB in rows of 32 tokens, in shards of about 160 rows."""
    return prepare(CORPUS, TOKENIZER, ROWS, cache_dir=tmp_path_factory.mktemp("planted"))
