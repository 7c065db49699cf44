"""The sampler: mixture, order, epochs, resume, ranks."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from workbench.core import DataError, Mixture, PolicyError
from workbench.data import MixtureSampler
from workbench.data.permutation import permute


@pytest.mark.parametrize("n", [1, 2, 3, 5, 16, 17, 100, 1000, 1024, 1025, 4097, 70_001])
def test_permute_is_a_permutation(n):
    rows = permute(np.arange(n), n=n, seed=n + 5)
    assert np.array_equal(np.sort(rows), np.arange(n))


def test_permute_gives_rows_one_by_one_as_in_bulk():
    whole = permute(np.arange(1000), n=1000, seed=3)
    single = [int(permute(np.array([i]), n=1000, seed=3)[0]) for i in range(0, 1000, 50)]
    assert single == whole[::50].tolist()


def test_permute_looks_shuffled_and_differs_by_seed():
    n = 20_000
    first, second = (permute(np.arange(n), n=n, seed=seed) for seed in (1, 2))
    for order in (first, second):
        assert abs(np.corrcoef(np.arange(n), order)[0, 1]) < 0.03
        assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.03
        assert abs(np.mean(order == np.arange(n)) * n - 1) < 6
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03


def test_each_place_gets_every_row_equally_often_over_seeds():
    counts = np.zeros((6, 6))
    for seed in range(1500):
        counts[np.arange(6), permute(np.arange(6), n=6, seed=seed * 7919)] += 1
    chi_squared = ((counts - 250) ** 2 / 250).sum()
    assert chi_squared < 60  # 25 degrees of freedom: 60 is beyond the 99.99 % quantile


def sampler_of(corpus, *, seed=0, batch_rows=16, mixture=None):
    sampler = MixtureSampler(corpus, batch_rows=batch_rows, seed=seed)
    sampler.set_mixture(mixture or Mixture.uniform(corpus.domains))
    return sampler


def assert_same_batch(first, second):
    assert first.sample_id_B.tolist() == second.sample_id_B.tolist()
    assert torch.equal(first.tokens_BT, second.tokens_BT)
    assert torch.equal(first.labels_BT, second.labels_BT)
    assert np.array_equal(first.probability_B, second.probability_B)


def test_batch_holds_the_rows_it_names(planted):
    batch = sampler_of(planted).draw(0)
    rows = planted.tokens(batch.sample_id_B)
    assert batch.tokens_BT.dtype == torch.int64 and batch.tokens_BT.shape == (16, 32)
    assert np.array_equal(batch.tokens_BT.numpy(), rows[:, :-1])
    assert np.array_equal(batch.labels_BT.numpy(), rows[:, 1:])
    assert np.array_equal(planted.domain_of(batch.sample_id_B), batch.domain_B)


def test_same_seed_same_sequence_other_seed_another(planted):
    first, second, other = (sampler_of(planted, seed=seed) for seed in (4, 4, 5))
    for step in range(5):
        batch = first.draw(step)
        assert_same_batch(batch, second.draw(step))
        assert batch.sample_id_B.tolist() != other.draw(step).sample_id_B.tolist()


def test_slices_of_ranks_make_up_the_batch_of_one(planted):
    whole = sampler_of(planted)
    ranks = [sampler_of(planted) for _ in range(2)]
    for step in range(3):
        batch = whole.draw(step)
        parts = [r.draw(step).rows(slice(8 * i, 8 * i + 8)) for i, r in enumerate(ranks)]
        joined = np.concatenate([part.sample_id_B for part in parts])
        assert joined.tolist() == batch.sample_id_B.tolist()


def test_resume_in_the_middle_of_an_epoch_is_exact(planted):
    mixture = Mixture(planted.domains, np.array([0.4, 0.3, 0.1, 0.1, 0.1, 0.0]))
    straight = sampler_of(planted, mixture=mixture)
    for step in range(60):
        straight.draw(step)
    state = json.loads(json.dumps(straight.state_dict()))
    resumed = MixtureSampler(planted, batch_rows=16, seed=0)
    resumed.load_state_dict(state)
    for step in range(60, 120):
        assert_same_batch(straight.draw(step), resumed.draw(step))
    assert straight.state_dict() == resumed.state_dict()


def test_an_epoch_shows_each_row_once_and_the_next_another_order(planted):
    rows = int(planted.rows_K[0])
    only = Mixture(planted.domains, np.eye(len(planted.domains))[0])
    sampler = sampler_of(planted, batch_rows=1, mixture=only)
    ids = [int(sampler.draw(step).sample_id_B[0]) for step in range(2 * rows)]
    assert sorted(ids[:rows]) == sorted(ids[rows:]) == list(range(rows))
    assert ids[:rows] != ids[rows:] and ids[:rows] != sorted(ids[:rows])
    assert sampler.epochs_K.tolist() == [2.0, 0.0, 0.0, 0.0, 0.0, 0.0]


def test_rows_follow_the_mixture(planted):
    p = np.array([0.5, 0.25, 0.15, 0.1, 0.0, 0.0])
    sampler = sampler_of(planted, mixture=Mixture(planted.domains, p))
    batches = [sampler.draw(step) for step in range(400)]
    domains = np.concatenate([b.domain_B for b in batches])
    share = np.bincount(domains, minlength=6) / len(domains)
    assert np.abs(share - p).max() < 0.02 and share[4] == share[5] == 0
    assert np.array_equal(batches[0].probability_B, p[batches[0].domain_B])


def test_the_mixture_of_a_step_leaves_earlier_rows_alone(planted):
    """Domains drawn at a step depend on (seed, step), so a change acts from that step on."""
    first, second = sampler_of(planted), sampler_of(planted)
    for step in range(3):
        assert_same_batch(first.draw(step), second.draw(step))
    second.set_mixture(Mixture(planted.domains, np.array([1.0, 0, 0, 0, 0, 0])))
    assert first.draw(3).sample_id_B.tolist() != second.draw(3).sample_id_B.tolist()


def test_a_domain_with_fewer_rows_than_a_batch_is_refused_with_its_counts(planted):
    sampler = MixtureSampler(planted, batch_rows=800, seed=0)
    with pytest.raises(DataError, match=r"domain '\w+' has \d+ rows, a batch needs 800"):
        sampler.set_mixture(Mixture.uniform(planted.domains))
    with pytest.raises(DataError, match="lower batch_rows"):
        sampler.draw(0)


def test_a_small_domain_is_no_obstacle_when_the_mixture_leaves_it_out(planted):
    rows = sorted(planted.rows_K.tolist())
    biggest = int(planted.rows_K.argmax())
    sampler = MixtureSampler(planted, batch_rows=rows[-2] + 1, seed=0)
    sampler.set_mixture(Mixture(planted.domains, np.eye(len(planted.domains))[biggest]))
    assert set(sampler.draw(0).domain_B.tolist()) == {biggest}


def test_other_domains_are_refused(planted):
    sampler = MixtureSampler(planted, batch_rows=4, seed=0)
    with pytest.raises(DataError, match="the corpus has"):
        sampler.set_mixture(Mixture.uniform(("a", "b")))
    with pytest.raises(DataError, match="state is of domains"):
        sampler.load_state_dict({"drawn": {"a": 1}, "mixture": None})


def test_guaranteed_rows_are_in_every_batch_and_the_rest_follows_the_mixture(planted):
    share = np.array([0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    sampler = sampler_of(planted, mixture=Mixture(planted.domains, share, guaranteed_rows=2))
    effective = [2 / 16, 2 / 16, 6 / 16, 2 / 16, 2 / 16, 2 / 16]
    for step in range(5):
        batch = sampler.draw(step)
        assert np.bincount(batch.domain_B, minlength=6).tolist() == [2, 2, 6, 2, 2, 2]
        assert batch.probability_B.tolist() == [effective[k] for k in batch.domain_B]
    resumed = MixtureSampler(planted, batch_rows=16, seed=0)
    resumed.load_state_dict(json.loads(json.dumps(sampler.state_dict())))
    assert_same_batch(sampler.draw(5), resumed.draw(5))


def test_of_a_global_batch_a_part_is_read_and_everything_decided(planted, monkeypatch):
    whole, part = (sampler_of(planted, batch_rows=8) for _ in range(2))
    real, read = type(planted).tokens, []
    monkeypatch.setattr(
        type(planted), "tokens", lambda self, ids: read.extend(ids) or real(self, ids)
    )
    expected = [whole.draw(step) for step in range(3)]
    read.clear()
    for step, batch in enumerate(expected):
        found = part.draw(step, slice(2, 5))
        for name in ("sample_id_B", "domain_B", "probability_B"):
            np.testing.assert_array_equal(getattr(found, name), getattr(batch, name))
        assert found.tokens_BT[2:5].equal(batch.tokens_BT[2:5])
        assert found.labels_BT[2:5].equal(batch.labels_BT[2:5])
        assert not found.tokens_BT[[0, 1, 5, 6, 7]].any()
    assert read == [i for batch in expected for i in batch.sample_id_B[2:5]]
    assert part.state_dict() == whole.state_dict()


def test_more_guaranteed_rows_than_a_batch_has_are_refused(planted):
    mixture = Mixture(planted.domains, np.full(6, 1 / 6), guaranteed_rows=3)
    with pytest.raises(PolicyError, match="do not fit a batch of 16 rows"):
        sampler_of(planted, mixture=mixture)


def test_chosen_rows_alone_are_drawn_each_once_an_epoch(planted):
    pool = planted.pool()
    chosen = np.sort(np.random.default_rng(0).choice(pool.sample_id_N, 160, replace=False))
    chosen = chosen[planted.domain_of(chosen) != 2]
    sampler = sampler_of(planted, batch_rows=8)
    sampler.restrict(chosen)
    rows_K = np.bincount(planted.domain_of(chosen), minlength=6)
    sampler.set_mixture(Mixture(planted.domains, rows_K / rows_K.sum()))
    drawn = np.concatenate([sampler.draw(step).sample_id_B for step in range(40)])
    assert set(drawn.tolist()) <= set(chosen.tolist())
    assert sampler.rows_K.tolist() == rows_K.tolist()
    for k in np.flatnonzero(rows_K):
        own = drawn[planted.domain_of(drawn) == k]
        for first in range(0, len(own) - rows_K[k] + 1, rows_K[k]):
            assert len(set(own[first : first + rows_K[k]].tolist())) == rows_K[k]


def test_a_domain_without_a_chosen_row_leaves_its_share_to_the_others(planted):
    pool = planted.pool()
    sampler = sampler_of(planted, batch_rows=12)
    sampler.restrict(pool.sample_id_N[pool.domain_N < 3])
    sampler.set_mixture(Mixture(planted.domains, np.array([0.1, 0.2, 0.2, 0.5, 0, 0]), 1))
    batch = sampler.draw(0)
    assert set(batch.domain_B.tolist()) == {0, 1, 2}
    share_K = (1 + 9 * np.array([0.2, 0.4, 0.4])) / 12
    assert sampler.supply.share_K == pytest.approx([*share_K, 0, 0, 0])
    assert batch.probability_B == pytest.approx(share_K[batch.domain_B])
    with pytest.raises(DataError, match="no chosen row is of the domains"):
        sampler.set_mixture(Mixture(planted.domains, np.array([0, 0, 0, 0.5, 0.5, 0])))


def test_restricting_starts_the_count_again_and_can_be_undone(planted):
    sampler = sampler_of(planted)
    first = sampler.draw(0)
    sampler.restrict(planted.pool().sample_id_N[:50])
    assert sampler.supply.epochs_K.tolist() == [0] * 6
    sampler.restrict(None)
    assert_same_batch(sampler.draw(0), first)


def test_rows_to_be_read_once_are_all_read_before_any_repeats(planted):
    pool = planted.pool()
    per_domain = [pool.sample_id_N[pool.domain_N == k][:n] for k, n in enumerate((3, 20, 0, 9, 0))]
    chosen = np.concatenate(per_domain)
    sampler = sampler_of(planted, batch_rows=8)
    sampler.restrict(chosen, once=True)
    sampler.set_mixture(Mixture(planted.domains, np.array([0.9, 0.02, 0, 0, 0.08, 0])))
    drawn = np.concatenate([sampler.draw(step).sample_id_B for step in range(4)])
    assert sorted(drawn.tolist()) == sorted(chosen.tolist())
    assert set(sampler.draw(4).sample_id_B.tolist()) <= set(chosen.tolist())
