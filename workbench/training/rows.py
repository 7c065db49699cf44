"""The rows that a run was started on, for whoever shows their text.

corpus = prepared_corpus(run)
corpus.text(sample_id)
"""

from __future__ import annotations

from pathlib import Path

from workbench.core import RunError
from workbench.data import PreparedCorpus, default_cache_dir
from workbench.training.run import Run


def prepared_corpus(run: Run, *, cache_dir: str | Path | None = None) -> PreparedCorpus:
    """The prepared corpus of a run; reads what is there and prepares nothing.

    Args:
        cache_dir: where prepared corpora are kept; see `data.prepare`.
    Raises:
        RunError: the preparation is not there.
        DataError: it is there and damaged.
    """
    name = run.folder.environment.get("prepared")
    folder = Path(cache_dir or default_cache_dir())
    if not name or not (folder / name / "manifest.json").exists():
        raise RunError(
            f"the text of {run.path.name} is not in {folder}",
            remedy="set WORKBENCH_CACHE to the cache it was prepared in, or give corpus=",
        )
    return PreparedCorpus.open(folder / name)
