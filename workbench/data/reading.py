"""The documents of a source in batches, from where an earlier reading stopped.

    reading = Reading(corpus, source, mark=None, consumed=0)
    for batch in reading.batches(): ...        # batch.mark, where one is due, goes on from there

A mark holds the source's own position and what the intake has counted, so that going on reads
little again.  A source that cannot tell its position is read again from its start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from workbench.config import CorpusConfig
from workbench.data.sources import Document, Intake, Source

BATCH_DOCUMENTS = 128
BATCH_BYTES = 1_000_000
BATCHES_PER_CHECKPOINT = 8

Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Batch:
    """Documents in order; mark: where reading goes on after them, None where none is due."""

    documents: list[Document]
    mark: dict[str, Any] | None

    @property
    def texts(self) -> list[str]:
        return [document.text for document in self.documents]


class Reading:
    """One pass over a source.

    Args:
        mark: of an earlier pass over the same source; None to start.
        consumed: documents handed out up to `mark`.
        report: told of documents that are read again.
    """

    def __init__(
        self,
        corpus: CorpusConfig,
        source: Source,
        *,
        mark: dict[str, Any] | None,
        consumed: int,
        report: Progress,
    ):
        self.intake = Intake(corpus)
        self._source, self._mark = source, mark
        self._consumed, self._report = consumed, report

    def batches(self) -> Iterator[Batch]:
        """What has not been handed out yet."""
        documents, size, number = [], 0, 0
        for document in self._rest():
            documents.append(document)
            size += len(document.text)
            if len(documents) == BATCH_DOCUMENTS or size >= BATCH_BYTES:
                number += 1
                due = number % BATCHES_PER_CHECKPOINT == 0
                yield Batch(documents, self._here() if due else None)
                documents, size = [], 0
        if documents:
            # The intake has met the end already, so that no mark fits the last document.
            yield Batch(documents, None)

    def end(self) -> dict[str, Any]:
        """The mark after the last batch: nothing is left to read."""
        return {"ended": True, "source": None, "intake": self.intake.state_dict()}

    def _here(self) -> dict[str, Any]:
        """The mark after the document handed out last."""
        position, counted = self._source.position(), self.intake.state_dict()
        return {"ended": False, "source": position, "intake": counted}

    def _rest(self) -> Iterator[Document]:
        mark = self._mark
        if mark is not None and mark["ended"]:
            self.intake.load_state_dict(mark["intake"])
        elif mark is not None and mark["source"] is not None:
            self.intake.load_state_dict(mark["intake"])
            yield from self.intake.take(self._source, mark["source"])
        else:
            yield from self._replayed()

    def _replayed(self) -> Iterator[Document]:
        for number, document in enumerate(self.intake.take(self._source)):
            if number >= self._consumed:
                yield document
            elif number % 1000 == 0:
                self._report("continuing, documents", number, self._consumed)
