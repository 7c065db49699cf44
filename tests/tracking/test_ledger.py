"""The ledger: what goes in comes out, and the ready-made questions against plain loops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from workbench.core import RunError
from workbench.tracking import LEDGER_SCHEMA


def random_rows(steps: int, rows: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    n = steps * rows
    return {
        "step": np.repeat(np.arange(steps), rows),
        "sample_id": rng.integers(0, 40, n) | (1 << 40),
        "domain": np.array(["a", "b", "c"])[rng.integers(0, 3, n)],
        "cluster": rng.integers(0, 5, n),
        "probability": rng.random(n),
        "loss": rng.normal(5, 1, n),
        "weight": rng.gamma(2, 0.5, n),
        "influence": rng.normal(size=n),
    }


@pytest.fixture
def filled(folder):
    rows = random_rows(40, 16, seed=1)
    for first in range(0, 40, 10):
        part = {name: column[first * 16 : (first + 10) * 16] for name, column in rows.items()}
        folder.write_ledger(part, first, first + 9)
    return folder, pd.DataFrame(rows)


def test_rows_come_back_as_written(filled):
    folder, rows = filled
    frame = folder.ledger.frame()
    assert list(frame.columns) == LEDGER_SCHEMA.names
    for name in rows:
        expected = rows[name].astype("float32") if rows[name].dtype == float else rows[name]
        assert frame[name].tolist() == expected.tolist()


def test_missing_clusters_and_influences_are_null_and_a_nan_loss_stays(folder, columns):
    rows = columns(0, 0) | {"influence": np.array([np.nan, 1.0, 2.0, np.nan])}
    rows["loss"][2] = np.nan
    folder.write_ledger(rows, 0, 0)
    (counts,) = folder.ledger.sql(
        "select count(cluster) clusters, count(influence) influences, count(loss) losses, "
        "sum(isnan(loss)::int) nans from ledger"
    ).to_dict("records")
    assert counts == {"clusters": 0, "influences": 2, "losses": 4, "nans": 1}


def test_an_empty_ledger_answers_with_the_right_columns(folder):
    ledger = folder.ledger
    assert list(ledger.frame().columns) == LEDGER_SCHEMA.names and ledger.frame().empty
    assert list(ledger.step(3).columns) == LEDGER_SCHEMA.names
    assert ledger.spike(3).empty and "contribution_nats" in ledger.spike(3)
    assert ledger.weight_by_domain().empty and "weight_share" in ledger.weight_by_domain()
    assert ledger.views([5])["views"].tolist() == [0]
    assert ledger.sql("select domain, avg(weight) from ledger group by domain").empty


@pytest.mark.parametrize(
    ("query", "said"),
    [("select wieght from ledger", "wieght"), ("selct 1", "syntax"), ("select * from x", "x")],
)
def test_a_bad_query_is_one_line_that_says_what_is_there(filled, query, said):
    with pytest.raises(RunError, match=said) as caught:
        filled[0].ledger.sql(query)
    assert "sample_id" in caught.value.remedy and "\n" not in str(caught.value)


def test_wrong_columns_are_refused_and_named(folder, columns):
    rows = columns(0, 1)
    bad = [
        ({**rows, "wieght": rows["weight"]}, "unknown wieght"),
        ({k: v for k, v in rows.items() if k != "loss"}, "missing loss"),
        ({**rows, "loss": rows["loss"][:-1]}, "differ in length"),
        (columns(0, 2), "do not belong"),
    ]
    for wrong, said in bad:
        with pytest.raises(RunError, match=said):
            folder.write_ledger(wrong, 0, 1)
    assert folder.ledger.frame().empty


def test_a_step_cannot_be_written_twice(folder, columns):
    folder.write_ledger(columns(0, 9), 0, 9)
    with pytest.raises(RunError, match="overlap"):
        folder.write_ledger(columns(9, 12), 9, 12)
    assert len(folder.ledger.frame()) == 40


def test_step_gives_the_rows_of_one_step_in_batch_order(filled):
    folder, rows = filled
    of_step = rows[rows["step"] == 17]
    assert folder.ledger.step(17)["sample_id"].tolist() == of_step["sample_id"].tolist()
    assert folder.ledger.step(17)["domain"].tolist() == of_step["domain"].tolist()
    assert folder.ledger.step(99).empty


def test_views_count_every_row_and_name_the_unseen(filled):
    folder, rows = filled
    ids = [*rows["sample_id"].unique()[:5], 7]
    views = folder.ledger.views(ids).set_index("sample_id")
    for sample_id in ids:
        mine = rows[rows["sample_id"] == sample_id]
        assert views.loc[sample_id, "views"] == len(mine)
        if len(mine):
            assert views.loc[sample_id, "first_step"] == mine["step"].min()
            assert views.loc[sample_id, "mean_weight"] == pytest.approx(mine["weight"].mean())
    assert len(folder.ledger.rows_of(ids[0])) == views.loc[ids[0], "views"]


def test_a_document_is_seen_when_any_of_its_samples_is(filled):
    folder, rows = filled
    some = rows["sample_id"].unique()
    documents = {"long": some[:3].tolist(), "short": [int(some[0])], "unseen": [7]}
    frame = folder.ledger.document_views(documents).set_index("document")
    for name, ids in documents.items():
        assert frame.loc[name, "views"] == rows["sample_id"].isin(ids).sum()
        assert frame.loc[name, "samples"] == len(ids)


def test_weight_by_domain_matches_a_plain_loop(filled):
    folder, rows = filled
    frame = folder.ledger.weight_by_domain(every_steps=8)
    assert len(frame) == 5 * 3
    for _, answer in frame.iterrows():
        stretch = rows[rows["step"] // 8 * 8 == answer["step"]]
        mine = stretch[stretch["domain"] == answer["domain"]]
        assert answer["samples"] == len(mine)
        assert answer["weight_share"] == pytest.approx(
            mine["weight"].sum() / stretch["weight"].sum(), rel=1e-5
        )
        assert answer["sample_share"] == pytest.approx(len(mine) / len(stretch))
        assert answer["mean_loss"] == pytest.approx(mine["loss"].mean(), rel=1e-5)


def test_spike_names_the_planted_samples_and_its_contributions_add_up(folder):
    rows = random_rows(40, 16, seed=2)
    planted = np.flatnonzero(rows["step"] == 30)[[3, 9]]
    rows["loss"][planted] += [40.0, 20.0]
    rows["sample_id"][planted] = [111, 222]
    folder.write_ledger(rows, 0, 39)
    assert folder.ledger.spike(30, top=2)["sample_id"].tolist() == [111, 222]

    step = folder.ledger.spike(30, top=16, window_steps=0, history_steps=10)
    table = pd.DataFrame(rows)
    usual = table[table["step"].between(20, 29)].groupby("domain")["loss"].mean()
    mine = table[table["step"] == 30]
    surplus = (mine["weight"] * (mine["loss"] - mine["domain"].map(usual))).mean()
    assert step["contribution_nats"].sum() == pytest.approx(surplus, rel=1e-4)


def test_spike_of_a_step_outside_the_ledger_names_the_range(filled):
    with pytest.raises(RunError, match="from 0 to 39"):
        filled[0].ledger.spike(40)
