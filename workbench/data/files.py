"""The user's own files: a folder, a glob, or one file of text, JSON lines or parquet.

    CorpusConfig(name="~/texts")                       # <domain>/**/*.txt, one document a file
    CorpusConfig(name="dump/*.jsonl.zst", domain_column="meta.source")

The domain is the column `domain_column` if given, else the first folder below the root (the
root's own name for files directly in it).  Files are read in an order given by a hash of their
relative path, so that a limit takes a spread of them and a new file leaves the others in place.
"""

from __future__ import annotations

import codecs
import glob
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from workbench.config import CorpusConfig
from workbench.core import DataError
from workbench.data import records
from workbench.data.hub import is_repository_name
from workbench.data.sources import Document, Intake

TEXT_SUFFIXES = frozenset(
    (
        ".txt",
        ".text",
        ".md",
        ".markdown",
        ".rst",
        ".tex",
        ".org",
        ".adoc",
        ".py",
        ".pyi",
        ".pyx",
        ".ipynb",
        ".js",
        ".mjs",
        ".ts",
        ".tsx",
        ".jsx",
        ".c",
        ".h",
        ".cc",
        ".cpp",
        ".cxx",
        ".hpp",
        ".cuh",
        ".cu",
        ".java",
        ".kt",
        ".scala",
        ".go",
        ".rs",
        ".rb",
        ".php",
        ".pl",
        ".lua",
        ".r",
        ".jl",
        ".m",
        ".swift",
        ".hs",
        ".ml",
        ".clj",
        ".sh",
        ".sql",
        ".html",
        ".htm",
        ".css",
        ".xml",
        ".svg",
        ".json",
        ".yaml",
        ".yml",
        ".toml",
        ".ini",
        ".cfg",
        ".csv",
        ".tsv",
        ".log",
        ".srt",
        ".vtt",
    )
)
FINGERPRINT = "files 2"
"""Changes when the same files give other documents than with an earlier version."""


def is_path(name: str) -> bool:
    """Whether a corpus name means files, there or not, rather than a dataset to be fetched."""
    if not is_repository_name(name.partition("@")[0]) or glob.has_magic(name):
        return True
    return Path(name).exists() or _kind(Path(name)) is not None


def order_key(seed: int, relative: str) -> bytes:
    """Place of a file in the reading order; independent of the other files."""
    return hashlib.blake2b(f"{seed}:{relative}".encode(), digest_size=8).digest()


def decode_text(data: bytes, limit_bytes: int | None) -> str:
    """UTF-8 text of `data` cut at `limit_bytes`.

    Raises:
        ValueError: saying what makes it not text.
    """
    if b"\0" in data:
        raise ValueError("is binary, not text")
    whole = limit_bytes is None or len(data) <= limit_bytes
    try:
        return codecs.getincrementaldecoder("utf-8-sig")().decode(data[:limit_bytes], final=whole)
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 (byte {error.start})") from None


class FilesSource:
    """Documents of local files, listed once and read one at a time."""

    def __init__(self, config: CorpusConfig):
        self.config = config
        self.notes: list[str] = []
        self._files = self._list()
        self._file, self._place = 0, records.Place()
        folders = sorted({domain for domain, _, _ in self._files})
        self.domains = None if config.domain_column else tuple(folders)

    def fingerprint(self) -> str:
        states = [(rel, p.stat().st_size, p.stat().st_mtime_ns) for _, rel, p in self._files]
        return json.dumps([FINGERPRINT, *sorted(states)])

    def position(self) -> dict[str, Any]:
        return {"file": self._file, **asdict(self._place)}

    def documents(self, intake: Intake, after: dict[str, Any] | None = None) -> Iterator[Document]:
        place = dict(after or {"file": 0})
        first, begun = place.pop("file"), records.Place(**place)
        for index, (domain, _, path) in enumerate(self._files[first:], first):
            here = begun if index == first else records.Place()
            # The rest of a file that was begun is read, as it is by who begins it.
            if not here.lines and self.domains and domain in intake.full:
                continue
            self._file, self._place = index, here
            if _kind(path) == "text":
                yield from _text_file(path, domain, intake, here)
            else:
                yield from records.read_records(path, domain, intake, here)

    def _list(self) -> list[tuple[str, str, Path]]:
        """(domain, relative path, path) of every usable file, in reading order."""
        root, candidates = _candidates(self.config.name)
        found, ignored, seen = [], Counter(), set()
        for path in candidates:
            if not path.is_file():
                ignored["broken link or device"] += 1
                continue
            if _kind(path) is None:
                ignored[path.suffix or "no suffix"] += 1
                continue
            real = path.resolve()
            if real not in seen:
                seen.add(real)
                relative = path.relative_to(root)
                domain = relative.parts[0] if len(relative.parts) > 1 else root.resolve().name
                found.append((domain, relative.as_posix(), path))
        if ignored:
            kinds = ", ".join(f"{n} {suffix}" for suffix, n in ignored.most_common(5))
            self.notes.append(f"ignored {ignored.total()} files of other kinds: {kinds}")
        if not found:
            there = self.notes[-1] if ignored else "it is empty"
            raise DataError(
                f"no text in corpus '{self.config.name}' ({there})",
                remedy="add <domain>/*.txt or another text file, *.jsonl(.gz|.zst) or *.parquet",
            )
        return sorted(found, key=lambda entry: order_key(self.config.seed, entry[1]))


def _candidates(name: str) -> tuple[Path, list[Path]]:
    """The root that relative paths count from, and the files below it."""
    path = Path(name).expanduser()
    if glob.has_magic(str(path)):
        fixed = [p for p in path.parts if not glob.has_magic(p)]
        root = Path(*path.parts[: next(i for i, p in enumerate(path.parts) if glob.has_magic(p))])
        matches = sorted(Path(m) for m in glob.glob(str(path), recursive=True))
        if not matches:
            raise DataError(
                f"no file matches '{name}'", remedy=f"check the pattern below {Path(*fixed[:1])}"
            )
        return root, [m for m in matches if m.is_file()]
    if path.is_file():
        return path.parent, [path]
    if path.is_dir():
        return path, sorted(_walk(path))
    raise DataError(
        f"corpus '{name}' does not exist",
        remedy=f"no such file or folder exists here ({Path.cwd()}): check the path, or create it "
        "as <domain>/*.txt",
    )


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if not f.startswith(".") and f != "__pycache__"]
        yield from (Path(folder, n) for n in names if not n.startswith("."))


def _kind(path: Path) -> str | None:
    if path.name.lower().endswith(records.SUFFIXES):
        return "records"
    return "text" if path.suffix.lower() in TEXT_SUFFIXES else None


def _text_file(path: Path, domain: str, intake: Intake, place: records.Place) -> Iterator[Document]:
    """The one document of a file, unless `place` is behind it."""
    if place.lines:
        return
    limit = intake.max_document_bytes
    try:
        with path.open("rb") as file:
            data = file.read(-1 if limit is None else limit + 1)
        text = decode_text(data, limit)
    except (OSError, ValueError) as error:
        intake.skip(domain, str(path), str(error), whole_file=True)
        return
    if limit is not None and len(data) > limit:
        intake.cut[domain] += 1
    place.lines = 1
    yield Document(text, domain, str(path))
