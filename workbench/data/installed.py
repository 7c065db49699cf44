"""The default corpus: text files of the installed Python environment, read in place.

    CorpusConfig(name="installed")        # no download, eight domains of different redundancy

Files differ between machines, so results compare only where the content hash is equal.  Nothing
is copied: rows hold token ids under the cache folder, and the text stays where it is installed.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from workbench.config import CorpusConfig
from workbench.core import DataError
from workbench.data.files import decode_text, order_key
from workbench.data.sources import Document, Intake

DOMAINS = (
    "python_code",
    "api_prose",
    "project_prose",
    "licences",
    "cpp_headers",
    "json_yaml",
    "javascript",
    "html_css",
)
MIN_DOMAINS = 5
MIN_DOMAIN_BYTES = 150_000
MIN_DOCUMENT_BYTES = 500
MIN_DOCSTRING_CHARACTERS = 300
DOCSTRING_SHARE = 0.1
"""Rough part of a module's bytes that its long docstrings make up, to judge what there is."""

PROSE_PACKAGES = frozenset(
    (
        "numpy",
        "scipy",
        "pandas",
        "sklearn",
        "torch",
        "transformers",
        "matplotlib",
        "datasets",
        "networkx",
        "sympy",
    )
)
LEFT_OUT_FOLDERS = frozenset(
    ("__pycache__", "site-packages", "dist-packages", "test", "tests", "idle_test", "workbench")
)
_LICENCE = re.compile(r"(licen[cs]e|copying|notice|copyright)", re.IGNORECASE)
_PROSE = re.compile(r"(readme|changes|changelog|history|news|metadata$)", re.IGNORECASE)
_BY_SUFFIX = {
    **dict.fromkeys((".h", ".hpp", ".cuh"), "cpp_headers"),
    **dict.fromkeys((".json", ".yaml", ".yml"), "json_yaml"),
    **dict.fromkeys((".js", ".mjs"), "javascript"),
    **dict.fromkeys((".html", ".htm", ".css"), "html_css"),
    **dict.fromkeys((".md", ".rst"), "project_prose"),
}
_DOCSTRING = re.compile(r'^[ \t]*r?"""(.+?)"""', re.DOTALL | re.MULTILINE)
_CODE_SUFFIXES = frozenset((".py", ".pyc", ".so", ".pyi"))


@dataclass(frozen=True)
class _Candidate:
    domain: str
    relative: str
    path: Path
    bytes: int


class InstalledSource:
    """Standard library, packages, and the front end of Jupyter, sorted into domains by kind.

    Reading raises DataError when fewer than five domains have enough text.
    """

    def __init__(self, config: CorpusConfig):
        self.config = config
        self.notes: list[str] = []

    @property
    def domains(self) -> tuple[str, ...]:
        """The kinds with enough text; the others are left out, with a note."""
        return self._domains

    @cached_property
    def _domains(self) -> tuple[str, ...]:
        available: dict[str, float] = dict.fromkeys(DOMAINS, 0.0)
        for candidate in self._candidates:
            available[candidate.domain] += self._worth(candidate)
        wanted = min(MIN_DOMAIN_BYTES, (self.config.max_domain_mb or 1.0) * 1e6)
        for domain in DOMAINS:
            if available[domain] < wanted:
                self.notes.append(f"left out '{domain}': {available[domain] / 1e3:.0f} kB of text")
        domains = tuple(d for d in DOMAINS if available[d] >= wanted)
        if len(domains) < MIN_DOMAINS:
            raise DataError(
                f"the installed environment has text for {len(domains)} domains, "
                f"{MIN_DOMAINS} are needed ({'; '.join(self.notes)})",
                remedy="install the workbench with its dependencies, or name your own folder",
            )
        return domains

    @cached_property
    def _candidates(self) -> list[_Candidate]:
        return sorted(_candidates(), key=lambda c: order_key(self.config.seed, c.relative))

    def _worth(self, candidate: _Candidate) -> float:
        limit = (self.config.max_document_kb or float("inf")) * 1e3
        share = DOCSTRING_SHARE if candidate.domain == "api_prose" else 1.0
        return min(candidate.bytes * share, limit)

    def fingerprint(self) -> str:
        """Python's version and what is installed when; no file is opened."""
        installed = sorted(
            (entry.name, entry.stat().st_mtime_ns)
            for folder in _package_folders()
            for entry in os.scandir(folder)
            if entry.name.endswith((".dist-info", ".egg-info"))
            and not entry.name.startswith("workbench-")
        )
        return json.dumps(["installed 1", sys.version, installed])

    def position(self) -> None:
        """Not told: reading again is quick."""

    def documents(self, intake: Intake, after: None = None) -> Iterator[Document]:
        for candidate in self._candidates:
            if candidate.domain in self.domains and candidate.domain not in intake.full:
                yield from _read(candidate, intake)


def _package_folders() -> list[Path]:
    paths = sysconfig.get_paths()
    return sorted({Path(paths[name]).resolve() for name in ("purelib", "platlib")})


def _candidates() -> Iterator[_Candidate]:
    """Every file that belongs to a domain; symbolic links are passed over."""
    paths = sysconfig.get_paths()
    yield from _zone("stdlib", Path(paths["stdlib"]).resolve())
    for folder in _package_folders():
        yield from _zone("packages", folder)
    yield from _zone("share", Path(paths["data"]).resolve() / "share" / "jupyter")


def _zone(zone: str, root: Path) -> Iterator[_Candidate]:
    stack = [root] if root.is_dir() else []
    while stack:
        folder = stack.pop()
        for entry in sorted(os.scandir(folder), key=lambda e: e.name):
            if entry.is_symlink():
                continue
            if entry.is_dir():
                if entry.name not in LEFT_OUT_FOLDERS:
                    stack.append(Path(entry.path))
                continue
            relative = os.path.relpath(entry.path, root)
            domain = _domain(zone, relative, entry.name)
            if domain is not None and (size := entry.stat().st_size) >= MIN_DOCUMENT_BYTES:
                yield _Candidate(domain, f"{zone}/{relative}", Path(entry.path), size)


def _domain(zone: str, relative: str, name: str) -> str | None:
    """The kind of text of a file, by its name and place."""
    suffix = os.path.splitext(name)[1].lower()
    if zone == "stdlib":
        return _standard_library_domain(relative, suffix)
    if suffix == ".py":
        return "api_prose" if relative.split(os.sep)[0] in PROSE_PACKAGES else None
    if suffix in _CODE_SUFFIXES:
        return None
    if _LICENCE.match(name):
        return "licences"
    return _BY_SUFFIX.get(suffix) or ("project_prose" if _PROSE.match(name) else None)


def _standard_library_domain(relative: str, suffix: str) -> str | None:
    if relative == os.path.join("pydoc_data", "topics.py"):
        return "project_prose"
    return "python_code" if suffix == ".py" else None


def _read(candidate: _Candidate, intake: Intake) -> Iterator[Document]:
    domain, path = candidate.domain, candidate.path
    if path.name == "topics.py":
        yield from _help_topics(path)
        return
    # Docstrings are cut after they are picked out, the rest when it is read.
    limit = None if domain == "api_prose" else intake.max_document_bytes
    try:
        with path.open("rb") as file:
            text = decode_text(file.read(-1 if limit is None else limit + 1), limit)
    except (OSError, ValueError) as error:
        intake.skip(domain, str(path), str(error), whole_file=True)
        return
    if domain == "api_prose":
        text = _docstrings(text)
    elif path.name == "METADATA":
        text = text.partition("\n\n")[2]
    if len(text) >= MIN_DOCUMENT_BYTES:
        yield Document(text, domain, str(path))


def _docstrings(code: str) -> str:
    """The long docstrings of a module, dedented, one after the other."""
    found = (inspect.cleandoc(match[1]) for match in _DOCSTRING.finditer(code))
    return "\n\n".join(text for text in found if len(text) >= MIN_DOCSTRING_CHARACTERS)


def _help_topics(path: Path) -> Iterator[Document]:
    from pydoc_data.topics import topics

    for name, text in sorted(topics.items()):
        if len(text) >= MIN_DOCUMENT_BYTES:
            yield Document(text, "project_prose", f"{path}#{name}")
