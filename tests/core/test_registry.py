"""The strict registry: unknown names and options are errors that name the nearest."""

from __future__ import annotations

import pytest

from workbench.core import ConfigError, Registry


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
