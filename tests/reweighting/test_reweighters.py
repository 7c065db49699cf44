"""Schedules, controls and the streaming form of the loop's reweighters."""

import pytest
import torch

from workbench.core import REWEIGHTERS, ConfigError, StreamingReweighter
from workbench.reweighting.normalisers import range_bounds
from workbench.reweighting.schedule import Temperature


def losses(seed, rows=16):
    return 2 + 3 * torch.rand(rows, generator=torch.Generator().manual_seed(seed))


ALL = torch.ones(16, dtype=torch.bool)


def test_temperature_waits_then_anneals_geometrically():
    schedule = Temperature(end=0.4, start=1.6, warmup_steps=10, anneal_steps=4)
    assert [schedule.at(step) for step in (0, 9)] == [None, None]
    expected = [1.6, 1.6 / 2**0.5, 0.8, 0.8 / 2**0.5, 0.4, 0.4]
    assert [schedule.at(step) for step in range(10, 16)] == pytest.approx(expected)


def test_temperature_without_an_anneal_is_a_hard_switch():
    schedule = Temperature(end=0.4, warmup_steps=3)
    assert [schedule.at(step) for step in (2, 3, 99)] == [None, 0.4, 0.4]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"start_temperature": -1.0}, "start_temperature"),
        ({"anneal_steps": -1}, "anneal_steps"),
        ({"scope": "stpe"}, "did you mean 'step'"),
        ({"control": "shufled"}, "did you mean 'shuffled'"),
        ({"normalise": "rnage"}, "did you mean 'range'"),
    ],
)
def test_options_that_cannot_work_are_refused(options, says):
    with pytest.raises(ConfigError, match=says):
        REWEIGHTERS.build("linupper", **options)


def test_shuffled_weights_are_the_same_weights_on_other_valid_rows():
    valid_B = torch.arange(16) % 5 != 0
    plain = REWEIGHTERS.build("linupper")
    control = REWEIGHTERS.build("linupper", control="shuffled")
    ours = plain.weigh(losses(1), valid_B, 7)
    theirs = control.weigh(losses(1), valid_B, 7)
    assert torch.equal(ours.sort().values, theirs.sort().values)
    assert not torch.equal(ours, theirs)
    assert (theirs[~valid_B] == 0).all()
    assert torch.equal(theirs, control.weigh(losses(1), valid_B, 7))
    assert not torch.equal(theirs, control.weigh(losses(1), valid_B, 8))


def test_stream_weights_are_the_step_weights_once_the_range_is_known():
    reweighter = REWEIGHTERS.build("linupper", scope="stream")
    assert isinstance(reweighter, StreamingReweighter) and reweighter.streams
    loss_B = losses(3)
    assert torch.equal(reweighter.weigh_ahead(loss_B, ALL, 0), ALL.float())
    reweighter.observe(loss_B, ALL, 0)
    ahead = torch.cat([reweighter.weigh_ahead(part, ALL[:4], 1) for part in loss_B.split(4)])
    exact = reweighter.weigh(loss_B, ALL, 1)
    torch.testing.assert_close(ahead * len(ahead) / ahead.sum(), exact)


def test_running_range_follows_the_losses_and_survives_a_restart():
    reweighter = REWEIGHTERS.build("linupper", scope="stream")
    low, high = range_bounds(losses(0), ALL)
    reweighter.observe(losses(0), ALL, 0)
    reweighter.observe(losses(0) + 1, ALL, 1)
    again = REWEIGHTERS.build("linupper", scope="stream")
    again.load_state_dict(reweighter.state_dict())
    bounds = again.state_dict()["bounds"]
    torch.testing.assert_close(bounds, torch.stack([low, high]) + 0.1)


@pytest.mark.parametrize(
    "options",
    [{"normalise": "rank"}, {"max_weight": 2.0}, {"target_ess": 0.8}, {"control": "shuffled"}],
    ids=str,
)
def test_options_that_need_the_whole_step_do_not_stream(options):
    assert not REWEIGHTERS.build("linupper", **options).streams


def test_diagnostics_name_the_temperature_in_force():
    scheduled = REWEIGHTERS.build("linupper", temperature=0.4, warmup_steps=2)
    scheduled.weigh(losses(0), ALL, 1)
    assert dict(scheduled.diagnostics(1)) == {}
    scheduled.weigh(losses(0), ALL, 2)
    assert dict(scheduled.diagnostics(2)) == {"temperature": 0.4}
    found = REWEIGHTERS.build("upper", target_ess=0.8)
    found.weigh(losses(0), ALL, 0)
    assert float(found.diagnostics(0)["temperature"]) > 0
