"""Energies between the uniform mixture and each domain."""

import numpy as np
import pytest

from workbench.core import RunError
from workbench.replay.energies import energy_walk, walk_of
from workbench.tracking import RunFolder

GRADIENTS = np.array([(1, 0, 2), (0, 1, 1), (-1, 1, 0), (0.5, -0.5, 0)])
GRAM = GRADIENTS @ GRADIENTS.T


def recorded(path, grams):
    folder = RunFolder.create(path, config={}, environment={})
    names = ("loss", "weighted_loss", "lr", "tokens", "grad_norm", "seconds", "ess_fraction")
    shares = {name: 0.25 for name in "abcd"}
    kinds = ("mixture", "weight_share", "sample_share", "domain_loss")
    event = {"kind": "step", **dict.fromkeys((*names, "max_weight"), 1.0)}
    event |= dict.fromkeys(kinds, shares)
    with folder.lock():
        folder.append_many(
            [
                {**event, "step": step, **({"signals": {"gram": gram}} if gram else {})}
                for step, gram in enumerate(grams)
            ]
        )
    return folder


def test_the_interaction_ends_at_zero_where_the_linear_part_promises_most():
    walk = walk_of(GRAM, tuple("abcd"))
    assert walk.interaction_KS[:, 0] == pytest.approx([0.125] * 4)
    assert walk.linear_KS[:, 0] == pytest.approx([0.125] * 4)
    assert walk.interaction_KS[:, -1] == pytest.approx([0] * 4, abs=1e-12)
    assert walk.linear_KS[:, -1].argmax() == walk.interaction_K.argmax() == 1
    assert walk.linear_KS[1, -1] == pytest.approx(0.125 + 0.5 * (2.5 - 0.5))
    assert (walk.descent_K - walk.interaction_K).tolist() == np.diag(GRAM).tolist()


def test_the_products_are_averaged_over_the_steps_that_have_them(tmp_path):
    triangle = GRAM[np.triu_indices(4)]
    broken = [None, *triangle.tolist()[1:]]
    grams = [(9 * triangle).tolist()] * 4 + [None, broken] + [triangle.tolist()] * 4
    walk = energy_walk(recorded(tmp_path / "run", grams))
    assert walk.domains == tuple("abcd")
    assert walk.interaction_K.tolist() == pytest.approx([1.5, 2.5, -1, -1])
    whole = energy_walk(recorded(tmp_path / "whole", grams), first=0.0)
    assert whole.interaction_K.tolist() == pytest.approx([7.5, 12.5, -5, -5])


def test_a_run_without_gradients_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(RunError, match="recorded no gradients") as error:
        energy_walk(recorded(tmp_path / "plain", [None] * 3))
    assert "acodm" in error.value.remedy
