"""A corpus with one more domain, of random letters: what no good policy spends its budget on.

    open_source(CorpusConfig(name="installed", noise_mb=1.0))     # a WithNoise over the corpus

How much a mixer or a selector gives to this domain is known to be wasted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workbench.config import CorpusConfig
from workbench.core import ConfigError, RandomStreams
from workbench.data.planted import noise_text
from workbench.data.sources import Document, Intake, Source

NOISE = "noise"


class WithNoise:
    """The documents of another source, after `noise_mb` of generated ones in a domain `noise`."""

    def __init__(self, source: Source, config: CorpusConfig):
        self._source, self._config = source, config
        self.notes = source.notes
        self._generating = True
        self._refuse_a_second_noise(source.domains or ())

    @property
    def domains(self) -> tuple[str, ...] | None:
        known = self._source.domains
        return None if known is None else (*known, NOISE)

    def fingerprint(self) -> str:
        return f"{self._source.fingerprint()} with noise 1"

    def position(self) -> Any:
        """That of the other source, once the noise has been handed out."""
        return None if self._generating else self._source.position()

    def documents(self, intake: Intake, after: Any = None) -> Iterator[Document]:
        # First, so that a stream that ends early, or never, cannot keep it out.
        self._generating = True
        if after is None:
            yield from self._noise(intake)
        self._generating = False
        for document in self._source.documents(intake, after):
            self._refuse_a_second_noise((document.domain,))
            yield document

    def _noise(self, intake: Intake) -> Iterator[Document]:
        streams = RandomStreams(self._config.seed)
        size, index = 0.0, 0
        while size < (self._config.noise_mb or 0) * 1e6 and NOISE not in intake.full:
            text = noise_text(streams.at("noise domain", index))
            yield Document(text, NOISE, f"noise/{index}")
            size, index = size + len(text), index + 1
        # An intake waits for every domain it knows of; this one gives no more.
        intake.full.add(NOISE)

    def _refuse_a_second_noise(self, domains: tuple[str, ...]) -> None:
        if NOISE in domains:
            raise ConfigError(
                f"corpus '{self._config.name}' has a domain '{NOISE}' of its own",
                remedy="leave out noise_mb",
            )
