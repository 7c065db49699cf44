"""Predictions from finished runs, their record, and what came of them."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.mixture_runs import DOMAINS, NOISE_NATS, true_nats, write_run, write_trials
from workbench.batch import fit_runs, record_prediction, score_predictions
from workbench.batch.predictions import PREDICTIONS_FILE, read_predictions
from workbench.batch.what_if import MEAN
from workbench.config import Policy
from workbench.core import ConfigError, RunError
from workbench.mixing.hull import outside_hull
from workbench.training import train

MIXTURE = {"code": 0.4, "prose": 0.35, "noise": 0.25}


@pytest.fixture
def what_if(tmp_path):
    return fit_runs(write_trials(tmp_path / "trials"))


def test_a_mixture_between_the_runs_is_predicted_with_its_interval(what_if):
    prediction = what_if.predict(MIXTURE)
    truth = true_nats(MIXTURE)
    assert list(prediction.nats) == [*DOMAINS, MEAN]
    for name, nats in truth.items():
        assert prediction.nats[name] == pytest.approx(nats, abs=4 * NOISE_NATS)
        assert prediction.low[name] <= prediction.nats[name] <= prediction.high[name]
    assert prediction.nats[MEAN] == pytest.approx(np.mean(list(truth.values())), abs=0.05)
    assert prediction.outside == 0 and "Inside the sampled mixtures" in str(prediction)
    assert "14 runs of 14 mixtures of 3 domains, ridge" in repr(what_if)


def test_a_fit_that_predicts_nothing_says_so_and_no_negative_share(what_if):
    assert "% of the variance of their mean loss predicted" in repr(what_if)
    explained_D = np.full_like(what_if.surrogate.explained_D, -0.76)
    poor = replace(what_if, surrogate=replace(what_if.surrogate, explained_D=explained_D))
    assert "no better than by their mean" in repr(poor) and "-76" not in repr(poor)


def test_a_folder_that_is_not_there_is_called_that(tmp_path):
    for ask in (fit_runs, lambda folder: score_predictions(tmp_path, folder)):
        with pytest.raises(RunError, match=r"there is no folder .*nowhere"):
            ask(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"there is no folder .*nowhere"):
        score_predictions(tmp_path / "nowhere", [])


def test_shares_are_scaled_and_missing_domains_get_none(what_if):
    assert what_if.predict({"code": 3, "prose": 1}).mixture == {
        "code": 0.75,
        "prose": 0.25,
        "noise": 0,
    }
    with pytest.raises(ConfigError, match=r"unknown domain 'cod'.*did you mean 'code'"):
        what_if.predict({"cod": 1})
    for shares in ({"code": -1, "prose": 2}, {"code": 0}, {"code": float("nan")}):
        with pytest.raises(ConfigError, match="no shares to scale"):
            what_if.predict(shares)


def test_outside_the_sampled_mixtures_it_says_how_far_and_where(what_if):
    corner = what_if.predict({"noise": 1})
    sampled = what_if.mixture_NK[:, 2].max()
    assert corner.outside == pytest.approx(1 - sampled, abs=1e-6)
    assert f"Outside the sampled mixtures by {1 - sampled:.1%} of the rows" in corner.warning
    assert f"noise {sampled:.1%} (asked 100.0%)" in corner.warning
    assert corner.warning in str(corner)


@pytest.mark.parametrize("method", ["ridge", "lightgbm"])
def test_the_best_mixture_is_the_lowest_of_a_fine_grid_inside_the_sampled_ones(tmp_path, method):
    if method == "lightgbm":
        pytest.importorskip("lightgbm")
    what_if = fit_runs(write_trials(tmp_path, 10), method=method)
    best = what_if.best()
    parts = 40 if method == "ridge" else 16
    grid_MK = np.array(
        [(a, b, parts - a - b) for a in range(parts + 1) for b in range(parts + 1 - a)]
    )
    order = np.argsort(nats_M := what_if.surrogate.predict(grid_MK / parts)[:, -1])
    inside = (m for m in order if outside_hull(grid_MK[m] / parts, what_if.mixture_NK).inside)
    assert best.nats[MEAN] <= nats_M[next(inside)] + 1e-4
    assert best.outside == 0 and sum(best.mixture.values()) == pytest.approx(1)
    assert best.low[MEAN] <= best.nats[MEAN] <= best.high[MEAN]
    assert best == what_if.best()
    if method == "ridge":
        # More of the noise domain helps the mean least.
        assert min(best.mixture, key=lambda name: best.mixture[name]) == "noise"


def test_the_mixture_of_a_run_is_what_its_batches_were_drawn_with_on_average(tmp_path):
    runs = write_trials(tmp_path)
    steps = [{**event, "step": event["step"] + 4} for event in runs[0].events("step")]
    for event in steps:
        event["effective_mixture"] = {"code": 1.0, "prose": 0.0, "noise": 0.0}
    with runs[0].lock():
        runs[0].append_many(steps)
    moved = fit_runs(runs).mixture_NK[0]
    before = np.array([runs[0].events("step")[0]["effective_mixture"][name] for name in DOMAINS])
    assert moved == pytest.approx((before + np.eye(3)[0]) / 2)


def test_seeds_of_a_mixture_are_left_out_together(tmp_path):
    runs = write_trials(tmp_path / "a", 10) + write_trials(tmp_path / "b", 10, seed=1)
    what_if = fit_runs(runs)
    assert what_if.surrogate.mixtures == 10 and len(what_if.runs) == 20
    assert "20 runs of 10 mixtures" in repr(what_if)


def test_domains_that_do_not_count_are_left_out_of_the_mean(tmp_path):
    runs = write_trials(tmp_path)
    what_if = fit_runs(runs, without=["noise"])
    losses = runs[0].events("held_out")[-1]["losses"]
    assert what_if.measured_ND[0, -1] == pytest.approx((losses["code"] + losses["prose"]) / 2)
    assert list(what_if.losses) == [*DOMAINS, MEAN]


def test_a_folder_of_runs_will_do(tmp_path):
    write_trials(tmp_path)
    assert len(fit_runs(tmp_path).runs) == 14


def test_too_few_mixtures_name_how_many_are_needed(tmp_path):
    runs = write_trials(tmp_path, 8)
    with pytest.raises(ConfigError, match=r"8 runs of 8 mixtures are too few: .* 90% needs 9"):
        fit_runs(runs)
    assert fit_runs(runs, level=0.8).level == 0.8


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"end": None}, "is interrupted, so it has no final loss"),
        ({"content_hash": "other"}, "different text"),
        ({"total_steps": 8}, "at step"),
        ({"reweighter": "linupper"}, "differ in reweighter.name: uniform and linupper"),
        ({"peak_lr": 0.5}, "differ in optimizer.peak_lr"),
        ({"live": {"peak_lr": 0.5}}, "was changed while it trained: step 2: peak_lr"),
        ({"record": "unknown_mixture"}, "does not record the mixture"),
    ],
)
def test_runs_that_differ_in_more_than_their_mixture_are_refused(tmp_path, options, says):
    runs = write_trials(tmp_path)
    odd = write_run(tmp_path, "odd", MIXTURE, **options)
    with pytest.raises(RunError, match=says):
        fit_runs([*runs, odd])


def test_how_often_a_run_writes_does_not_matter(tmp_path):
    runs = write_trials(tmp_path)
    other = write_run(tmp_path, "other", MIXTURE, checkpoint_every_steps=7)
    assert len(fit_runs([*runs, other]).runs) == 15


def test_a_prediction_is_on_disk_before_its_run_and_scored_after(what_if, tmp_path):
    prediction = record_prediction(what_if, MIXTURE, tmp_path / "log")
    (line,) = read_predictions(tmp_path / "log")
    assert line["nats"] == prediction.nats and line["low"] == prediction.low
    assert line["time"] <= time.time() and len(line["runs"]) == 14
    assert line["surrogate"]["method"] == "ridge" and line["surrogate"]["log_floor"] == 0.01
    waiting = score_predictions(tmp_path / "log", tmp_path / "trials")
    assert waiting.scored == () and "waiting for a run of code 40.0%" in str(waiting)

    nats = {**prediction.nats, "noise": prediction.high["noise"] + 0.5}
    measured = {name: nats[name] for name in DOMAINS}
    write_run(tmp_path / "later", "test", MIXTURE, nats=measured)
    scores = score_predictions(tmp_path / "log", tmp_path / "later")
    (score,) = scores.scored
    assert score.inside == {"code": True, "prose": True, "noise": False, MEAN: False}
    frame = scores.frame().set_index("loss")
    assert frame.error["code"] == pytest.approx(0, abs=1e-9)
    assert frame.error["noise"] == pytest.approx(measured["noise"] - prediction.nats["noise"])
    assert "2 of 4 predicted losses fell inside their 90% intervals" in str(scores)
    assert "noise" in str(scores) and "OUTSIDE" in str(scores)


def test_every_run_of_the_mixture_is_scored_and_guesses_are_counted_apart(what_if, tmp_path):
    inside = what_if.predict(MIXTURE)
    record_prediction(what_if, MIXTURE, tmp_path)
    record_prediction(what_if, {"noise": 1}, tmp_path)
    agreeing = {name: inside.nats[name] for name in DOMAINS}
    runs = [
        write_run(tmp_path, f"seed_{seed}", MIXTURE, seed=seed, nats=agreeing) for seed in (0, 1)
    ]
    wild = dict.fromkeys(DOMAINS, 99.0)
    runs.append(write_run(tmp_path, "corner", {"code": 0, "prose": 0, "noise": 1.0}, nats=wild))
    said = str(score_predictions(tmp_path, runs))
    assert "8 of 12 predicted losses fell inside" in said
    assert "0 of 4 predicted losses of mixtures outside the sampled ones" in said


def test_a_run_that_is_no_test_is_not_counted_and_named(what_if, tmp_path):
    record_prediction(what_if, MIXTURE, tmp_path)
    early = write_run(tmp_path, "early", MIXTURE, started=1000.0)
    other = write_run(tmp_path, "other", MIXTURE, reweighter="linupper")
    running = write_run(tmp_path, "running", MIXTURE, end=None)
    elsewhere = write_run(tmp_path, "elsewhere", {"code": 0.42, "prose": 0.33, "noise": 0.25})
    scores = score_predictions(tmp_path, [early, other, running, elsewhere])
    assert scores.scored == () and len(scores.waiting) == 1 and len(scores.left_out) == 2
    assert "early: was started before the prediction of" in str(scores)
    assert "other: differs from the fitted runs in reweighter.name" in str(scores)


def test_nothing_recorded_is_said(tmp_path):
    assert str(score_predictions(tmp_path, [])) == "nothing was predicted yet"
    assert list(score_predictions(tmp_path, []).frame())[:2] == ["run", "loss"]


def test_half_a_line_of_a_killed_writer_is_cut_off(what_if, tmp_path):
    record_prediction(what_if, MIXTURE, tmp_path)
    path = tmp_path / PREDICTIONS_FILE
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])
    assert len(read_predictions(tmp_path)) == 1
    record_prediction(what_if, {"code": 1}, tmp_path)
    lines = path.read_bytes().splitlines()
    assert [json.loads(line)["mixture"]["code"] for line in lines] == [0.4, 1.0]
    path.write_bytes(b"{half\n" + whole)
    with pytest.raises(RunError, match="damaged at line 1"):
        read_predictions(tmp_path)


def test_recording_survives_a_kill_at_any_moment(what_if, tmp_path):
    program = """
import sys
sys.path.insert(0, sys.argv[1])
from workbench.batch import fit_runs, record_prediction
what_if = fit_runs(sys.argv[2])
while True:
    record_prediction(what_if, {"code": 1, "prose": 1}, sys.argv[3])
    print("recorded", flush=True)
"""
    root = Path(__file__).resolve().parents[2]
    arguments = [str(root), str(tmp_path / "trials"), str(tmp_path)]
    writer = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    told = sum(1 for _, _line in zip(range(5), writer.stdout, strict=False))
    os.kill(writer.pid, signal.SIGKILL)
    told += len(writer.stdout.read().splitlines())
    writer.wait()
    kept = read_predictions(tmp_path)
    assert told >= 5 and told <= len(kept) <= told + 1
    record_prediction(what_if, MIXTURE, tmp_path)
    assert len(read_predictions(tmp_path)) == len(kept) + 1


def test_a_folder_that_cannot_be_written_is_an_error(what_if, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="cannot write"):
        record_prediction(what_if, MIXTURE, tmp_path / "file" / "below")


def test_real_runs_are_fitted_predicted_and_scored(nano_config, tmp_path, cache_dir):
    small = nano_config.change(total_steps=4, evaluate_every_steps=4)
    rng = np.random.default_rng(0)
    names = None
    for i in range(5):
        mixture = "uniform"
        if names:
            mixture = dict(zip(names, rng.dirichlet(np.ones(len(names))).tolist(), strict=True))
        config = small.replace(name=f"m{i}", mixer=Policy("static", mixture=mixture))
        run = train(config, tmp_path, cache_dir=cache_dir)
        names = names or list(run.events("step")[0]["mixture"])
    what_if = fit_runs(tmp_path, level=0.8)
    asked = dict.fromkeys(names, 1.0)
    record_prediction(what_if, asked, tmp_path)
    train(small.replace(name="after", seed=1), tmp_path, cache_dir=cache_dir)
    (score,) = score_predictions(tmp_path, tmp_path).scored
    assert score.run.name == "after" and set(score.measured) == {*names, MEAN}
