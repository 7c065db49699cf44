"""Text in, rows out: sources, tokenizer, packed shards, and the sampler over domains.

    corpus = prepare(CorpusConfig(), TokenizerConfig(), RowsConfig(), cache_dir=".cache")
    sampler = MixtureSampler(corpus, batch_rows=16, seed=0)

Names load when first used: preparing and reading need no torch, only the sampler does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.data.preparation import default_cache_dir, prepare
    from workbench.data.prepared import PreparedCorpus
    from workbench.data.sampler import MixtureSampler, RowSampler
    from workbench.data.sources import Document

_HOME = {
    "Document": "sources",
    "MixtureSampler": "sampler",
    "PreparedCorpus": "prepared",
    "RowSampler": "sampler",
    "default_cache_dir": "preparation",
    "prepare": "preparation",
}

__all__ = [
    "Document",
    "MixtureSampler",
    "PreparedCorpus",
    "RowSampler",
    "default_cache_dir",
    "prepare",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"workbench.data.{_HOME[name]}"), name)
    raise AttributeError(f"module 'workbench.data' has no attribute {name!r}")
