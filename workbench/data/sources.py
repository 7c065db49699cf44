"""Where documents come from: the contract of a source, its intake, and the choice by name.

    source = open_source(CorpusConfig(name="planted"))
    intake = Intake(config)
    for document in intake.take(source): ...

A source streams documents in an order that depends only on its inputs and settings, so a killed
preparation can go on from a position, or replay it.  The intake applies the limits and counts what
was left out.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from workbench.config import CorpusConfig
from workbench.core import DataError

PATIENCE_DOCUMENTS = 20_000
"""Documents in a row that no domain wants before the rest of a stream is left unread."""

NEAR = 0.8
"""Likeness from which an unknown name is a catalogue name misspelt; `texts` is none."""

MAX_SKIP_EXAMPLES = 5
"""Skips named per domain; all are counted."""


@dataclass(frozen=True)
class Document:
    """Raw text with its domain and where it came from (a path, a URL, or a generator's truth)."""

    text: str
    domain: str
    origin: str


class Source(Protocol):
    """A stream of documents.

    notes: one-line remarks for the manifest, such as a domain that was left out.
    """

    notes: list[str]

    @property
    def domains(self) -> tuple[str, ...] | None:
        """The domains known before reading, in order; None when only reading tells."""
        ...

    def fingerprint(self) -> str:
        """Text that changes whenever the documents may have changed; cheap to compute."""
        ...

    def documents(self, intake: Intake, after: Any = None) -> Iterator[Document]:
        """Documents in a fixed order; may leave out those of domains in `intake.full`.

        Args:
            after: a `position` to go on from, with an intake in the state it had there.
        """
        ...

    def position(self) -> Any:
        """Where the document handed out last ends, as JSON; None where it cannot be told, and only
        reading from the start leads there."""
        ...


class Intake:
    """Limits per document and per domain, and the account of what was left out.

    State fields: domains full and seen, bytes, cut and skipped documents per domain, the skips
    named, and the documents refused in a row.  `notes` are remarks for the manifest.

    Args:
        config: limits, wanted domains and strictness.
        max_domain_bytes: text per domain; the config's own limit when None.
    """

    def __init__(self, config: CorpusConfig, max_domain_bytes: float | None = None):
        own = config.max_domain_mb and config.max_domain_mb * 1e6
        limits = [limit for limit in (own, max_domain_bytes) if limit is not None]
        self.config = config
        self.max_domain_bytes = min(limits, default=float("inf"))
        self.full: set[str] = set()
        self.seen: set[str] = set()
        self.bytes: Counter[str] = Counter()
        self.cut: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self._files_named: Counter[str] = Counter()
        self._refused_in_a_row = 0
        self.notes: list[str] = []

    @property
    def max_document_bytes(self) -> int | None:
        kilobytes = self.config.max_document_kb
        return None if kilobytes is None else int(kilobytes * 1e3)

    @property
    def skip_examples(self) -> list[str]:
        """The first skips of each domain, files before records."""
        return [example for examples in self.examples.values() for example in examples]

    def skip(self, domain: str, origin: str, why: str, *, whole_file: bool = False) -> None:
        """Count an unreadable record, or a file (the rest of it): those are named first.

        Raises:
            DataError: the config is `strict`.
        """
        if self.config.strict:
            raise DataError(
                f"{origin} {why}", remedy="repair or remove it, or set strict=False to skip it"
            )
        self.skipped[domain] += 1
        examples = self.examples.setdefault(domain, [])
        place = self._files_named[domain] if whole_file else len(examples)
        examples.insert(place, f"{origin} {why}")
        self._files_named[domain] += whole_file
        del examples[MAX_SKIP_EXAMPLES:]

    def take(self, source: Source, after: Any = None) -> Iterator[Document]:
        """The documents of `source` that fit the limits, until none can be wanted any more.

        Args:
            after: position of the source to go on from, with this intake's state of that moment.
        """
        known = self.config.domains or source.domains
        if known and self.full.issuperset(known):
            return
        for document in source.documents(self, after):
            admitted = self._admit(document)
            if admitted is not None:
                yield admitted
            if self._refused_in_a_row >= PATIENCE_DOCUMENTS:
                self.notes.append(
                    f"the rest of the text was left unread after {PATIENCE_DOCUMENTS:,} documents "
                    "in a row that no domain wanted"
                )
                return
            if known and self.full.issuperset(known):
                return

    def state_dict(self) -> dict[str, Any]:
        """As JSON, with nothing in common with the intake that goes on."""
        return {
            "full": sorted(self.full),
            "seen": sorted(self.seen),
            "bytes": dict(self.bytes),
            "cut": dict(self.cut),
            "skipped": dict(self.skipped),
            "examples": {domain: list(examples) for domain, examples in self.examples.items()},
            "files_named": dict(self._files_named),
            "refused_in_a_row": self._refused_in_a_row,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.full, self.seen = set(state["full"]), set(state["seen"])
        self.bytes, self.cut = Counter(state["bytes"]), Counter(state["cut"])
        self.skipped = Counter(state["skipped"])
        self.examples = state["examples"]
        self._files_named = Counter(state["files_named"])
        self._refused_in_a_row = state["refused_in_a_row"]

    def _admit(self, document: Document) -> Document | None:
        domain = document.domain
        self.seen.add(domain)
        wanted = self.config.domains is None or domain in self.config.domains
        if not wanted or domain in self.full or not document.text.strip():
            self._refused_in_a_row += 1
            return None
        self._refused_in_a_row = 0
        text, size = self._shorten(document.text, domain)
        self.bytes[domain] += size
        if self.bytes[domain] >= self.max_domain_bytes:
            self.full.add(domain)
        return replace(document, text=text)

    def _shorten(self, text: str, domain: str) -> tuple[str, int]:
        data = text.encode("utf-8", "replace")
        limit = self.max_document_bytes
        if limit is None or len(data) <= limit:
            return data.decode(), len(data)
        self.cut[domain] += 1
        return data[:limit].decode("utf-8", "ignore"), limit


def open_source(config: CorpusConfig) -> Source:
    """The source that `config.name` means: built-in, catalogue, path or glob, `datasets` name.

    Raises:
        DataError: a path that does not exist or holds no text, or a name like a known one.
    """
    source = _named_source(config)
    if config.noise_mb is None:
        return source
    from workbench.data.noise import WithNoise

    return WithNoise(source, config)


def _named_source(config: CorpusConfig) -> Source:
    from workbench.data import catalogue, files, hub, installed, planted

    if config.name == "installed":
        return installed.InstalledSource(config)
    if config.name == "planted":
        return planted.PlantedSource(config)
    if config.name in catalogue.entries():
        return hub.HubSource(catalogue.resolve(config))
    if files.is_path(config.name):
        return files.FilesSource(config)
    near = difflib.get_close_matches(config.name.lower(), catalogue.entries(), 1, NEAR)
    if near and "/" not in config.name:
        raise DataError(
            f"unknown corpus '{config.name}'",
            remedy=f"did you mean '{near[0]}'? no such file or folder exists here",
        )
    return hub.HubSource(config)
