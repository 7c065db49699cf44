"""The exact inverse of a small decoder: the slow oracle's matrix, inverted and not multiplied."""

import numpy as np
import pytest
import torch

from tests.influence.conftest import small_decoder, small_rows
from tests.oracle.curvature import gauss_newton, solve
from workbench.core import ConfigError, DataError, NumericsError
from workbench.influence.direction import reference_direction, reference_gradient
from workbench.influence.exact import MAX_PARAMETERS, exact_curvature
from workbench.influence.scores import score_rows
from workbench.models.linear_maps import linear_maps

ROWS = small_rows(4)


@pytest.mark.parametrize("name", ["opt", "gpt2"])
def test_inverse_is_that_of_the_oracle_for_every_map(name):
    decoder = small_decoder(name)
    maps = linear_maps(decoder)
    gradients = reference_gradient(decoder, small_rows(3, seed=5), maps)
    solved = exact_curvature(decoder, ROWS, maps).inverse(damping=0.1).apply(gradients)
    for found in maps:
        oracle = gauss_newton(decoder, found, torch.from_numpy(ROWS)).detach()
        truth_OI = solve(oracle, gradients[found.name], 0.1)
        # Attention takes its softmax in float32.
        assert (solved[found.name] - truth_OI).norm() < 1e-4 * truth_OI.norm(), found.name


def test_it_is_a_preconditioner_like_the_others_and_leaves_the_model_alone():
    decoder = small_decoder("gpt2").float()
    maps = linear_maps(decoder)
    wanted = [parameter.requires_grad for parameter in decoder.parameters()]
    exact = exact_curvature(decoder, ROWS, maps).inverse(damping=0.5)
    assert [parameter.requires_grad for parameter in decoder.parameters()] == wanted
    direction = reference_direction(decoder, ROWS, exact, maps)
    assert direction.settings["preconditioner"] == "exact" and direction.settings["damping"] == 0.5
    assert np.isfinite(score_rows(decoder, ROWS, direction).score_N).all()


def test_a_map_that_is_too_large_is_refused_with_its_size():
    width = 2 * int(MAX_PARAMETERS**0.5)
    decoder = small_decoder(hidden_size=width, word_embed_proj_dim=width)
    with pytest.raises(ConfigError, match=rf"has {width**2} parameters.*at most {MAX_PARAMETERS}"):
        exact_curvature(decoder, ROWS, linear_maps(decoder))


def test_what_cannot_be_inverted_is_named():
    decoder = small_decoder()
    maps = linear_maps(decoder)
    with pytest.raises(DataError, match="no rows"):
        exact_curvature(decoder, ROWS[:0], maps)
    curvature = exact_curvature(decoder, ROWS[:1], maps)
    gradients = reference_gradient(decoder, ROWS, maps)
    with pytest.raises(NumericsError, match=f"curvature of '{maps.names[0]}' is singular"):
        curvature.inverse(damping=0).apply(gradients)
    with pytest.raises(ConfigError, match="negative"):
        curvature.inverse(damping=-1)
    with pytest.raises(ConfigError, match="map of the curvature 'elsewhere'"):
        curvature.inverse().apply({"elsewhere": gradients[maps.names[0]]})


def test_the_head_is_refused():
    decoder = small_decoder(tie_word_embeddings=False)
    with pytest.raises(ConfigError, match="exact curvature of the head"):
        exact_curvature(decoder, ROWS, linear_maps(decoder, head=True))
