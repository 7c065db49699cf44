"""Prepare a corpus, or reuse what an earlier preparation left.

    corpus = prepare(CorpusConfig(), TokenizerConfig(), RowsConfig(), cache_dir=".cache")

A preparation is a folder named after its inputs and settings, so a change of either makes a new
one and the old one stays usable.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workbench.config import CorpusConfig, RowsConfig, TokenizerConfig
from workbench.core import DataError
from workbench.data.packing import Preparation, settings_of
from workbench.data.prepared import FORMAT, PreparedCorpus
from workbench.data.reading import Progress
from workbench.data.sources import Source, open_source
from workbench.data.tokenizer import tokenizer_fingerprint

_NO_LOCKS = frozenset((errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP))


def prepare(
    corpus: CorpusConfig,
    tokenizer: TokenizerConfig,
    rows: RowsConfig,
    *,
    cache_dir: Path | str | None = None,
    progress: Progress | None = None,
    verify: bool = False,
) -> PreparedCorpus:
    """Rows of a corpus, prepared now, continued, or reused when nothing has changed.

    Any number of processes may call it at once: one prepares, the others wait for it.

    Args:
        cache_dir: where prepared corpora are kept; `default_cache_dir()` when None.
        progress: called as progress(what, done, total or None).
        verify: check every shard's checksum even when the corpus is large.
    Raises:
        DataError: missing, empty or unreadable text; too little text for a row; disk full or
            without locks; a worker that died; a corrupt shard.  What is prepared so far is kept.
    """
    source = open_source(corpus)
    settings = _settings(corpus, tokenizer, rows, source)
    key = hashlib.blake2b(json.dumps(settings).encode(), digest_size=8).hexdigest()
    slug = re.sub(r"[^A-Za-z0-9]+", "-", corpus.name).strip("-")[-40:]
    folder = Path(cache_dir or default_cache_dir()).expanduser() / f"{slug}-{key}"
    with _disk_errors(folder):
        if not (folder / "manifest.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder, progress):
                if not (folder / "manifest.json").exists():
                    work = Preparation(folder, corpus, tokenizer, rows, source, progress)
                    work.run(key)
    return PreparedCorpus.open(folder, verify=verify)


def default_cache_dir() -> Path:
    """`$WORKBENCH_CACHE`, or `.cache/workbench` in the home directory."""
    return Path(os.environ.get("WORKBENCH_CACHE") or Path.home() / ".cache" / "workbench")


def _settings(
    corpus: CorpusConfig, tokenizer: TokenizerConfig, rows: RowsConfig, source: Source
) -> list[Any]:
    """Everything the prepared bytes depend on."""
    parts = [settings_of(corpus), *(part.model_dump(mode="json") for part in (tokenizer, rows))]
    return [FORMAT, *parts, tokenizer_fingerprint(tokenizer.name), source.fingerprint()]


@contextmanager
def _locked(folder: Path, progress: Progress | None) -> Iterator[None]:
    """Only one process prepares a folder; the others wait and then find it finished, or continue
    where it was killed.

    Raises:
        DataError: the file system knows no locks.
    """
    with (folder / "lock").open("w") as lock:
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if progress is not None:
                    progress("waiting for another process that prepares this corpus", 0, None)
                fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            raise DataError(
                f"the file system of {folder} has no locks: two processes could write there",
                remedy="choose a cache_dir on another one",
            ) from error
        yield


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise DataError(
            f"{'disk full' if full else 'no permission'} while preparing {folder}",
            remedy="free space and run again: it continues where it stopped"
            if full
            else "choose a cache_dir you can write to",
        ) from error
