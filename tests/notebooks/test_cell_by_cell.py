"""Every notebook runs to its end cell by cell, under nbval."""

import os
import subprocess
import sys

import papermill

from tests.notebooks.test_notebooks import NOTEBOOKS, TEMPLATE, each_of


@each_of([path for path in NOTEBOOKS if path != TEMPLATE])
def test_notebook_passes_nbval(notebook, tmp_path, cache):
    copy = tmp_path / notebook.name
    parameters = {"profile": "ci", "out_dir": str(tmp_path / "out")}
    papermill.execute_notebook(notebook, copy, parameters, prepare_only=True)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval-lax", "-p", "no:cacheprovider", copy.name],
        cwd=tmp_path,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:]
