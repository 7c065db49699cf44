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
import gzip
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from workbench.config import CorpusConfig
from workbench.core import DataError
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
RECORD_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
PARQUET_BATCH_ROWS = 256


def is_path(name: str) -> bool:
    """Whether a corpus name means files here rather than a dataset to be fetched."""
    if name.startswith(("/", "./", "../", "~", ".")) or glob.has_magic(name):
        return True
    return Path(name).exists() or name.count("/") > 1 or _kind(Path(name)) is not None


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


def field(record: dict[str, Any], column: str, origin: str) -> Any:
    """The value at a dotted column, such as `meta.redpajama_set_name`.

    Raises:
        DataError: naming the fields that are there.
    """
    value: Any = record
    for part in column.split("."):
        if not isinstance(value, dict) or part not in value:
            there = ", ".join(sorted(value)) if isinstance(value, dict) else "no nested fields"
            raise DataError(
                f"{origin} has no field '{column}'",
                remedy=f"set text_column or domain_column to one of: {there}",
            )
        value = value[part]
    return value


def record_document(
    record: dict[str, Any], config: CorpusConfig, folder: str, origin: str, intake: Intake
) -> Document | None:
    """The document of one record, or None when it is skipped and counted."""
    domain = field(record, config.domain_column, origin) if config.domain_column else folder
    text = field(record, config.text_column, origin)
    if domain is None or not isinstance(text, str):
        intake.skip(folder, origin, "has no text or no domain")
        return None
    return Document(text, str(domain), origin)


class FilesSource:
    """Documents of local files, listed once and read one at a time."""

    def __init__(self, config: CorpusConfig):
        self.config = config
        self.notes: list[str] = []
        self._files = self._list()
        folders = sorted({domain for domain, _, _ in self._files})
        self.domains = None if config.domain_column else tuple(folders)

    def fingerprint(self) -> str:
        states = [(rel, p.stat().st_size, p.stat().st_mtime_ns) for _, rel, p in self._files]
        return json.dumps(sorted(states))

    def documents(self, intake: Intake) -> Iterator[Document]:
        for domain, _, path in self._files:
            if self.domains and domain in intake.full:
                continue
            kind = _kind(path)
            if kind == "text":
                yield from _text_file(path, domain, intake)
            elif kind == "parquet":
                yield from _parquet_file(path, domain, intake)
            else:
                yield from _json_lines(path, domain, intake)

    def _list(self) -> list[tuple[str, str, Path]]:
        """(domain, relative path, path) of every usable file, in reading order."""
        root, candidates = _candidates(self.config.name)
        found, ignored, seen = [], Counter(), set()
        for path in candidates:
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
        f"corpus folder '{name}' does not exist",
        remedy="create it as <domain>/*.txt, or use name='installed' or name='planted'",
    )


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if not f.startswith(".") and f != "__pycache__"]
        yield from (Path(folder, n) for n in names if not n.startswith("."))


def _kind(path: Path) -> str | None:
    name = path.name.lower()
    if name.endswith(".parquet"):
        return "parquet"
    if name.endswith(RECORD_SUFFIXES):
        return "records"
    return "text" if path.suffix.lower() in TEXT_SUFFIXES else None


def _text_file(path: Path, domain: str, intake: Intake) -> Iterator[Document]:
    limit = intake.max_document_bytes
    try:
        with path.open("rb") as file:
            data = file.read(-1 if limit is None else limit + 1)
        text = decode_text(data, limit)
    except (OSError, ValueError) as error:
        intake.skip(domain, str(path), str(error))
        return
    if limit is not None and len(data) > limit:
        intake.cut[domain] += 1
    yield Document(text, domain, str(path))


def _open_lines(path: Path) -> BinaryIO:
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if path.suffix == ".zst":
        import zstandard

        stream = zstandard.ZstdDecompressor().stream_reader(path.open("rb"), closefd=True)
        return cast(BinaryIO, io.BufferedReader(cast(Any, stream)))
    return path.open("rb")


def _json_lines(path: Path, domain: str, intake: Intake) -> Iterator[Document]:
    with _open_lines(path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            origin = f"{path}:{number}"
            try:
                record = json.loads(line)
            except ValueError:
                intake.skip(domain, origin, "is not a JSON object in UTF-8")
                continue
            document = record_document(record, intake.config, domain, origin, intake)
            if document is not None:
                yield document


def _parquet_file(path: Path, domain: str, intake: Intake) -> Iterator[Document]:
    import pyarrow
    import pyarrow.parquet

    config = intake.config
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        intake.skip(domain, str(path), f"is not a parquet file ({error})")
        return
    wanted = {c.split(".")[0] for c in (config.text_column, config.domain_column) if c}
    columns = [name for name in file.schema_arrow.names if name in wanted]
    row = 0
    for batch in file.iter_batches(PARQUET_BATCH_ROWS, columns=columns or None):
        for record in batch.to_pylist():
            document = record_document(record, intake.config, domain, f"{path}:{row}", intake)
            row += 1
            if document is not None:
                yield document
