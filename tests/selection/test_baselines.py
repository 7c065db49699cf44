"""Baseline selectors: each takes what its name says, and duplicates only once."""

import numpy as np
import pytest
import torch

from workbench.core import SELECTORS, ConfigError, NumericsError, PolicyError, Pool


class LossOfRow(torch.nn.Module):
    """Gives each row the loss (first token) / 10."""

    def forward(self, tokens_BT, labels_BT):
        return tokens_BT[:, 0].float() / 10


def first_tokens(topics, ids):
    return topics.tokens(ids)[:, 0]


def test_random_takes_every_row_equally_often(topics):
    pool = topics.pool()
    taken = np.zeros(len(pool))
    for seed in range(200):
        selector = SELECTORS.build("random", topics.task(seed=seed))
        taken += np.isin(pool.sample_id_N, selector.select(pool, 30 * 16, None).sample_id_N)
    assert taken.mean() == 50
    # Binomial(200, 1/4): standard deviation 6.1.
    assert np.abs(taken - 50).max() < 30


@pytest.mark.parametrize(("band", "rank"), [("low", 0.1), ("middle", 0.5), ("high", 0.9)])
def test_perplexity_takes_the_band_asked_for(topics, band, rank):
    pool = topics.pool()
    selector = SELECTORS.build("perplexity", topics.task(), band=band)
    selection = selector.select(pool, 24 * 16, LossOfRow())
    loss_N = first_tokens(topics, pool.sample_id_N)
    chosen = first_tokens(topics, selection.sample_id_N)
    assert np.median(chosen) == pytest.approx(np.quantile(loss_N, rank), abs=3)
    left = np.setdiff1d(pool.sample_id_N, selection.sample_id_N)
    if band == "low":
        assert chosen.max() <= first_tokens(topics, left).min()
    if band == "high":
        assert chosen.min() >= first_tokens(topics, left).max()
    samples = selector.tables()["samples"]
    assert samples["loss"] == pytest.approx(loss_N / 10)
    assert selector.diagnostics()["loss_50"] == pytest.approx(np.median(loss_N / 10))


def test_a_loss_that_is_not_finite_is_named(topics):
    class Broken(LossOfRow):
        def forward(self, tokens_BT, labels_BT):
            loss_B = super().forward(tokens_BT, labels_BT)
            return torch.where(loss_B > 4.5, torch.nan, loss_B)

    with pytest.raises(NumericsError, match="rows have a loss that is not finite, such as sample"):
        SELECTORS.build("perplexity", topics.task()).select(topics.pool(), 16, Broken())
    with pytest.raises(ConfigError, match="did you mean 'middle'"):
        SELECTORS.build("perplexity", topics.task(), band="midle")


def cluster_uniform(topics, **options):
    embedder = {"name": "tfidf", "width": 8}
    return SELECTORS.build(
        "cluster_uniform", topics.task(), clusters=6, embedder=embedder, **options
    )


def test_cluster_uniform_takes_equal_tokens_of_clusters_of_unequal_size(topics):
    rng = np.random.default_rng(0)
    ids = np.concatenate([topics.sample_id_N[:40], topics.sample_id_N[90:]])
    pool = Pool(ids, ids >> 40, rng.integers(4, 17, len(ids)))
    selector = cluster_uniform(topics)
    selection = selector.select(pool, 300, None)
    chosen = np.isin(pool.sample_id_N, selection.sample_id_N)
    label_N = selector.tables()["samples"]["cluster"]
    there_C = np.bincount(label_N, weights=pool.tokens_N)
    given_C = np.bincount(label_N[chosen], weights=pool.tokens_N[chosen], minlength=len(there_C))
    large = there_C > given_C
    assert np.ptp(given_C[large]) <= 2 * 16
    assert (given_C[~large] <= given_C[large].max() + 16).all()
    assert set(selector.tables()) == {"samples", "arms"}
    assert selector.tables()["arms"]["accepted"].sum() == len(selection)


def test_exhausted_clusters_let_the_others_fill_the_budget(topics):
    pool = topics.pool()
    selection = cluster_uniform(topics).select(pool, 119 * 16, None)
    assert len(selection) == 119


@pytest.mark.parametrize("name", ["random", "perplexity", "cluster_uniform"])
def test_near_duplicates_are_chosen_once_over_all_choices(topics, name):
    for copy in range(20):
        topics.texts[100 + copy] = topics.texts[0]
    pool = topics.pool()
    options = {"clusters": 6} if name == "cluster_uniform" else {}
    selector = SELECTORS.build(name, topics.task(), deduplicate=True, **options)
    chosen = []
    for budget_rows in (80, 40):
        selection = selector.select(pool, budget_rows * 16, LossOfRow())
        assert len(selection) == budget_rows
        chosen += [topics.texts[i] for i in selection.sample_id_N.tolist()]
        left = ~np.isin(pool.sample_id_N, selection.sample_id_N)
        pool = Pool(pool.sample_id_N[left], pool.domain_N[left], pool.tokens_N[left])
    assert len(set(chosen)) == len(chosen) == 120
    assert selector.diagnostics()["repeated_rows"] == 20
    with pytest.raises(PolicyError, match="without near-duplicates the pool has 0 of its 320 tok"):
        selector.select(pool, 16, LossOfRow())


def test_duplicates_take_no_part_in_the_turns_of_their_cluster(topics):
    for copy in range(60):
        topics.texts[100 + copy] = topics.texts[0]
    selector = cluster_uniform(topics, deduplicate=True)
    selector.select(topics.pool(), 60 * 16, None)
    samples, arms = selector.tables()["samples"], selector.tables()["arms"]
    assert arms["rows"].sum() == 180
    once_N = (samples["sample_id"] >> 40 > 0) | (samples["sample_id"] <= 30)
    distinct_C = np.bincount(samples["cluster"][once_N], minlength=len(arms["rows"]))
    assert np.ptp(arms["accepted"][arms["accepted"] < distinct_C - 1]) <= 1
