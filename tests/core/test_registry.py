"""The strict registry: unknown names and options are errors that name the nearest."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from workbench.core import (
    MIXERS,
    REWEIGHTERS,
    SELECTORS,
    ConfigError,
    Count,
    Positive,
    Registry,
    Share,
    ShareBelowOne,
    Whole,
)


@pytest.fixture
def registry() -> Registry:
    registry = Registry("mixer", supplied=("domains",))

    @registry.register("exp3")
    class Exp3:
        def __init__(self, domains, *, rate: float = 0.1, floor: float):
            self.domains, self.rate, self.floor = domains, rate, floor

    return registry


def test_build_passes_what_the_loop_supplies_and_what_the_user_set(registry):
    mixer = registry.build("exp3", ("a", "b"), floor=0.2)
    assert (mixer.domains, mixer.rate, mixer.floor) == (("a", "b"), 0.1, 0.2)


@pytest.fixture
def typed() -> Registry:
    registry = Registry("mixer", supplied=("task",))

    def factory(
        task,
        *,
        form: Literal["paper", "official"] = "paper",
        steps: Whole = 0,
        rows: Count | None = None,
        share: Share = 0.5,
        decay: ShareBelowOne = 0.5,
        rate: Positive = 1.0,
        folder: str | Path | None = None,
        exact: bool = False,
        stages: Mapping[int, str] | None = None,
    ):
        return form

    registry.register("typed")(factory)
    return registry


@pytest.mark.parametrize(
    ("option", "value", "remedy"),
    [
        ("form", "offical", "did you mean 'official'? give one of 'paper', 'official'"),
        ("form", None, "give one of 'paper', 'official'"),
        ("steps", 1.5, "give a whole number of at least 0"),
        ("steps", -1, "give a whole number of at least 0"),
        ("steps", True, "give a whole number of at least 0"),
        ("rows", 0, "give a whole number of at least 1 or None"),
        ("share", 1.5, "give a number from 0 to 1"),
        ("share", float("nan"), "give a number from 0 to 1"),
        ("share", "0.5", "give a number from 0 to 1"),
        ("decay", 1.0, "give a number from 0 to below 1"),
        ("rate", 0, "give a number above 0"),
        ("folder", 3, "give text or Path or None"),
        ("exact", 1, "give True or False"),
    ],
)
def test_a_value_the_annotation_excludes_is_refused_with_what_would_do(
    typed, option, value, remedy
):
    with pytest.raises(ConfigError, match=f"^{option} = ") as error:
        typed.check("typed", {option: value})
    assert error.value.remedy == remedy and "in mixer 'typed'" in str(error.value)


def test_values_the_annotations_allow_pass(typed):
    fine = {
        "form": "official",
        "steps": np.int64(3),
        "rows": None,
        "share": 1,
        "rate": np.float32(0.1),
        "folder": Path("runs"),
        "exact": True,
        "stages": {"0": "uniform"},
    }
    assert typed.build("typed", "task", **fine) == "official"


def test_defaults_of_every_policy_are_values_it_allows():
    import workbench.mixing
    import workbench.reweighting
    import workbench.selection  # noqa: F401

    for registry in (MIXERS, REWEIGHTERS, SELECTORS):
        for name in registry.names():
            given = {o: v for o, v in registry.options(name).items() if v is not Parameter.empty}
            missing = registry.options(name).keys() - given.keys()
            registry.check(name, {**given, **dict.fromkeys(missing, "runs/reference")})


def test_an_annotation_that_cannot_be_resolved_checks_nothing():
    registry = Registry("mixer")

    @registry.register("odd")
    class Odd:
        def __init__(self, *, rate: Unknown = 1):  # noqa: F821  # pyright: ignore
            self.rate = rate

    assert registry.build("odd", rate="any").rate == "any"


def test_an_unknown_policy_names_the_nearest(registry):
    with pytest.raises(ConfigError, match=r"unknown mixer 'exp2' — did you mean 'exp3'\?"):
        registry.check("exp2", {})


def test_an_unknown_option_names_the_nearest_and_the_policy(registry):
    with pytest.raises(ConfigError, match=r"'flor' in 'exp3' — did you mean 'floor'\?"):
        registry.check("exp3", {"flor": 0.1})


def test_a_missing_required_option_is_named(registry):
    with pytest.raises(ConfigError, match="needs the option 'floor'"):
        registry.check("exp3", {"rate": 0.1})


def test_what_the_loop_supplies_cannot_be_set(registry):
    with pytest.raises(ConfigError, match="unknown option of mixer 'domains'"):
        registry.check("exp3", {"floor": 0.1, "domains": ("a",)})


def test_a_name_is_registered_once(registry):
    with pytest.raises(ConfigError, match="registered twice"):
        registry.register("exp3")(dict)
