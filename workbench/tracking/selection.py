"""What a selector chose and saw, as tables: selection/step_N/*.parquet and manifest.json.

    chosen = run.folder.selection()           # the last one
    chosen.frame("arms"); chosen.manifest["rows"]

Tables: `selected` (sample_id, domain, cluster, influence, reason), and as far as the selector knows
them `samples`, `arms` and `pulls`; see `core.Selector.tables`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from workbench.core import RunError
from workbench.tracking import encoding

if TYPE_CHECKING:
    import pandas as pd


def write_tables(folder: Path, tables: Mapping[str, Mapping[str, Any]]) -> None:
    """One parquet file a table."""
    for name, columns in tables.items():
        write_table(folder / f"{name}.parquet", columns)


def write_table(path: Path, columns: Mapping[str, Any]) -> None:
    """One parquet file; a NaN in a float column stays one."""
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise RunError(
            f"columns of the table '{path.stem}' differ in length: {lengths}",
            remedy="give one value a row",
        )
    arrays = {name: pa.array(np.asarray(column)) for name, column in columns.items()}
    pq.write_table(pa.table(arrays), path, compression="zstd")


class SelectionRecord:
    """One choice on disk; tables are read when asked for."""

    def __init__(self, path: Path):
        self.path = path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Rows and tokens chosen, budget, seconds, rows by domain, reasons, and diagnostics."""
        return encoding.decode((self.path / "manifest.json").read_bytes())

    def tables(self) -> list[str]:
        return sorted(path.stem for path in self.path.glob("*.parquet"))

    def frame(self, table: str) -> pd.DataFrame:
        """A table.

        Raises:
            RunError: this selector keeps no such table.
        """
        if table not in self.tables():
            raise RunError(
                f"{self.path} has no table '{table}'",
                remedy=f"it has: {', '.join(self.tables())}",
            )
        return pq.read_table(self.path / f"{table}.parquet").to_pandas()
