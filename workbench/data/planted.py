"""A generated corpus with known truth, for tests and for what-if questions.

    CorpusConfig(name="planted", seed=3, max_domain_mb=0.05)

`clean_*` are two word languages and one record format with learnable structure; `duplicated`
repeats few documents, some copies with one word changed; `shuffled` is a clean language with the
words of each document permuted; `noise` is letters drawn uniformly.  The origin of a document
states its truth: `planted:duplicated/17#copy2`, `planted:duplicated/17#near1`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from workbench.config import CorpusConfig
from workbench.core import RandomStreams
from workbench.data.sources import Document, Intake

DOMAINS = ("clean_prose", "clean_tales", "clean_records", "duplicated", "shuffled", "noise")
DEFAULT_DOMAIN_MB = 0.5
WORDS = 300
SUCCESSORS = 6
COPIES = 8
MIN_DISTINCT = 40
TYPICAL_DOCUMENT_BYTES = 500


class Language:
    """A first-order Markov chain over invented words, with sentences.

    Each word has a few successors with falling probabilities, so that a model can learn it.
    """

    def __init__(self, rng: np.random.Generator, syllables: tuple[str, str]):
        onsets, vowels = (np.array(list(letters)) for letters in syllables)
        lengths = rng.integers(1, 4, WORDS)
        self.words = [
            "".join(rng.choice(onsets) + rng.choice(vowels) for _ in range(length))
            for length in lengths
        ]
        self.successors = rng.integers(0, WORDS, (WORDS, SUCCESSORS)).tolist()
        odds = 0.5 ** np.arange(1, SUCCESSORS + 1)
        self.cumulative = np.cumsum(odds / odds.sum())

    def sentences(self, rng: np.random.Generator, words: int) -> list[str]:
        """`words` words, capitalised and closed by a stop every dozen or so."""
        choices = np.searchsorted(self.cumulative, rng.random(words), side="right").tolist()
        word = int(rng.integers(WORDS))
        chosen = []
        for choice in choices:
            word = self.successors[word][min(choice, SUCCESSORS - 1)]
            chosen.append(self.words[word])
        stops = [0, *np.cumsum(rng.integers(6, 16, words // 6 + 1)).tolist()]
        for first, end in pairwise(stops):
            if first >= words:
                break
            chosen[first] = chosen[first].capitalize()
            chosen[min(end, words) - 1] += "."
        return chosen


class PlantedSource:
    """Documents generated one by one from the seed; nothing is read and nothing is kept."""

    def __init__(self, config: CorpusConfig):
        self.config = config
        self.domains: tuple[str, ...] = DOMAINS
        self.notes: list[str] = []
        self._streams = RandomStreams(config.seed)
        prose = Language(self._streams.at("planted prose"), ("bdfgklmnprst", "aeiou"))
        tales = Language(self._streams.at("planted tales"), ("chjqvwxyz", "aeou"))
        self._languages = {"clean_prose": prose, "clean_tales": tales}

    def fingerprint(self) -> str:
        return "planted 1"

    def position(self) -> None:
        """Not told: reading again is quick."""

    def documents(self, intake: Intake, after: None = None) -> Iterator[Document]:
        """One document of each domain in turn, until every domain is full."""
        megabytes = self.config.max_domain_mb or DEFAULT_DOMAIN_MB
        produced = Counter[str]()
        index = 0
        while open_domains := [
            d for d in DOMAINS if d not in intake.full and produced[d] < megabytes * 1e6
        ]:
            for domain in open_domains:
                origin, text = self._document(domain, index)
                produced[domain] += len(text)
                yield Document(text, domain, f"planted:{origin}")
            index += 1

    def _document(self, domain: str, index: int) -> tuple[str, str]:
        rng = self._streams.at(f"planted {domain}", index)
        if domain == "duplicated":
            return self._copy(index)
        if domain == "clean_records":
            return f"{domain}/{index}", _records(rng)
        if domain == "noise":
            return f"{domain}/{index}", noise_text(rng)
        if domain == "shuffled":
            return f"{domain}/{index}", " ".join(rng.permutation(self._prose("shuffled", index)))
        return f"{domain}/{index}", " ".join(self._prose(domain, index))

    def _prose(self, domain: str, index: int) -> list[str]:
        rng = self._streams.at(f"planted words {domain}", index)
        language = self._languages.get(domain, self._languages["clean_prose"])
        return language.sentences(rng, int(rng.integers(60, 140)))

    def _copy(self, index: int) -> tuple[str, str]:
        """Copy number `index // distinct` of original `index % distinct`; one in four is near."""
        megabytes = self.config.max_domain_mb or DEFAULT_DOMAIN_MB
        distinct = max(MIN_DISTINCT, int(megabytes * 1e6 / TYPICAL_DOCUMENT_BYTES / COPIES))
        copy, original = divmod(index, distinct)
        words = self._prose("duplicated", original)
        if copy % 4 != 1:
            return f"duplicated/{original}#copy{copy}", " ".join(words)
        rng = self._streams.at("planted near", original, copy)
        words[int(rng.integers(len(words)))] = f"changed{copy}"
        return f"duplicated/{original}#near{copy}", " ".join(words)


def _records(rng: np.random.Generator) -> str:
    """Lines of `key = value` whose later fields follow from the earlier ones."""
    lines = []
    for number in range(int(rng.integers(8, 20))):
        width, height = rng.integers(1, 30, 2).tolist()
        shape = "square" if width == height else "wide" if width > height else "tall"
        lines.append(f"item {number}: width={width} height={height} area={width * height} {shape}")
    return "\n".join(lines)


def noise_text(rng: np.random.Generator) -> str:
    """500 letters and spaces, independent and uniform."""
    letters = rng.choice(np.frombuffer(b"abcdefghijklmnopqrstuvwxyz     ", np.uint8), size=500)
    return letters.tobytes().decode()
