"""Both forms of a kernel count the same operations, in the interpreter."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from workbench.core import IGNORE_INDEX
from workbench.kernels import chunked_token_loss, sample_loss
from workbench.kernels.counting import note_flops
from workbench.kernels.domain_gradients import domain_parts
from workbench.kernels.influence_scores import contract
from workbench.kernels.kronecker import token_moments
from workbench.models.operations import counted

TRITON = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
LIGER = pytest.mark.skipif(find_spec("liger_kernel") is None, reason="liger-kernel is missing")
B, T, D, V, K = 3, 7, 20, 53, 4
OUTPUTS = 24
PRODUCT = 2 * B * T * D * V
"""Operations of one product with the output embedding."""

chunked = import_module("workbench.kernels.chunked")


def drawn(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def loss_problem(dtype=torch.float32):
    hidden = drawn(B, T, D, dtype=dtype).requires_grad_()
    head = drawn(V, D, dtype=dtype, seed=1).requires_grad_()
    labels = torch.randint(0, V, (B, T), generator=torch.Generator().manual_seed(2))
    labels[1, 2] = IGNORE_INDEX
    return hidden, head, labels


def passes_of(function, *given):
    """Operations of the forward pass alone, and of both."""
    with counted() as forward:
        loss = function(*given)
    with counted() as backward:
        loss.sum().backward()
    return forward.total, forward.total + backward.total


def of_domains():
    return domain_parts(drawn(B, T, OUTPUTS), drawn(B, T, D, seed=1), [(2, 0, 1), (0, 1, 3)], K)


def of_factors(weight=None):
    return token_moments(drawn(B, T, D), weight)


def of_weighted_factors():
    return of_factors(drawn(B, T, seed=1).abs())


def of_scores(outputs=OUTPUTS):
    sides = [drawn(outputs, D, seed=1)]
    return contract(drawn(B, T, outputs), sides, drawn(B, T, D, seed=2), torch.float32)


def of_narrow_scores():
    return of_scores(outputs=D // 2)


@TRITON
@pytest.mark.parametrize(
    "kernel", [of_domains, of_factors, of_weighted_factors, of_scores, of_narrow_scores]
)
def test_a_kernel_counts_what_its_twin_counts(kernel, monkeypatch):
    found = {}
    for form in ("torch", "triton"):
        monkeypatch.setenv("WORKBENCH_KERNELS", form)
        with counted() as operations:
            kernel()
        found[form] = operations.total
    assert found["triton"] == found["torch"] > 0


@TRITON
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_counts_what_its_twin_counts_however_it_is_cut(dtype):
    from workbench.kernels.triton_loss import triton_token_loss

    def in_parts(*given):
        return triton_token_loss(*given, part_tokens=16)

    counts = [
        passes_of(form, *loss_problem(dtype))
        for form in (chunked_token_loss, triton_token_loss, in_parts)
    ]
    assert counts == [(PRODUCT, 4 * PRODUCT)] * 3


@TRITON
@LIGER
def test_the_loss_of_liger_counts_its_products():
    """They are torch's own; whether it makes the logits again is its own affair."""
    forward, both = passes_of(lambda *given: sample_loss(*given, form="liger"), *loss_problem())
    assert (forward, both) == (PRODUCT, 4 * PRODUCT)


def test_what_is_noted_counts_once_and_in_a_backward_pass_too():
    class Noting(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            note_flops(5)
            return x * 2

        @staticmethod
        def backward(ctx, *upstream):
            note_flops(7)
            return upstream[0] * 2

    note_flops(100)
    with counted() as outer:
        with counted() as inner:
            y = Noting.apply(torch.ones(2, requires_grad=True))
        y.sum().backward()
    assert (inner.total, outer.total) == (5, 12)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        note_flops(3)
    assert counter.get_total_flops() == 3


def sum_of_a_part():
    """On no device: shapes are multiplied, and the operation of a GPU is dispatched."""
    head_grad = torch.empty(V, D, device="meta")
    error, hidden = (torch.empty(9, n, device="meta", dtype=torch.bfloat16) for n in (V, D))
    with counted() as operations:
        chunked._add_product(head_grad, error, hidden)
    return operations.total


@pytest.mark.parametrize("obstacle", ["", "some reason"])
def test_a_sum_in_another_type_counts_with_and_without_the_operation_for_it(monkeypatch, obstacle):
    monkeypatch.setattr(chunked, "_wide_sum_obstacle", lambda device: obstacle)
    assert sum_of_a_part() == 2 * 9 * V * D


def test_a_torch_without_a_sum_in_another_type_is_named(monkeypatch, caplog):
    class Old:
        @staticmethod
        def overloads():
            return ["default", "out"]

    chunked._wide_sum_obstacle.cache_clear()
    try:
        assert chunked._wide_sum_obstacle("cuda") == ""
        chunked._wide_sum_obstacle.cache_clear()
        monkeypatch.setattr(torch.ops.aten, "addmm", Old)
        with caplog.at_level("INFO", logger="workbench.kernels.chunked"):
            for _ in range(2):
                assert torch.__version__ in chunked._wide_sum_obstacle("cuda")
    finally:
        chunked._wide_sum_obstacle.cache_clear()
    assert len(caplog.records) == 1 and "before it is added in float32" in caplog.text
