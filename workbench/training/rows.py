"""The rows that a run was started on, for whoever continues it or shows their text.

    prepared_before(folder)            # None when they are gone
    prepared_again(folder)             # then made once more
    prepared_corpus(run).text(sample_id)

They are found by name, also when the text they were made from has changed since.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.config import RunConfig
from workbench.core import RunError
from workbench.data import PreparedCorpus, default_cache_dir, prepare
from workbench.tracking import RunFolder

if TYPE_CHECKING:
    from workbench.training.run import Run


def prepared_before(
    folder: RunFolder, cache_dir: str | Path | None = None
) -> PreparedCorpus | None:
    """The prepared corpus that a run's folder names, or None when it is not in the cache.

    Raises:
        DataError: it is there and damaged.
    """
    name = folder.environment.get("prepared")
    path = Path(cache_dir or default_cache_dir()) / (name or "")
    return PreparedCorpus.open(path) if name and (path / "manifest.json").exists() else None


def prepared_again(
    folder: RunFolder,
    cache_dir: str | Path | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> PreparedCorpus:
    """The prepared corpus that a run's folder names, made from its text again where it is gone.

    Raises:
        DataError: it is damaged, or its text cannot be had any more.
    """
    config = RunConfig(**folder.config)
    return prepared_before(folder, cache_dir) or prepare(
        config.corpus, config.tokenizer, config.rows, cache_dir=cache_dir, progress=progress
    )


def prepared_corpus(run: Run, *, cache_dir: str | Path | None = None) -> PreparedCorpus:
    """The prepared corpus of a run; reads what is there and prepares nothing.

    Args:
        cache_dir: where prepared corpora are kept; see `data.prepare`.
    Raises:
        RunError: the preparation is not there.
        DataError: it is there and damaged.
    """
    corpus = prepared_before(run.folder, cache_dir)
    if corpus is None:
        raise RunError(
            f"the text of {run.path.name} is not in {cache_dir or default_cache_dir()}",
            remedy="set WORKBENCH_CACHE to the cache it was prepared in, or give corpus=",
        )
    return corpus
