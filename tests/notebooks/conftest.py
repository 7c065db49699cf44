"""What notebooks of a process prepare, once."""

import pytest


@pytest.fixture
def cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "notebook-cache"))
