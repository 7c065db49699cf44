"""Tables and figures of a notebook as files: CSV, PNG, and one HTML page with all of them.

export("out/files", tables={"verdicts": frame}, figures={"loss": plots.loss(runs)})
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.batch import page
from workbench.core import RunError

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


def export(
    out_dir: str | Path,
    *,
    tables: Mapping[str, pd.DataFrame],
    figures: Mapping[str, go.Figure],
    title: str = "Runs compared",
    name: str = "comparison",
) -> list[Path]:
    """Write `<table>.csv`, `<figure>.png`, and `name`.html, which opens offline.

    Args:
        tables, figures: by name; a name becomes a file's name and, in words, a heading.
    Returns:
        The paths, the page first; files of these names are replaced.
    Raises:
        RunError: the folder cannot be written.
    """
    from workbench.plots import png

    folder = Path(out_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = [folder / f"{name}.html"]
        written[0].write_text(_page(tables, figures, title), encoding="utf-8")
        for own, table in tables.items():
            written.append(folder / f"{_file_name(own)}.csv")
            table.to_csv(written[-1], index=False)
        for own, figure in figures.items():
            written.append(folder / f"{_file_name(own)}.png")
            png(figure, written[-1])
    except OSError as error:
        raise RunError(f"cannot write {folder}: {error}", remedy="choose another folder") from None
    return written


def _page(tables: Mapping[str, pd.DataFrame], figures: Mapping[str, go.Figure], title: str) -> str:
    drawn = [
        page.section(_words(own), page.figure(figure, name=_file_name(own), caption=_words(own)))
        for own, figure in figures.items()
    ]
    told = [
        page.section(_words(own), page.table(_rows(table), caption=_words(own)))
        for own, table in tables.items()
    ]
    return page.page(title, [*told, *drawn])


def _rows(table: pd.DataFrame) -> list[dict]:
    """Rows with None where a value is missing."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()
