"""Vectors, edge cases and invariances of `sample_weights` (numbers: softmax weights, sum 1)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracle import reweighting as oracle
from workbench.core import REWEIGHTERS, ConfigError
from workbench.reweighting import STRATEGIES, sample_weights, strategy

PAPER_FLOOR = 1e-6


def softmax_weights(losses, *, temperature, strategy="linupper", **options):
    weight_B = sample_weights(
        torch.tensor(losses), strategy=strategy, temperature=temperature, **options
    )
    return weight_B / len(losses)


@pytest.mark.parametrize(
    ("losses", "temperature", "expected"),
    [
        ([2, 2.5, 3, 3.5, 4], 0.4, [0.024368, 0.085052, 0.296860, 0.296860, 0.296860]),
        ([2, 2.5, 3, 3.5, 4], 1.0, [0.092562, 0.152609, 0.251610, 0.251610, 0.251610]),
        ([1, 1.1, 1.2, 10], 0.4, [0.065116, 0.068836, 0.072769, 0.793279]),
        ([2.0, 5.0], 0.4, [0.075858, 0.924142]),
        ([2.0, 9.0], 0.4, [0.075858, 0.924142]),
        ([3.3, 3.3, 3.3, 3.3], 0.4, [0.25, 0.25, 0.25, 0.25]),
        ([7.0], 0.4, [1.0]),
    ],
)
def test_linupper_gives_the_published_weights(losses, temperature, expected):
    weights = softmax_weights(losses, temperature=temperature, floor=PAPER_FLOOR)
    torch.testing.assert_close(weights, torch.tensor(expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("strategy", "temperature", "expected"),
    [
        ("quadratic", 0.4, [0.036732, 0.239523, 0.447489, 0.239523, 0.036732]),
        ("extremes", 1.0, [0.279256, 0.169377, 0.102733, 0.169377, 0.279256]),
        ("upper", 0.4, [0.039901, 0.074545, 0.139269, 0.260189, 0.486096]),
    ],
)
def test_other_strategies_give_the_published_weights(strategy, temperature, expected):
    weights = softmax_weights(
        [2, 2.5, 3, 3.5, 4], strategy=strategy, temperature=temperature, floor=PAPER_FLOOR
    )
    torch.testing.assert_close(weights, torch.tensor(expected), atol=1e-6, rtol=0)


def test_uniform_is_uniform_and_not_a_softmax_of_the_losses():
    assert softmax_weights([2.0, 3.0, 4.0], strategy="uniform", temperature=0.4).tolist() == (
        pytest.approx([1 / 3] * 3)
    )


losses_B = st.lists(st.floats(0.125, 12), min_size=2, max_size=40)


@settings(deadline=None)
@given(losses_B, st.floats(0.1, 10))
def test_weights_have_mean_one_and_bounded_ratio(losses, temperature):
    weight_B = sample_weights(torch.tensor(losses), strategy="linupper", temperature=temperature)
    assert weight_B.mean().item() == pytest.approx(1, abs=1e-4)
    ratio = weight_B.max() / weight_B.min()
    assert ratio <= torch.exp(torch.tensor(1 / temperature)) * (1 + 1e-4)


@settings(deadline=None)
@given(st.permutations([1.0, 2.0, 2.5, 4.0, 7.0]))
def test_weights_permute_with_the_losses(losses):
    in_order = sorted(losses)
    permuted = softmax_weights(losses, temperature=0.4)
    sorted_weights = softmax_weights(in_order, temperature=0.4)
    expected = [sorted_weights[in_order.index(loss)] for loss in losses]
    torch.testing.assert_close(permuted, torch.stack(expected))


@settings(deadline=None)
@given(st.floats(0.5, 20), st.floats(-1, 5))
def test_weights_ignore_scale_and_shift_of_the_losses(scale, shift):
    base = torch.tensor([2.0, 2.4, 3.1, 4.0])
    moved = [float(scale * loss + shift + 2) for loss in base]
    torch.testing.assert_close(
        softmax_weights(moved, temperature=0.4, floor=PAPER_FLOOR),
        softmax_weights(base.tolist(), temperature=0.4, floor=PAPER_FLOOR),
        atol=1e-4,
        rtol=1e-3,
    )


def test_high_temperature_tends_to_uniform():
    weights = softmax_weights([1.0, 2.0, 3.0], temperature=1e6)
    torch.testing.assert_close(weights, torch.full((3,), 1 / 3), atol=1e-5, rtol=0)


def test_near_equal_losses_keep_near_equal_weights_with_the_relative_floor():
    losses = [3.0, 3.000001, 3.000002]
    relative = softmax_weights(losses, temperature=0.4)
    faithful = softmax_weights(losses, temperature=0.4, floor=PAPER_FLOOR)
    assert relative.max() / relative.min() < 1.01
    assert faithful.max() / faithful.min() > 5


def test_large_losses_do_not_cancel():
    weights = softmax_weights([1e4, 1e4 + 0.5, 1e4 + 1], temperature=0.4, floor=PAPER_FLOOR)
    torch.testing.assert_close(
        weights, softmax_weights([0.0, 0.5, 1.0], temperature=0.4, floor=PAPER_FLOOR)
    )


def test_invalid_and_non_finite_rows_get_no_weight_and_do_not_stretch_the_range():
    loss_B = torch.tensor([2.0, 3.0, 500.0, float("nan"), float("inf"), 4.0])
    valid_B = torch.tensor([True, True, False, True, True, True])
    weight_B = sample_weights(loss_B, strategy="linupper", temperature=0.4, valid_B=valid_B)
    alone_B = sample_weights(torch.tensor([2.0, 3.0, 4.0]), strategy="linupper", temperature=0.4)
    torch.testing.assert_close(weight_B[[0, 1, 5]], alone_B)
    assert weight_B[[2, 3, 4]].tolist() == [0, 0, 0]


def test_no_valid_row_means_no_weight():
    loss_B = torch.tensor([float("nan"), 2.0])
    none_B = torch.tensor([True, False])
    weight_B = sample_weights(loss_B, strategy="linupper", temperature=0.4, valid_B=none_B)
    assert weight_B.tolist() == [0, 0]


def test_no_gradient_flows_through_the_weights():
    loss_B = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    weight_B = sample_weights(loss_B, strategy="linupper", temperature=0.4)
    (weight_B * loss_B).sum().backward()
    torch.testing.assert_close(loss_B.grad, weight_B)
    assert not weight_B.requires_grad


def test_half_precision_losses_are_weighed_in_float32():
    weight_B = sample_weights(
        torch.tensor([1.0, 2.0, 3.0], dtype=torch.bfloat16), strategy="linupper", temperature=0.4
    )
    assert weight_B.dtype == torch.float32


def test_unknown_strategy_names_the_nearest():
    with pytest.raises(ConfigError, match="linupper"):
        sample_weights(torch.ones(2), strategy="linuper", temperature=0.4)


names = st.sampled_from(["linupper", "quadratic", "extremes", "upper"])
kinds = st.sampled_from(["range", "rank", "quantile"])


@settings(deadline=None, max_examples=200)
@given(losses_B, names, kinds, st.floats(0.2, 5))
def test_every_strategy_and_normaliser_equals_the_slow_truth(losses, name, kind, temperature):
    truth = oracle.weights(losses, name, temperature=temperature, kind=kind, floor=1e-3)
    ours = sample_weights(
        torch.tensor(losses, dtype=torch.float64),
        strategy=name,
        temperature=temperature,
        normalise=kind,
        floor=1e-3,
    )
    assert ours.dtype == torch.float64
    torch.testing.assert_close(ours, torch.tensor(truth, dtype=torch.float64), atol=1e-9, rtol=0)


@settings(deadline=None)
@given(losses_B, st.floats(1.05, 4), st.floats(0.1, 2))
def test_cap_equals_repeated_cutting_and_keeps_the_mean(losses, cap, temperature):
    loss_B = torch.tensor(losses, dtype=torch.float64)
    options = {"strategy": "upper", "temperature": temperature, "floor": 1e-3}
    free = sample_weights(loss_B, **options)
    ours = sample_weights(loss_B, **options, max_weight=cap)
    truth = oracle.cut_and_redistribute(free.tolist(), cap)
    torch.testing.assert_close(ours, torch.tensor(truth, dtype=torch.float64), atol=1e-5, rtol=0)
    assert ours.max() <= cap and ours.mean().item() == pytest.approx(1, abs=1e-5)


def test_cap_leaves_invalid_rows_at_zero():
    valid_B = torch.tensor([True, True, True, True, False])
    weight_B = sample_weights(
        torch.tensor([1.0, 1.1, 1.2, 10.0, 50.0]),
        strategy="upper",
        temperature=0.2,
        max_weight=1.5,
        valid_B=valid_B,
    )
    assert weight_B[4] == 0 and weight_B[3] == 1.5
    assert weight_B[:4].mean().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("target", [0.5, 0.8, 0.95])
def test_target_effective_size_is_met(target):
    loss_B = torch.rand(64, generator=torch.Generator().manual_seed(0)) * 4 + 1
    weight_B = sample_weights(
        loss_B, strategy="upper", temperature=99.0, target_ess=target, normalise="rank"
    )
    assert oracle.effective_fraction(weight_B.tolist()) == pytest.approx(target, abs=2e-3)


def test_a_target_out_of_reach_gives_the_nearest_size():
    loss_B = torch.linspace(1, 5, 64)
    weight_B = sample_weights(loss_B, strategy="linupper", temperature=1.0, target_ess=0.1)
    assert oracle.effective_fraction(weight_B.tolist()) == pytest.approx(0.5, abs=0.02)


def test_rank_bounds_the_heaviest_weight_of_linupper():
    loss_B = torch.tensor([1, 1.1, 1.2, 10.0])
    by_range = sample_weights(loss_B, strategy="linupper", temperature=0.4)
    assert by_range.max() > 3
    for size in (2, 4, 16, 256):
        losses = torch.rand(size, generator=torch.Generator().manual_seed(size)) ** 8
        for temperature in (0.05, 0.4, 3.0):
            weight_B = sample_weights(
                losses, strategy="linupper", temperature=temperature, normalise="rank"
            )
            assert weight_B.max() <= 2 * (1 + 1e-5)


def test_ranks_make_the_temperature_independent_of_the_batch_size():
    spread = []
    for size in (32, 1024):
        losses = torch.rand(size, generator=torch.Generator().manual_seed(1)).exp()
        weight_B = sample_weights(losses, strategy="upper", temperature=0.4, normalise="rank")
        spread.append(float(weight_B.max() / weight_B.min()))
    assert spread[0] == pytest.approx(spread[1], rel=1e-4)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"normalise": "rnak"}, "did you mean 'rank'"),
        ({"max_weight": 1.0}, "above 1"),
        ({"target_ess": 1.5}, "fraction"),
    ],
)
def test_impossible_options_are_refused(option, says):
    with pytest.raises(ConfigError, match=says):
        sample_weights(torch.ones(3), strategy="linupper", temperature=1.0, **option)


def test_a_strategy_of_ones_own_works_wherever_a_name_does(request):
    name = "easy_first"
    request.addfinalizer(lambda: STRATEGIES.pop(name, None))
    request.addfinalizer(lambda: REWEIGHTERS._factories.pop(name, None))

    @strategy(name)
    def easy_first(h_B, *, delta):
        return -h_B

    weight_B = sample_weights(torch.tensor([1.0, 2.0, 3.0]), strategy=name, temperature=1.0)
    assert weight_B[0] > weight_B[1] > weight_B[2]
    built = REWEIGHTERS.build(name, temperature=1.0)
    valid_B = torch.ones(3, dtype=torch.bool)
    assert torch.equal(built.weigh(torch.tensor([1.0, 2.0, 3.0]), valid_B, 0), weight_B)
    with pytest.raises(ConfigError, match="registered twice"):
        strategy(name)(easy_first)
