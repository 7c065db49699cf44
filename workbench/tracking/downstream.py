"""Results of downstream tasks in a run's folder: downstream/step_N/<task>.json.

    write(run.path, {"task": "piqa", "step": 100, "metrics": {...}})
    read(run.path)                            # all of them, by step and task

They are of a checkpoint and not of the loop, so they are written whether the run trains or not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from workbench.core import RunError
from workbench.tracking import durable, encoding

FOLDER = "downstream"


def write(run: Path, record: Mapping[str, Any]) -> Path:
    """Add or replace the result of `record["task"]` at `record["step"]`, whole or not at all.

    Raises:
        RunError: the disk is full or read only.
    """
    name = re.sub(r"[^\w.-]", "_", str(record["task"]))
    path = run / FOLDER / f"step_{record['step']:09d}" / f"{name}.json"
    with durable.writing(path, run):
        path.parent.mkdir(parents=True, exist_ok=True)
        durable.write_file(path, encoding.encode(dict(record), indent=2))
    return path


def read(run: Path) -> list[dict[str, Any]]:
    """Every result of a run, by step, then by task.

    Raises:
        RunError: a file is not readable.
    """
    paths = sorted((run / FOLDER).glob(f"step_*/[!{durable.ASIDE[0]}]*.json"))
    return [_record(path) for path in paths]


def _record(path: Path) -> dict[str, Any]:
    try:
        return dict(encoding.decode(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise RunError(
            f"cannot read {path}: {error}", remedy="delete it and evaluate the task again"
        ) from None


def rows(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One flat row for each metric of each record, for tables."""
    return [
        {
            "step": record["step"],
            "task": record["task"],
            "shots": record["shots"],
            "metric": name,
            **{key: metric[key] for key in ("value", "low", "high", "chance")},
            "standing": metric["standing"] or "no chance level",
            "documents": metric["documents"],
            "cut_requests": f"{record['cut_requests']} of {record['requests']}",
        }
        for record in records
        for name, metric in record["metrics"].items()
    ]
