"""Sinks: every step once, whatever happens to the run or to the sink; real packages where there."""

from __future__ import annotations

import builtins
import json
import struct
import warnings
from collections import Counter

import pytest

from workbench.core import ConfigError
from workbench.tracking import RunFolder
from workbench.tracking.sinks import Sink, build
from workbench.tracking.sinks.flat import scalars, text


def step(number, loss):
    empty = {"mixture": {"a": 0.5, "b": 0.5}, "weight_share": {}, "sample_share": {}}
    numbers = dict.fromkeys(
        ("weighted_loss", "lr", "grad_norm", "tokens", "seconds", "ess_fraction", "max_weight"), 1.0
    )
    fields = {"kind": "step", "step": number, "loss": loss, "domain_loss": {"a": loss}}
    return {**empty, **numbers, **fields}


def held_out(number, loss):
    return {"kind": "held_out", "step": number, "losses": {"a": loss}, "mean_nats": loss}


class Run:
    """A run folder that is written as the loop writes one."""

    def __init__(self, path):
        self.folder = RunFolder.create(path, config={"name": "run", "seed": 0}, environment={})
        self.folder.append("started", 0)

    def train(self, first, last, sinks, loss=lambda n: n / 10, changes=None):
        """Steps first … last - 1, a held-out loss before each fifth; `changes` before the first."""
        for number in range(first, last):
            events = [held_out(number, loss(number))] if number % 5 == 0 else []
            if number == first and changes:
                events += [{"kind": "set", "step": number, "changes": changes}]
            events += [step(number, loss(number))]
            for event in events:
                self.tell([event], sinks)

    def tell(self, events, sinks):
        written = self.folder.append_many(events)
        for sink in sinks:
            sink.on_events(written)

    def resume(self, at, sinks, superseded=()):
        if at and at not in self.folder.checkpoints():
            with self.folder.aside(self.folder.checkpoint_path(at)):
                pass
        self.folder.rewind(at, keep_changes=not superseded)
        self.tell([{"kind": "resumed", "step": at, "superseded": list(superseded)}], ())

    def end(self, kind, at, sinks):
        self.tell([{"kind": kind, "step": at}], sinks)


class Recorded:
    """A backend that writes down what it is given, and fails when told to."""

    def __init__(self, book, again):
        self.book, self.again = book, again

    def open(self, folder, state):
        self.book["opened"].append(state.get("id"))
        state["id"] = "one"

    def branch(self, step, state):
        self.book["branches"].append(step)
        kept = [] if self.again else [v for v in self.book["values"] if v[1] < step]
        self.book["values"][:] = kept
        return self.again

    def scalars(self, values, step, unix_seconds):
        if self.book["broken"]:
            raise OSError("no space left on device")
        self.book["values"] += [(tag, step, value) for tag, value in values.items()]

    def text(self, tag, line, step, unix_seconds):
        self.book["texts"].append((tag, step, line))

    def flush(self):
        pass

    def close(self, outcome, summary):
        self.book["closed"].append(outcome)


def new_book():
    lists = {name: [] for name in ("opened", "branches", "values", "texts", "closed")}
    return {**lists, "broken": False}


def recorded(run, book, again=False):
    return Sink("recorded", run.folder.path, lambda: Recorded(book, again))


def losses(book, tag="step/loss"):
    return [(at, value) for name, at, value in book["values"] if name == tag]


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run")


def test_events_are_flat_numbers_and_lines():
    assert scalars(step(3, 2.0))["step/mixture/b"] == 0.5
    assert scalars(held_out(3, 2.0)) == {"held_out/losses/a": 2.0, "held_out/mean_nats": 2.0}
    assert scalars({"kind": "set", "step": 1, "changes": {"temperature": 1.0}}) == {}
    assert text({"kind": "warning", "step": 1, "message": "few rows"}) == "few rows"
    assert "temperature" in text({"kind": "set", "step": 1, "changes": {"temperature": 1.0}})
    assert text(step(3, 2.0)) is None


def test_every_step_is_sent_once_and_the_end_closes(run):
    book = new_book()
    sink = recorded(run, book)
    run.train(0, 7, [sink])
    run.end("finished", 7, [sink])
    assert losses(book) == [(n, n / 10) for n in range(7)]
    assert losses(book, "held_out/mean_nats") == [(0, 0.0), (5, 0.5)]
    assert book["closed"] == ["finished"]


def test_a_sink_added_late_is_given_what_happened_before(run):
    book = new_book()
    run.train(0, 4, [])
    run.train(4, 6, [recorded(run, book)])
    assert [at for at, _ in losses(book)] == list(range(6))


@pytest.mark.parametrize("again", [False, True])
def test_a_killed_and_resumed_run_is_neither_doubled_nor_missing(run, again):
    book = new_book()
    run.train(0, 8, [recorded(run, book, again)])
    second = recorded(run, book, again)
    run.resume(5, [second])
    run.train(5, 11, [second])
    assert losses(book) == [(n, n / 10) for n in range(11)]
    assert losses(book, "held_out/mean_nats") == [(0, 0.0), (5, 0.5), (10, 1.0)]
    assert book["opened"] == [None, "one"] and not book["branches"]


def test_a_sink_that_was_off_for_a_while_catches_up(run):
    book = new_book()
    run.train(0, 4, [recorded(run, book)])
    run.resume(2, [])
    run.train(2, 7, [])
    run.resume(6, [])
    run.train(6, 9, [recorded(run, book)])
    assert losses(book) == [(n, n / 10) for n in range(9)]


@pytest.mark.parametrize("again", [False, True])
def test_a_run_rewound_under_other_settings_shows_only_what_it_is_now(run, again):
    book = new_book()
    run.train(0, 8, [recorded(run, book, again)])
    second = recorded(run, book, again)
    run.resume(5, [second])
    run.train(5, 9, [second], loss=lambda n: n * 10.0, changes={"temperature": 1.0})
    expected = [(n, n / 10) for n in range(5)] + [(n, n * 10.0) for n in range(5, 9)]
    assert losses(book) == expected
    # The held-out loss before step 5 was measured again, before the change.
    assert losses(book, "held_out/mean_nats") == [(0, 0.0), (5, 50.0)]
    assert book["branches"] == [5]


@pytest.mark.parametrize("again", [False, True])
def test_a_change_that_was_given_up_voids_what_it_led_to(run, again):
    book = new_book()
    first = recorded(run, book, again)
    run.train(0, 6, [first])
    change = {"step": 6, "changes": {"temperature": 1.0}}
    run.train(6, 9, [first], loss=lambda n: n * 10.0, changes=change["changes"])
    second = recorded(run, book, again)
    run.resume(4, [second], superseded=[change])
    run.train(4, 9, [second])
    assert losses(book) == [(n, n / 10) for n in range(9)]
    assert losses(book, "held_out/mean_nats") == [(0, 0.0), (5, 0.5)]


def test_a_change_made_again_by_a_plain_resume_branches_nothing(run):
    book = new_book()
    first = recorded(run, book)
    run.train(0, 6, [first])
    run.train(6, 9, [first], changes={"temperature": 1.0})
    second = recorded(run, book)
    run.resume(4, [second])
    run.train(4, 10, [second])
    assert losses(book) == [(n, n / 10) for n in range(10)]
    assert not book["branches"]


def test_a_failing_sink_warns_once_and_loses_nothing(run, monkeypatch):
    book = new_book()
    sink = recorded(run, book)
    run.train(0, 2, [sink])
    book["broken"] = True
    monkeypatch.setattr("workbench.tracking.sinks.sink.RETRY_SECONDS", 0.0)
    with pytest.warns(UserWarning, match="no space left") as shown:
        run.train(2, 6, [sink])
    assert len(shown) == 1
    book["broken"] = False
    run.train(6, 8, [sink])
    assert losses(book) == [(n, n / 10) for n in range(8)]


def test_a_backend_that_cannot_open_ends_no_run(run):
    def make():
        raise ConnectionError("no route to host")

    with pytest.warns(UserWarning, match="no route to host"):
        run.train(0, 3, [Sink("recorded", run.folder.path, make)])
    assert len(run.folder.events("step")) == 3


def test_what_was_half_sent_when_it_failed_is_not_sent_twice(run, monkeypatch):
    book = new_book()
    sink = recorded(run, book)
    monkeypatch.setattr("workbench.tracking.sinks.sink.RETRY_SECONDS", 0.0)
    run.train(0, 3, [])
    whole = Recorded.scalars
    given = []

    def third_fails(self, values, step, unix_seconds):
        given.append(step)
        if len(given) == 3:
            raise OSError("network is unreachable")
        whole(self, values, step, unix_seconds)

    monkeypatch.setattr(Recorded, "scalars", third_fails)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run.train(3, 5, [sink])
    assert losses(book) == [(n, n / 10) for n in range(5)]


def test_unknown_sinks_and_options_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'mlflow'"):
        build("mlflo", "runs/run")
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    with pytest.raises(ConfigError, match="foldr"):
        build("tensorboard", "runs/run", foldr="board")


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_package_is_one_line_with_the_extra_to_install(name, monkeypatch):
    whole = builtins.__import__

    def missing(module, *arguments, **options):
        if module.split(".")[0] == name:
            raise ModuleNotFoundError(f"No module named '{name}'")
        return whole(module, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConfigError, match=rf"pip install 'workbench\[{name}\]'"):
        build(name, "runs/run")


# --- the real ones ---


def lived(run, name, killed=lambda: None, **options):
    """8 steps, killed; resumed at 5 without a change, stopped at 10; rewound to 8 under another
    setting, finished at 12."""
    run.train(0, 8, [build(name, run.folder.path, **options)])
    killed()
    second = build(name, run.folder.path, **options)
    run.resume(5, [second])
    run.train(5, 10, [second])
    run.end("stopped", 10, [second])
    yield
    third = build(name, run.folder.path, **options)
    run.resume(8, [third])
    run.train(8, 12, [third], loss=lambda n: n * 10.0, changes={"temperature": 1.0})
    run.folder.write_summary({"outcome": "finished"})
    run.end("finished", 12, [third])
    yield


STOPPED = [(n, pytest.approx(n / 10)) for n in range(10)]
FINISHED = STOPPED[:8] + [(n, pytest.approx(n * 10.0)) for n in range(8, 12)]


def test_tensorboard_shows_each_step_once_and_the_rewound_ones_as_they_are_now(run):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def shown(tag):
        board = EventAccumulator(str(run.folder.path / "tensorboard"), {"scalars": 0})
        board.Reload()
        return [(item.step, item.value) for item in board.Scalars(tag)], board

    life = lived(run, "tensorboard")
    next(life)
    assert shown("step/loss")[0] == STOPPED
    next(life)
    values, board = shown("step/loss")
    assert values == FINISHED
    assert [at for at, _ in shown("held_out/mean_nats")[0]] == [0, 5, 10]
    config = board.Tensors("config/text_summary")[0].tensor_proto.string_val[0]
    assert b'"seed": 0' in config
    assert "temperature" in str(board.Tensors("set/text_summary")[0].tensor_proto.string_val[0])


def test_mlflow_holds_each_step_once_and_a_new_run_for_other_settings(run, tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    pytest.importorskip("alembic", reason="a local store of mlflow needs sqlalchemy and alembic")
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(tmp_path)
    store = {"tracking_uri": "sqlite:///store.db"}
    client = MlflowClient(**store)

    def runs():
        experiment = client.get_experiment_by_name("workbench")
        return client.search_runs([experiment.experiment_id], order_by=["start_time ASC"])

    def shown(item):
        history = client.get_metric_history(item.info.run_id, "step/loss")
        return sorted((metric.step, metric.value) for metric in history)

    life = lived(run, "mlflow", **store)
    next(life)
    (only,) = runs()
    assert shown(only) == STOPPED
    assert only.info.status == "KILLED" and only.data.params["seed"] == "0"
    next(life)
    by_name = {item.info.run_name: item for item in runs()}
    assert set(by_name) == {"run", "run (2)"}
    assert shown(by_name["run (2)"]) == FINISHED
    assert by_name["run (2)"].info.status == "FINISHED"
    assert "at step 8" in by_name["run (2)"].data.tags["branched_from"]


def test_wandb_offline_holds_each_step_once_and_a_new_run_for_other_settings(run, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_SILENT", "true")

    def history():
        """Losses by the id of the W&B run, over all its offline files."""
        wandb.teardown()  # its own process writes, and only then is done
        found: dict[str, Counter] = {}
        for path in sorted(run.folder.path.glob("wandb/offline-run-*/*.wandb")):
            for record in records(path):
                if record.WhichOneof("record_type") == "run":
                    identity = record.run.run_id
                if record.WhichOneof("record_type") == "history":
                    row = {
                        "/".join(item.nested_key) or item.key: json.loads(item.value_json)
                        for item in record.history.item
                    }
                    if "step/loss" in row:
                        counted = found.setdefault(identity, Counter())
                        counted[row["_step"], row["step/loss"]] += 1
        return found

    life = lived(run, "wandb", killed=wandb.teardown, mode="offline")
    next(life)
    (only,) = history().values()
    assert sorted(only) == STOPPED and set(only.values()) == {1}
    next(life)
    first, second = sorted(history().values(), key=lambda counted: max(counted)[0])
    assert sorted(first) == STOPPED
    assert sorted(second) == FINISHED and set(second.values()) == {1}


def records(path):
    """Records of an offline file: a log of 32 KiB blocks, cut where a record crosses one."""
    from wandb.proto import wandb_internal_pb2

    content, at, parts = path.read_bytes(), 7, []
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, size, part = struct.unpack("<IHB", content[at : at + 7])
        parts.append(content[at + 7 : at + 7 + size])
        at += 7 + size
        if part in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(b"".join(parts))
            parts = []
            yield record


def test_a_real_run_and_its_resume_send_each_step_once(nano_config, cache_dir, tmp_path):
    """Through the loop: 12 steps, stopped by a failing callback, resumed from step 10."""
    from workbench.training import resume, train

    book = new_book()

    class Stops:
        def on_step(self, outcome):
            if outcome.step == 12:
                raise RuntimeError("power cut")

        def on_events(self, events):
            pass

    def sink():
        return Sink("recorded", tmp_path / "nano", lambda: Recorded(book, False))

    config = nano_config.change(total_steps=16, record_every_steps=1)
    with pytest.raises(RuntimeError, match="power cut"):
        train(config, tmp_path, cache_dir=cache_dir, callbacks=[sink(), Stops()])
    assert [at for at, _ in losses(book)] == list(range(12))
    resume(tmp_path / "nano", cache_dir=cache_dir, callbacks=[sink()])
    assert [at for at, _ in losses(book)] == list(range(16))
    assert book["closed"] == ["failed", "finished"]
