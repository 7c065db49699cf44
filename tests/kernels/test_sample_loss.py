"""Every form against the slow truth, under a random upstream gradient."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from workbench.core import IGNORE_INDEX, ConfigError, ModelError, NumericsError
from workbench.kernels import chunked_token_loss, reference_sample_loss, sample_loss, valid_rows
from workbench.kernels.sample_loss import FULL_LOGITS_MIB

TRITON = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
LIGER = pytest.mark.skipif(find_spec("liger_kernel") is None, reason="liger-kernel is missing")
TORCH_FORMS = ["full", "chunked"]
FORMS = [
    *TORCH_FORMS,
    pytest.param("triton", marks=TRITON),
    pytest.param("liger", marks=[TRITON, LIGER]),
]


def problem(rows=4, tokens=6, width=8, vocab=13, *, dtype=torch.float32, seed=0):
    """Leaves (hidden_BTD, head_VD), labels_BT with ignored tokens and one ignored row."""
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, tokens, width, generator=g).to(dtype).requires_grad_()
    head = torch.randn(vocab, width, generator=g).to(dtype).requires_grad_()
    labels = torch.randint(0, vocab, (rows, tokens), generator=g)
    labels[torch.rand(rows, tokens, generator=g) < 0.2] = IGNORE_INDEX
    labels[rows // 2] = IGNORE_INDEX
    return hidden, head, labels


def loss_and_gradients(function, hidden, head, labels, upstream_B=None, **options):
    loss_B = function(hidden, head, labels, **options)
    if upstream_B is None:
        upstream_B = torch.randn(len(loss_B), generator=torch.Generator().manual_seed(9))
    gradients = torch.autograd.grad(loss_B, (hidden, head), upstream_B.to(loss_B.dtype))
    return loss_B.detach(), *gradients


def assert_same(actual, expected, **tolerance):
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e.to(a.dtype), **tolerance)


@pytest.mark.parametrize("form", FORMS)
def test_forms_agree_with_the_reference(form):
    batch = problem()
    actual = loss_and_gradients(sample_loss, *batch, form=form)
    expected = loss_and_gradients(reference_sample_loss, *batch)
    assert actual[0].dtype == torch.float32
    assert_same(actual, expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 4),
    tokens=st.integers(1, 9),
    vocab=st.integers(2, 40),
    chunk_tokens=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_any_chunk_size_gives_the_same_numbers(rows, tokens, vocab, chunk_tokens, seed):
    hidden, head, labels = problem(rows, tokens, 5, vocab, dtype=torch.float64, seed=seed)
    upstream = torch.randn(rows, tokens, dtype=torch.float64)
    nll_BT = chunked_token_loss(hidden, head, labels, chunk_tokens=chunk_tokens)
    expected_BT = torch.nn.functional.cross_entropy(
        (hidden @ head.T).flatten(0, 1), labels.flatten(), reduction="none"
    ).view(rows, tokens)
    assert_same((nll_BT,), (expected_BT,))
    assert_same(
        torch.autograd.grad(nll_BT, (hidden, head), upstream),
        torch.autograd.grad(expected_BT, (hidden, head), upstream),
    )


@pytest.mark.parametrize("form", FORMS)
def test_one_row_s_gradient_does_not_depend_on_the_others_weight(form):
    hidden, head, labels = problem()
    light, heavy = torch.tensor([1.0, 0, 0, 0]), torch.tensor([1.0, 0, 0, 1e4])
    _, light_grad, _ = loss_and_gradients(sample_loss, hidden, head, labels, light, form=form)
    _, heavy_grad, _ = loss_and_gradients(sample_loss, hidden, head, labels, heavy, form=form)
    assert torch.equal(light_grad[0], heavy_grad[0])
    assert light_grad[1:].abs().max() == 0


@pytest.mark.parametrize("form", FORMS)
def test_an_ignored_row_has_loss_and_gradient_zero(form):
    hidden, head, labels = problem()
    ignored = len(labels) // 2
    loss_B, hidden_grad, head_grad = loss_and_gradients(
        sample_loss, hidden, head, labels, form=form
    )
    assert loss_B[ignored] == 0
    assert hidden_grad[ignored].abs().max() == 0
    assert torch.isfinite(head_grad).all()
    assert valid_rows(labels).tolist() == [row != ignored for row in range(len(labels))]


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_without_any_active_token_is_finite(form):
    hidden, head, labels = problem()
    labels = torch.full_like(labels, IGNORE_INDEX)
    loss_B, *gradients = loss_and_gradients(sample_loss, hidden, head, labels, form=form)
    assert loss_B.abs().max() == 0
    assert all(gradient.abs().max() == 0 for gradient in gradients)
    assert not valid_rows(labels).any()


@pytest.mark.parametrize("form", FORMS)
def test_large_logits_do_not_overflow(form):
    hidden, head, labels = problem()
    batch = (hidden.detach().mul(300).requires_grad_(), head, labels)
    actual = loss_and_gradients(sample_loss, *batch, form=form)
    expected = loss_and_gradients(reference_sample_loss, *batch)
    assert_same(actual, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_reduced_in_float32(form, dtype):
    batch = problem(vocab=200, width=16, dtype=dtype)
    actual = loss_and_gradients(sample_loss, *batch, form=form)
    expected = loss_and_gradients(reference_sample_loss, *batch)
    precision = 4 * torch.finfo(dtype).eps
    assert actual[0].dtype == torch.float32
    assert [gradient.dtype for gradient in actual[1:]] == [dtype, dtype]
    assert_same(actual, expected, rtol=precision, atol=precision)


def test_many_half_precision_chunks_are_added_in_float32():
    """256 equal chunks: added up in bfloat16, the sum would stop growing at 2⁸ of them."""
    hidden = torch.ones(1, 256, 4, dtype=torch.bfloat16)
    head = torch.zeros(2, 4, dtype=torch.bfloat16, requires_grad=True)
    labels = torch.zeros(1, 256, dtype=torch.int64)
    nll_BT = chunked_token_loss(hidden, head, labels, chunk_tokens=1)
    (gradient,) = torch.autograd.grad(nll_BT, head, torch.full_like(nll_BT, 3.0))
    assert gradient[0].tolist() == [-384.0] * 4


@pytest.mark.parametrize("hidden_type", [torch.float32, torch.bfloat16])
def test_under_autocast_both_forms_multiply_in_bfloat16(hidden_type):
    hidden, head, labels = problem(vocab=300, width=32)
    hidden = hidden.detach().to(hidden_type).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        full = loss_and_gradients(sample_loss, hidden, head, labels, form="full")
        chunked = loss_and_gradients(sample_loss, hidden, head, labels, form="chunked")
    exact = loss_and_gradients(reference_sample_loss, hidden, head, labels)
    assert [g.dtype for g in chunked[1:]] == [hidden_type, torch.float32]
    assert_same(chunked[:1], full[:1], rtol=1e-6, atol=1e-6)
    assert_same(chunked[1:], full[1:], rtol=2e-2, atol=2e-3)
    assert not torch.allclose(chunked[0], exact[0].float(), rtol=1e-6, atol=1e-6)


def test_backward_outside_autocast_repeats_the_product_of_the_forward():
    hidden, head, labels = problem(vocab=300, width=32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss_and_gradients(sample_loss, hidden, head, labels, form="chunked")
        loss_B = sample_loss(hidden, head, labels, form="chunked")
    upstream_B = torch.randn(len(loss_B), generator=torch.Generator().manual_seed(9))
    outside = torch.autograd.grad(loss_B, (hidden, head), upstream_B)
    assert all(map(torch.equal, outside, inside[1:]))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("frozen", ["hidden", "head"])
def test_one_input_alone_may_need_a_gradient(form, frozen):
    hidden, head, labels = problem()
    _, hidden_grad, head_grad = loss_and_gradients(reference_sample_loss, hidden, head, labels)
    upstream_B = torch.randn(4, generator=torch.Generator().manual_seed(9))
    if frozen == "hidden":
        leaf, expected, inputs = head, head_grad, (hidden.detach(), head)
    else:
        leaf, expected, inputs = hidden, hidden_grad, (hidden, head.detach())
    loss_B = sample_loss(*inputs, labels, form=form)
    actual = torch.autograd.grad(loss_B, leaf, upstream_B)
    assert_same(actual, (expected,), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_inputs_need_not_be_contiguous(form):
    hidden, head, labels = problem()
    expected = loss_and_gradients(sample_loss, hidden, head, labels, form=form)
    hidden_t = hidden.detach().transpose(0, 1).contiguous().requires_grad_()
    head_t = head.detach().T.contiguous().requires_grad_()
    labels_t = labels.T.contiguous().T
    loss_B = sample_loss(hidden_t.transpose(0, 1), head_t.T, labels_t, form=form)
    upstream_B = torch.randn(4, generator=torch.Generator().manual_seed(9))
    hidden_grad, head_grad = torch.autograd.grad(loss_B, (hidden_t, head_t), upstream_B)
    assert_same((loss_B, hidden_grad.transpose(0, 1), head_grad.T), expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing_gives_the_same_gradients(form, use_reentrant):
    hidden, head, labels = problem()

    def checkpointed(hidden, head, labels):
        return checkpoint(
            lambda h, w: sample_loss(h.tanh(), w, labels, form=form),
            hidden,
            head,
            use_reentrant=use_reentrant,
        )

    def backward(function):
        hidden.grad = head.grad = None
        function(hidden, head, labels).square().sum().backward()
        return hidden.grad, head.grad

    plain = backward(lambda h, w, y: sample_loss(h.tanh(), w, y, form=form))
    assert_same(backward(checkpointed), plain)


@pytest.mark.parametrize("form", FORMS)
def test_backward_twice_over_a_retained_graph(form):
    hidden, head, labels = problem()
    loss = sample_loss(hidden, head, labels, form=form).sum()
    first = torch.autograd.grad(loss, (hidden, head), retain_graph=True)
    assert_same(torch.autograd.grad(loss, (hidden, head)), first)


def test_a_second_derivative_is_refused_with_the_way_out():
    hidden, head, labels = problem()
    loss = sample_loss(hidden, head, labels, form="chunked").sum()
    with pytest.raises(NumericsError, match="form='full'"):
        torch.autograd.grad(loss, hidden, create_graph=True)


@pytest.mark.parametrize("form", FORMS)
def test_no_gradient_no_graph(form):
    hidden, head, labels = problem()
    with torch.inference_mode():
        assert not sample_loss(hidden, head, labels, form=form).requires_grad


def test_auto_chooses_by_size(monkeypatch):
    chosen, module = [], import_module("workbench.kernels.sample_loss")
    for form, name in (("full", "_full_token_loss"), ("chunked", "chunked_token_loss")):

        def record(hidden, _head, labels, form=form):
            chosen.append(form)
            return torch.zeros(labels.shape)

        monkeypatch.setattr(module, name, record)
    vocab = 2**14
    most_tokens = FULL_LOGITS_MIB * 2**20 // (4 * vocab)
    for tokens in (most_tokens, most_tokens + 1):
        labels = torch.zeros(1, tokens, dtype=torch.int64)
        sample_loss(torch.zeros(1, tokens, 1), torch.zeros(vocab, 1), labels)
    assert chosen == ["full", "chunked"]


def test_unknown_form_names_the_nearest():
    with pytest.raises(ConfigError, match=r"'chunkd'.*'chunked'"):
        sample_loss(*problem(), form="chunkd")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, w, y: (h, w[:, :-1], y), "hidden states and head do not fit"),
        (lambda h, w, y: (h[0], w, y), "hidden states and head do not fit"),
        (lambda h, w, y: (h, w, y[:, :-1]), "labels .* do not fit"),
        (lambda h, w, y: (h, w, y.flatten()), "labels .* do not fit"),
        (lambda h, w, y: (h, w, y.int()), "labels are torch.int32"),
        (lambda h, w, y: (h, w.double(), y), "the head is torch.float64"),
    ],
)
def test_shapes_and_types_that_do_not_fit_are_named(change, message):
    with pytest.raises(ModelError, match=message):
        sample_loss(*change(*problem()))


@pytest.mark.parametrize("label", [13, -5])
def test_a_label_outside_the_vocabulary_is_named_on_request(label):
    hidden, head, labels = problem()
    labels[1, 2] = label
    with pytest.raises(NumericsError, match=f"label {label} of row 1, token 2 .* of 13"):
        sample_loss(hidden, head, labels, check=True)


@pytest.mark.parametrize("form", TORCH_FORMS)
@pytest.mark.parametrize("label", [13, -5])
def test_a_label_outside_the_vocabulary_never_passes_for_another(form, label):
    hidden, head, labels = problem()
    labels[1, 2] = label
    with pytest.raises((IndexError, RuntimeError)):
        sample_loss(hidden, head, labels, form=form)
