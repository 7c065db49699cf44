"""Near-duplicate groups of rows, and the cap of one row for each."""

import numpy as np
import pytest

from workbench.core import ConfigError, PolicyError, Pool
from workbench.data.duplicates import BANDS, ROWS_PER_BAND, band_hashes, minhash
from workbench.selection import near_duplicates
from workbench.selection.duplicates import DuplicateCap


def changed(text: str, words: int) -> str:
    """The text with its last words replaced."""
    kept = text.split()[: -words or None]
    return " ".join([*kept, *(f"other{word}" for word in range(words))])


@pytest.fixture
def copies(topics):
    """The source with three copies of row 0, a near-duplicate of row 1, and half of row 2."""
    for row, text in enumerate(
        [topics.texts[0]] * 3 + [changed(topics.texts[1], 2), changed(topics.texts[2], 20)]
    ):
        topics.texts[100 + row] = text
    return topics


def shingles(text: str) -> set:
    words = text.split()
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def brute_force_groups(texts: list[str], similarity: float) -> list[int]:
    """Groups by exact Jaccard similarity of all pairs."""
    group = list(range(len(texts)))
    sets = [shingles(text) for text in texts]
    for i in range(len(texts)):
        for j in range(i):
            if len(sets[i] & sets[j]) >= similarity * len(sets[i] | sets[j]):
                old, new = group[i], group[j]
                group = [new if g == old else g for g in group]
    first_met = list(dict.fromkeys(group))
    return [first_met.index(g) for g in group]


def test_groups_are_those_of_exact_similarity_over_all_pairs(copies):
    ids = copies.sample_id_N
    group_N = near_duplicates(copies, ids, similarity=0.7)
    assert group_N.dtype == np.int32
    assert group_N.tolist() == brute_force_groups([copies.texts[i] for i in ids.tolist()], 0.7)
    place = {int(i): p for p, i in enumerate(ids)}
    assert {group_N[place[i]] for i in (0, 100, 101, 102)} == {0}
    assert group_N[place[103]] == group_N[place[1]]
    assert group_N[place[104]] != group_N[place[2]]


def test_bands_that_meet_by_chance_are_checked(copies, monkeypatch):
    def one_band(signature):
        return np.zeros((*signature.shape[:-1], BANDS), dtype=np.uint64)

    ids = copies.sample_id_N
    plain = near_duplicates(copies, ids)
    monkeypatch.setattr("workbench.selection.duplicates.band_hashes", one_band)
    assert near_duplicates(copies, ids).max() > 0.9 * plain.max()


def test_signatures_estimate_the_jaccard_similarity():
    words = [f"word{i}" for i in range(400)]
    left, right = " ".join(words[:300]), " ".join(words[100:])
    exact = len(shingles(left) & shingles(right)) / len(shingles(left) | shingles(right))
    estimate = (minhash(left) == minhash(right)).mean()
    assert len(minhash(left)) == BANDS * ROWS_PER_BAND
    assert estimate == pytest.approx(exact, abs=0.15)
    both = np.stack([minhash(left), minhash(right)])
    assert np.array_equal(band_hashes(both)[1], band_hashes(both[1]))


def test_cap_admits_one_row_of_a_group_and_none_after_it_is_used(copies):
    ids = copies.sample_id_N
    pool = Pool(ids, ids >> 40, np.full(len(ids), 16))
    place = {int(i): p for p, i in enumerate(ids)}
    cap = DuplicateCap(copies.task())
    backwards = np.arange(len(ids))[::-1]
    admitted = cap.admit(pool, backwards)
    assert place[102] in admitted and not {place[0], place[100], place[101]} & set(admitted)
    assert (np.diff(admitted) < 0).all(), "the order is kept"
    cap.take(pool, np.array([place[102], place[5]]))

    rest = np.setdiff1d(np.arange(len(ids)), [place[102], place[5]])
    later = Pool(ids[rest], ids[rest] >> 40, np.full(len(rest), 16))
    left = set(later.sample_id_N[cap.admit(later, np.arange(len(rest)))].tolist())
    assert not left & {0, 100, 101, 102, 5} and {1, 2} <= left

    twin = DuplicateCap(copies.task())
    twin.load_state_dict(cap.state_dict())
    assert np.array_equal(
        twin.admit(later, np.arange(len(rest))), cap.admit(later, np.arange(len(rest)))
    )


def test_a_pool_that_is_no_part_of_the_first_is_refused(topics):
    pool = topics.pool()
    cap = DuplicateCap(topics.task())
    cap.admit(pool, np.arange(len(pool)))
    strange = Pool(np.array([0, 77]), np.array([0, 0]), np.array([16, 16]))
    with pytest.raises(PolicyError, match="1 rows of the pool, such as sample 77, were not in"):
        cap.admit(strange, np.arange(2))


def test_similarity_out_of_range_is_refused(topics):
    with pytest.raises(ConfigError, match="similarity = 0"):
        near_duplicates(topics, topics.sample_id_N, similarity=0)
