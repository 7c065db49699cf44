"""Errors that name their remedy.

Every failure a user can cause is a `WorkbenchError`: one line saying what is wrong and one saying
what to do.  Front ends (CLI, panel, notebook) print `str(error)` and nothing else.

    raise DataError("domain 'code' has 3 rows, a batch needs 16", remedy="lower batch_rows to 3")
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class WorkbenchError(Exception):
    """A failure with a remedy.

    Args:
        problem: what is wrong, naming the file, field, step or sample.
        remedy: what the user can do about it, as an instruction.
    """

    def __init__(self, problem: str, *, remedy: str = ""):
        self.problem = problem
        self.remedy = remedy
        super().__init__(problem, remedy)

    def __str__(self) -> str:
        return f"{self.problem} — {self.remedy}" if self.remedy else self.problem

    def __reduce__(self):
        return _rebuild, (type(self), self.problem, self.remedy)


def _rebuild(kind: type[WorkbenchError], problem: str, remedy: str) -> WorkbenchError:
    return kind(problem, remedy=remedy)


class ConfigError(WorkbenchError):
    """A setting is unknown, of the wrong type, or contradicts another."""


class DataError(WorkbenchError):
    """A corpus, tokenizer or shard cannot be used as it is."""


class ModelError(WorkbenchError):
    """A model cannot be built, loaded or used for per-sample losses."""


class PolicyError(WorkbenchError):
    """A reweighter, mixer or selector was given, or produced, something invalid."""


class RunError(WorkbenchError):
    """A run folder cannot be written, read, or resumed."""


class NumericsError(WorkbenchError):
    """A loss or gradient stopped being finite."""


def nearest(name: str, options: Iterable[str]) -> str | None:
    """The option most like `name`, or None when none resembles it."""
    matches = difflib.get_close_matches(name.lower(), list(options), n=1, cutoff=0.5)
    return matches[0] if matches else None


def unknown_name(kind: str, name: str, options: Iterable[str]) -> tuple[str, str]:
    """Problem and remedy for an unknown `name` of some `kind`, suggesting the nearest option."""
    known = sorted(options)
    guess = nearest(name, known)
    remedy = f"did you mean '{guess}'?" if guess else ""
    if not guess or len(known) <= 12:
        remedy = f"{remedy} known: {', '.join(known)}".strip()
    return f"unknown {kind} '{name}'", remedy
