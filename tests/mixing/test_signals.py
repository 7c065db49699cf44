"""The alignment reward and what a step says of its domains: vectors of the specification."""

import numpy as np
import pytest
import torch

from workbench.core import StepOutcome
from workbench.mixing.energy import (
    descent_gain,
    energies,
    interaction,
    linear_gain,
    surrogate,
)
from workbench.mixing.signals import alignment, domain_losses, normalised

GRADIENTS = np.array([(1, 0, 2), (0, 1, 1), (-1, 1, 0), (0.5, -0.5, 0)])
GRAM = GRADIENTS @ GRADIENTS.T
ALPHA = np.array([0.4, 0.3, 0.2, 0.1])


def test_normalisation():
    expected = [-1.161895, -0.387298, 0.387298, 1.161895]
    assert normalised(np.array([1, 2, 3, 4])).tolist() == pytest.approx(expected, abs=1e-6)
    assert normalised(np.full(3, 7.0)).tolist() == [0, 0, 0]
    assert normalised(np.array([5.0])).tolist() == [0]


def test_alignment_of_four_gradients():
    expected_gram = [[5, 2, -1, 0.5], [2, 2, 1, -0.5], [-1, 1, 2, -1], [0.5, -0.5, -1, 0.5]]
    assert GRAM.tolist() == expected_gram
    found = alignment(GRAM)
    assert found.interaction_K.tolist() == [1.5, 2.5, -1, -1]
    assert found.utility_K.tolist() == pytest.approx(
        [1.0395720, 1.7326200, -0.6930480, -0.6930480], abs=1e-6
    )
    assert found.reward_K.tolist() == pytest.approx(
        [0.5619515, 1.1239030, -0.8429272, -0.8429272], abs=1e-6
    )
    assert np.sqrt(np.diag(GRAM)).mean() == pytest.approx(1.4429005, abs=1e-6)
    assert found.agreement == pytest.approx(2 / 6)


def test_rewards_are_clamped():
    gradients = np.ones((30, 2)) * 1e-3
    gradients[0] = (100, 100)
    assert np.abs(alignment(gradients @ gradients.T).reward_K).max() <= 3


def test_when_clean_domains_conflict_a_noise_domain_ranks_first_and_that_is_seen():
    gradients = np.array([(1, 0), (-0.8, 0.6), (0.01, 0)])
    found = alignment(gradients @ gradients.T)
    assert found.interaction_K.tolist() == pytest.approx([-0.79, -0.808, 0.002])
    assert found.reward_K.argmax() == 2 and found.agreement < 0


def test_energies_of_a_mixture():
    own, between = energies(GRAM, ALPHA)
    assert (own, between) == pytest.approx((1.065, 0.410))
    assert own + between == pytest.approx(1.475)
    assert np.linalg.norm(ALPHA @ GRADIENTS) ** 2 == pytest.approx(1.475)
    uniform = np.full(4, 0.25)
    assert surrogate(GRAM, ALPHA) == pytest.approx(1.05)
    assert energies(GRAM, uniform)[1] == pytest.approx(0.125)
    slope = 2 * (GRAM - np.diag(np.diag(GRAM))) @ uniform
    assert slope.tolist() == pytest.approx([0.75, 1.25, -0.5, -0.5])
    off = (ALPHA - uniform) @ (GRAM - np.diag(np.diag(GRAM))) @ (ALPHA - uniform)
    assert between - linear_gain(GRAM, ALPHA) == pytest.approx(off) == pytest.approx(0.010)


def test_the_surrogate_is_best_at_a_single_domain_where_nothing_interacts():
    vertices = np.eye(4)
    best = vertices[interaction(GRAM).argmax()]
    draws = np.random.default_rng(0).dirichlet(np.ones(4), 1000)
    assert max(surrogate(GRAM, a) for a in draws) <= surrogate(GRAM, best)
    assert energies(GRAM, best)[1] == 0


def test_the_true_gain_of_descent_counts_the_domain_itself():
    assert descent_gain(GRAM).tolist() == (interaction(GRAM) + np.diag(GRAM)).tolist()


def test_losses_are_those_of_the_rows_of_each_domain():
    outcome = StepOutcome(
        step=0,
        domain_B=np.array([0, 2, 0, 2, 2]),
        sample_id_B=np.arange(5),
        loss_B=torch.tensor([1.0, 2.0, 3.0, 4.0, 9.0]),
        weight_B=torch.ones(5),
        valid_B=torch.tensor([True, True, True, True, False]),
    )
    loss_K, count_K = domain_losses(outcome, 3)
    assert count_K.tolist() == [2, 0, 2]
    assert loss_K[[0, 2]].tolist() == [2, 3] and np.isnan(loss_K[1])
