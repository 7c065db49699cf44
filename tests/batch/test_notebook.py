"""Executing a notebook: parameters are checked, progress streams, a failed cell is one line."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from workbench.batch import execute
from workbench.core import ConfigError, RunError


def write_notebook(folder: Path, *sources: str) -> Path:
    parameters = nbformat.v4.new_code_cell(
        'profile = "ci"\nseed = 0\nout_dir = "out"', metadata={"tags": ["parameters"]}
    )
    cells = [nbformat.v4.new_markdown_cell("# Which?"), parameters]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    path = folder / "10_try_it.ipynb"
    nbformat.write(notebook, path)
    return path


def test_parameters_reach_the_cells_and_printed_lines_stream(tmp_path):
    notebook = write_notebook(
        tmp_path, 'print("step 1/2"); print("step 2/2", end="\\n")', "print(seed, out_dir)"
    )
    told = []
    output = execute(
        notebook,
        tmp_path / "deep" / "executed.ipynb",
        {"seed": 7, "out_dir": tmp_path / "runs"},
        progress=lambda *args: told.append(args),
    )
    executed = nbformat.read(output, as_version=4)
    printed = [o.text for c in executed.cells for o in c.get("outputs", []) if "text" in o]
    assert printed[-1] == f"7 {tmp_path / 'runs'}\n"
    assert ("step 1/2", 2, 4) in told and ("step 2/2", 2, 4) in told
    assert told[-1] == ("done", 4, 4)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_an_unknown_parameter_is_an_error_that_names_the_nearest(tmp_path):
    notebook = write_notebook(tmp_path, "print(seed)")
    with pytest.raises(ConfigError, match=r"unknown parameter 'sed' of 10_try_it.*mean 'seed'\?"):
        execute(notebook, tmp_path / "executed.ipynb", {"sed": 1})
    assert not (tmp_path / "executed.ipynb").exists()


def test_a_failed_cell_is_one_line_with_its_source_and_the_partial_copy(tmp_path):
    notebook = write_notebook(
        tmp_path, "print('before')", "x = 1\ny = {}['missing']\n", "print('after')"
    )
    output = tmp_path / "executed.ipynb"
    with pytest.raises(RunError) as caught:
        execute(notebook, output)
    assert caught.value.problem == (
        "10_try_it.ipynb: cell [3] failed at `y = {}['missing']`: KeyError: 'missing'"
    )
    assert str(output) in caught.value.remedy
    text = output.read_text()
    assert "before" in text and "KeyError" in text


def test_a_cell_that_takes_too_long_is_named(tmp_path):
    notebook = write_notebook(tmp_path, "import time; time.sleep(30)")
    with pytest.raises(RunError, match="code cell 2 took longer than 1 s"):
        execute(notebook, tmp_path / "executed.ipynb", timeout_seconds=1)


def test_a_kernel_that_dies_is_named(tmp_path):
    notebook = write_notebook(tmp_path, "import os; os._exit(9)")
    with pytest.raises(RunError, match="code cell 2 ended its kernel"):
        execute(notebook, tmp_path / "executed.ipynb")


def test_no_widget_state_is_stored(tmp_path):
    notebook = write_notebook(
        tmp_path,
        "import ipywidgets\nfrom IPython.display import display",
        "display(ipywidgets.IntSlider(value=3))",
    )
    output = execute(notebook, tmp_path / "executed.ipynb")
    assert "widgets" not in nbformat.read(output, as_version=4).metadata


def test_a_missing_notebook_is_named(tmp_path):
    with pytest.raises(RunError, match=r"99_gone\.ipynb is not a notebook"):
        execute(tmp_path / "99_gone.ipynb", tmp_path / "executed.ipynb")
