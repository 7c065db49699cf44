"""Any `datasets` name, streamed: nothing is downloaded beyond what is read.

    CorpusConfig(name="owner/name", subset="default", domain_column="meta.set_name")
    CorpusConfig(name="owner/name@revision")

A dataset is fetched again only when the settings change; pin a revision for exact repetition.
The hub is asked once for a name before its own clients are, which retry for a minute.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from workbench.config import CorpusConfig
from workbench.core import DataError
from workbench.data.records import documents_of
from workbench.data.sources import Document, Intake

ANSWER_SECONDS = 10.0
WITHOUT_NETWORK = (
    "check the network; without it `installed`, `planted` and local files work, and with "
    "streaming=False a dataset downloaded before"
)
_NAME = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*", re.ASCII)


def is_repository_name(name: str) -> bool:
    """Whether `name` or `owner/name` keeps the hub's rules, so that it may be asked for there."""
    forbidden = name.endswith(("-", ".")) or "--" in name or ".." in name or len(name) > 96
    return _NAME.fullmatch(name) is not None and not forbidden


def answers(kind: str, name: str, revision: str | None = None) -> bool:
    """Whether the hub answers, with one request; False without network, or in offline mode.

    Args:
        kind: "dataset" or "model".
    Raises:
        Exception: that of `huggingface_hub` for an unknown, private or malformed name.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    ask = HfApi().dataset_info if kind == "dataset" else HfApi().model_info
    try:
        ask(name, revision=revision, timeout=ANSWER_SECONDS)
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status < 500 and status not in (408, 429):
            raise
    except HFValidationError:
        raise
    except Exception:  # those of the HTTP client, whose package has changed, and of offline mode
        return False
    return True


def reason_of(error: Exception) -> str:
    """Why the hub or its clients failed, in one line."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return "it is gated: ask for access on its page, then log in with `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return "the hub knows no such name, or it is private and needs `hf auth login`"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


class HubSource:
    """Records of one split of a dataset, in its own order."""

    def __init__(self, config: CorpusConfig):
        self.config = config
        self.name, _, self.revision = config.name.partition("@")
        self.domains = None if config.domain_column else (self._folder,)
        self.notes: list[str] = []
        self._stream: Any = None
        self._read = 0

    @property
    def _folder(self) -> str:
        return self.config.subset or self.name.rstrip("/").rpartition("/")[2]

    def fingerprint(self) -> str:
        config = self.config
        return json.dumps([config.name, config.subset, config.split])

    def position(self) -> dict[str, Any] | None:
        """Records read, and where a stream is in its files as `datasets` tells it."""
        import datasets

        if isinstance(self._stream, datasets.Dataset):
            return {"record": self._read, "stream": None}
        if isinstance(self._stream, datasets.IterableDataset):
            return {"record": self._read, "stream": self._stream.state_dict()}
        return None

    def documents(self, intake: Intake, after: dict[str, Any] | None = None) -> Iterator[Document]:
        yield from documents_of(
            self._records(after),
            self.config,
            self._folder,
            intake,
            columns_known=after is not None,
        )

    def _records(self, after: dict[str, Any] | None) -> Iterator[tuple[str, Any]]:
        self._read = 0
        self._stream = self._load()
        try:
            for record in self._stream if after is None else self._behind(after):
                self._read += 1
                yield f"{self.config.name}/{self.config.split}:{self._read - 1}", dict(record)
        except Exception as error:  # the same kinds as on loading, and pyarrow's
            raise self._unreadable(error) from None

    def _behind(self, after: dict[str, Any]) -> Iterable[Any]:
        self._read = after["record"]
        if after["stream"] is None:
            rest = range(self._read, len(self._stream))
            return self._stream.select(rest) if rest else ()
        self._stream.load_state_dict(after["stream"])
        return self._stream

    def _load(self):
        self._require_answer()
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

    def _require_answer(self) -> None:
        if Path(self.name).exists():
            return
        try:
            there = answers("dataset", self.name, self.revision or None)
        except Exception as error:  # every kind of refusal that `huggingface_hub` has
            raise self._unreadable(error) from None
        # Without network, a dataset that was downloaded before can still be read from its cache.
        if not there and self.config.streaming:
            raise self._refusal("the hub does not answer", WITHOUT_NETWORK)

    def _unreadable(self, error: Exception) -> Exception:
        for cause in (error, error.__cause__):
            if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
                return cause
        if self._read:
            return DataError(
                f"corpus '{self.config.name}' broke off after record {self._read}: "
                f"{reason_of(error)}",
                remedy="run again: what was read is kept, and it continues there",
            )
        return self._refusal(
            reason_of(error),
            "check the name, subset and split, and the network; or name a local folder",
        )

    def _refusal(self, reason: str, remedy: str) -> DataError:
        return DataError(
            f"corpus '{self.config.name}' is no file or folder here, and as a dataset it cannot be "
            f"read: {reason}",
            remedy=remedy,
        )
