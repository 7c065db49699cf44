"""Kernels in the interpreter, in tiles smaller than the problem, against float64."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton", reason="triton is not installed")

from workbench.core import IGNORE_INDEX, ConfigError
from workbench.kernels import sample_loss, triton_products
from workbench.kernels.domain_gradients import GradientTracker, domain_runs
from workbench.kernels.influence_scores import contract
from workbench.kernels.kronecker import reference_token_moments, token_moments
from workbench.kernels.liger import require_liger
from workbench.kernels.tiling import Tile
from workbench.kernels.triton_loss import triton_token_loss
from workbench.kernels.triton_products import contraction, domain_products, symmetric_product

TILE = Tile(16, 16, 16)
TYPES = [torch.float32, torch.bfloat16, torch.float16]
EXACT = 1e-6
"""Relative error of float32 sums; inputs are compared as rounded, so half precision reaches it."""


def drawn(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def relative_error(found, truth):
    return ((found.double() - truth).norm() / truth.norm()).item()


def loss_problem(dtype, tokens=11, width=37, vocab=53):
    """Leaves and labels: a row without any, one ignored token, the first and last word."""
    hidden = drawn(3, tokens, width, dtype=dtype).requires_grad_()
    head = drawn(vocab, width, dtype=dtype, seed=1).requires_grad_()
    labels = torch.randint(0, vocab, (3, tokens), generator=torch.Generator().manual_seed(2))
    labels[1], labels[0, 3], labels[2, 0], labels[2, 1] = IGNORE_INDEX, IGNORE_INDEX, 0, vocab - 1
    return hidden, head, labels


def small_loss(hidden, head, labels):
    """Several tiles of tokens and words, parts of the vocabulary, and parts of the tokens."""
    return triton_token_loss(hidden, head, labels, tile=TILE, vocabulary_part=32, part_tokens=20)


@pytest.mark.parametrize("dtype", TYPES)
def test_token_losses_and_gradients_in_many_tiles(dtype):
    hidden, head, labels = loss_problem(dtype)
    upstream = drawn(*labels.shape, seed=3)
    nll_BT = small_loss(hidden, head, labels)
    gradients = torch.autograd.grad(nll_BT, (hidden, head), upstream)
    wide = [x.detach().double().requires_grad_() for x in (hidden, head)]
    logits = F.linear(*wide).flatten(0, 1)
    truth = F.cross_entropy(
        logits, labels.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    ).view_as(labels)
    expected = torch.autograd.grad(truth, wide, upstream.double())
    assert nll_BT.dtype == torch.float32 and [g.dtype for g in gradients] == [dtype, dtype]
    assert relative_error(nll_BT.detach(), truth.detach()) < EXACT
    # Errors of the logits are rounded for the second product, and so is its result.
    bound = EXACT if dtype == torch.float32 else 2 * torch.finfo(dtype).eps
    assert max(map(relative_error, gradients, expected)) < bound


def test_the_loss_of_one_token_and_a_width_below_a_tile():
    hidden, head = drawn(1, 1, 3), drawn(2, 3, seed=1)
    nll_BT = triton_token_loss(hidden, head, torch.tensor([[1]]))
    truth = F.cross_entropy((hidden[0] @ head.T).double(), torch.tensor([1]))
    assert relative_error(nll_BT, truth) < EXACT


def test_the_same_input_gives_the_same_gradient_to_the_bit():
    hidden, head, labels = loss_problem(torch.bfloat16)
    upstream = drawn(*labels.shape, seed=3)
    first, second = (
        torch.autograd.grad(small_loss(hidden, head, labels), (hidden, head), upstream)
        for _ in range(2)
    )
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("label", [53, -5])
def test_a_label_outside_the_vocabulary_gives_nan_and_never_passes_for_another(label):
    hidden, head, labels = loss_problem(torch.float32)
    labels[2, 4] = label
    nll_BT = small_loss(hidden, head, labels)
    hidden_grad, head_grad = torch.autograd.grad(nll_BT.sum(), (hidden, head))
    assert nll_BT.isnan().nonzero().tolist() == [[2, 4]]
    assert hidden_grad[2, 4].isnan().all() and head_grad.isnan().all()


@pytest.mark.parametrize("form", ["triton", "liger"])
@pytest.mark.parametrize("hidden_type", [torch.float32, torch.bfloat16])
def test_under_autocast_products_are_those_of_the_other_forms(form, hidden_type):
    if form == "liger":
        pytest.importorskip("liger_kernel", reason="liger-kernel is not installed")
    hidden, head, labels = loss_problem(torch.float32)
    hidden = hidden.detach().to(hidden_type).requires_grad_()
    upstream = drawn(3, seed=3)
    found = []
    for each in ("full", form):
        with torch.autocast("cpu", torch.bfloat16):
            loss_B = sample_loss(hidden, head, labels, form=each)
        found.append((loss_B.detach(), *torch.autograd.grad(loss_B, (hidden, head), upstream)))
    assert [g.dtype for g in found[1][1:]] == [hidden_type, torch.float32]
    for actual, expected in zip(found[1], found[0], strict=True):
        assert relative_error(actual, expected.double()) < 0.02


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("domain_b", [[2, 0, 2, 2, 0, 3], [0, 0, 2, 2, 2, 3], [1] * 6], ids=str)
def test_products_by_domain(dtype, domain_b):
    """Five domains, some without rows; a domain's rows apart or together; tokens cross tiles."""
    s, a = drawn(6, 5, 21, dtype=dtype), drawn(6, 5, 37, dtype=dtype, seed=1)
    parts_KOI = domain_products(s, a, domain_runs(domain_b), 5, tile=TILE)
    own_Kb = F.one_hot(torch.tensor(domain_b), 5).double().T
    truth = torch.einsum("kb,bto,bti->koi", own_Kb, s.double(), a.double())
    assert parts_KOI.dtype == torch.float32
    assert relative_error(parts_KOI, truth) < EXACT
    absent = [k for k in range(5) if k not in domain_b]
    assert not parts_KOI[absent].any()


def test_the_order_of_a_micro_batch_is_sent_once_for_all_its_layers(monkeypatch):
    sent = []
    triton_products._by_domain.cache_clear()
    monkeypatch.setattr(triton_products, "sent", lambda x, device: sent.append(device) or x)
    layers = [drawn(4, 5, width) for width in (7, 9, 11)]
    for domain_b in ([3, 0, 0, 3], [1, 1, 0, 1]):
        for x in layers:
            domain_products(x, x, domain_runs(domain_b), 4, tile=TILE)
    assert len(sent) == 2 * 2


def test_products_by_domain_of_inputs_with_gaps_and_of_rows_without_tokens():
    s, a = drawn(21, 5, 6).permute(2, 1, 0), drawn(5, 6, 37).transpose(0, 1)
    runs = domain_runs([1, 1, 0, 0, 1, 0])
    both = (domain_products(x, y, runs, 2, tile=TILE) for x, y in ((s, a), (s[:, 0], a[:, 0])))
    own_Kb = F.one_hot(torch.tensor([1, 1, 0, 0, 1, 0]), 2).double().T
    for found, tokens in zip(both, (s.shape[1], 1), strict=True):
        wide = s[:, :tokens].double(), a[:, :tokens].double()
        assert relative_error(found, torch.einsum("kb,bto,bti->koi", own_Kb, *wide)) < EXACT


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("weights", ["none", "mask", "any"])
def test_symmetric_products(dtype, weights):
    x = drawn(7, 9, 37, dtype=dtype)
    weight = {
        "none": None,
        "mask": (drawn(7, 9, seed=1) > 0).float(),
        "any": drawn(7, 9, seed=1).abs(),
    }[weights]
    found_DD = symmetric_product(x, weight, tile=TILE)
    truth = reference_token_moments(x, weight)
    # A weight is rounded together with one of the two sides; masks and no weights are exact.
    bound = torch.finfo(dtype).eps if weights == "any" and dtype != torch.float32 else EXACT
    assert found_DD.dtype == torch.float32 and torch.equal(found_DD, found_DD.T)
    assert relative_error(found_DD, truth) < bound


@pytest.mark.parametrize("dtype", TYPES)
def test_contraction(dtype):
    s, matrix = drawn(3, 11, 21, dtype=dtype), drawn(21, 37, dtype=dtype, seed=1)
    a = drawn(3, 11, 37, dtype=dtype, seed=2)
    truth = torch.einsum("bto,oi,bti->bt", s.double(), matrix.double(), a.double())
    score_BT = contraction(s, matrix, a, tile=TILE, input_part=16)
    assert score_BT.dtype == torch.float32 and relative_error(score_BT, truth) < EXACT
    turned = contraction(s, matrix.T.contiguous().T, a, tile=TILE, input_part=16)
    assert torch.equal(turned, score_BT)


def beside_nan(x):
    """The same numbers with NaN before, between and after the lines."""
    wide = x.new_full((*x.shape[:-1], x.shape[-1] + 23), torch.nan)
    wide[..., :-23] = x
    return wide[..., :-23]


def test_what_lies_beside_the_inputs_is_never_used():
    s, matrix, a = drawn(3, 11, 21), drawn(21, 37, seed=1), drawn(3, 11, 37, seed=2)
    hidden, head, labels = (x.detach() for x in loss_problem(torch.float32))
    for kernel, *inputs in (
        (lambda *given: contraction(*given, tile=TILE), s, matrix, a),
        (lambda *given: small_loss(*given, labels), hidden, head),
        (lambda *given: symmetric_product(*given, tile=TILE), a),
        (lambda *given: domain_products(*given, [(0, 0, 3)], 1, tile=TILE), s, a),
    ):
        assert torch.equal(kernel(*map(beside_nan, inputs)), kernel(*inputs))


def test_the_variable_sends_every_caller_to_triton(monkeypatch):
    """What the rooms call gives the same in both forms, and runs the one that is asked for."""
    s, matrix, a = drawn(4, 5, 9), drawn(9, 7, seed=1), drawn(4, 5, 7, seed=2)
    hidden, head = drawn(2, 5, 8).requires_grad_(), drawn(11, 8, seed=1).requires_grad_()
    labels = torch.randint(0, 11, (2, 5), generator=torch.Generator().manual_seed(4))
    layer = torch.nn.Linear(7, 9)

    def everything():
        tracker = GradientTracker({"layer": layer}, 3)
        tracker.reset()
        with tracker.rows([0, 0, 2, 0]):
            y = layer(a)
        gradient = torch.autograd.grad((y * s).sum(), layer.weight)[0]
        scores = contract(s, [matrix], a, torch.float32)
        head_grad = torch.autograd.grad(sample_loss(hidden, head, labels)[0], head)[0]
        return tracker.gram(), gradient, scores, token_moments(a), head_grad

    module = sys.modules["workbench.kernels.sample_loss"]
    monkeypatch.setattr(module, "FULL_LOGITS_MIB", 0)
    expected = everything()
    monkeypatch.setenv("WORKBENCH_KERNELS", "triton")
    launched = []
    for name in ("domain_products", "symmetric_product", "contraction"):
        kernel = getattr(sys.modules["workbench.kernels.triton_products"], name)

        def watched(*args, name=name, kernel=kernel):
            launched.append(name)
            return kernel(*args)

        monkeypatch.setattr(f"workbench.kernels.triton_products.{name}", watched)
    loss = sys.modules["workbench.kernels.triton_loss"]

    def watched_loss(*args, kernel=loss.triton_token_loss):
        launched.append("triton_token_loss")
        return kernel(*args)

    monkeypatch.setattr(loss, "triton_token_loss", watched_loss)
    for actual, truth in zip(everything(), expected, strict=True):
        assert relative_error(actual, truth.double()) < EXACT
    order = ["domain_products", "contraction", "triton_token_loss", "symmetric_product"]
    assert launched == order


@pytest.mark.parametrize("version", ["0.8.1", "0.5.10", None])
def test_releases_of_liger_with_wrong_gradients_are_refused(monkeypatch, version):
    def installed(name):
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", installed)
    with pytest.raises(ConfigError, match=version or "not installed") as error:
        require_liger()
    assert "liger-kernel>=0.8.2" in error.value.remedy


def test_every_kernel_compiles_for_an_h200():
    """No device needed: the compiler's own view of types, shared memory and matrix units."""
    program = Path(__file__).with_name("compile_kernels.py")
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 7
    for name, dtype, shared_bytes, units in lines:
        assert int(shared_bytes) <= 227 * 1024, name
        assert units == ("matrix" if dtype == "bf16" else "plain"), name


def test_kernels_import_where_triton_is_missing():
    program = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "triton" else find(name, *rest)
sys.modules["triton"] = None
import workbench.kernels.triton_loss, workbench.kernels.triton_products
from workbench.kernels import kernel_report
print({row.form for row in kernel_report("cpu").values()})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "{'torch'}", done.stderr[-2000:]
