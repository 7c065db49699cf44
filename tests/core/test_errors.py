"""Errors carry a remedy, survive pickling, and suggest the nearest name."""

from __future__ import annotations

import pickle

import pytest

from workbench.core import DataError, WorkbenchError, nearest, unknown_name


def test_an_error_reads_as_one_line_with_its_remedy():
    error = DataError("domain 'code' has 3 rows", remedy="lower batch_rows to 3")
    assert str(error) == "domain 'code' has 3 rows — lower batch_rows to 3"
    assert isinstance(error, WorkbenchError)


def test_an_error_without_remedy_has_no_dangling_dash():
    assert str(DataError("gone")) == "gone"


def test_an_error_crosses_a_process_boundary_whole():
    error = pickle.loads(pickle.dumps(DataError("gone", remedy="look elsewhere")))
    assert type(error) is DataError
    assert (error.problem, error.remedy) == ("gone", "look elsewhere")


@pytest.mark.parametrize(
    ("typed", "meant"), [("tempreture", "temperature"), ("LinUpper", "linupper"), ("zzz", None)]
)
def test_nearest_finds_what_was_meant(typed, meant):
    assert nearest(typed, ["temperature", "linupper", "uniform"]) == meant


def test_an_unknown_name_lists_few_options_but_not_many():
    problem, remedy = unknown_name("mixer", "statik", ["static", "exp3"])
    assert problem == "unknown mixer 'statik'"
    assert remedy == "did you mean 'static'? known: exp3, static"
    many = [f"option_{i:02}" for i in range(30)]
    assert unknown_name("field", "option_1", many)[1].endswith("?")
