"""Values that travel between loop and policies refuse what is not valid."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from workbench.core import Batch, Mixture, PolicyError, Selection


def test_a_uniform_mixture_is_uniform():
    mixture = Mixture.uniform(["a", "b", "c"])
    assert mixture.as_dict() == pytest.approx({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})


@pytest.mark.parametrize(
    "probability",
    [[0.5, 0.6], [-0.1, 1.1], [np.nan, 1.0], [np.inf, 0.0], [1.0]],
    ids=["sum", "negative", "nan", "infinite", "shape"],
)
def test_a_mixture_is_a_probability_vector(probability):
    with pytest.raises(PolicyError):
        Mixture(("a", "b"), np.array(probability))


def test_a_mixture_is_renormalised_exactly_and_stays_what_it_was():
    given = np.array([0.3, 0.7 + 4e-7])
    mixture = Mixture(("a", "b"), given)
    given[0] = 0.9
    assert mixture.probability_K.sum() == pytest.approx(1, abs=1e-15)
    assert mixture.probability_K[0] == pytest.approx(0.3, abs=1e-6)


def test_a_part_of_a_batch_keeps_its_rows_together():
    batch = Batch(
        tokens_BT=torch.arange(8).view(4, 2),
        labels_BT=torch.arange(8).view(4, 2) + 1,
        sample_id_B=np.arange(4) + 10,
        domain_B=np.array([0, 1, 0, 1]),
        probability_B=np.array([0.2, 0.8, 0.2, 0.8]),
    )
    part = batch.rows(slice(1, 3))
    assert len(part) == 2
    assert part.tokens_BT.tolist() == [[2, 3], [4, 5]]
    assert part.labels_BT.tolist() == [[3, 4], [5, 6]]
    assert part.sample_id_B.tolist() == [11, 12]
    assert part.domain_B.tolist() == [1, 0]
    assert part.probability_B.tolist() == [0.8, 0.2]


def test_every_selected_row_has_a_reason():
    with pytest.raises(PolicyError, match="2 rows selected with 1 reasons"):
        Selection(np.array([1, 2]), ["near the reference"])


def test_a_mixture_rebuilt_from_its_probabilities_is_the_same_to_the_bit():
    rng = np.random.default_rng(0)
    for _ in range(200):
        mixture = Mixture(("a", "b", "c"), rng.dirichlet([1, 1, 1]) * (1 + 1e-8))
        again = Mixture(mixture.domains, mixture.probability_K)
        assert np.array_equal(mixture.probability_K, again.probability_K)
