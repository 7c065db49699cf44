"""Files and streams of records: JSON lines, plain, gzip or zstd, and parquet.

    place = Place()
    for document in read_records(path, "folder", intake, place): ...      # place: behind document

A file that ends too early or is damaged gives the records before the damage and one skip that
names it.  A record without text is a skip; a missing column is an error in the first record,
where it means a wrong setting, and a skip in a later one.
"""

from __future__ import annotations

import errno
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from workbench.config import CorpusConfig
from workbench.core import DataError
from workbench.data.sources import Document, Intake

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
PARQUET_BATCH_ROWS = 256
ZSTD_READ_BYTES = 1 << 14
_SKIP_BYTES = 1 << 20

NOT_THE_FILE = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR)
)
"""Errors of the machine: skipping for them would make the rows depend on the moment."""


@dataclass
class Place:
    """How far a file is read: lines or rows passed, bytes of text passed, and records among them.

    Reading moves it; reading from a place that is not the start goes on there.
    """

    lines: int = 0
    bytes: int = 0
    records: int = 0


def read_records(path: Path, folder: str, intake: Intake, place: Place) -> Iterator[Document]:
    """Documents of one file behind `place`, up to its end or its damage.

    Raises:
        DataError: a column is missing in the first record, or something is to be skipped while
            the config is `strict`.
    """
    parquet = path.name.lower().endswith(".parquet")
    columns_known = place.records > 0
    records = (
        _parquet_records(path, intake.config, place)
        if parquet
        else _json_records(path, folder, intake, place)
    )
    intact = _until_damage(records, path, folder, intake, place)
    yield from documents_of(intact, intake.config, folder, intake, columns_known=columns_known)


def documents_of(
    records: Iterable[tuple[str, Any]],
    config: CorpusConfig,
    folder: str,
    intake: Intake,
    *,
    columns_known: bool = False,
) -> Iterator[Document]:
    """Documents of (origin, record) pairs of one file or stream; `folder` names their domain
    where the config has no `domain_column`.

    Args:
        columns_known: an earlier record had the columns, so that none is the first.
    Raises:
        DataError: a column is missing in the first record.
    """
    for origin, record in records:
        if not isinstance(record, dict):
            intake.skip(folder, origin, f"is a {type(record).__name__}, not an object with fields")
            continue
        try:
            domain = field(record, config.domain_column, origin) if config.domain_column else folder
            text = field(record, config.text_column, origin)
        except DataError as error:
            if not columns_known:
                raise
            intake.skip(folder, origin, error.problem.removeprefix(f"{origin} "))
            continue
        columns_known = True
        if domain is None or not isinstance(text, str):
            intake.skip(folder, origin, "has no text or no domain")
            continue
        yield Document(text, str(domain).encode("utf-8", "replace").decode(), origin)


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


def _until_damage(
    records: Iterator[tuple[str, Any]], path: Path, folder: str, intake: Intake, place: Place
) -> Iterator[tuple[str, Any]]:
    try:
        for record in records:
            place.records += 1
            yield record
    except EOFError:
        why = f"is truncated after record {place.records}"
        intake.skip(folder, str(path), why, whole_file=True)
    except (OSError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno in NOT_THE_FILE:
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        read = place.records
        state = f"is corrupt after record {read}" if read else "cannot be read"
        intake.skip(folder, str(path), f"{state}: {reason}", whole_file=True)


def _json_records(
    path: Path, folder: str, intake: Intake, place: Place
) -> Iterator[tuple[str, Any]]:
    with _open_lines(path) as lines:
        _skip(lines, place.bytes)
        for line in lines:
            place.lines += 1
            place.bytes += len(line)
            if not line.strip():
                continue
            origin = f"{path}:{place.lines}"
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                whole = line.endswith(b"\n")
                why = "is not JSON in UTF-8" if whole else "ends the file within a record"
                intake.skip(folder, origin, why)
                continue
            yield origin, record


def _skip(lines: BinaryIO, size: int) -> None:
    """Go to a byte of the text; an archive is unpacked up to there."""
    if lines.seekable():
        lines.seek(size)
        return
    while size and (block := lines.read(min(size, _SKIP_BYTES))):
        size -= len(block)


def _open_lines(path: Path) -> BinaryIO:
    if path.suffix.lower() == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if path.suffix.lower() == ".zst":
        return cast(BinaryIO, io.BufferedReader(_ZstdFile(path)))
    return path.open("rb")


class _ZstdFile(io.RawIOBase):
    """All frames of a zstd file; the stream reader of `zstandard` stops after the first one and
    takes the end of the file for the end of a frame.

    Reading raises EOFError when the file ends within a frame, OSError when one is damaged.
    """

    def __init__(self, path: Path):
        import zstandard

        self._zstandard = zstandard
        self._file = path.open("rb")
        self._frame: Any = None
        self._packed = b""
        self._text = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._text:
            self._packed = self._packed or self._file.read(ZSTD_READ_BYTES)
            if not self._packed:
                if self._frame is not None:
                    raise EOFError("the file ends within a zstd frame")
                return 0
            self._text = memoryview(self._unpack())
        size = min(len(buffer), len(self._text))
        buffer[:size], self._text = self._text[:size], self._text[size:]
        return size

    def _unpack(self) -> bytes:
        if self._frame is None:
            self._frame = self._zstandard.ZstdDecompressor().decompressobj()
        try:
            text = self._frame.decompress(self._packed)
        except self._zstandard.ZstdError as error:
            raise OSError(str(error)) from None
        self._packed = b""
        if self._frame.eof:
            self._packed, self._frame = self._frame.unused_data, None
        return text

    def close(self) -> None:
        self._file.close()
        super().close()


def _parquet_records(path: Path, config: CorpusConfig, place: Place) -> Iterator[tuple[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path, page_checksum_verification=True)
        wanted = {c.split(".")[0] for c in (config.text_column, config.domain_column) if c}
        # A missing column is reported with all the columns there are.
        columns = sorted(wanted) if wanted.issubset(file.schema_arrow.names) else None
        for group, skipped_rows in _groups_behind(file, place.lines):
            for batch in file.iter_batches(PARQUET_BATCH_ROWS, row_groups=[group], columns=columns):
                skip = min(skipped_rows, batch.num_rows)
                skipped_rows -= skip
                for record in batch.slice(skip).to_pylist():
                    place.lines += 1
                    yield f"{path}:{place.lines - 1}", record
    except pyarrow.ArrowMemoryError:
        raise
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise OSError(str(error)) from None


def _groups_behind(file: Any, row: int) -> Iterator[tuple[int, int]]:
    """Row groups that hold rows from `row` on, each with its rows before that."""
    first = 0
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if first + rows > row:
            yield group, max(0, row - first)
        first += rows
