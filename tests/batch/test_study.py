"""Studies train every config once, continue what was cut short, and show one bar."""

from __future__ import annotations

import pytest

from workbench.batch import compare, progress_bar, train_study
from workbench.config.presets import tour
from workbench.core import ConfigError


@pytest.fixture
def study(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    short = {"total_steps": 4, "evaluate_every_steps": 4}
    return {label: [c.change(**short) for c in own[:2]] for label, own in tour("ci").items()}


def test_a_study_trains_every_config_once_and_can_be_repeated(study, tmp_path, capsys):
    runs = train_study(study, tmp_path)
    assert [run.status() for own in runs.values() for run in own] == ["finished"] * 4
    assert {label: [r.config.seed for r in own] for label, own in runs.items()} == {
        "uniform": [0, 1],
        "linupper": [0, 1],
    }
    assert "16/16" in capsys.readouterr().out
    assert compare(runs, "uniform")[0].n == 2
    written = {run.path: (run.path / "events.jsonl").read_bytes() for run in runs["uniform"]}
    train_study(study, tmp_path)
    assert all((path / "events.jsonl").read_bytes() == old for path, old in written.items())


def test_two_runs_of_one_name_are_refused_before_anything_is_trained(study, tmp_path):
    study["linupper"] = study["uniform"]
    with pytest.raises(ConfigError, match="two runs of the study are named 'uniform_seed0'"):
        train_study(study, tmp_path)
    assert not list(tmp_path.iterdir())


def test_each_kind_of_work_has_a_bar_of_its_own(capsys):
    tell = progress_bar()
    tell("reading", 1, 2)
    tell("reading", 2, 2)
    tell("packing", 5, None)
    shown = capsys.readouterr().out
    assert "reading: 100%" in shown and "2/2" in shown
    assert "packing" in shown
