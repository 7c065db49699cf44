"""Named random streams: independent of order, exactly restorable, a function of the seed."""

from __future__ import annotations

import numpy as np

from workbench.core import RandomStreams, Stateful, stream_seed


def test_a_stream_does_not_depend_on_who_drew_first():
    first, second = RandomStreams(0), RandomStreams(0)
    a = first["sampler"].random(4)
    second["exploration"].random(100)
    np.testing.assert_array_equal(second["sampler"].random(4), a)


def test_names_seeds_and_steps_give_different_draws():
    draws = [
        RandomStreams(0).at("sampler", 1).random(),
        RandomStreams(0).at("sampler", 2).random(),
        RandomStreams(1).at("sampler", 1).random(),
        RandomStreams(0).at("shuffle", 1).random(),
    ]
    assert len(set(draws)) == len(draws)


def test_a_draw_at_a_step_needs_no_state():
    streams = RandomStreams(3)
    before = streams.at("sampler", 7).random(5)
    streams["sampler"].random(11)
    np.testing.assert_array_equal(streams.at("sampler", 7).random(5), before)


def test_state_restores_the_next_draw_of_every_stream():
    streams = RandomStreams(5)
    streams["a"].random(3)
    streams["b"].normal(size=2)
    twin = RandomStreams(99)
    twin.load_state_dict(streams.state_dict())
    for name in ("a", "b", "never drawn from"):
        np.testing.assert_array_equal(twin[name].random(6), streams[name].random(6))
    assert isinstance(streams, Stateful)


def test_saved_state_is_a_snapshot():
    streams = RandomStreams(5)
    streams["a"].random()
    state = streams.state_dict()
    expected = streams["a"].random()
    streams.load_state_dict(state)
    assert streams["a"].random() == expected


def test_stream_seed_fits_a_torch_generator():
    seeds = {stream_seed(0, name, step) for name in ("init", "dropout") for step in range(50)}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)
