"""Arms that run out and rounds that fill a budget, without a model: scores are made up."""

import json

import numpy as np
import pytest

from workbench.core import PolicyError
from workbench.selection.arms import Arms
from workbench.selection.bandit import Bandit
from workbench.selection.gate import Untrusted
from workbench.selection.rounds import RoundSettings, pull_rounds

TOKENS = 10


def made_up(rows_C, *, level_C=None, spread=0.1, seed=0, tokens_N=None, held_N=None, **options):
    """A bandit, its arms and a scorer: rows of cluster c score about `level_C[c]`."""
    rng = np.random.default_rng(seed)
    cluster_N = rng.permutation(np.repeat(np.arange(len(rows_C)), rows_C))
    level_C = np.arange(len(rows_C))[::-1] if level_C is None else np.array(level_C)
    truth_N = level_C[cluster_N] + rng.normal(0, spread, len(cluster_N))
    tokens_N = np.full(len(cluster_N), TOKENS) if tokens_N is None else tokens_N
    arms = Arms(cluster_N, tokens_N, clusters=len(rows_C), held_N=held_N, rng=rng)
    asked = []

    def score(row_n):
        asked.extend(row_n.tolist())
        return truth_N[row_n].astype(np.float32)

    return Bandit(arms.rows_C, **options), arms, score, asked


def run(rows_C, budget_rows, *, settings=None, gate=None, told=None, **options):
    bandit, arms, score, asked = made_up(rows_C, **options)
    record = pull_rounds(
        bandit,
        arms,
        score,
        settings or RoundSettings(arms_per_round=2, samples_per_pull=4, chunk_rows=6),
        budget_tokens=budget_rows * TOKENS,
        gate=gate,
        progress=(told if told is not None else []).append,
    )
    return record, arms, asked


def test_a_cluster_smaller_than_the_chunk_is_chosen_in_full():
    record, arms, _ = run([3, 40, 40], 20, settings=RoundSettings(chunk_rows=500), spread=0.01)
    assert arms.accepted_C()[0] == 3
    assert len(record.row_n) == 20


def test_the_accepted_rows_are_the_emitted_rows():
    record, arms, _ = run([30, 30, 30], 25)
    assert sorted(record.row_n) == np.flatnonzero(arms.accepted_N).tolist()
    assert len(record.reason_n) == len(record.row_n)
    assert record.accepted_tokens == TOKENS * len(record.row_n)


@pytest.mark.parametrize("variant", ["robust", "paper"])
@pytest.mark.parametrize("seed", range(4))
def test_no_row_is_emitted_or_scored_twice_and_the_budget_is_kept(variant, seed):
    rng = np.random.default_rng(seed)
    rows_C = rng.integers(0, 30, 12)
    tokens_N = rng.integers(1, 2 * TOKENS, rows_C.sum())
    record, _, asked = run(
        rows_C, 60, seed=seed, spread=1.0, tokens_N=tokens_N, variant=variant, tau=None
    )
    assert len(set(record.row_n)) == len(record.row_n)
    assert len(set(asked)) == len(asked)
    used = tokens_N[record.row_n].sum()
    assert used == record.accepted_tokens <= 60 * TOKENS
    assert record.stopped == "the budget is filled"
    assert used > 60 * TOKENS - 2 * TOKENS


def test_empty_and_exhausted_clusters_never_block():
    record, arms, _ = run([0, 1, 0, 2, 50, 0], 53)
    assert record.stopped == "the budget is filled"
    assert len(record.row_n) == 53
    assert arms.accepted_C().tolist() == [0, 1, 0, 2, 50, 0]


def test_clusters_that_are_all_alike_still_fill_the_budget():
    record, _, asked = run([50] * 6, 100, level_C=[1.0] * 6, spread=1.0)
    assert len(record.row_n) == 100
    assert len(asked) < 150, "what cannot be told apart is scored to the end"


def test_the_good_clusters_get_the_budget_and_few_rows_are_scored():
    level_C = [0, 0, 5, 0, 0, 4, 0, 0, 0, 0]
    _, arms, asked = run([100] * 10, 100, level_C=level_C, spread=1.0, seed=3)
    accepted_C = arms.accepted_C()
    assert accepted_C[[2, 5]].sum() >= 95
    assert accepted_C[[2, 5]].min() > 10, "one cluster has it all"
    assert len(asked) < 200


def test_a_fixed_threshold_that_nothing_passes_ends_with_the_reason():
    record, _, asked = run([10, 10], 5, variant="paper", tau=100.0)
    assert record.row_n == [] and "no cluster left passes 100" in record.stopped
    assert len(asked) == 8, "cold arms once, then the share that may be scored is used up"


def test_rows_that_are_not_held_are_neither_scored_nor_emitted():
    held_N = np.arange(90) % 3 == 0
    record, _, asked = run([30, 30, 30], 30, held_N=held_N)
    assert held_N[record.row_n].all() and held_N[asked].all()
    assert len(record.row_n) == 30


def test_a_budget_of_all_there_is_takes_all_there_is():
    record, _, _ = run([7, 5], 12)
    assert sorted(record.row_n) == list(range(12))


def test_every_round_is_told_and_every_scored_row_is_a_pull():
    told = []
    record, arms, asked = run([30, 30, 30], 25, told=told)
    assert [row for _, _, row, _ in record.pulls] == asked
    assert [event["round"] for event in told] == list(range(record.rounds))
    assert told[-1]["accepted_tokens"] == told[-1]["done"] == record.accepted_tokens
    assert all(len(event["clusters"]) == len(event["rewards"]) for event in told)
    assert {event["stage"] for event in told} == {"pull"}
    accepted_C = np.zeros(3, dtype=int)
    for event in told:
        accepted_C[event["clusters"]] = event["accepted"]
        assert accepted_C.sum() * TOKENS == event["accepted_tokens"]
    assert accepted_C.tolist() == arms.accepted_C().tolist()
    json.dumps(told, allow_nan=False)


def test_nothing_is_accepted_before_every_cluster_was_looked_at():
    told = []
    run([30] * 9, 25, told=told)
    seen = set()
    for event in told:
        seen |= set(event["clusters"])
        assert event["accepted_tokens"] == 0 or len(seen) == 9


def test_the_gate_is_asked_of_every_threshold_and_before_anything_is_accepted():
    def refuse(threshold):
        raise Untrusted(f"no trust at {threshold:.1f}")

    with pytest.raises(PolicyError, match=r"no trust at 0\.5"):
        run([30, 30, 30], 25, gate=refuse, spread=0.0)
    asked, told = [], []
    record, _, _ = run(
        [30, 30, 30], 50, gate=lambda tau: asked.append(tau) or "; asked", told=told, spread=1.0
    )
    accepted = [event["accepted_tokens"] for event in told]
    gaining = np.diff([0, *accepted]) > 0
    used = [event["threshold"] for event, gains in zip(told, gaining, strict=True) if gains]
    finite = [tau for tau in asked if np.isfinite(tau)]
    assert set(finite) >= {tau for tau in used if tau is not None} and len(set(finite)) > 1
    assert all(reason.endswith("; asked") for reason in record.reason_n)


@pytest.mark.parametrize("variant", ["robust", "paper"])
def test_a_choice_that_is_made_in_one_round_does_not_pass_the_gate_unasked(variant):
    asked = []
    ask = lambda threshold: asked.append(threshold) or ""  # noqa: E731
    settings = RoundSettings(arms_per_round=8, chunk_rows=100)
    record, _, _ = run([30, 30], 10, gate=ask, settings=settings, variant=variant)
    assert record.rounds == 1 and len(asked) == 1


def test_clusters_out_of_range_are_refused():
    with pytest.raises(PolicyError, match="clusters from 0 to 3 where there are 3"):
        Arms(np.array([0, 3]), np.ones(2), clusters=3, rng=np.random.default_rng(0))


def test_the_same_pulls_from_a_restored_bandit():
    """The rounds draw nothing: all chance is in the order of the arms."""
    first, _, _ = run([20] * 5, 30, spread=1.0)
    second, _, _ = run([20] * 5, 30, spread=1.0)
    assert first == second
