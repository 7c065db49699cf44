"""Rank correlation on tables in the format of the public RegMix data, generated here."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.regmix_tables import main, rank_correlations
from workbench.core import DataError

DOMAINS = ("arxiv", "freelaw", "github", "pile_cc")
OFFSET = {"1m": 3.0, "60m": 2.0, "1B": 1.0}


def write_tables(folder, size, kind, runs, *, losses=DOMAINS, noise=0.02, seed=0, first=1):
    """A pair as published: `index`, then shares to 3 digits; `index`, then losses in any order."""
    rng = np.random.default_rng([seed, runs])
    mixture = rng.dirichlet(np.ones(len(DOMAINS)), runs).round(3)
    frame = pd.DataFrame(mixture, columns=[f"train_the_pile_{name}" for name in DOMAINS])
    frame.insert(0, "index", range(first, first + runs))
    nats = OFFSET[size] - 0.4 * np.log(mixture + 0.02) + noise * rng.normal(size=mixture.shape)
    table = pd.DataFrame(nats, columns=[f"metric/the_pile_{name}_val_loss" for name in DOMAINS])
    table = table[[f"metric/the_pile_{name}_val_loss" for name in losses]]
    table.insert(0, "index", range(first, first + runs))
    frame.to_csv(folder / f"{kind}_mixture_{size}.csv", index=False)
    table.sample(frac=1, random_state=0).to_csv(
        folder / f"{kind}_pile_loss_{size}.csv", index=False
    )


@pytest.fixture
def tables(tmp_path):
    write_tables(tmp_path, "1m", "train", 120)
    write_tables(tmp_path, "1m", "test", 50, seed=1)
    write_tables(tmp_path, "60m", "test", 50, seed=1)
    write_tables(tmp_path, "1B", "test", 30, seed=2, losses=DOMAINS[1:], first=0)
    return tmp_path


def test_held_out_runs_of_every_size_are_ranked(tables, capsys):
    small, middle, large = rank_correlations(tables)
    assert [ranking.size for ranking in (small, middle, large)] == ["1M", "60M", "1B"]
    assert [ranking.runs for ranking in (small, middle, large)] == [50, 50, 30]
    assert list(large.spearman) == list(DOMAINS[1:])
    for ranking in (small, middle, large):
        assert ranking.mean > 0.95 and min(ranking.spearman.values()) > 0.9
    assert main([str(tables)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith(f"1B: 30 held-out runs, Spearman {large.mean:.4f} in the mean")


def test_losses_of_other_runs_rank_by_chance(tables):
    path = tables / "test_pile_loss_60m.csv"
    table = pd.read_csv(path)
    table["index"] = np.random.default_rng(0).permutation(table["index"])
    table.to_csv(path, index=False)
    small, middle, _ = rank_correlations(tables)
    assert abs(middle.mean) < 0.3 < small.mean


def test_the_1m_mixtures_are_those_of_60m_where_a_copy_lacks_them(tables):
    before = rank_correlations(tables)
    (tables / "test_mixture_1m.csv").unlink()
    assert rank_correlations(tables) == before


def test_sizes_that_are_missing_are_left_out_and_none_is_an_error(tables, capsys):
    (tables / "test_pile_loss_1B.csv").unlink()
    assert [ranking.size for ranking in rank_correlations(tables)] == ["1M", "60M"]
    (tables / "test_pile_loss_1m.csv").unlink()
    (tables / "test_pile_loss_60m.csv").unlink()
    assert main([str(tables)]) == 1
    assert "has no held-out losses" in capsys.readouterr().out


def test_tables_that_do_not_fit_are_refused(tables, tmp_path):
    path = tables / "test_mixture_1B.csv"
    frame = pd.read_csv(path).rename(columns={"train_the_pile_arxiv": "train_the_pile_books"})
    frame.to_csv(path, index=False)
    with pytest.raises(DataError, match="other domains"):
        rank_correlations(tables)
    (tables / "train_pile_loss_1m.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"cannot read .*train_pile_loss_1m.csv: KeyError"):
        rank_correlations(tables)
    with pytest.raises(DataError, match="cannot read"):
        rank_correlations(tmp_path / "nowhere")
