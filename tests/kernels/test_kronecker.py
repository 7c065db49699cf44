"""Kronecker factors against the numbers of the specification and their slow twins."""

import pytest
import torch

from workbench.core import NumericsError
from workbench.kernels import kronecker
from workbench.kernels.kronecker import (
    add_row_squares,
    draw,
    eigenbasis,
    reference_row_squares,
    reference_token_moments,
    sampled_labels,
    token_moments,
)
from workbench.kernels.sample_loss import reference_sample_loss

A_BTI = torch.tensor(
    [[[1, 0, 1], [2, 1, 0]], [[0, 1, 1], [1, 1, -1]], [[1, 2, 0], [0, 0, 1]]], dtype=torch.float64
)
S_BTO = torch.tensor([[[1, -1], [2, 0]], [[0, 1], [1, 1]], [[-1, 2], [1, 0]]], dtype=torch.float64)
SQUARES_OI = torch.tensor(
    [[0.4440360415, 0.2624406249, 5.6045012495], [2.2226306251, 1.0708927084, 12.3954987505]],
    dtype=torch.float64,
)
TOKENS = 6


def close(a, b, tolerance=1e-9):
    torch.testing.assert_close(a, torch.as_tensor(b, dtype=a.dtype), atol=tolerance, rtol=tolerance)


def squares_in(vectors_II, vectors_OO):
    total_OI = torch.zeros(2, 3, dtype=torch.float64)
    add_row_squares(total_OI, A_BTI @ vectors_II, S_BTO @ vectors_OO)
    return total_OI / len(A_BTI)


def random_tokens(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)), dtype=dtype)


def test_moments_of_the_specification():
    close(token_moments(A_BTI) / TOKENS, [[7 / 6, 5 / 6, 0], [5 / 6, 7 / 6, 0], [0, 0, 2 / 3]])
    close(token_moments(S_BTO) / TOKENS, [[4 / 3, -1 / 3], [-1 / 3, 7 / 6]])


def test_a_token_of_weight_0_is_left_out_and_others_count_by_weight():
    x_bTD, weight_bT = random_tokens(3, 4, 5), torch.rand(3, 4).double()
    weight_bT[1, 2] = 0
    close(token_moments(x_bTD, weight_bT), reference_token_moments(x_bTD, weight_bT))
    close(token_moments(x_bTD, (weight_bT > 0).float()), token_moments(x_bTD[weight_bT > 0]))


def test_eigenvalues_of_the_specification():
    values_I, vectors_II = eigenbasis(token_moments(A_BTI) / TOKENS, "A")
    values_O, _ = eigenbasis(token_moments(S_BTO) / TOKENS, "S")
    close(values_I, [1 / 3, 2 / 3, 2])
    close(values_O, [0.9064078645, 1.5935921355])
    moments = token_moments(A_BTI) / TOKENS
    close(moments @ vectors_II, vectors_II * values_I)


def test_corrected_eigenvalues_are_accumulated_in_the_basis_they_are_used_in():
    """Trap of the published code: Lambda in a third basis."""
    _, vectors_II = eigenbasis(token_moments(A_BTI), "A")
    _, vectors_OO = eigenbasis(token_moments(S_BTO), "S")
    close(squares_in(vectors_II, vectors_OO), SQUARES_OI)
    assert not torch.allclose(squares_in(vectors_II.T, vectors_OO), SQUARES_OI)
    identity = squares_in(torch.eye(3, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    assert not torch.allclose(identity, SQUARES_OI)
    close(identity.sum(), SQUARES_OI.sum())


def test_products_of_row_gradients_without_making_them():
    gradients = torch.einsum("bto,bti->boi", S_BTO, A_BTI)
    close(gradients[0], [[5, 2, 1], [-1, 0, -1]])
    close(gradients[1], [[1, 1, -1], [1, 2, 0]])
    close(gradients[2], [[-1, -2, 1], [2, 4, 0]])
    grams = (S_BTO[0] @ S_BTO[1].T) * (A_BTI[0] @ A_BTI[1].T)
    norms = (S_BTO[0] @ S_BTO[0].T) * (A_BTI[0] @ A_BTI[0].T)
    assert float(grams.sum()) == float((gradients[0] * gradients[1]).sum()) == 5
    assert float(norms.sum()) == float(gradients[0].square().sum()) == 32


@pytest.mark.parametrize("product_mib", [16, 0, 6 * 35 * 8 / 2**20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_row_squares_equal_their_slow_twin_however_many_rows_are_held(
    product_mib, dtype, monkeypatch
):
    monkeypatch.setattr(kronecker, "PRODUCT_MIB", product_mib)
    a_bTI, s_bTO = random_tokens(13, 4, 7, dtype=dtype), random_tokens(13, 4, 5, dtype=dtype)
    total_OI = torch.zeros(5, 7, dtype=dtype)
    for part in (slice(0, 6), slice(6, 13)):
        add_row_squares(total_OI, a_bTI[part], s_bTO[part])
    expected = reference_row_squares(a_bTI, s_bTO).to(dtype)
    torch.testing.assert_close(total_OI, expected)


@pytest.mark.parametrize("width", [127, 128, 201, 259])
def test_moments_made_in_blocks_equal_their_slow_twin(width):
    x_bTD = random_tokens(2, 5, width)
    found_DD = token_moments(x_bTD)
    torch.testing.assert_close(found_DD, reference_token_moments(x_bTD))
    torch.testing.assert_close(token_moments(x_bTD.mT.contiguous().mT), found_DD)


def test_moments_equal_their_slow_twin_and_bfloat16_is_added_up_in_float32():
    x_bTD = random_tokens(3, 50, 6)
    torch.testing.assert_close(token_moments(x_bTD), reference_token_moments(x_bTD))
    coarse = x_bTD.bfloat16()
    moments = token_moments(coarse)
    assert moments.dtype == torch.float32
    torch.testing.assert_close(
        moments.double(), reference_token_moments(coarse), rtol=1e-5, atol=1e-4
    )


@pytest.mark.parametrize(
    ("moments", "problem"),
    [(torch.full((2, 2), torch.nan), "'S of x' is not finite"), (torch.zeros(2, 2), "is zero")],
)
def test_a_factor_without_a_basis_is_named(moments, problem):
    with pytest.raises(NumericsError, match=problem) as error:
        eigenbasis(moments, "S of x")
    assert error.value.remedy


@pytest.mark.parametrize("logits_mib", [64, 0])
def test_the_gradient_of_sampled_labels_is_that_of_their_loss(logits_mib, monkeypatch):
    monkeypatch.setattr(kronecker, "_LOGITS_MIB", logits_mib)
    hidden_ND = random_tokens(9, 4).requires_grad_()
    head_VD, uniform_N = random_tokens(11, 4), torch.rand(9, dtype=torch.float64)
    labels_N, gradient_ND = sampled_labels(hidden_ND.detach(), head_VD, uniform_N)
    loss_B = reference_sample_loss(hidden_ND[None], head_VD, labels_N[None])
    (expected,) = torch.autograd.grad(loss_B.sum() * len(labels_N), hidden_ND)
    torch.testing.assert_close(gradient_ND, expected)
    p_NV = torch.softmax(hidden_ND.detach() @ head_VD.T, dim=-1)
    for p_V, label, u in zip(p_NV, labels_N.tolist(), uniform_N.tolist(), strict=True):
        assert float(p_V[:label].sum()) <= u + 1e-12
        assert float(p_V[: label + 1].sum()) > u - 1e-12


def test_labels_are_drawn_as_often_as_they_are_likely():
    p_V = torch.tensor([0.5, 0.0, 0.3, 0.2], dtype=torch.float64)
    uniform_N = torch.rand(40_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = draw(p_V.expand(len(uniform_N), 4).contiguous(), uniform_N)
    shares = torch.bincount(found, minlength=4) / len(found)
    close(shares.double(), p_V, tolerance=0.01)
    assert not (found == 1).any()


def test_draws_at_the_ends_stay_inside():
    p_nV = torch.tensor([[0.0, 0.4, 0.6, 0.0]]).expand(2, 4).contiguous()
    assert draw(p_nV, torch.tensor([0.0, 1 - 1e-9], dtype=torch.float64)).tolist() == [1, 2]


def test_two_layer_linear_net_has_kronecker_blocks_equal_to_gauss_newton():
    """Squared loss: the factors come from unit output gradients, and the exact Hessian is not
    positive."""
    w1 = torch.tensor([[1, -0.5, 0.25], [0.5, 1, -1]], dtype=torch.float64)
    w2 = torch.tensor([[1, 0.5], [-0.25, 2]], dtype=torch.float64)
    x_NI = torch.tensor(
        [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, -1), (2, 0, 1)], dtype=torch.float64
    )
    # One pass a unit output k: s of layer 1 is row k of W2, of layer 2 the unit vector.
    s1_OO, s2_OO = token_moments(w2[None]), token_moments(torch.eye(2, dtype=torch.float64)[None])
    close(s1_OO, [[1.0625, 0], [0, 4.25]], 1e-15)
    close(s2_OO, torch.eye(2), 1e-15)
    a1_II, a2_II = (token_moments(a[None]) / len(x_NI) for a in (x_NI, x_NI @ w1.T))

    def outputs(v1, v2):
        return (x_NI @ v1.T @ v2.T).flatten()

    jacobians = torch.autograd.functional.jacobian(outputs, (w1, w2))
    for jacobian, s_OO, a_II in zip(jacobians, (s1_OO, s2_OO), (a1_II, a2_II), strict=True):
        rows = jacobian.flatten(1)
        torch.testing.assert_close(
            rows.T @ rows / len(x_NI), torch.kron(s_OO, a_II), atol=1e-15, rtol=1e-15
        )

    def mean_loss(flat):
        y_N = outputs(flat[:6].view(2, 3), flat[6:].view(2, 2))
        return 0.5 * y_N.square().sum() / len(x_NI)

    # The specification's -1.77 belongs to targets that it does not name; those here are zero.
    flat = torch.cat([w1.flatten(), w2.flatten()])
    hessian = torch.autograd.functional.hessian(mean_loss, flat)
    close(torch.linalg.eigvalsh(hessian)[0], -1.9200840205)
