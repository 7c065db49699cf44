"""What runs cost, what they reach for the same cost, and the files a comparison leaves behind."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from workbench.batch import (
    by_domain,
    compare_at_equal_cost,
    compare_each,
    cost_curves,
    cost_table,
    export,
    runs_at,
)
from workbench.batch.equal_cost import phases
from workbench.core import ConfigError, DataError, RunError


@pytest.fixture
def write_timed(write_run):
    """write_timed(name, seconds a step, {step: nats}, …): a finished run of 4 steps."""

    def write(name, seconds, nats, *, selected=None, summary=None, seed=0, step=None, **changes):
        run = write_run(name, seed=seed, end=None, **changes)
        with run.lock():
            run.rewind(0)
            own = {"seconds": seconds, **(step or {})}
            steps = [{**STEP, "step": index, **own} for index in range(4)]
            run.append_many(steps)
            if selected is not None:
                run.append("selected", selected[0], **SELECTED, **chosen(*selected[1:]))
            for step, value in nats.items():
                losses = {"clean": value, "noise": value + 1}
                run.append("held_out", step, losses=losses, mean_nats=value + 0.5)
            run.append("finished", 4)
            times = {"train_seconds": 4 * seconds, "select_seconds": (selected or (0, 0.0))[1]}
            run.write_summary(summary or {**times, "evaluate_seconds": 0.25})
        return run

    return write


SHARES = {"clean": 0.5, "noise": 0.5}
STEP = {
    **{"kind": "step", "loss": 3.0, "weighted_loss": 3.0, "lr": 1e-3, "grad_norm": 1.0},
    **{"tokens": 128, "ess_fraction": 1.0, "max_weight": 1.0, "mixture": SHARES},
    **{"weight_share": SHARES, "sample_share": SHARES, "domain_loss": SHARES},
}
SELECTED = {"rows": 2, "budget_tokens": 64, "domains": {"clean": 2}, "tokens": 64}


def chosen(seconds, cached_seconds=None):
    """What the event of a choice says that it cost, and what others had paid of it."""
    cached = {"cached": {"seconds": cached_seconds, "flops": 0.0}}
    return {"seconds": seconds, **(cached if cached_seconds is not None else {})}


@pytest.fixture
def fast_and_slow(write_timed):
    """`uniform` spends 1 s a step; `linupper` ends lower but spends 2 s a step."""
    runs = []
    for seed in range(3):
        runs.append(write_timed(f"u{seed}", 1.0, {0: 6.0, 2: 5.0, 4: 4.0}, seed=seed))
        slow = {0: 6.0, 2: 4.8, 4: 3.5 + 0.01 * seed}
        runs.append(write_timed(f"l{seed}", 2.0, slow, seed=seed, reweighter="linupper"))
    return runs


def test_seconds_are_those_of_steps_and_of_choices_made_by_then(write_timed):
    run = write_timed("a", 1.0, {0: 6.0, 2: 5.0, 4: 4.0}, selected=(1, 10.0))
    [(seconds_N, nats_N)] = next(iter(cost_curves([run], without=["noise"]).values()))
    assert seconds_N.tolist() == [0.0, 12.0, 14.0]
    assert nats_N.tolist() == [6.0, 5.0, 4.0]


def test_a_slower_run_is_judged_where_the_cheapest_one_ended(fast_and_slow):
    table = cost_table(fast_and_slow, without=["noise"]).set_index("setting")
    assert table["cost_seconds"].to_dict() == {"uniform": 4.0, "linupper": 8.0}
    assert set(table["equal_cost_seconds"]) == {4.0}
    assert table.loc["linupper", "held_out_nats"] == pytest.approx(3.51)
    assert table["at_equal_cost_nats"].to_dict() == {"uniform": 4.0, "linupper": 4.8}
    [at_the_end, *_], _ = compare_each(fast_and_slow, "uniform", without=["noise"])
    [at_equal_cost], _ = compare_at_equal_cost(fast_and_slow, "uniform", without=["noise"])
    assert (at_the_end.outcome, at_equal_cost.outcome) == ("better", "worse")
    assert at_equal_cost.mean_difference == pytest.approx(0.8)


def test_a_setting_not_evaluated_in_time_is_named_and_a_baseline_is_an_error(write_timed):
    runs = [
        write_timed("u", 9.0, {4: 4.0}),
        write_timed("l", 1.0, {4: 4.0}, reweighter="linupper"),
    ]
    with pytest.raises(DataError, match="uniform was not evaluated within 4 s"):
        compare_at_equal_cost(runs, "uniform")
    assert compare_at_equal_cost(runs, "linupper") == (
        [],
        ["uniform was not evaluated within 4 s, the cost of the cheapest run"],
    )


def test_operations_are_charged_in_place_of_seconds(write_timed):
    nats = {0: 6.0, 2: 5.0, 4: 4.0}
    plain, dear = {"flops": 10.0}, {"flops": 10.0, "probe_flops": 6.0, "policy_flops": 4.0}
    runs = [write_timed("u", 9.0, nats, step=plain)]
    runs.append(write_timed("l", 1.0, nats, step=dear, reweighter="linupper"))
    [verdict], _ = compare_at_equal_cost(runs, "uniform", by="flops", without=["noise"])
    # 40 operations are 4 steps of one and 2 of the other.
    assert verdict.mean_difference == pytest.approx(1.0)
    older = write_timed("q", 1.0, nats, reweighter="quadratic")
    verdicts, refused = compare_at_equal_cost([*runs, older], "uniform", by="flops")
    assert len(verdicts) == 1 and "q was not counted in flops" in refused[0]
    with pytest.raises(RunError, match="q was not counted"):
        compare_at_equal_cost([*runs, older], "quadratic", by="flops")
    with pytest.raises(ConfigError, match="flop"):
        compare_at_equal_cost(runs, by="flop")


def test_what_earlier_runs_paid_is_charged_where_it_is_used(write_timed):
    earlier = {"train": {"seconds": 4.0}, "earlier": {"seconds": 3.0}}
    run = write_timed("a", 1.0, {0: 6.0, 4: 4.0}, selected=(2, 1.0, 20.0))
    judged = write_timed("b", 1.0, {0: 6.0, 4: 4.0}, summary={"compute": earlier})
    [(seconds_N, _)] = next(iter(cost_curves({"a": run}).values()))
    assert seconds_N.tolist() == [0.0, 4.0 + 1.0 + 20.0]
    [(seconds_N, _)] = next(iter(cost_curves({"b": judged}).values()))
    assert seconds_N.tolist() == [3.0, 7.0]


def test_a_seed_that_stands_twice_is_refused_or_a_repeat(fast_and_slow, write_timed):
    again = write_timed("l0b", 2.0, {0: 6.0, 2: 5.8, 4: 3.5}, seed=0, reweighter="linupper")
    runs = [*fast_and_slow, again]
    assert compare_at_equal_cost(runs, "uniform")[0] == []
    [refused] = compare_at_equal_cost(runs, "uniform")[1]
    assert "l0 and" in refused and "both 'linupper' with seed 0" in refused
    with pytest.raises(RunError, match="both 'linupper' with seed 0"):
        compare_at_equal_cost(runs, "linupper")
    [verdict], _ = compare_at_equal_cost(runs, "uniform", without=["noise"], repeated=True)
    assert verdict.n == 3 and verdict.noise_floor > 0
    assert verdict.mean_difference == pytest.approx((1.3 + 0.8 + 0.8) / 3)
    verdicts, refused = compare_each(runs, "uniform", repeated=True)
    assert not refused and verdicts[0].noise_floor == 0
    assert compare_each(runs, "uniform")[1]


def test_phases_are_read_as_the_summary_counts_them(write_timed):
    counted = {"train": {"seconds": 3.0, "flops": 2e9}, "evaluate": {"seconds": 1.0, "flops": 1e9}}
    run = write_timed("a", 1.0, {4: 4.0}, summary={"compute": counted})
    assert phases(run) == counted
    [row] = cost_table([run]).to_dict("records")
    assert (row["train_seconds"], row["cost_flops"]) == (3.0, 2e9)
    assert (row["train_flops"], row["evaluate_flops"]) == (2e9, 1e9)
    dear = counted | {"influence": {"seconds": 2.0, "flops": 5e9}}
    chosen = write_timed("c", 1.0, {4: 4.0}, summary={"compute": dear}, selector="random")
    table = cost_table([run, chosen])
    assert table["influence_flops"].tolist() == [0.0, 5e9]
    assert table["influence_seconds"].tolist() == [0.0, 2.0]
    assert table["cost_flops"].tolist() == [2e9, 7e9]
    older = write_timed("b", 1.0, {4: 4.0}, reweighter="linupper")
    assert phases(older)["train"] == {"seconds": 4.0, "flops": None}
    assert not [name for name in cost_table([run, older]) if name.endswith("flops")]


def test_runs_that_have_not_finished_are_refused_by_name(write_run, fast_and_slow):
    stopped = write_run("stopped", end="stopped", mixer="exp3")
    assert "exp3" not in set(cost_table([*fast_and_slow, stopped])["setting"])
    verdicts, refused = compare_each([*fast_and_slow, stopped], "uniform")
    assert {v.name.split(" on ")[0] for v in verdicts} == {"linupper"}
    assert len(refused) == 1 and "stopped is stopped" in refused[0]
    other = write_run("other", content_hash="else", reweighter="quadratic")
    verdicts, refused = compare_at_equal_cost([*fast_and_slow, stopped, other], "uniform")
    assert [v.name for v in verdicts] == ["linupper"]
    assert "stopped is stopped" in refused[0] and "different text" in refused[1]


def test_verdicts_by_domain_leave_out_the_one_over_all(fast_and_slow):
    verdicts, _ = compare_each(fast_and_slow, "uniform")
    found = by_domain(verdicts)
    assert {label: list(own) for label, own in found.items()} == {"linupper": ["clean", "noise"]}
    assert found["linupper"]["noise"].name == "linupper on noise"


def test_runs_are_found_by_pattern_once_each(fast_and_slow, tmp_path):
    assert [run.path.name for run in runs_at(tmp_path / "u*")] == ["u0", "u1", "u2"]
    assert len(runs_at(tmp_path, f"{tmp_path}/*")) == 6
    with pytest.raises(RunError, match="no run at"):
        runs_at(tmp_path / "x*")


def test_what_is_exported_opens_offline_and_reads_back(fast_and_slow, tmp_path):
    from workbench import plots

    tables = {"costs": cost_table(fast_and_slow)}
    figures = {"by domain": plots.domain_verdicts(by_domain(compare_each(fast_and_slow)[0]))}
    page, table, figure = export(tmp_path / "files", tables=tables, figures=figures)
    assert [p.name for p in (page, table, figure)] == [
        *("comparison.html", "costs.csv", "by_domain.png"),
    ]
    text = page.read_text()
    assert "<h2>Costs</h2>" in text and "linupper" in text and "cdn" not in text.split("<main>")[1]
    with table.open() as lines:
        rows = list(csv.DictReader(lines))
    assert np.isclose(float(rows[0]["cost_seconds"]), tables["costs"]["cost_seconds"][0])
    assert figure.read_bytes().startswith(b"\x89PNG")
