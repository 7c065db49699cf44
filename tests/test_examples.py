"""The examples in docs/ run as they stand, and do what they print."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, cache_dir):
    monkeypatch.setenv("WORKBENCH_CACHE", str(cache_dir))


def test_a_bare_loop_selects_mixes_and_reweighs(capsys):
    found = runpy.run_path(str(EXAMPLES / "bare_loop.py"))["main"]()
    assert found["last"] < found["first"] - 0.3
    assert found["ess_fraction"] < 0.99 < 1.1 < found["max_weight"]
    printed = capsys.readouterr().out
    assert "chosen" in printed and "mixture" in printed


def test_a_trainer_selects_mixes_reweighs_and_resumes(capsys):
    pytest.importorskip("accelerate", reason="transformers.Trainer needs accelerate")
    found = runpy.run_path(str(EXAMPLES / "transformers_trainer.py"))["main"]()
    assert found["steps"] == 2 and found["last"] < found["first"] - 0.2
    assert 0.45 < found["chosen"] <= 0.5
    printed = capsys.readouterr().out
    assert "chosen" in printed and "ESS" in printed


def test_every_example_is_run():
    tested = Path(__file__).read_text()
    assert all(f'"{path.name}"' in tested for path in EXAMPLES.glob("*.py"))
