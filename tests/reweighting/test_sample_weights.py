"""Vectors, edge cases and invariances of `sample_weights` (numbers: softmax weights, sum 1)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core import ConfigError
from workbench.reweighting import sample_weights

PAPER_FLOOR = 1e-6


def softmax_weights(losses, *, temperature, **options):
    weight_B = sample_weights(
        torch.tensor(losses), strategy="linupper", temperature=temperature, **options
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
