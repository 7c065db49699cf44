"""A full disk is an error with a remedy, and nothing written earlier is lost."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from workbench.core import RunError
from workbench.tracking import RunFolder

REMEDY = r"free space and run `workbench resume .*run`"


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_appending_to_a_full_device_names_file_and_remedy(folder):
    (folder.path / "events.jsonl").symlink_to("/dev/full")
    with pytest.raises(RunError, match=rf"disk full while writing .*events\.jsonl — {REMEDY}"):
        folder.append("started", 0)


def test_a_line_that_did_not_fit_leaves_no_trace(recorded, monkeypatch):
    before = (recorded.path / "events.jsonl").read_bytes()
    write, left = os.write, [10]

    def nearly_full(descriptor, content):
        if not left[0]:
            full()
        part, left[0] = content[: left[0]], 0
        return write(descriptor, part)

    with recorded.lock():
        monkeypatch.setattr(os, "write", nearly_full)
        with pytest.raises(RunError, match="disk full"):
            recorded.append("set", 60, changes={"temperature": 1.0})
        assert (recorded.path / "events.jsonl").read_bytes() == before
        monkeypatch.undo()
        recorded.append("set", 60, changes={"temperature": 1.0})
    assert recorded.events("set")[-1]["changes"] == {"temperature": 1.0}


def test_no_write_that_fails_loses_what_was_there(recorded, columns, monkeypatch):
    before = snapshot(recorded.path)

    def checkpoint():
        with recorded.aside(recorded.checkpoint_path(80)) as place:
            (place / "state.bin").write_bytes(b"x")

    writes = [
        lambda: recorded.append("paused", 60),
        lambda: recorded.write_ledger(columns(60, 79), 60, 79),
        lambda: recorded.write_summary({"loss": 2.0}),
        checkpoint,
    ]
    with recorded.lock():
        monkeypatch.setattr(os, "fsync", full)
        for write in writes:
            with pytest.raises(RunError, match=REMEDY):
                write()
    assert snapshot(recorded.path) == before


def test_a_rewind_on_a_full_disk_can_be_repeated(recorded, monkeypatch):
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunError, match="disk full"):
        recorded.rewind(40)
    monkeypatch.undo()
    recorded.rewind(40)
    assert [e["step"] for e in recorded.events("step")] == list(range(40))


def test_a_failed_archive_of_the_model_is_told_from_a_bug(recorded, monkeypatch):
    import shutil

    def write_model():
        with recorded.aside(recorded.checkpoint_path(80)):
            raise RuntimeError("PytorchStreamWriter failed writing file")

    with pytest.raises(RuntimeError, match="PytorchStreamWriter"):
        write_model()
    usage = shutil.disk_usage(recorded.path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    with pytest.raises(RunError, match="disk full"):
        write_model()
    assert recorded.checkpoints() == [20, 40, 60]


def test_creating_a_run_on_a_full_disk_leaves_no_run(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="disk full"):
        RunFolder.create(tmp_path / "run", config={}, environment={})
    monkeypatch.undo()
    RunFolder.create(tmp_path / "run", config={}, environment={})


def snapshot(path: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in path.rglob("*") if p.is_file() and p.name != ".lock"}
