"""Any `datasets` name, streamed: nothing is downloaded beyond what is read.

    CorpusConfig(name="owner/name", subset="default", domain_column="meta.set_name")
    CorpusConfig(name="owner/name@revision")

A dataset is fetched again only when the settings change; pin a revision for exact repetition.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from workbench.config import CorpusConfig
from workbench.core import DataError
from workbench.data.records import documents_of
from workbench.data.sources import Document, Intake


class HubSource:
    """Records of one split of a dataset, in its own order."""

    def __init__(self, config: CorpusConfig):
        self.config = config
        self.name, _, self.revision = config.name.partition("@")
        self.domains = None if config.domain_column else (self._folder,)
        self.notes: list[str] = []

    @property
    def _folder(self) -> str:
        return self.config.subset or self.name.rstrip("/").rpartition("/")[2]

    def fingerprint(self) -> str:
        config = self.config
        return json.dumps([config.name, config.subset, config.split])

    def documents(self, intake: Intake) -> Iterator[Document]:
        yield from documents_of(self._records(), self.config, self._folder, intake)

    def _records(self) -> Iterator[tuple[str, Any]]:
        records = self._load()
        try:
            for number, record in enumerate(records):
                yield f"{self.config.name}/{self.config.split}:{number}", dict(record)
        except Exception as error:  # the same kinds as on loading, and pyarrow's
            raise self._unreadable(error) from None

    def _load(self):
        import datasets

        config = self.config
        try:
            return datasets.load_dataset(
                self.name,
                config.subset,
                split=config.split,
                streaming=config.streaming,
                revision=self.revision or None,
            )
        except Exception as error:  # datasets raises its own, fsspec's, httpx's and builtin errors
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> DataError:
        reason = str(error).strip().splitlines()
        return DataError(
            f"corpus '{self.config.name}' is no built-in, catalogue name or path, and as a dataset "
            f"it cannot be read: {type(error).__name__}: {reason[0] if reason else ''}",
            remedy="check the name, subset and split, and the network; or name a local folder",
        )
