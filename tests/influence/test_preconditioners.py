"""Inverse curvature against dense inverses and the numbers of the specification."""

import pytest
import torch

from tests.kernels.test_kronecker import A_BTI, S_BTO, TOKENS, close, random_tokens, squares_in
from workbench.core import ConfigError, NumericsError
from workbench.influence.curvature import Factors, MapFactors
from workbench.influence.preconditioners import PRECONDITIONERS, preconditioner
from workbench.kernels.kronecker import eigenbasis, token_moments

V_OI = torch.tensor([[1, 2, 0], [-1, 0, 3]], dtype=torch.float64)
TOKENS_PER_ROW = 2


def factors(kind="ekfac", scale=1.0):
    """Of the specification's three sequences; `scale` multiplies the loss."""
    s_BTO = S_BTO * scale
    values_I, vectors_II = eigenbasis(token_moments(A_BTI) / TOKENS, "A")
    values_O, vectors_OO = eigenbasis(token_moments(s_BTO) / TOKENS, "S")
    if kind == "adam":
        eye_II, eye_OO = torch.eye(3, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
        part = MapFactors(TOKENS_PER_ROW, squares_OI=squares_in(eye_II, eye_OO) * scale**2)
    else:
        squares_OI = squares_in(vectors_II, vectors_OO) * scale**2 if kind == "ekfac" else None
        part = MapFactors(
            TOKENS_PER_ROW, vectors_II, vectors_OO, values_I, values_O, squares_OI=squares_OI
        )
    return Factors({"kind": kind}, {"map": part})


def solved(name, damping=0.1, kind=None, scale=1.0):
    given = None if name == "identity" else factors(kind or name, scale)
    return preconditioner(name, given, damping=damping).apply({"map": V_OI})["map"]


def dense_solve(curvature, damping):
    own = damping * curvature.diagonal().mean() * torch.eye(6, dtype=torch.float64)
    return torch.linalg.solve(curvature + own, V_OI.flatten()).view(2, 3)


def test_kfac_direction_and_scores_of_the_specification():
    """Its damping of 0.125 is a tenth of the mean Kronecker eigenvalue, 1.25."""
    expected = [[-0.59234874, 1.63752050, 0.76988193], [-1.27571154, 1.15236829, 3.51258632]]
    p_OI = solved("kfac")
    close(p_OI, expected, 1e-8)
    scores = torch.einsum("bto,oi,bti->b", S_BTO, p_OI, A_BTI)
    close(scores, [-1.15369554, 1.30431487, 0.14523976], 1e-8)


@pytest.mark.parametrize("kind", ["kfac", "ekfac"])
def test_kfac_inverts_the_kronecker_product_with_factors_of_either_kind(kind):
    moments = [token_moments(x) / TOKENS for x in (S_BTO, A_BTI)]
    close(solved("kfac", kind=kind), dense_solve(torch.kron(*moments), 0.1), 1e-12)


def test_ekfac_inverts_its_own_matrix_with_eigenvectors_as_columns():
    """Trap of the published code: eigenvectors applied as rows."""
    part = factors("ekfac").of("map")
    basis = torch.kron(part.output_vectors_OO, part.input_vectors_II)
    curvature = basis @ torch.diag(part.corrected_OI.flatten()) @ basis.T
    close(solved("ekfac"), dense_solve(curvature, 0.1), 1e-12)
    rows = basis.T @ torch.diag(part.corrected_OI.flatten()) @ basis
    assert not torch.allclose(solved("ekfac"), dense_solve(rows, 0.1), atol=1e-2)


def test_ekfac_divides_by_the_mean_square_of_a_row_per_token():
    part = factors("ekfac").of("map")
    direction = part.to_bases(solved("ekfac", damping=0.0))
    close(direction, part.to_bases(V_OI) / (part.squares_OI / TOKENS_PER_ROW), 1e-12)


def test_adam_divides_by_the_root_of_the_mean_square():
    gradients = torch.einsum("bto,bti->boi", S_BTO, A_BTI)
    root_OI = (gradients.square().mean(dim=0) / TOKENS_PER_ROW).sqrt()
    close(solved("adam"), V_OI / (root_OI + 0.1 * root_OI.mean()), 1e-12)


def test_identity_returns_the_gradient():
    close(solved("identity"), V_OI)


@pytest.mark.parametrize("name", ["kfac", "ekfac"])
def test_damping_is_relative(name):
    """Trap of the published code: absolute damping.  A loss in other units turns no direction."""
    for scale in (1e-4, 1e4):
        close(solved(name, scale=scale) * scale**2, solved(name), 1e-9)


@pytest.mark.parametrize("name", PRECONDITIONERS)
def test_every_preconditioner_is_linear_and_positive(name):
    given = None if name == "identity" else factors(name)
    apply = preconditioner(name, given).apply
    for seed_OI in random_tokens(5, 2, 3):
        total = apply({"map": V_OI + 2 * seed_OI})["map"]
        close(total, apply({"map": V_OI})["map"] + 2 * apply({"map": seed_OI})["map"], 1e-12)
        assert (apply({"map": seed_OI})["map"] * seed_OI).sum() > 0
    assert preconditioner(name, given).settings["preconditioner"] == name


def test_a_direction_keeps_the_type_of_its_gradient():
    single = preconditioner("ekfac", factors()).apply({"map": V_OI.float()})["map"]
    assert single.dtype == torch.float32
    close(single.double(), solved("ekfac"), 1e-5)


def test_what_cannot_be_inverted_is_named():
    def broken(eigenvalues_I, damping):
        part = MapFactors(1, torch.eye(3), torch.eye(2), torch.tensor(eigenvalues_I), torch.ones(2))
        preconditioner("kfac", Factors({"kind": "kfac"}, {"map": part}), damping=damping).apply(
            {"map": V_OI}
        )

    with pytest.raises(NumericsError, match=r"curvature of 'map' is singular.*raise damping"):
        broken([0.0, 1.0, 2.0], 0.0)
    broken([0.0, 1.0, 2.0], 0.01)
    with pytest.raises(NumericsError, match="'map' is singular"):
        broken([0.0, 0.0, 0.0], 0.1)
    with pytest.raises(NumericsError, match="'map' is not finite"):
        broken([0.0, float("nan"), 1.0], 0.1)


def test_wrong_names_and_factors_are_refused_with_the_remedy():
    with pytest.raises(ConfigError, match="did you mean 'ekfac'"):
        preconditioner("ekfak", factors())
    with pytest.raises(ConfigError, match=r"none were given.*kind='kfac'"):
        preconditioner("kfac")
    with pytest.raises(ConfigError, match=r"of kind 'kfac'.*kind='ekfac'"):
        preconditioner("ekfac", factors("kfac"))
    with pytest.raises(ConfigError, match="damping = -1"):
        preconditioner("kfac", factors(), damping=-1)
    with pytest.raises(ConfigError, match=r"'mapp'.*did you mean 'map'"):
        preconditioner("kfac", factors()).apply({"mapp": V_OI})
