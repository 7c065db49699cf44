"""The experiments of notebook 30, small: what they say is what the parts they are made of say."""

from dataclasses import replace

import numpy as np
import pytest

import workbench as wb
from workbench.core import DataError
from workbench.influence import controls, lds
from workbench.influence import proxy as proxy_module
from workbench.influence.agreement import outranks, spearman
from workbench.influence.controls import control_scores
from workbench.influence.curvature import MapFactors
from workbench.influence.inverses import compare_inverses
from workbench.influence.language import ChainLanguage
from workbench.influence.proxy import Proxy, compare_lds

LANGUAGE = ChainLanguage(vocab_size=16, context_tokens=6, successors=4)
PROXY = Proxy(vocab_size=16, context_tokens=6, width=8, layers=1, steps=8, batch_rows=8)


@pytest.fixture(scope="module")
def model():
    return replace(PROXY, steps=30).trained(LANGUAGE.rows(64))


@pytest.fixture(scope="module")
def inverses(model):
    rows, reference = LANGUAGE.rows(4, seed=1), LANGUAGE.rows(8, seed=2)
    candidates = LANGUAGE.rows(24, seed=3)
    return compare_inverses(model, rows, reference, candidates, dampings=(0.01, 1e4), draws=60)


def test_a_chain_follows_its_table_at_its_likelihood():
    rows = LANGUAGE.rows(2000, seed=5)
    pairs = np.zeros((16, 16))
    np.add.at(pairs, (rows[:, :-1].ravel(), rows[:, 1:].ravel()), 1)
    assert (np.count_nonzero(pairs, axis=1) == 4).all()
    share_R = np.sort(pairs, axis=1)[:, ::-1][:, :4].sum(axis=0) / pairs.sum()
    np.testing.assert_allclose(share_R, LANGUAGE.probability_R, atol=0.02)
    np.testing.assert_array_equal(LANGUAGE.rows(9, seed=5), LANGUAGE.rows(9, seed=5))
    assert (LANGUAGE.rows(9, seed=5) != LANGUAGE.rows(9, seed=6)).any()


def test_easier_text_has_the_same_successors_and_a_lower_entropy():
    easy = replace(LANGUAGE, likelihood=0.95)
    seen = [
        set(zip(r[:, :-1].ravel(), r[:, 1:].ravel(), strict=True))
        for r in (LANGUAGE.rows(3000), easy.rows(3000))
    ]
    assert seen[1] <= seen[0]
    assert 0 < easy.entropy_nats < LANGUAGE.entropy_nats
    with pytest.raises(DataError, match="likelihood 1"):
        replace(LANGUAGE, likelihood=1.0)


def test_training_brings_the_proxy_towards_the_entropy_and_repeats_itself(model):
    held_out = LANGUAGE.rows(64, seed=9)
    start, _ = controls._confidence(replace(PROXY, steps=0).trained(held_out), held_out)
    loss, entropy = controls._confidence(model, held_out)
    assert LANGUAGE.entropy_nats < loss < 0.9 * start and entropy > 0
    again = replace(PROXY, steps=30).trained(LANGUAGE.rows(64))
    assert (again.head_VD == model.head_VD).all()
    with pytest.raises(DataError, match="no rows to train"):
        PROXY.trained(held_out[:0])


def test_estimates_come_closer_to_the_exact_inverse_than_the_gradient(inverses):
    assert inverses.cosine["ekfac"].shape == (2, len(inverses.maps))
    little = {name: cosine_GL[0].mean() for name, cosine_GL in inverses.cosine.items()}
    assert min(little["kfac"], little["ekfac"]) > little["identity"] + 0.05
    assert inverses.agreement("ekfac")[0] > inverses.agreement("identity")[0]


def test_with_great_damping_every_inverse_is_the_gradient(inverses):
    for name, cosine_GL in inverses.cosine.items():
        assert cosine_GL[1].min() > 0.999, name
        # One number for all maps alike would be needed for equal scores: each has its own scale.
        assert inverses.agreement(name)[1] == pytest.approx(
            spearman(inverses.score[name][1], inverses.score["exact"][1])
        )


def test_the_table_is_of_the_nearest_damping(inverses):
    assert (inverses.at(0.02), inverses.at(1e3)) == (0, 1)
    row = next(r for r in inverses.table(0.02) if r["preconditioner"] == "ekfac")
    assert row["mean cosine"] == pytest.approx(inverses.cosine["ekfac"][0].mean())
    assert row["lowest cosine"] == pytest.approx(inverses.cosine["ekfac"][0].min())
    assert row["rank correlation of scores"] == inverses.agreement("ekfac")[0]


def test_lds_compares_every_preconditioner_with_chance():
    rows, queries = LANGUAGE.rows(12), LANGUAGE.rows(3, seed=1)
    found = compare_lds(PROXY, rows, queries, subsets=4)
    assert list(found.estimates) == ["identity", "kfac", "ekfac", "random"]
    assert all(one.subsets == 4 and one.queries == 3 for one in found.estimates.values())
    difference = found.estimates["ekfac"].value - found.estimates["identity"].value
    assert found.gain.value == pytest.approx(difference)


def test_curvature_predicts_retraining_better_than_the_gradient_and_three_checkpoints_than_one(
    monkeypatch,
):
    """Gate of the specification, on a decoder: EK-FAC beats identity; an ensemble beats its first.

    With EK-FAC's eigenvalues inverted the same trainings do not let it pass.
    """
    language = ChainLanguage(vocab_size=32, context_tokens=8)
    proxy = Proxy(vocab_size=32, context_tokens=8, width=16, layers=1, steps=40, batch_rows=16)
    rows, queries = language.rows(64), language.rows(8, seed=100)
    retrained = []

    def retrain_once(*args, **options):
        if not retrained:
            retrained.append(lds.retrain(*args, **options))
        return retrained[0]

    monkeypatch.setattr(proxy_module, "retrain", retrain_once)

    def found(models=1):
        return compare_lds(proxy, rows, queries, subsets=16, seeds=2, models=models)

    one, three = found().estimates, found(models=3).estimates
    assert one["ekfac"].value > one["identity"].value + 0.05
    assert one["kfac"].value > one["identity"].value
    assert three["ekfac"].value > one["ekfac"].value + 0.02
    right = MapFactors.corrected_OI.fget
    inverted = property(lambda part: 1 / (right(part) + 1e-3 * right(part).mean()))
    monkeypatch.setattr(MapFactors, "corrected_OI", inverted)
    assert found().estimates["ekfac"].value < one["identity"].value + 0.05


def test_control_scores_are_parted_by_group_and_the_oracle_is_the_identity_score(model):
    pool, reference = LANGUAGE.rows(16, seed=4), LANGUAGE.rows(8, seed=2)
    found = control_scores(model, pool, reference)
    assert set(found.score) == {"identity", "ekfac", controls.ORACLE}
    for groups in found.score.values():
        assert list(groups) == ["clean", "shuffled tokens", "uniform noise"]
        assert {len(score_n) for score_n in groups.values()} == {16}
    every = [np.concatenate(list(found.score[s].values())) for s in ("identity", controls.ORACLE)]
    assert spearman(*every) > 0.99
    noise = found.score["ekfac"]["uniform noise"]
    share = outranks(found.score["ekfac"]["clean"], noise)
    assert found.clean_share("ekfac", "uniform noise") == share
    assert found.table()["ekfac: clean above uniform noise"] == share
    assert found.table()["gate"] == ("passes" if found.report.passed else "refuses")
    assert found.overconfidence_nats == found.loss_nats - found.entropy_nats


def test_a_checkpoint_sure_of_easier_text_prefers_noise_and_is_refused():
    language, proxy = ChainLanguage(), Proxy(vocab_size=64, context_tokens=12)
    easy = proxy.trained(replace(language, likelihood=0.95).rows(600))
    found = control_scores(easy, language.rows(48, seed=6), language.rows(24, seed=5))
    assert found.overconfidence_nats > 0.5
    assert max(found.clean_share(scorer, "uniform noise") for scorer in found.score) < 0.5
    assert not found.report.passed and found.table()["gate"] == "refuses"


def test_the_front_door_has_what_it_names():
    assert wb.influence.score_rows is not None
    assert all(getattr(wb.influence, name) is not None for name in wb.influence.__all__)
    assert set(dir(wb.influence)) == set(wb.influence.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = wb.influence.nothing
