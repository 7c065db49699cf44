"""Token streams on disk: one per domain and split, in shards that are cut into rows.

A stream is the documents of one domain and split, each followed by the end-of-text token.  Row r
is tokens [r T, r T + T] of the stream, so that neighbours share one token and each token is
predicted once.  Shard j holds tokens [j S, j S + S] with S = rows per shard × T: its last token is
the first of the next shard, so a row never spans two files.

    writer = StreamWriter(folder, np.dtype("<u2"), context_tokens=128, shard_rows=1000)
    writer.add(ids, {"document": "…"}); writer.flush(); state = writer.state()
    stream = TokenStream(root, entry, np.dtype("<u2"), context_tokens=128); stream.row(3)
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from workbench.core import DataError

RECORDS_PER_GROUP = 1024
"""Documents of the table read or written at a time; its footer grows by half a kB for each group,
the one thing in memory that grows with the corpus: half a byte a document."""

MAPS_OPEN = 256
"""Shards mapped at a time, over all streams: each holds a file open, of which a process has few."""

_READ_BYTES = 1 << 20


class StreamWriter:
    """Appends documents to the token shards and document records of one stream.

    State fields: tokens (with end-of-text), documents, record_bytes.  The length of every file
    follows from them, so restoring cuts the files back to the recorded state.
    """

    def __init__(self, folder: Path, dtype: np.dtype, context_tokens: int, shard_rows: int):
        self.folder = folder
        self.dtype = dtype
        self.context_tokens = context_tokens
        self.span = shard_rows * context_tokens
        self.tokens = self.documents = 0
        self._index = self._in_shard = 0
        self._shard: BinaryIO | None = None
        self._records: BinaryIO | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def records_path(self) -> Path:
        return self.folder / "documents.jsonl"

    def _shard_path(self, index: int) -> Path:
        return self.folder / f"{index:05d}.bin"

    def add(self, ids: np.ndarray, record: dict[str, Any]) -> None:
        """Append one document's tokens, end-of-text included, and its record."""
        record = {**record, "first_token": self.tokens, "tokens": len(ids)}
        if self._records is None:
            self._records = self.records_path.open("ab")
        self._records.write(json.dumps(record).encode() + b"\n")
        self._write(ids.astype(self.dtype))
        self.tokens += len(ids)
        self.documents += 1

    def _write(self, ids: np.ndarray) -> None:
        while len(ids):
            if self._shard is None:
                self._shard = self._shard_path(self._index).open("ab")
            room = self.span + 1 - self._in_shard
            self._shard.write(ids[:room].tobytes())
            self._in_shard += min(room, len(ids))
            if self._in_shard <= self.span:
                return
            self._shard.close()
            self._shard, self._in_shard = None, 0
            self._index += 1
            # The last token of a full shard is written again as the first of the next.
            ids = ids[room - 1 :]

    def flush(self) -> None:
        for file in (self._shard, self._records):
            if file is not None:
                file.flush()

    def close(self) -> None:
        for file in (self._shard, self._records):
            if file is not None:
                file.close()
        self._shard = self._records = None

    def state(self) -> dict[str, int]:
        """Call after `flush`."""
        size = self._records.tell() if self._records is not None else self._record_bytes()
        return {"tokens": self.tokens, "documents": self.documents, "record_bytes": size}

    def _record_bytes(self) -> int:
        return self.records_path.stat().st_size if self.records_path.exists() else 0

    def restore(self, state: dict[str, int]) -> None:
        """Cut the files back to `state`.

        Raises:
            DataError: a file is shorter than recorded.
        """
        self.close()
        self.tokens, self.documents = state["tokens"], state["documents"]
        self._index = max(0, (self.tokens - 1) // self.span)
        self._in_shard = self.tokens - self._index * self.span
        for path in self.folder.glob("*.bin"):
            if int(path.stem) > self._index:
                path.unlink()
        for index in range(self._index + 1 if self.tokens else 0):
            length = min(self.tokens - index * self.span, self.span + 1)
            cut_file(self._shard_path(index), length * self.dtype.itemsize)
        if self.tokens:
            cut_file(self.records_path, state["record_bytes"])
        else:
            self.records_path.unlink(missing_ok=True)

    def finish(self, root: Path) -> dict[str, Any]:
        """Write the documents table and checksum the shards; can be repeated.

        The tokens after the last whole row stay in the file, belong to no row, and are counted.

        Returns:
            The stream's entry for the manifest; its files are relative to `root`.
        """
        self.flush()
        rows = max(0, (self.tokens - 1) // self.context_tokens)
        return {
            "rows": rows,
            "shard_rows": self.span // self.context_tokens,
            "documents": self.documents,
            "tokens": self.tokens,
            "dropped_tokens": self.tokens - (rows * self.context_tokens + 1 if rows else 0),
            "table": self._write_table().relative_to(root).as_posix(),
            "shards": [
                {
                    "file": path.relative_to(root).as_posix(),
                    "bytes": path.stat().st_size,
                    "blake2b": checksum(path),
                }
                for path in sorted(self.folder.glob("*.bin"))
            ],
        }

    def _write_table(self) -> Path:
        """The document records as parquet, in stream order, written group by group."""
        import pyarrow
        import pyarrow.parquet

        fields = {"document": pyarrow.string(), "origin": pyarrow.string()}
        fields |= {"duplicate": pyarrow.string(), "bytes": pyarrow.int64()}
        fields |= {"first_token": pyarrow.int64(), "tokens": pyarrow.int64()}
        schema = pyarrow.schema(list(fields.items()))
        path = self.folder / "documents.parquet"
        self.records_path.touch()
        # Texts that never repeat need no dictionary, and only one column is searched by.
        settings: dict[str, Any] = {"use_dictionary": ["duplicate"]}
        settings |= {"write_statistics": ["first_token"]}
        with (
            pyarrow.parquet.ParquetWriter(path, schema, **settings) as table,
            self.records_path.open() as lines,
        ):
            while group := [json.loads(line) for line in islice(lines, RECORDS_PER_GROUP)]:
                table.write_table(pyarrow.Table.from_pylist(group, schema=schema))
        return path


def cut_file(path: Path, size: int) -> None:
    """Shorten a file to `size` bytes.

    Raises:
        DataError: it is missing or shorter, as after a power failure.
    """
    there = path.stat().st_size if path.exists() else -1
    if there < size:
        raise DataError(
            f"{path} has {max(there, 0)} of the {size} bytes recorded",
            remedy="delete its folder and prepare the corpus again",
        )
    if there > size:
        os.truncate(path, size)


def checksum(path: Path) -> str:
    """blake2b of a file's bytes, 16 bytes in hexadecimal."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


class TokenStream:
    """Rows of one finished stream, memory-mapped.

    Raises:
        DataError: a shard is missing, or its size is not the recorded one.
    """

    def __init__(self, root: Path, entry: dict[str, Any], dtype: np.dtype, context_tokens: int):
        self.root = root
        self.rows: int = entry["rows"]
        self.shards: list[dict[str, Any]] = entry["shards"]
        self.table_path = root / entry["table"]
        self._shard_rows: int = entry["shard_rows"]
        self._context_tokens = context_tokens
        self._dtype = dtype
        self._files = [self._checked(shard) for shard in self.shards]

    def row(self, index: int) -> np.ndarray:
        """Tokens of one row, shape (T + 1,), in the stored type and without a copy."""
        shard, within = divmod(index, self._shard_rows)
        first = within * self._context_tokens
        return _mapped(self._dtype, *self._files[shard])[first : first + self._context_tokens + 1]

    def bytes(self) -> int:
        return sum(shard["bytes"] for shard in self.shards)

    def verify(self) -> None:
        """Compare every shard with its checksum; DataError names the shard and both checksums."""
        for shard in self.shards:
            found = checksum(self.root / shard["file"])
            if found != shard["blake2b"]:
                raise DataError(
                    f"shard {self.root / shard['file']} is corrupt: blake2b {found}, "
                    f"recorded {shard['blake2b']}",
                    remedy=f"delete {self.root} and prepare the corpus again",
                )

    def documents(self, first_token: int, last_token: int) -> Iterator[dict[str, Any]]:
        """Records of the documents that touch the tokens [first_token, last_token]."""
        import pyarrow.parquet

        table = pyarrow.parquet.ParquetFile(self.table_path)
        for group in range(table.num_row_groups):
            starts = table.metadata.row_group(group).column(4).statistics
            if starts.min > last_token:
                return
            if group + 1 < table.num_row_groups:
                following = table.metadata.row_group(group + 1).column(4).statistics
                if following.min <= first_token:
                    continue
            yield from _touching(table.read_row_group(group), first_token, last_token)

    def document_names(self, row_N: np.ndarray) -> list[list[str]]:
        """Content hashes of the documents of each row, in one pass over the table."""
        import pyarrow.parquet

        table = pyarrow.parquet.ParquetFile(self.table_path)
        first_N = np.asarray(row_N) * self._context_tokens
        last_N = first_N + self._context_tokens
        names: list[list[str]] = [[] for _ in first_N]
        for group in range(table.num_row_groups):
            part = table.read_row_group(group, columns=["document", "first_token", "tokens"])
            start_D = part.column("first_token").to_numpy()
            end = int(start_D[-1]) + part.column("tokens")[-1].as_py()
            document_D = part.column("document").to_pylist()
            from_N = np.maximum(np.searchsorted(start_D, first_N, side="right") - 1, 0)
            until_N = np.searchsorted(start_D, last_N, side="right")
            for i in np.flatnonzero((last_N >= start_D[0]) & (first_N < end)):
                names[i].extend(document_D[from_N[i] : until_N[i]])
        return names

    def _checked(self, shard: dict[str, Any]) -> tuple[str, int]:
        """Path of a shard, and when it was written."""
        path = self.root / shard["file"]
        found = path.stat() if path.exists() else None
        if found is None or found.st_size != shard["bytes"]:
            state = "is missing" if found is None else f"has {found.st_size} bytes"
            raise DataError(
                f"shard {path} {state}, recorded {shard['bytes']} bytes and blake2b "
                f"{shard['blake2b']}",
                remedy=f"delete {self.root} and prepare the corpus again",
            )
        return str(path), found.st_mtime_ns


@lru_cache(MAPS_OPEN)
def _mapped(dtype: np.dtype, path: str, written_ns: int) -> np.ndarray:
    """Tokens of a shard; one that was written anew is mapped anew."""
    # A plain view of the map: slicing the memmap class itself costs several times more.
    return np.memmap(path, dtype, "r").view(np.ndarray)


def _touching(group: Any, first_token: int, last_token: int) -> Iterator[dict[str, Any]]:
    start_D = group.column("first_token").to_numpy()
    first = max(0, int(np.searchsorted(start_D, first_token, side="right")) - 1)
    end = int(np.searchsorted(start_D, last_token, side="right"))
    for record in group.slice(first, end - first).to_pylist():
        if record["first_token"] + record["tokens"] > first_token:
            yield record
