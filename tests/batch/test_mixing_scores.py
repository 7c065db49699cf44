"""How far each way of mixing got, against a baseline of the same seed."""

import math
from dataclasses import replace

import pytest

from workbench.batch import mixing_scores, score_table
from workbench.core import DataError
from workbench.evaluation import verdict


@pytest.fixture
def runs(write_run):
    """Losses fall from 6 at step 0; `direct` falls further and reads less noise."""

    def run(name, seed, clean, noise_share):
        folder = write_run(name, seed=seed, final={"clean": clean, "noise": 9.0}, end=None)
        first = {"clean": 6.0, "noise": 9.0}
        with folder.lock():
            folder.append("held_out", 0, losses=first, mean_nats=7.5)
            for step in range(4, 8):
                share = {"clean": 1 - noise_share, "noise": noise_share}
                event = {**folder.events("step")[0], "step": step, "sample_share": share}
                folder.append_many([event])
        return folder

    return {
        "uniform": [run("u0", 0, 5.0, 0.5), run("u1", 1, 4.0, 0.5)],
        "direct": [run("d0", 0, 4.0, 0.25), run("d1", 1, 5.0, 0.0)],
    }


def test_scores_are_per_seed_and_leave_out_what_does_not_count(runs):
    scores = mixing_scores(runs, without=["noise"])
    assert scores["uniform"].final_nats == {0: 5.0, 1: 4.0}
    assert scores["uniform"].steps_to_baseline == {0: 4.0, 1: 4.0}
    assert scores["direct"].steps_to_baseline == {0: pytest.approx(2.0), 1: math.inf}
    assert scores["direct"].wasted_share == {0: 0.25, 1: 0.0}
    assert mixing_scores(runs)["direct"].wasted_share == {0: 0.0, 1: 0.0}
    assert mixing_scores(runs)["uniform"].final_nats[0] == pytest.approx(7.0)


def test_the_table_says_how_often_the_baseline_was_reached(runs):
    table = score_table(mixing_scores(runs, without=["noise"]))
    assert table.loc["direct", "reached the baseline"] == "1 of 2"
    assert table.loc["direct", "after steps (mean)"] == 2.0
    assert table.loc["direct", "share left out"] == 0.125


def test_the_table_has_the_paired_difference_with_its_interval_and_the_seeds_it_needs(runs):
    scores = mixing_scores(runs, without=["noise"])
    row = score_table(scores).loc["direct"]
    # −1 and +1 nats: nothing on average, and a t interval of 12.7 standard errors on two seeds.
    assert row["difference"] == 0 and row["outcome"] == "within noise"
    assert row["high"] == -row["low"] == pytest.approx(12.7062, abs=1e-4)
    better = replace(scores["direct"], final_nats={0: 4.9, 1: 3.88})
    table = score_table({**scores, "direct": better})
    told = verdict({0: 5.0, 1: 4.0}, {0: 4.9, 1: 3.88}, name="direct", baseline_name="uniform")
    assert table.loc["direct", "difference"] == pytest.approx(-0.11)
    assert table.loc["direct", "seeds needed"] == told.seeds_needed is not None
    assert table.loc["uniform", "outcome"] == "baseline"
    assert table.loc["uniform"][["difference", "low", "high", "seeds needed"]].isna().all()


def test_the_table_is_held_against_the_baseline_of_the_scores(runs):
    table = score_table(mixing_scores(runs, "direct", without=["noise"]))
    assert list(table["outcome"]) == ["within noise", "baseline"]
    single = {label: own[:1] for label, own in runs.items()}
    assert score_table(mixing_scores(single)).loc["direct", "outcome"] == "undecided"


def test_a_seed_without_a_baseline_is_named(runs):
    with pytest.raises(DataError, match=r"'direct' has seeds \[1\]"):
        mixing_scores({"uniform": runs["uniform"][:1], "direct": runs["direct"]})
