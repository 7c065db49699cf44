"""What benchmarks share, and that the list of them is whole."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from benchmarks import measure
from benchmarks.scaling import count_of
from workbench.config import ModelConfig
from workbench.models import build_model

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
SHARED = {"measure", "influence_peer"}


def table() -> dict[str, dict[str, str]]:
    """Rows of the README's table by benchmark."""
    lines = [line for line in (FOLDER / "README.md").read_text().splitlines() if line[:1] == "|"]
    names = [cell.strip() for cell in lines[0].strip("|").split("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert all(len(row) == len(names) for row in rows)
    named = [dict(zip(names, row, strict=True)) for row in rows]
    return {re.match(r"\[(\w+)\]", row["benchmark"])[1]: row for row in named}


def test_the_table_lists_every_benchmark_with_a_command_that_exists():
    scripts = {path.stem for path in FOLDER.glob("*.py")} - SHARED
    assert set(table()) == scripts
    for name, row in table().items():
        assert f"python -m benchmarks.{name}" in row["command"]
        assert int(row["minutes"]) > 0


def test_every_result_belongs_to_a_benchmark_of_the_table():
    listed = {name for row in table().values() for name in re.findall(r"`(\S+)`", row["results"])}
    assert {path.name for path in (FOLDER / "results").iterdir()} <= listed


def test_results_of_other_days_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "RESULTS", tmp_path / "results")
    timing = measure.Timing(0.5, 1.1, 1.0, 1.2, 3)
    for value in (1, 2):
        path = measure.append("growth", {"value": value, "time": timing}, command=f"run {value}")
    first, second = map(json.loads, path.read_text().splitlines())
    assert (first["value"], second["value"]) == (1, 2) and second["command"] == "run 2"
    assert first["time"]["ratio"] == 1.1 and first["machine"]["cores"]


@pytest.mark.parametrize("power", [0.0, 1.0, 2.5])
def test_the_exponent_of_a_power_is_found(power):
    sizes = [10, 30, 100, 400]
    assert measure.exponent(sizes, [3 * n**power for n in sizes]) == pytest.approx(power, abs=1e-9)


def test_a_slower_contender_has_a_higher_ratio():
    now = [0.0]

    def takes(seconds):
        return lambda: now.__setitem__(0, now[0] + seconds)

    times = measure.compare(
        {"a": takes(2.0), "b": takes(3.0)}, baseline="a", rounds=4, clock=lambda: now[0]
    )
    assert times["a"].ratio == 1.0 and times["b"].ratio == times["b"].high == 1.5
    assert times["b"].median_seconds == 3.0


def test_the_peak_is_that_of_the_call_alone():
    kept = torch.zeros(2**20)
    peak = measure.peak_device_mib(lambda: torch.zeros(2**18).sum())
    assert kept.numel() and peak == pytest.approx(1.0, abs=0.1)


def test_sizes_of_the_scaling_table_are_those_of_its_models():
    overrides = {
        **{"num_hidden_layers": 4, "hidden_size": 64, "intermediate_size": 192},
        "num_attention_heads": 1,
    }
    config = ModelConfig(name="tiny", overrides=overrides)
    model = build_model(config, vocab_size=4096, context_tokens=128, seed=0)
    assert count_of(64) == model.parameter_count
