"""Controls come from the config: what is shown can be set, and what is set is checked."""

from __future__ import annotations

import pytest

import workbench.reweighting  # noqa: F401  (registers the policies offered)
from workbench.config import RunConfig
from workbench.core import REWEIGHTERS, ConfigError
from workbench.widgets.controls import changes_asked, live_controls


def controls_by_name(config: RunConfig) -> dict:
    return {control.name: control for control in live_controls(config)}


def test_the_temperature_is_offered_only_where_the_policy_has_one():
    assert "reweighter.temperature" not in controls_by_name(RunConfig(reweighter="uniform"))
    offered = controls_by_name(RunConfig(reweighter="linupper"))
    assert offered["reweighter.temperature"].value == 0.4


def test_every_registered_reweighter_can_be_chosen():
    assert set(REWEIGHTERS.names()) == set(controls_by_name(RunConfig())["reweighter"].options)


def test_every_control_changes_the_setting_it_shows():
    config = RunConfig(reweighter="linupper")
    for name, text in (
        ("reweighter.temperature", " 1.5 "),
        ("peak_lr", "3e-4"),
        ("reweighter", "uniform"),
    ):
        changed = config.change(**changes_asked({name: text}, live_controls(config)))
        assert str(controls_by_name(changed)[name].value) in (text.strip(), "0.0003")


def test_text_where_a_number_belongs_is_an_error_that_names_the_field():
    config = RunConfig(reweighter="linupper")
    with pytest.raises(ConfigError, match="Temperature: 'hot' is not a number"):
        changes_asked({"reweighter.temperature": "hot"}, live_controls(config))
