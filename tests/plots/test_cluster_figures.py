"""Figures of a choice: what is drawn is what the selector told, thinned fairly and told so."""

from __future__ import annotations

import numpy as np
import pytest

from workbench import plots
from workbench.core import ConfigError, RunError
from workbench.plots.choices import arm_history, pull_rounds, read_choice
from workbench.plots.clusters import COLOURINGS, influence_limit, thinned

PNG = b"\x89PNG"


@pytest.mark.parametrize("colour", COLOURINGS)
def test_every_colouring_draws_every_row_once_and_has_a_picture(choosing_folder, colour):
    figure = plots.cluster_map(choosing_folder(rows=300), colour)
    drawn = [trace for trace in figure.data if trace.mode == "markers"]
    assert sum(len(trace.x) for trace in drawn) == 300
    assert plots.png(figure).startswith(PNG)
    told = " ".join(text for trace in drawn for text in trace.text)
    assert "noise &lt;b&gt;" in told and "<b>" not in told and "sample 10000000000" in told


def test_few_rows_are_svg_and_many_are_webgl(choosing_folder):
    kinds = {
        rows: {trace.type for trace in plots.cluster_map(choosing_folder(rows=rows)).data}
        for rows in (300, 4000)
    }
    assert kinds == {300: {"scatter"}, 4000: {"scattergl"}}


def test_a_large_pool_is_thinned_by_the_same_part_of_each_domain_and_says_so(choosing_folder):
    figure = plots.cluster_map(choosing_folder(rows=60_000))
    shown = {trace.name: len(trace.x) for trace in figure.data}
    assert "20,000 of 60,000 rows drawn" in figure.layout.title.text
    # The pool has 2 rows of the first domain for 1 of the other.
    assert shown["clean"] == pytest.approx(2 * shown["noise &lt;b&gt;"], rel=0.01)


def test_thinning_leaves_no_domain_out():
    domain_N = np.array(["rare"] + ["common"] * 999)
    assert "rare" in domain_N[thinned(domain_N, 10)]
    assert thinned(domain_N, 1000).tolist() == list(range(1000))


def test_influence_has_zero_in_the_middle_and_unscored_rows_apart(choosing_folder):
    folder = choosing_folder(rows=300)
    unscored, helpful, harmful = plots.cluster_map(folder, "influence").data
    assert (unscored.name, helpful.name, harmful.name) == ("not scored", "helpful", "harmful")
    assert helpful.marker.cmin == -helpful.marker.cmax == harmful.marker.cmin
    assert min(helpful.marker.color) >= 0 > max(harmful.marker.color)
    scored = np.isfinite(folder.selection().frame("samples")["influence"]).sum()
    assert len(helpful.x) + len(harmful.x) == scored < 300
    assert influence_limit(np.array([np.nan])) == 1.0


def test_pulls_of_a_row_are_those_of_its_cluster(choosing_folder):
    folder = choosing_folder(rows=300)
    (trace,) = plots.cluster_map(folder, "pulls").data
    pulls = folder.selection().frame("arms").set_index("cluster")["pulls"]
    rows = folder.selection().frame("samples")
    assert list(trace.marker.color) == pulls.loc[rows["cluster"]].tolist()


def test_arms_are_sorted_by_mean_and_the_rest_is_told(choosing_folder):
    figure = plots.arms(choosing_folder(rows=400, clusters=40))
    means = dict(pair for trace in figure.data[:2] for pair in zip(trace.y, trace.x, strict=True))
    order = list(figure.layout.yaxis.categoryarray)[::-1]
    assert [means[name] for name in order] == sorted(means.values(), reverse=True)
    assert len(order) == 30 and "best 30 of 40" in figure.layout.title.text
    assert plots.png(figure).startswith(PNG)


def test_the_replay_is_small_and_ends_with_the_pulls_that_were_made(choosing_folder):
    folder = choosing_folder(rows=5000, rounds=200)
    figure = plots.pulls_replay(folder)
    assert len(figure.frames) == len(figure.layout.sliders[0].steps) == 120
    assert len(figure.to_json()) < 500_000 and plots.png(figure).startswith(PNG)
    last, pulls = figure.data[1], folder.selection().frame("arms")["pulls"]
    largest = last.customdata[int(np.argmax(last.marker.size))]
    assert pulls[largest] == pulls.max()
    assert list(figure.frames[-1].data[0].marker.size) == list(last.marker.size)
    ringed = len(figure.frames[0].data[1].x)
    assert ringed == len(folder.events("selecting")[0]["clusters"])


def test_history_counts_pulls_and_skips_those_that_scored_nothing():
    rounds = [
        {"clusters": [0, 2], "rewards": [1.0, None]},
        {"clusters": [0], "rewards": [3.0]},
        {"clusters": [2], "rewards": [float("nan")]},
    ]
    pulls_RC, mean_RC = arm_history(rounds, 3)
    assert pulls_RC.tolist() == [[1, 0, 1], [2, 0, 1], [2, 0, 2]]
    assert mean_RC[-1, 0] == 2.0 and np.isnan(mean_RC[:, 1:]).all()
    assert arm_history([], 3)[0].shape == (0, 3)


def test_of_a_choice_made_twice_the_second_counts():
    pull = {"kind": "selecting", "stage": "pull", "step": 5}
    events = [{**pull, "round": i, "clusters": [i]} for i in (0, 1, 2, 0, 1)]
    assert [event["round"] for event in pull_rounds(events, 5)] == [0, 1]
    assert pull_rounds(events, 4) == []


@pytest.mark.parametrize("figure", [plots.cluster_map, plots.arms, plots.pulls_replay])
def test_a_run_that_chose_nothing_says_so(make, figure):
    drawn = figure(make("plain"))
    assert drawn.layout.annotations[0].text and plots.png(drawn).startswith(PNG)


def test_a_selector_without_a_map_says_so(make):
    folder = make("random", steps=0)
    columns = {"sample_id": np.arange(3), "domain": np.array(["a"] * 3, dtype=object)}
    with folder.lock():
        folder.write_selection(0, {"selected": columns, "samples": columns}, {})
    assert "no map" in plots.cluster_map(folder).layout.annotations[0].text
    assert read_choice(folder).samples is None


def test_a_wrong_colour_or_step_is_an_error(choosing_folder):
    with pytest.raises(ConfigError, match="influence"):
        plots.cluster_map(choosing_folder(), "influense")
    with pytest.raises(RunError, match="no selection of step 7"):
        plots.cluster_map(choosing_folder(), step=7)
