"""Studies train every config once, continue what was cut short, and say how far they are."""

from __future__ import annotations

import pytest

from workbench.batch import compare, progress_lines, train_study
from workbench.config.presets import tour
from workbench.core import ConfigError


@pytest.fixture
def study(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    short = {"total_steps": 4, "evaluate_every_steps": 4}
    whole = tour("ci")
    return {la: [c.change(**short) for c in whole[la][:2]] for la in ("uniform", "linupper")}


def test_a_study_trains_every_config_once_and_can_be_repeated(study, tmp_path, capsys):
    runs = train_study(study, tmp_path, every_seconds=0)
    assert [run.status() for own in runs.values() for run in own] == ["finished"] * 4
    assert {label: [r.config.seed for r in own] for label, own in runs.items()} == {
        "uniform": [0, 1],
        "linupper": [0, 1],
    }
    said = capsys.readouterr().out
    assert "run 2/4 linupper_seed0: step 4/4, loss " in said
    assert "run 4/4 linupper_seed1: done, held-out loss " in said
    assert compare(runs, "uniform")[0].n == 2
    written = {run.path: (run.path / "events.jsonl").read_bytes() for run in runs["uniform"]}
    train_study(study, tmp_path)
    assert all((path / "events.jsonl").read_bytes() == old for path, old in written.items())


def test_two_runs_of_one_name_are_refused_before_anything_is_trained(study, tmp_path):
    study["linupper"] = study["uniform"]
    with pytest.raises(ConfigError, match="two runs of the study are named 'uniform_seed0'"):
        train_study(study, tmp_path)
    assert not list(tmp_path.iterdir())


def test_progress_says_what_changes_and_no_more_often_than_asked():
    said = []
    tell = progress_lines(every_seconds=3600, say=said.append)
    for done in range(3):
        tell("reading, kB", done, 2)
    tell("packing", 5, None)
    assert said == ["reading, kB: 0/2", "packing"]
    often = []
    tell = progress_lines(every_seconds=0, say=often.append)
    for done in range(3):
        tell("reading, kB", done, 2)
    assert often == ["reading, kB: 0/2", "reading, kB: 1/2", "reading, kB: 2/2"]
