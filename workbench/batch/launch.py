"""A run in processes of its own: it outlives the kernel, and `torchrun` gives it several devices.

    running = launch(config, "runs", devices=2)      # returns at once
    running.wait()                                   # says how far it is; raises what ended it
    running.stop()                                   # soon, with a checkpoint
    running = attach("runs/run")                     # after the kernel was restarted

Beside the run's folder, `<name>.launch/` holds its settings, log and process.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.batch.study import Say, Teller
from workbench.core import ConfigError, RunError
from workbench.tracking import RunFolder, durable, encoding

if TYPE_CHECKING:
    from workbench.config import RunConfig
    from workbench.training import Run

POLL_SECONDS = 0.2
TAIL_LINES = 20
_RAISED = re.compile(r"(?!.*ChildFailedError)[\w.]*(Error|Exception|Exit): .+")


class Launched:
    """A run that other processes train, followed through its folder.

    path: of the run's folder, which appears once the text is prepared; devices: its ranks;
    since: when its processes were started, in unix seconds.
    """

    def __init__(
        self, path: Path, process: int | None, born: str, devices: int, since: float = 0.0
    ):
        self.path, self.devices, self._since = path, devices, since
        self._process, self._born = process, born
        self._asked_to_stop = False
        self._child: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"Launched({str(self.path)!r}, {self.status()})"

    @property
    def run(self) -> Run:
        """The run as it is on disk, for figures and the report.

        Raises:
            RunError: its folder is not there yet.
        """
        from workbench.training import open_run

        return open_run(self.path)

    @property
    def alive(self) -> bool:
        """Whether its processes are at work, or another one on the same folder."""
        own = self._process is not None and _born(self._process) == self._born
        # A killed process may keep its locks a moment longer than its number.
        return own or _writer(self.path) is not None

    def status(self) -> str:
        """As of the folder, or `starting` while its processes prepare what it needs."""
        status = RunFolder.open(self.path).status() if RunFolder.holds_run(self.path) else None
        if self.alive and status not in ("running", "paused"):
            return "starting"
        return status or "failed"

    @property
    def log_path(self) -> Path:
        return _beside(self.path) / "log.txt"

    def log(self, lines: int = TAIL_LINES) -> list[str]:
        """The last lines that its processes printed."""
        try:
            text = self.log_path.read_text(errors="replace")
        except FileNotFoundError:
            return []
        return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]

    def stop(self) -> None:
        """End it with a checkpoint: before its next step, several ranks before the next multiple of
        `record_every_steps`, at which they ask each other; while it starts, at once."""
        self._asked_to_stop = True
        writer = _writer(self.path)
        with suppress(ProcessLookupError):
            if writer is not None:
                os.kill(writer, signal.SIGINT)
            elif self._process is not None and self.alive:
                os.killpg(self._process, signal.SIGTERM)

    def wait(
        self,
        *,
        say: Say = print,
        every_seconds: float = 10.0,
        timeout_seconds: float | None = None,
    ) -> Run:
        """Until its processes end, saying how far it is; an interrupt leaves it going.

        Args:
            say: given each line, at most one in `every_seconds`.
            timeout_seconds: then return, whether it has ended or not.
        Returns:
            The run, finished or stopped.
        Raises:
            RunError: it failed, or a rank died; with the log's last words and how to go on.
        """
        began, position, teller = time.monotonic(), 0, None
        while True:
            alive = self.alive
            if RunFolder.holds_run(self.path):
                folder = RunFolder.open(self.path)
                teller = teller or Teller(self.path.name, 0, every_seconds, say)
                events, position = folder.follow(position)
                if any(event["kind"] in ("started", "resumed", "set") for event in events):
                    teller.total_steps = self.run.config.training.total_steps
                if events:
                    teller.on_events(events)
            if not alive:
                return self._ended(say)
            if timeout_seconds is not None and time.monotonic() - began > timeout_seconds:
                return self.run
            time.sleep(POLL_SECONDS)

    def _ended(self, say: Say) -> Run:
        if RunFolder.holds_run(self.path):
            run = self.run
            ended = self._began() and run.status() in ("finished", "stopped")
            if self._asked_to_stop or ended:
                nats = (run.summary() or {}).get("held_out_mean_nats")
                told = "" if nats is None else f", held-out loss {nats:.4f} nats per token"
                say(f"{self.path.name}: {run.status()}{told}")
                return run
            reached = max((event["step"] + 1 for event in run.events("step")), default=0)
            where = f"{run.status()} after {reached} steps"
            where += "" if self._began() else ", not gone on with"
            go_on = f"go on with: workbench resume {self.path}"
            go_on += f" --devices {self.devices}" if self.devices > 1 else ""
        else:
            where, go_on = "failed before its first step", "correct that and start it again"
        problem, remedy = _last_words(self.log(400))
        raise RunError(
            f"{self.path} {where}: {problem}",
            remedy=f"{remedy or go_on}; its log is {self.log_path}",
        )

    def _began(self) -> bool:
        """Whether its processes came as far as training: how it ended before is no news of them."""
        begun = (*self.run.events("started"), *self.run.events("resumed"))
        return any(event["time"] >= self._since for event in begun)


def launch(config: RunConfig, out_dir: str | Path, *, devices: int = 1) -> Launched:
    """Train `out_dir`/`config.name` in other processes, one for each device.

    Where the folder holds a run of this config: one that is at work is attached to, one that was
    cut short goes on, a finished one is returned.  Ranks share the threads of this process, unless
    `threads` says how many each has.

    Raises:
        ConfigError: a policy, world size or model that does not fit, before anything starts.
        RunError: the folder holds a run of another config.
    """
    from workbench.training.checks import check_policies
    from workbench.training.device import resolve

    check_policies(config)
    worries = check_devices(config, devices)
    path = (Path(out_dir) / config.name).absolute()
    if RunFolder.holds_run(path):
        if config.training.threads is None:
            # Those of another number of ranks: they are divided anew when it goes on.
            config = config.change(threads=RunFolder.open(path).config["training"]["threads"])
    else:
        for message in worries:
            warnings.warn(message, stacklevel=2)
    config = _with_threads(resolve(config), config.training.threads, devices)
    if RunFolder.holds_run(path) or _recorded(path) is not None:
        return _again(path, config, devices)
    return _start(path, ["train", "--out", str(path.parent)], devices, config)


def attach(
    path: str | Path, *, devices: int | None = None, arguments: Sequence[str] = ()
) -> Launched:
    """The run at `path`: at work in other processes, finished, or cut short and now resumed.

    Args:
        devices: of a run that is resumed; as many as it had when None.
        arguments: more of `workbench resume`, such as "--step=100", with which a finished run goes
            on, too.
    Raises:
        RunError: there is no run.
        ConfigError: it is to go on with devices that are not there, or do not fit.
    """
    from workbench.training import open_run

    path = Path(path).absolute()
    recorded = _recorded(path)
    if recorded is not None and recorded.alive:
        return recorded
    folder = RunFolder.open(path)
    if folder.status() in ("running", "paused"):
        return Launched(path, None, "", 1)
    known = devices or devices_of(path)
    if folder.status() == "finished" and not arguments:
        return Launched(path, None, "", known)
    for message in check_devices(open_run(path).config, known):
        warnings.warn(message, stacklevel=2)
    # Said, because a resume of several devices would otherwise start as many again.
    return _start(path, ["resume", str(path), "--devices=1", *arguments], known)


def devices_of(path: Path) -> int:
    """Ranks that a run was launched on last; 1 where it was not."""
    recorded = _recorded(path)
    return recorded.devices if recorded else 1


def check_devices(config: RunConfig, devices: int) -> list[str]:
    """What may go wrong on so many devices, which are there and which batch and model fit.

    Raises:
        ConfigError: they are not, or do not fit.
    """
    import torch

    from workbench.training.device import resolve
    from workbench.training.planner import check_fits_device, plan
    from workbench.training.spread import check_world

    if devices < 1:
        raise ConfigError(f"devices = {devices}", remedy="give 1 or more")
    check_world(config.training, devices)
    config = resolve(config)
    on_cuda = torch.device(config.training.device).type == "cuda"
    if on_cuda and devices > torch.cuda.device_count():
        raise ConfigError(
            f"{devices} devices asked for, {torch.cuda.device_count()} GPUs are here",
            remedy="ask for fewer, or use device=cpu",
        )
    # Any rate will do: only the memory is looked at.
    return check_fits_device(config, plan(config, devices=devices, flops_per_second=1.0))


def _with_threads(config: RunConfig, asked: int | None, devices: int) -> RunConfig:
    """A resolved config with a rank's part of this process' threads, where none were asked."""
    if asked is not None or config.training.threads is None:
        return config
    return config.change(threads=max(1, config.training.threads // devices))


def _again(path: Path, config: RunConfig, devices: int) -> Launched:
    """The run of this config that was started before."""
    from workbench.config import RunConfig
    from workbench.training.checkpoint import check_same_config, differences

    if RunFolder.holds_run(path):
        check_same_config(RunFolder.open(path), config)
        return attach(path, devices=devices)
    recorded = _recorded(path)
    if recorded is None or not recorded.alive:
        return _start(path, ["train", "--out", str(path.parent)], devices, config)
    other = RunConfig.read(_beside(path) / "config.json")
    if found := differences(other.to_dict(), config.to_dict()):
        raise RunError(
            f"{path} is being started with another config: {'; '.join(found[:4])}",
            remedy="stop it, or choose another name or folder",
        )
    return recorded


def _start(
    path: Path, command: Sequence[str], devices: int, config: RunConfig | None = None
) -> Launched:
    beside = _beside(path)
    with durable.writing(beside, path):
        beside.mkdir(parents=True, exist_ok=True)
        if config is not None:
            content = encoding.encode(config.to_dict(), indent=2)
            durable.write_file(beside / "config.json", content)
            command = [*command, "--config", str(beside / "config.json")]
    module = ["-m", "workbench.cli", *command]
    if devices > 1:
        spread = ["--standalone", f"--nproc-per-node={devices}"]
        module = ["-m", "torch.distributed.run", *spread, *module]
    since = time.time()
    with (beside / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *module],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_plain_text(),
            # A Ctrl-C in the terminal of a notebook server is not meant for it.
            start_new_session=True,
            # A shell starts background jobs with SIGINT ignored, which `stop` needs.
            preexec_fn=_hear_interrupts,
        )
    launched = Launched(path, process.pid, _born(process.pid), devices, since)
    launched._child = process
    record = {"process": process.pid, "born": launched._born, "devices": devices, "since": since}
    durable.write_file(beside / "process.json", encoding.encode(record))
    return launched


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _plain_text() -> dict[str, str]:
    """The environment without a kernel's wish for colours, which would end in the log."""
    forced = ("FORCE_COLOR", "CLICOLOR_FORCE")
    kept = {name: value for name, value in os.environ.items() if name not in forced}
    return {**kept, "NO_COLOR": "1", "TERM": "dumb"}


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.launch")


def _recorded(path: Path) -> Launched | None:
    """What was launched last for this folder, dead or alive."""
    try:
        record: dict[str, Any] = encoding.decode((_beside(path) / "process.json").read_bytes())
        return Launched(path, **record)
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _writer(path: Path) -> int | None:
    """Process that writes the run, None when none does."""
    if not RunFolder.holds_run(path):
        return None
    if RunFolder.open(path).status() not in ("running", "paused"):
        return None
    return int((path / ".lock").read_text())


def _born(process: int) -> str:
    """What tells a process from a later one of the same number; empty when it is dead."""
    if not Path("/proc").is_dir():
        return "alive" if _answers(process) else ""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _answers(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _last_words(lines: Sequence[str]) -> tuple[str, str]:
    """Problem and remedy: who was killed, what the command line printed, or what Python did."""
    found = {"error": "", "remedy": ""}
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        # Ranks that only lost the others come after the one that failed.
        if word in found and not found[word]:
            found[word] = rest
    if killed := _killed_rank(lines):
        return killed, ""
    raised = [line for line in lines if _RAISED.match(line)]
    said = [*(line for line in lines if line.strip("=- ")), *raised[-1:]]
    return found["error"] or (said[-1] if said else "it printed nothing"), found["remedy"]


def _killed_rank(lines: Sequence[str]) -> str:
    """Which rank was killed first, from torchrun's last report; empty where none was."""
    starts = [i for i, line in enumerate(lines) if line.startswith("Root Cause")]
    if not starts:
        return ""
    told = dict(line.strip().split(" : ", 1) for line in lines[starts[-1] :] if " : " in line)
    fields = {name.strip(): value.strip() for name, value in told.items()}
    signalled = fields.get("traceback", "").startswith("Signal")
    return f"rank {fields['rank'].split()[0]} died, {fields['traceback']}" if signalled else ""
