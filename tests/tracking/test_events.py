"""The event log: schema, torn lines, numbers that JSON does not know, following."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from workbench.core import RunError
from workbench.tracking import RunFolder


def test_an_unknown_kind_is_refused_with_the_nearest(folder):
    with pytest.raises(RunError, match="held_out"):
        folder.append("heldout", 3, losses={}, mean_nats=1.0)
    assert folder.events() == []


def test_a_missing_field_is_named_and_nothing_of_the_batch_is_written(folder, fields):
    good = {"kind": "step", "step": 0, **fields(0)}
    bad = {name: value for name, value in good.items() if name != "grad_norm"}
    with pytest.raises(RunError, match="lacks grad_norm"):
        folder.append_many([good, bad])
    assert folder.events() == []


@pytest.mark.parametrize("step", [-1, 1.5, None, True])
def test_a_step_that_is_no_count_is_refused(folder, step):
    with pytest.raises(RunError, match="has step"):
        folder.append("paused", step)


def test_an_unknown_kind_in_the_file_is_passed_on(folder):
    folder.append("started", 0)
    with (folder.path / "events.jsonl").open("a") as file:
        file.write('{"kind":"from_the_future","step":1,"time":0}\n')
    assert [e["kind"] for e in folder.events()] == ["started", "from_the_future"]
    assert folder.status() == "interrupted"


def test_numbers_json_does_not_know_come_back_and_the_file_stays_json(folder, fields):
    odd = fields(0) | {
        "loss": math.nan,
        "grad_norm": np.float32("inf"),
        "max_weight": -math.inf,
        "domain_loss": {"clean": np.float64("nan")},
        "tokens": np.int64(7),
    }
    folder.append("step", 0, **odd)

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    json.loads((folder.path / "events.jsonl").read_text(), parse_constant=refuse)
    (event,) = folder.events("step")
    assert math.isnan(event["loss"]) and math.isnan(event["domain_loss"]["clean"])
    assert event["grad_norm"] == math.inf and event["max_weight"] == -math.inf
    assert event["tokens"] == 7


def test_a_torn_last_line_is_ignored_by_readers_and_cut_by_the_next_writer(folder):
    folder.append("started", 0)
    with (folder.path / "events.jsonl").open("ab") as file:
        file.write(b'{"kind":"step","st')
    assert [e["kind"] for e in RunFolder.open(folder.path).events()] == ["started"]
    assert [e["kind"] for e in folder.follow()[0]] == ["started"]
    folder.append("resumed", 0)
    assert [e["kind"] for e in folder.events()] == ["started", "resumed"]


def test_zeros_after_a_power_loss_are_cut_by_the_next_writer(folder):
    folder.append("started", 0)
    with (folder.path / "events.jsonl").open("ab") as file:
        file.write(b"\0" * 40 + b"\n" + b"\0" * 8)
    folder.append("resumed", 0)
    assert [e["kind"] for e in folder.events()] == ["started", "resumed"]


def test_a_damaged_line_in_the_middle_is_named(folder):
    folder.append("started", 0)
    with (folder.path / "events.jsonl").open("ab") as file:
        file.write(b"oops\n" + b'{"kind":"paused","step":1,"time":0}\n')
    with pytest.raises(RunError, match=r"events\.jsonl is damaged at line 2"):
        folder.events()


def test_follow_gives_every_event_once(folder, fields):
    seen, position = [], 0
    for step in range(7):
        folder.append("step", step, **fields(step))
        if step % 3 == 2:
            new, position = folder.follow(position)
            seen += new
    new, position = folder.follow(position)
    assert [e["step"] for e in seen + new] == list(range(7))
    assert folder.follow(position) == ([], position)


def test_follow_waits_for_a_line_to_be_complete(folder):
    folder.append("started", 0)
    _, position = folder.follow()
    with (folder.path / "events.jsonl").open("ab") as file:
        file.write(b'{"kind":"paused","step":4,')
        file.flush()
        assert folder.follow(position) == ([], position)
        file.write(b'"time":0}\n')
    assert [e["step"] for e in folder.follow(position)[0]] == [4]


def test_follow_starts_over_after_a_rewind_even_when_the_file_grew_past_it(recorded, fields):
    _, position = RunFolder.open(recorded.path).follow()
    with recorded.lock():
        recorded.rewind(40)
        recorded.append_many({"kind": "step", "step": s, **fields(s)} for s in range(40, 99))
    events, _ = recorded.follow(position)
    assert events[0]["kind"] == "started"
    assert [e["step"] for e in events if e["kind"] == "step"] == list(range(99))
