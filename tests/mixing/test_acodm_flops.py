"""Operations of the agent, from the sizes of its networks, are those that torch dispatches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from workbench.core import MIXERS, CountedMixer, MixingTask
from workbench.mixing.acodm.agent import Agent, Settings
from workbench.mixing.acodm.networks import Network, reference_network

STATE, DOMAINS, ROWS = 9, 4, 8
HIDDEN = (16, 24)


def dispatched(work):
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def twin(inputs, outputs, *, frozen=False):
    network = reference_network(inputs=inputs, outputs=outputs, hidden=HIDDEN, seed=0)
    return network.requires_grad_(not frozen)


def inputs(*shape):
    """Slopes in the inputs are taken too, as the written-out backward pass does."""
    return torch.randn(*shape, requires_grad=True)


def update(settings, *, actor):
    """The passes of one update, by autograd."""
    climbs = settings.critic != "none"
    outputs = DOMAINS if settings.critic == "vector" else 1
    own = settings.actor_step == "own"
    if climbs:
        if settings.discount:
            with torch.no_grad():
                twin(STATE, DOMAINS)(inputs(ROWS, STATE))
                twin(STATE + DOMAINS, outputs)(inputs(ROWS, STATE + DOMAINS))
        twin(STATE + DOMAINS, outputs)(inputs(ROWS, STATE + DOMAINS)).square().mean().backward()
    if not actor:
        return
    mixture_NK = twin(STATE, DOMAINS)(inputs(ROWS, STATE)).softmax(dim=1)
    gain = mixture_NK.sum()
    if climbs:
        joined = torch.cat([inputs(ROWS, STATE), mixture_NK], dim=1)
        gain = gain + twin(STATE + DOMAINS, outputs, frozen=own)(joined).sum()
    gain.backward()


@pytest.mark.parametrize("actor", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        Settings(HIDDEN),
        Settings(HIDDEN, discount=0.9),
        Settings(HIDDEN, critic="vector"),
        Settings(HIDDEN, critic="none"),
        Settings(HIDDEN, actor_step="critics"),
    ],
    ids=["own", "discounted", "vector", "no critic", "critic's optimiser"],
)
def test_an_update_costs_what_its_networks_sizes_say(settings, actor):
    agent = Agent(state=STATE, domains=DOMAINS, settings=settings, seed=0)
    expected = dispatched(lambda: update(settings, actor=actor))
    assert agent.update_flops(ROWS, actor=actor) == expected


def test_a_forward_pass_costs_two_for_each_weight():
    network = Network(inputs=STATE, outputs=DOMAINS, hidden=HIDDEN, seed=0)
    reference = twin(STATE, DOMAINS)
    assert ROWS * network.flops_per_row == dispatched(lambda: reference(torch.randn(ROWS, STATE)))


@pytest.fixture
def task():
    return MixingTask(("a", "b", "c"), np.array([100, 200, 700]), total_steps=100, seed=3)


def test_a_step_that_neither_acts_nor_learns_costs_nothing(task):
    mixer = MIXERS.build("acodm", task, warmup_steps=2, batch_size=4)
    assert isinstance(mixer, CountedMixer)
    most = mixer.agent.act_flops + mixer.agent.update_flops(4)
    assert mixer.policy_flops == most
    mixer.propose(0)
    assert mixer.policy_flops == 0
    mixer.propose(2)
    assert mixer.policy_flops == mixer.agent.act_flops < most
    assert not isinstance(MIXERS.build("exp3", task), CountedMixer)


def test_a_policy_that_only_acts_may_cost_no_more(task):
    mixer = MIXERS.build("frozen_random", task)
    assert mixer.policy_flops == mixer.agent.act_flops


def test_the_operations_of_a_run_are_in_its_policy_phase(nano_config, cache_dir, tmp_path):
    from workbench.config import Policy
    from workbench.training import train

    learner = Policy("acodm", warmup_steps=2, batch_size=4, tracked_layers=1)
    config = nano_config.change(total_steps=8).replace(mixer=learner)
    run = train(config, tmp_path, cache_dir=cache_dir)
    spent = [event["policy_flops"] for event in run.events("step")]
    # Acting begins after two steps; learning once four steps were seen, with the actor by then.
    assert spent[0] == spent[1] == 0 < spent[2] < spent[-1]
    assert run.summary()["compute"]["policy"]["flops"] == sum(spent)
