"""Fitted factors of a small transformer against the exact Gauss-Newton matrix of every map."""

import numpy as np
import pytest
import torch

from tests.influence.conftest import small_decoder, small_rows
from tests.oracle.curvature import gauss_newton, solve
from workbench.influence.direction import reference_gradient
from workbench.influence.factors import fit_factors
from workbench.influence.preconditioners import preconditioner
from workbench.models.linear_maps import linear_maps

DAMPING = 0.1
ROWS = small_rows(6)
REPEATS, BATCHES = 400, 10
"""Each batch holds every row so many times, with other sampled labels each time."""


@pytest.fixture(scope="module")
def decoder():
    return small_decoder()


@pytest.fixture(scope="module")
def maps(decoder):
    return linear_maps(decoder)


@pytest.fixture(scope="module")
def exact(decoder, maps):
    return {found.name: gauss_newton(decoder, found, torch.from_numpy(ROWS)) for found in maps}


@pytest.fixture(scope="module")
def factors(decoder, maps):
    return fit_factors(decoder, [np.tile(ROWS, (REPEATS, 1))] * BATCHES, maps, seed=1)


@pytest.fixture(scope="module")
def gradient(decoder, maps):
    return reference_gradient(decoder, small_rows(12, seed=5), maps)


def cosine(a, b):
    return float((a * b).sum() / (a.norm() * b.norm()))


def test_trace_of_ekfac_is_that_of_the_exact_matrix(maps, exact, factors):
    assert len(maps) == 12
    for name in maps.names:
        ratio = float(factors.of(name).corrected_OI.sum() / exact[name].trace())
        assert 0.98 <= ratio <= 1.03, f"{name}: {ratio:.4f}"


@pytest.mark.parametrize("name", ["ekfac", "kfac"])
def test_direction_is_closer_to_the_exact_inverse_than_the_gradient(
    name, maps, exact, factors, gradient
):
    solved = preconditioner(name, factors, damping=DAMPING).apply(gradient)
    closer = 0
    for found in maps.names:
        truth = solve(exact[found], gradient[found], DAMPING)
        closer += cosine(solved[found], truth) > cosine(gradient[found], truth)
    assert closer >= 10


def test_inverse_inverts_and_does_not_multiply(maps, exact, factors, gradient):
    """Trap of the published code: it divides by the inverse, and so multiplies."""
    solved = preconditioner("ekfac", factors, damping=DAMPING).apply(gradient)
    for name in maps.names:
        part = factors.of(name)
        eigenvalues = part.corrected_OI + DAMPING * part.corrected_OI.mean()
        multiplied = part.from_bases(part.to_bases(gradient[name]) * eigenvalues)
        truth = solve(exact[name], gradient[name], DAMPING)
        assert cosine(solved[name], truth) > cosine(multiplied, truth)


def test_corrected_eigenvalues_are_the_exact_diagonal_in_the_same_basis(maps, exact, factors):
    """EK-FAC's eigenvalues are the diagonal of the exact matrix in its own basis."""
    for name in maps.names:
        part = factors.of(name)
        basis = torch.kron(part.output_vectors_OO, part.input_vectors_II)
        diagonal = (basis.T @ exact[name] @ basis).diagonal().view_as(part.corrected_OI)
        scale = diagonal.mean()
        error = (part.corrected_OI - diagonal).abs() / (diagonal + 0.1 * scale)
        assert error.max() < 0.3 and error.mean() < 0.03, f"{name}: {error.max():.3f}"
