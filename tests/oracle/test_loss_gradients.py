"""Slow truths of the loss kernel: finite differences, and a loss known in closed form."""

from __future__ import annotations

import math

import pytest
import torch

from workbench.core import IGNORE_INDEX
from workbench.kernels import chunked_token_loss, reference_sample_loss, sample_loss

FUNCTIONS = {
    "reference": reference_sample_loss,
    "full": lambda h, w, y: sample_loss(h, w, y, form="full"),
    "chunked": lambda h, w, y: sample_loss(h, w, y, form="chunked"),
    "chunks of 3": lambda h, w, y: chunked_token_loss(h, w, y, chunk_tokens=3),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_are_those_of_finite_differences(name):
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 4, 5, generator=g, dtype=torch.float64, requires_grad=True)
    head = torch.randn(7, 5, generator=g, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 7, (3, 4), generator=g)
    labels[0, 1] = labels[2] = IGNORE_INDEX
    assert torch.autograd.gradcheck(lambda h, w: FUNCTIONS[name](h, w, labels), (hidden, head))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_equal_logits_cost_the_logarithm_of_the_vocabulary(name):
    hidden, head = torch.ones(2, 3, 4), torch.ones(11, 4)
    loss = FUNCTIONS[name](hidden, head, torch.zeros(2, 3, dtype=torch.int64))
    torch.testing.assert_close(loss.double(), torch.full_like(loss, math.log(11)).double())


@pytest.mark.parametrize("name", ["reference", "full", "chunked"])
def test_a_row_is_the_mean_over_its_active_tokens(name):
    """Two tokens, p = 1/2 and p = 1/4 on their labels, a third ignored: (ln 2 + ln 4) / 2."""
    p_TV = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5], [0.1, 0.1, 0.8]])
    labels = torch.tensor([[0, 1, IGNORE_INDEX]])
    loss_B = FUNCTIONS[name](p_TV.log()[None], torch.eye(3), labels)
    assert loss_B.tolist() == pytest.approx([1.5 * math.log(2)])
