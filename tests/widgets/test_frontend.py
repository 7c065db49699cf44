"""A widget is shown exactly where a browser asked for the cell."""

from __future__ import annotations

import uuid

import nbformat
import pytest
from jupyter_client.session import Session

from workbench.batch.notebook import execute
from workbench.widgets import frontend


class Kernel:
    def __init__(self, message_id: str):
        self._message_id = message_id

    def get_parent(self, channel: str) -> dict:
        return {"header": {"msg_id": self._message_id}} if channel == "shell" else {}


@pytest.mark.parametrize(
    ("message_id", "expected"), [(str(uuid.uuid4()), True), (Session().msg_id, False)]
)
def test_clients_in_python_are_told_from_browsers(monkeypatch, message_id, expected):
    monkeypatch.setattr(frontend, "_kernel", lambda: Kernel(message_id))
    assert frontend.has_front_end() is expected


def test_plain_python_has_no_front_end():
    assert not frontend.has_front_end()


def test_papermill_stores_figures_and_no_widget(make_folder, tmp_path):
    path = make_folder().path
    source = f"import workbench as wb\nwb.widgets.panel(wb.open_run({str(path)!r}))"
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source)],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    nbformat.write(notebook, tmp_path / "in.ipynb")
    executed = execute(tmp_path / "in.ipynb", tmp_path / "out.ipynb")
    outputs = nbformat.read(executed, as_version=4).cells[0].outputs
    kinds = [set(output.data) for output in outputs if "data" in output]
    assert sum("image/png" in kind for kind in kinds) == 2
    assert not any("application/vnd.jupyter.widget-view+json" in kind for kind in kinds)
