"""Factors and directions are the same on one rank and on two."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.influence.ranks_driver import fitted


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    out_dir = tmp_path_factory.mktemp("ranks")
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("ranks_driver.py"), out_dir, "2"],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [torch.load(path) for path in sorted(out_dir.glob("*.pt"))]


def test_two_ranks_give_the_factors_and_directions_of_one(two_ranks):
    single = fitted()
    assert len(two_ranks) == 4
    for stored in two_ranks:
        for kind, matrices in single.items():
            for name, matrix in matrices.items():
                torch.testing.assert_close(stored[kind][name], matrix, rtol=1e-5, atol=1e-6)
