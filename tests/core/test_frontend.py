"""A widget is shown exactly where a browser asked for the cell."""

from __future__ import annotations

import uuid

import pytest
from jupyter_client.session import Session

from workbench.core import frontend


class Kernel:
    def __init__(self, message_id: str):
        self._message_id = message_id

    def get_parent(self, channel: str) -> dict:
        return {"header": {"msg_id": self._message_id}} if channel == "shell" else {}


@pytest.mark.parametrize(
    ("message_id", "expected"),
    [(str(uuid.uuid4()), True), (Session().msg_id, False)],
    ids=["browser", "client in Python"],
)
def test_clients_in_python_are_told_from_browsers(monkeypatch, message_id, expected):
    monkeypatch.setattr(frontend, "_kernel", lambda: Kernel(message_id))
    assert frontend.has_front_end() is expected


def test_plain_python_has_no_front_end():
    assert not frontend.has_front_end()
