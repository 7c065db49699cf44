"""What a sweep will run: parameter sets times seeds, checked before the first cell starts.

    plan = make_plan(notebook, choose_sets(grid={"reweighter": ["uniform", "linupper"]}), seeds=[0])
    write_plan(plan, "out/sweep.json")

A cell is one parameter set under one seed.  Cells go seed by seed over all sets, so that a sweep
cut short still holds whole pairs.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.batch.notebook import notebook_parameters
from workbench.batch.parameter_sets import Parameters, parameters_key
from workbench.core import ConfigError, RunError, WorkbenchError, unknown_name
from workbench.tracking import durable, encoding

FORMAT = 1
GIVEN_BY_THE_SWEEP = ("seed", "out_dir", "name")
SETTINGS = "settings"
"""Parameter of a notebook that takes settings of a `RunConfig` by name."""
_NAME_LETTERS = 80


@dataclass(frozen=True)
class Cell:
    """One execution of the notebook: the name of its folder, and its parameters with the seed."""

    name: str
    parameters: Parameters


@dataclass(frozen=True)
class Plan:
    """A notebook, the hash of its code, and the cells in the order in which they run."""

    notebook: Path
    code_hash: str
    cells: tuple[Cell, ...]

    def differs_from(self, other: Plan) -> str:
        """The first difference, in words; empty where there is none."""
        if self.code_hash != other.code_hash:
            return f"the code of {self.notebook.name} is not that of {other.notebook.name} there"
        if len(self.cells) != len(other.cells):
            return f"{len(self.cells)} cells, {len(other.cells)} there"
        for mine, theirs in zip(self.cells, other.cells, strict=True):
            if mine != theirs:
                return f"cell {mine.name}, {theirs.name} there: {_difference(mine, theirs)}"
        return ""

    def arguments(self, cell: Cell, folder: Path) -> Parameters:
        """What the notebook is given: its own parameters, other names inside `settings`."""
        known = notebook_parameters(self.notebook)
        own, settings = split_parameters(cell.parameters, known)
        if "name" in known:
            own["name"] = cell.name
        elif SETTINGS in known:
            settings["name"] = cell.name
        if settings:
            own[SETTINGS] = settings
        return {**own, "out_dir": str(folder)}


def make_plan(
    notebook: str | Path,
    sets: Sequence[Parameters],
    *,
    seeds: Sequence[int] = (0,),
    fixed: Mapping[str, Any] | None = None,
) -> Plan:
    """Cells of all sets and seeds, with every name checked.

    Args:
        fixed: parameters that all cells share.
    Raises:
        ConfigError: a name that the notebook does not have (the nearest is suggested), a setting
            that a run would refuse, two cells with the same parameters, or no seed.
        RunError: no such notebook.
    """
    path, known = Path(notebook), notebook_parameters(notebook)
    for name in ("seed", "out_dir"):
        if name not in known:
            raise ConfigError(
                f"{path.name} has no parameter {name}", remedy=f"add {name} to its parameters cell"
            )
    if not seeds:
        raise ConfigError("a sweep without seeds", remedy="give seeds, such as seeds=[0, 1, 2]")
    whole = [{**(fixed or {}), **one} for one in sets]
    for one in whole:
        _check_names(one, known, path)
    numbers = itertools.count()
    width = len(str(len(whole) * len(seeds) - 1))
    swept = {name for one in sets for name in one}
    cells = [
        Cell(
            _cell_name(
                f"{next(numbers):0{width}d}", {n: v for n, v in one.items() if n in swept}, seed
            ),
            _plain({**one, "seed": seed}),
        )
        for seed in seeds
        for one in whole
    ]
    _check_different(cells)
    return Plan(path.resolve(), code_hash(path), tuple(cells))


def write_plan(plan: Plan, path: str | Path) -> None:
    """Write sweep.json in one step."""
    content = {
        "format": FORMAT,
        "created": time.time(),
        "notebook": str(plan.notebook),
        "code_hash": plan.code_hash,
        "cells": [{"name": cell.name, "parameters": cell.parameters} for cell in plan.cells],
    }
    durable.write_file(Path(path), encoding.encode(content, indent=2))


def read_plan(path: str | Path) -> Plan:
    """The plan of a sweep.json.

    Raises:
        RunError: it is missing or cannot be read.
    """
    try:
        content = encoding.decode(Path(path).read_bytes())
        cells = tuple(Cell(cell["name"], cell["parameters"]) for cell in content["cells"])
        return Plan(Path(content["notebook"]), content["code_hash"], cells)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"cannot read a sweep from {path}: {error}", remedy="name the folder of a sweep"
        ) from None


def code_hash(notebook: Path) -> str:
    """Of the sources of its code cells, so that outputs and text may change."""
    import nbformat

    cells = nbformat.read(notebook, as_version=4).cells
    sources = [cell.source for cell in cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:16]


def split_parameters(
    parameters: Mapping[str, Any], known: Sequence[str]
) -> tuple[Parameters, Parameters]:
    """Those of the notebook, and those that belong into its `settings`."""
    own = {name: value for name, value in parameters.items() if name in known and name != SETTINGS}
    rest = {name: value for name, value in parameters.items() if name not in known}
    return own, {**(parameters.get(SETTINGS) or {}), **rest}


def _check_names(parameters: Parameters, known: Sequence[str], notebook: Path) -> None:
    for name in GIVEN_BY_THE_SWEEP:
        if name in parameters:
            raise ConfigError(
                f"{name} cannot be swept: each cell is given its own",
                remedy="use seeds for seeds; folders and names follow from the cell",
            )
    own, settings = split_parameters(parameters, known)
    if settings and SETTINGS not in known:
        problem, remedy = unknown_name("parameter", next(iter(settings)), known)
        raise ConfigError(f"{problem} of {notebook.name}", remedy=remedy)
    if SETTINGS in known:
        try:
            _check_settings(own, settings)
        except WorkbenchError as error:
            raise ConfigError(
                error.problem,
                remedy=f"{error.remedy}; parameters of {notebook.name}: {', '.join(known)}",
            ) from None


def _check_settings(own: Parameters, settings: Parameters) -> None:
    """Make the config that the notebook would make, as far as it can be known here."""
    from workbench.config import POLICY_SLOTS, RunConfig
    from workbench.training.checks import check_policies

    policies = {slot: own[slot] for slot in POLICY_SLOTS if own.get(slot) is not None}
    check_policies(RunConfig().change(**policies).change(**settings))


def _check_different(cells: Sequence[Cell]) -> None:
    seen: dict[str, str] = {}
    for cell in cells:
        other = seen.setdefault(parameters_key(cell.parameters), cell.name)
        if other != cell.name:
            raise ConfigError(
                f"cells {other} and {cell.name} have the same parameters", remedy="leave one out"
            )


def _plain(parameters: Parameters) -> Parameters:
    """As they will be read back from sweep.json."""
    try:
        return encoding.decode(encoding.encode(parameters))
    except TypeError as error:
        raise ConfigError(
            f"a parameter cannot be written down: {error}", remedy="use numbers, text and lists"
        ) from None


def _cell_name(number: str, swept: Parameters, seed: int) -> str:
    """`03_linupper_peak_lr=0.001_seed1`: policies by their name alone."""
    told = [
        str(value)
        if isinstance(value, str) and "/" not in value
        else f"{name}={json.dumps(value, default=str)}"
        for name, value in swept.items()
    ]
    letters = re.sub(r"[^\w.=+-]+", "-", "_".join(told))[:_NAME_LETTERS].strip("-_")
    return "_".join(part for part in (number, letters, f"seed{seed}") if part)


def _difference(mine: Cell, theirs: Cell) -> str:
    for name in {**mine.parameters, **theirs.parameters}:
        values = [cell.parameters.get(name) for cell in (mine, theirs)]
        if values[0] != values[1]:
            return f"{name} = {values[0]}, {values[1]} there"
    return "another name"
