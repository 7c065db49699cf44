"""The ledger: one row per trained sample, in parquet parts, asked in SQL.

    run.ledger.sql("select domain, avg(weight) from ledger group by domain")
    run.ledger.spike(step=412)

Columns: step int32, sample_id int64, domain string, cluster int32 or null, probability float32,
loss float32 (nats per token), weight float32 (mean 1 in a step), influence float32 or null.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from workbench.core import RunError
from workbench.tracking.durable import aside_file

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        ("sample_id", pa.int64()),
        ("domain", pa.dictionary(pa.int32(), pa.string())),
        ("cluster", pa.int32()),
        ("probability", pa.float32()),
        ("loss", pa.float32()),
        ("weight", pa.float32()),
        ("influence", pa.float32()),
    ]
)
OPTIONAL = frozenset({"cluster", "influence"})
_PART = re.compile(r"steps_(\d{9})-(\d{9})\.parquet")


def part_name(first_step: int, last_step: int) -> str:
    return f"steps_{first_step:09d}-{last_step:09d}.parquet"


def parts(folder: Path) -> list[tuple[int, int, Path]]:
    """First step, last step and path of each complete part, in order."""
    return [(first, last, folder / name) for first, last, name in _spans(folder)]


def _spans(folder: Path) -> list[tuple[int, int, str]]:
    """`parts` with names: thousands of paths take longer to make than one step to read."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    found = [match for name in names if (match := _PART.fullmatch(name))]
    return sorted((int(m[1]), int(m[2]), m[0]) for m in found)


def write_part(
    folder: Path, columns: Mapping[str, np.ndarray], first_step: int, last_step: int
) -> None:
    """Add one part; rows may stand in any order within `first_step`..`last_step`, both included.

    Raises:
        RunError: unknown or missing columns, unequal lengths, a row outside the steps, or steps
            that another part already holds.
    """
    table = _table(columns, first_step, last_step)
    for first, last, path in parts(folder):
        if first <= last_step and first_step <= last:
            raise RunError(
                f"ledger steps {first_step} to {last_step} overlap {path.name}",
                remedy="rewind the run folder before writing these steps again",
            )
    with aside_file(folder / part_name(first_step, last_step)) as temporary:
        _write(table, temporary)


def _table(columns: Mapping[str, np.ndarray], first_step: int, last_step: int) -> pa.Table:
    unknown = sorted(set(columns) - set(SCHEMA.names))
    missing = [n for n in SCHEMA.names if n not in columns and n not in OPTIONAL]
    if unknown or missing:
        wrong = [f"unknown {name}" for name in unknown] + [f"missing {name}" for name in missing]
        raise RunError(
            f"ledger columns: {', '.join(wrong)}", remedy=f"known: {', '.join(SCHEMA.names)}"
        )
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise RunError(f"ledger columns differ in length: {lengths}", remedy="give one row each")
    steps = np.asarray(columns["step"])
    if len(steps) and not first_step <= steps.min() <= steps.max() <= last_step:
        raise RunError(
            f"ledger rows of steps {steps.min()} to {steps.max()} "
            f"do not belong into steps {first_step} to {last_step}",
            remedy="give the first and last step of the rows",
        )
    rows = len(steps)
    return pa.table({f.name: _column(columns.get(f.name), f, rows) for f in SCHEMA}, schema=SCHEMA)


def _write(table: pa.Table, path: Path) -> None:
    # Parquet statistics leave NaN out, and DuckDB concludes from them that a column has none:
    # `isnan(loss)` would be false in every row.
    exact: Any = ["step", "sample_id", "domain", "cluster"]
    pq.write_table(table, path, compression="zstd", write_statistics=exact)


def _column(values: Any, field: pa.Field, rows: int) -> pa.Array:
    if values is None:
        return pa.nulls(rows, field.type)
    if field.name == "domain":
        return pa.array(np.asarray(values, dtype=object), pa.string()).dictionary_encode()
    # A NaN loss is a finding and stays; a NaN in an optional column says that there is none.
    array = pa.array(np.asarray(values), from_pandas=field.name in OPTIONAL)
    return array.cast(field.type, safe=not pa.types.is_floating(field.type))


def rewind(folder: Path, step: int) -> None:
    """Drop rows of `step` and later, newest part first; may be interrupted and repeated."""
    for first, last, path in reversed(parts(folder)):
        if first >= step:
            path.unlink()
        elif last >= step:
            # The shortened part first replaces its original, then takes its new name: at no
            # moment do two files hold the same row.
            kept = pq.read_table(
                path, schema=SCHEMA, filters=[("step", "<", step)], use_threads=False
            )
            with aside_file(path) as temporary:
                _write(kept, temporary)
            os.replace(path, folder / part_name(first, step - 1))


class Ledger:
    """Questions about the trained samples of one run; every answer is a pandas DataFrame."""

    def __init__(self, folder: Path):
        self.folder = folder

    def sql(self, query: str, parameters: Sequence[Any] = ()) -> pd.DataFrame:
        """Answer a DuckDB query over the table `ledger`; `?` in it takes `parameters` in turn.

        Raises:
            RunError: the query is wrong; the message is DuckDB's.
        """
        return self._ask(query, parameters, parts(self.folder))

    def frame(self) -> pd.DataFrame:
        """All rows in the order written."""
        return self.sql("select * from ledger")

    def steps(self) -> tuple[int, int] | None:
        """First and last step written so far; None while there are none."""
        recorded = _spans(self.folder)
        return (recorded[0][0], recorded[-1][1]) if recorded else None

    def step(self, step: int) -> pd.DataFrame:
        """The rows of one step in batch order; empty when the step is not written yet."""
        names = [name for first, last, name in _spans(self.folder) if first <= step <= last]
        tables = [
            pq.read_table(self.folder / name, schema=SCHEMA, filters=[("step", "==", step)])
            for name in names
        ]
        table = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
        domain = SCHEMA.get_field_index("domain")
        return table.set_column(domain, "domain", table["domain"].cast(pa.string())).to_pandas()

    def rows_of(self, sample_id: int) -> pd.DataFrame:
        """Every time one sample was trained on."""
        return self.sql("select * from ledger where sample_id = ? order by step", [int(sample_id)])

    def views(self, sample_ids: Iterable[int]) -> pd.DataFrame:
        """How often each sample was seen; a sample never seen has 0 views.

        Columns: sample_id, views, first_step, last_step, mean_loss (nats per token), mean_weight.
        """
        return self.sql(
            """
            select asked.sample_id, count(l.step) as views, min(l.step) as first_step,
                   max(l.step) as last_step, avg(l.loss) as mean_loss, avg(l.weight) as mean_weight
            from (select unnest(?::bigint[]) as sample_id) asked
            left join ledger l using (sample_id)
            group by asked.sample_id order by views desc, asked.sample_id
            """,
            [sorted({int(i) for i in sample_ids})],
        )

    def document_views(self, documents: Mapping[str, Iterable[int]]) -> pd.DataFrame:
        """How often each document was seen, given the samples that hold a part of it.

        Columns: document, samples (how many hold it), views (times any of them was trained on),
        first_step, last_step.
        """
        pairs = [(name, int(i)) for name, ids in documents.items() for i in set(ids)]
        return self.sql(
            """
            select asked.document, count(distinct asked.sample_id) as samples,
                   count(l.step) as views, min(l.step) as first_step, max(l.step) as last_step
            from (select unnest(?::varchar[]) as document, unnest(?::bigint[]) as sample_id) asked
            left join ledger l using (sample_id)
            group by asked.document order by views desc, asked.document
            """,
            [[name for name, _ in pairs], [sample_id for _, sample_id in pairs]],
        )

    def weight_by_domain(self, *, every_steps: int = 10) -> pd.DataFrame:
        """Per domain and stretch of steps: what was drawn, what it weighed, what it lost.

        Columns: step (first of the stretch), domain, samples, mean_weight, weight_share,
        sample_share, mean_loss (nats per token).
        """
        return self.sql(
            """
            with per_domain as (
                select step // $1 * $1 as step, domain, count(*) as samples,
                       sum(weight) as weight, avg(loss) as mean_loss
                from ledger group by all
            )
            select step, domain, samples, weight / samples as mean_weight,
                   weight / sum(weight) over stretch as weight_share,
                   samples / sum(samples) over stretch as sample_share, mean_loss
            from per_domain window stretch as (partition by step) order by step, domain
            """,
            [max(1, int(every_steps))],
        )

    def spike(
        self, step: int, top: int = 10, *, window_steps: int = 1, history_steps: int = 50
    ) -> pd.DataFrame:
        """Which samples pushed the loss up around `step`, the worst first.

        A row's contribution is weight · (loss − usual loss of its domain) / rows of its step, in
        nats per token: over a step the contributions add up to its surplus.  Usual is the mean
        over `history_steps` before the window, or the whole run where the domain has no history.

        Raises:
            RunError: the ledger has rows, but none of this step.
        """
        recorded = parts(self.folder)
        if recorded and not any(first <= step <= last for first, last, _ in recorded):
            raise RunError(
                f"step {step} is not in the ledger",
                remedy=f"choose a step from {recorded[0][0]} to {recorded[-1][1]}",
            )
        return self.sql(_SPIKE, [int(step), int(window_steps), int(history_steps), int(top)])

    def _ask(
        self, query: str, parameters: Sequence[Any], recorded: list[tuple[int, int, Path]]
    ) -> pd.DataFrame:
        import duckdb

        with duckdb.connect() as database:
            database.execute("set enable_progress_bar = false")
            if recorded:
                files = database.read_parquet([str(path) for _, _, path in recorded])
                files.create_view("ledger")
            else:
                database.register("ledger", _empty())
            try:
                return database.execute(query, list(parameters)).df()
            except duckdb.Error as error:
                raise RunError(
                    f"ledger query failed: {str(error).splitlines()[0]}",
                    remedy=f"ask the table `ledger` for: {', '.join(SCHEMA.names)}",
                ) from None


def _empty() -> pa.Table:
    plain = [pa.field(f.name, pa.string() if f.name == "domain" else f.type) for f in SCHEMA]
    return pa.schema(plain).empty_table()


_SPIKE = """
with around as (
    select *, count(*) over (partition by step) as step_rows
    from ledger where step between $1 - $2 and $1 + $2
), history as (
    select domain, avg(loss) as usual from ledger
    where step >= $1 - $2 - $3 and step < $1 - $2 group by domain
), overall as (
    select domain, avg(loss) as usual from ledger group by domain
)
select step, sample_id, domain, loss, weight,
       coalesce(history.usual, overall.usual) as usual_loss,
       weight * (loss - coalesce(history.usual, overall.usual)) / step_rows as contribution_nats
from around left join history using (domain) left join overall using (domain)
order by contribution_nats desc, step, sample_id limit $4
"""
