"""The only place where things happen in order: one loop for every combination of policies.

    Loop(state, folder, controls, callbacks).run()

At a step boundary N (N steps are done): evaluate, select, checkpoint, apply what was asked, then
step N.
Between boundaries nothing is read from the device, printed or written.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from workbench.config import RunConfig
from workbench.core import (
    Batch,
    Mixture,
    NumericsError,
    StepOutcome,
    WorkbenchError,
)
from workbench.evaluation import held_out_loss
from workbench.models.operations import counted
from workbench.tracking import RunFolder
from workbench.tracking.interplay import Interplay
from workbench.training import checkpoint
from workbench.training.changes import changed_policies, check_change, plain_changes
from workbench.training.checks import check_fits
from workbench.training.clock import Lap, StepClock, moments
from workbench.training.controls import Asked, Controls
from workbench.training.cost import StepCost
from workbench.training.messages import POOL_USED_UP, exhausted, reason_of
from workbench.training.ranks import Ranks
from workbench.training.record import REMEDY, Recorder, plain
from workbench.training.state import TrainState
from workbench.training.step import NonFiniteStep, Stepped, train_step
from workbench.training.summary import summarise

ASK_SECONDS = 1.0
"""How often ranks ask each other whether a pause is over."""
SELECTING_EVERY_SECONDS = 0.5
"""Least time between two events of the same stage of a selection."""


class StopAsked(Exception):
    """A stop was asked for while a selector was at work."""


class Callback(Protocol):
    """Code of the user's that watches a run; it may read everything and must change nothing."""

    def on_step(self, outcome: StepOutcome) -> None:
        """After every step, in the hot loop: keep it free of host syncs."""

    def on_events(self, events: Sequence[dict[str, Any]]) -> None:
        """After events were written, a few times a second."""


class Loop:
    """Runs a state to its last step, writing a run folder."""

    def __init__(
        self,
        state: TrainState,
        folder: RunFolder,
        controls: Controls,
        callbacks: Sequence[Callback] = (),
        *,
        replay: Iterable[dict[str, Any]] = (),
    ):
        self.state = state
        self.folder = folder
        self.controls = controls
        self.callbacks = callbacks
        self.recorder = Recorder(folder, state.corpus)
        self._replay = sorted(replay, key=lambda event: event["step"])
        self._ranks = Ranks.here()
        self._saved_step = state.step
        self._writing: checkpoint.Writing | None = None
        self._evaluated_step: int | None = None
        self._warned: set[str] = set()
        rows_K = state.corpus.rows_K
        shares = zip(state.corpus.domains, (rows_K / rows_K.sum()).tolist(), strict=True)
        self._cost = StepCost(state)
        self._now = moments(state.config.training.device)
        self._interplay, self._undone = Interplay(dict(shares)), {}
        self._followed = RunConfig(**folder.config)
        # Changes from here on are replayed at their steps, wherever they stand in the folder.
        for event in sorted(folder.events(), key=lambda event: event["step"]):
            if event["kind"] != "set" or event["step"] < state.step:
                self._follow_interplay(event)

    def run(self) -> None:
        """Steps until done or stopped; a failure is recorded in the folder and raised again."""
        state = self.state
        try:
            self._warn(check_fits(state.config, state.corpus))
            while True:
                self._boundary()
                if self._obey() or state.step >= state.config.training.total_steps:
                    break
                # A selector that was only now put in chooses before the step, too.
                if self._select():
                    self._checkpoint()
                self._step()
            self._end("stopped" if state.step < state.config.training.total_steps else "finished")
        except StopAsked:
            self._end("stopped")
        except BaseException as error:
            self._fail(error)
            raise

    def _step(self) -> None:
        state, training = self.state, self.state.config.training
        clock = StepClock(self._now)
        with clock.policy():
            mixture, needs = state.mixer.propose(state.step), state.mixer.needs
        flops = self._cost.step(needs)
        state.sampler.set_mixture(mixture)
        own = self._ranks.part(state.sampler.batch_rows)
        batch = state.sampler.draw(state.step, own)
        try:
            stepped = train_step(state, batch)
        except NonFiniteStep as error:
            self._record(error.stepped, batch, mixture, clock.stop(flops), {})
            self._flush()
            raise
        with clock.policy():
            state.mixer.observe(stepped.outcome)
            diagnostics = state.mixer.diagnostics()
        flops |= self._cost.policy()
        for callback in self.callbacks:
            callback.on_step(stepped.outcome)
        state.step += 1
        self._record(stepped, batch, mixture, clock.stop(flops), diagnostics)
        if state.step % training.record_every_steps == 0:
            self._flush()
            self._ranks.require_same("the next batch", self._next_batch())
            self._warn_while(self._worries())
            if self.recorder.ledger_steps >= training.ledger_every_steps:
                self.recorder.flush_ledger()

    def _next_batch(self) -> Any:
        """What decides it: ranks that disagree on this would train on different rows."""
        return self.state.sampler.state_dict() if self._ranks.world > 1 else None

    def _record(
        self,
        stepped: Stepped,
        batch: Batch,
        mixture: Mixture,
        lap: Lap,
        diagnostics: Mapping[str, Any],
    ) -> None:
        state, supply = self.state, self.state.sampler.supply
        steps_left = state.config.training.total_steps - stepped.outcome.step - 1
        choice = state.selecting.choice if state.selecting else None
        self.recorder.add(stepped, batch, mixture, supply, lap, diagnostics, steps_left, choice)

    def _worries(self) -> list[str]:
        """What holds now and a user should know: of the mixer, and of text that is used up."""
        state = self.state
        return [
            *state.mixer.warnings(),
            *exhausted(
                state.corpus.domains,
                state.sampler.epochs_K,
                chosen=bool(state.selecting and state.selecting.choice),
            ),
            *([POOL_USED_UP] if state.selecting and state.selecting.used_up else []),
            *self._conflicts(),
        ]

    def _follow_interplay(self, event: Mapping[str, Any]) -> None:
        if event["kind"] == "step":
            self._interplay.add(event)
        elif event["kind"] == "set":
            before, self._followed = self._followed, self._followed.change(**event["changes"])
            self._interplay.restart(changed_policies(before, self._followed))

    def _conflicts(self) -> list[str]:
        """Each in the words it was first seen in, while it holds: numbers move at every look."""
        found = self._interplay.conflicts(self.state.config.mixer.name)
        self._undone = {each.key: self._undone.get(each.key, str(each)) for each in found}
        return list(self._undone.values())

    def _warn_while(self, messages: Sequence[str]) -> None:
        """Warn of what was not so at the last look."""
        self._warn([message for message in messages if message not in self._warned])
        self._warned = set(messages)

    def _boundary(self) -> None:
        """Evaluate, select and checkpoint where they are due, in this order on a resume too."""
        step, training = self.state.step, self.state.config.training
        if step % training.evaluate_every_steps == 0:
            self._evaluate()
        # A choice can take long, so it is saved at once.
        if self._select() or step % training.checkpoint_every_steps == 0:
            self._checkpoint()

    def _select(self) -> bool:
        """Let the selector choose, where it is due; whether it did."""
        state, selecting = self.state, self.state.selecting
        last = state.step >= state.config.training.total_steps
        if selecting is None or last or selecting.used_up or not selecting.due(state.step):
            return False
        self._flush()
        if selecting.choice is None:
            self._warn(selecting.notes())
        told: dict[str, float] = {}
        selecting.relay.to = lambda event: self._watch(event, told)
        with counted() as operations:
            # A copy of what lies in shards is for a selector that runs this model.
            runs_own = (
                getattr(selecting.selector, "judges_with_model", True) and not selecting.judge
            )
            model = state.spread.whole() if runs_own else state.model
            choice = selecting.choose(state.step, model)
        self._warn([selecting.shortfall] if selecting.shortfall else [])
        if choice is None:
            return False
        state.offer(choice)
        assert selecting.record is not None and selecting.tables is not None
        selecting.record["flops"] = sum(self._ranks.everyone(operations.total))
        self.folder.write_selection(state.step, selecting.tables, selecting.record)
        self._emit("selected", **plain(selecting.record))
        self._saved_step = None
        return True

    def _watch(self, event: Mapping[str, Any], told: dict[str, float]) -> None:
        """Events of a selection: every round of a bandit, and other stages now and then."""
        # Several ranks meet in exchanges while they select, which none may leave alone: they stop
        # before the next step.
        if self._ranks.world == 1 and self.controls.stopping:
            raise StopAsked
        stage, now = str(event["stage"]), time.monotonic()
        over = event.get("done") == event.get("total")
        if stage == "map":
            assert self.state.selecting is not None
            self.folder.write_pool(self.state.selecting.named_tables())
        if stage == "pull" or over or now - told.get(stage, 0.0) >= SELECTING_EVERY_SECONDS:
            told[stage] = now
            known = {"done": None, "total": None, **event}
            self._emit("selecting", **plain(known))

    def _evaluate(self) -> None:
        if self._evaluated_step == self.state.step:
            return
        self._evaluated_step = self.state.step
        self._flush()
        state, training = self.state, self.state.config.training
        began = time.perf_counter()
        losses = held_out_loss(
            state.model,
            state.corpus,
            rows_per_domain=training.held_out_rows,
            batch_rows=training.micro_batch_rows or self._ranks.largest_part(training.batch_rows),
            device=training.device,
            precision=training.precision,
            share=self._ranks,
        )
        mean = sum(losses.values()) / len(losses)
        seconds, flops = time.perf_counter() - began, self._cost.evaluate
        self._emit("held_out", losses=losses, mean_nats=mean, seconds=seconds, flops=flops)

    def _checkpoint(self) -> None:
        # The record up to this step is on disk before the checkpoint that continues from it.
        self._flush()
        self.recorder.flush_ledger()
        if not self.state.finite():
            raise NumericsError(
                f"step {self.state.step - 1}: its update made the parameters not finite",
                remedy=REMEDY.format(path=self.folder.path),
            )
        self._save()

    def _save(self) -> None:
        """A checkpoint, unless this step's is there already (step 0 starts from the config)."""
        if self._saved_step == self.state.step:
            return
        self._finish_writing()
        keep = self.state.config.training.keep_checkpoints
        self._writing = checkpoint.save(self.folder, self.state, keep=keep)
        self._saved_step = self.state.step

    def _finish_writing(self) -> None:
        """Give the last checkpoint its name, which waits for the shards still being written."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.finish()

    def _obey(self) -> bool:
        """Apply changes and pauses asked for; True when asked to stop."""
        while self._replay and self._replay[0]["step"] <= self.state.step:
            change = self._replay.pop(0)
            self.state.change(check_change(self.state.config, change["changes"], self.state.corpus))
            self._follow_interplay(change)
        asked = self._asked()
        for changes in asked.changes:
            self._change(changes)
        if asked.paused and not asked.stop:
            self._flush()
            self.recorder.flush_ledger()
            self._emit("paused")
            while asked.paused and not asked.stop:
                # Ranks that wait for the leading one in an exchange give up after half an hour.
                self.controls.wait_while_paused(None if self._ranks.world == 1 else ASK_SECONDS)
                asked = self._asked(always=True)
                for changes in asked.changes:
                    self._change(changes)
            self._emit("unpaused")
        return asked.stop

    def _asked(self, *, always: bool = False) -> Asked:
        """What is asked of the leading rank; a stop of any.

        Ranks must agree, which takes a message, so they look only where values are read anyway.
        """
        if self._ranks.world == 1:
            return self.controls.take()
        if not always and self.state.step % self.state.config.training.record_every_steps:
            return Asked()
        told = self._ranks.everyone(self.controls.take())
        return replace(told[0], stop=any(asked.stop for asked in told))

    def _change(self, changes: dict[str, Any]) -> None:
        """Applied and recorded before the next step, so that a resume replays it at the same one.

        What does not fit is a warning: a slip of the hand must not end a run.
        """
        try:
            config = check_change(self.state.config, changes, self.state.corpus)
            self.state.change(config)
        except WorkbenchError as error:
            return self._warn([f"change {changes} refused: {error}"])
        # What was done before the change is recorded before it.
        self._flush()
        self._emit("set", changes=plain_changes(changes))
        self._warn(check_fits(config, self.state.corpus))

    def _warn(self, messages: Iterable[str]) -> None:
        for message in messages:
            self._emit("warning", message=message)
            if self._ranks.leads:
                # Its place is a step of a run; a line of ours would tell a user nothing.
                warnings.warn_explicit(message, UserWarning, str(self.folder.path), self.state.step)

    def _flush(self) -> None:
        self._told(self.recorder.flush())
        if self._writing is not None and self._writing.done:
            self._finish_writing()

    def _emit(self, kind: str, **fields: Any) -> None:
        self._told(self.folder.append_many([{"kind": kind, "step": self.state.step, **fields}]))

    def _told(self, events: Sequence[dict[str, Any]]) -> None:
        for event in events:
            self._follow_interplay(event)
        if events:
            for callback in self.callbacks:
                callback.on_events(events)

    def _end(self, kind: str) -> None:
        self._evaluate()
        self._checkpoint()
        self._finish_writing()
        if self._ranks.leads:
            self.folder.write_summary(summarise(self.folder, kind))
        self._emit(kind)
        self._ranks.wait()

    def _fail(self, error: BaseException) -> None:
        """Record why the run ended, as far as the disk still allows."""
        # A full disk fails here too; the first error is the one to show.
        with suppress(OSError, WorkbenchError):
            if isinstance(error, KeyboardInterrupt):
                return
            self.recorder.flush_ledger()
            self._emit("failed", **reason_of(error, self.folder.path, self._ranks))
