"""The rows of forks are read when something changed, and not otherwise."""

from __future__ import annotations

from collections import Counter

import pytest

from workbench.tracking import RunFolder
from workbench.widgets import fork_rows
from workbench.widgets.fork_rows import ForkRows


@pytest.fixture
def reads(monkeypatch):
    """Counter of folders opened, and of records and summaries read."""
    found = Counter()
    opened = RunFolder.open.__func__

    def opening(cls, path):
        found["open"] += 1
        return opened(cls, path)

    monkeypatch.setattr(RunFolder, "open", classmethod(opening))
    for name in ("status", "summary"):
        told = getattr(RunFolder, name)

        def counted(self, name=name, told=told):
            found[name] += 1
            return told(self)

        monkeypatch.setattr(RunFolder, name, counted)
    monkeypatch.setattr(fork_rows, "LOOK_SECONDS", 0.0)
    return found


@pytest.fixture
def fork_of(tmp_path, nano_config):
    def make(parent, name):
        config = nano_config.change(name=name)
        came = {"forked": {"parent": parent.path.name, "step": 5, "changes": {}}}
        fork = RunFolder.create(tmp_path / name, config=config.to_dict(), environment=came)
        with fork.lock():
            fork.append("started", 0)
        return fork

    return make


def test_what_has_not_changed_is_not_read_again(make_folder, fork_of, reads):
    parent = make_folder("parent")
    for i in range(3):
        make_folder(f"other_{i}")
    fork = fork_of(parent, "fork")
    rows = ForkRows(parent)
    assert [row["status"] for row in rows.now()] == ["finished", "interrupted"]
    reads.clear()
    assert len(rows.now()) == 2 and not reads
    fork.append("resumed", 0)
    fork.write_summary({"held_out_mean_nats": 4.25})
    fork.append("finished", 5)
    reads.clear()
    assert rows.now()[1]["held_out_nats"] == 4.25
    assert reads == {"status": 1, "summary": 1}
    fork_of(parent, "second")
    reads.clear()
    assert [row["name"] for row in rows.now()] == ["parent", "fork", "second"]
    assert reads == {"open": 1, "status": 1}


def test_a_run_that_is_killed_without_a_word_is_seen(make_folder, fork_of, reads):
    parent = make_folder("parent")
    fork = fork_of(parent, "fork")
    rows = ForkRows(parent)
    with fork.lock():
        assert rows.now()[1]["status"] == "running"
    assert rows.now()[1]["status"] == "interrupted"


def test_a_new_run_under_the_name_of_a_removed_one_is_read(make_folder, fork_of, reads):
    import shutil

    parent = make_folder("parent")
    fork = fork_of(parent, "fork")
    rows = ForkRows(parent)
    assert len(rows.now()) == 2
    shutil.rmtree(fork.path)
    assert rows.now() == []
    make_folder("fork")
    assert rows.now() == []
