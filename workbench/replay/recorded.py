"""A finished run's signals shown to another mixer: what would it have proposed, step by step.

    trace = counterfactual("direct", run, warmup_steps=20)
    trace.counterfactual                      # True: nobody acted on these mixtures

Each step shows the mixer what the recorded run saw, whose rows were drawn by the recorded mixture;
what the other mixtures would have led to is not known.  So these are one-step answers, never a
trajectory.  Shapes: K domains, N steps, B rows of a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from workbench.core import (
    MIXERS,
    DomainGradients,
    Mixer,
    MixingTask,
    RunError,
    Signal,
    StepOutcome,
    TrackedNorms,
    stream_seed,
)
from workbench.replay.play import Trace
from workbench.tracking import RunFolder
from workbench.tracking.events import symmetric

_FIELDS = {
    Signal.DOMAIN_GRADIENTS: ("gram", "acodm, direct, alignment, doge or pike"),
    Signal.ROW_GRADIENTS: ("row_squares", "pike"),
    Signal.TRACKED_NORMS: ("weight_norms", "acodm or direct"),
    Signal.EXCESS_LOSS: ("excess_nats", "doremi"),
}
"""Where a step's event keeps a signal, and the mixers whose runs have it."""


def task_of(run: RunFolder) -> MixingTask:
    """The task the run's own mixer was built for.

    Raises:
        RunError: the run has no step yet.
    """
    step = _steps(run)[0]
    epochs, share = run.events("step")[-1]["epochs"], _drawn(run)
    rows_K = [round(share[name] / e) if e else 1 for name, e in epochs.items()]
    training = run.config["training"]
    return MixingTask(
        tuple(step["mixture"]),
        np.array(rows_K),
        batch_rows=training["batch_rows"],
        total_steps=training["total_steps"],
        seed=stream_seed(run.config["seed"], "mixer"),
    )


def counterfactual(mixer: Mixer | str, run: RunFolder, **options: Any) -> Trace:
    """Show a mixer every recorded step of a run and collect what it proposes.

    Args:
        mixer: built for `task_of(run)`, or its name; `options` are then its options.
    Returns:
        A trace flagged as counterfactual; its score is the recorded loss in nats per token.
    Raises:
        RunError: the run has no step, or lacks signals the mixer asks for.
    """
    steps = _steps(run)
    asked: Mixer = MIXERS.build(mixer, task_of(run), **options) if isinstance(mixer, str) else mixer
    _require(asked, run, steps)
    names = tuple(steps[0]["mixture"])
    mixtures, said = [], []
    for number, event in enumerate(steps):
        mixtures.append(asked.propose(number).probability_K)
        asked.observe(_outcome(number, event, names, run.config["training"]["batch_rows"]))
        said.append(asked.diagnostics())
    score_N = np.array([event["loss"] for event in steps])
    return Trace(names, np.array(mixtures), score_N, said, counterfactual=True)


def _steps(run: RunFolder) -> list[dict[str, Any]]:
    steps = run.events("step")
    if not steps:
        raise RunError(f"{run.path} has no recorded step", remedy="train it first")
    return steps


def _drawn(run: RunFolder) -> dict[str, float]:
    """Rows of each domain that the run drew."""
    rows = run.config["training"]["batch_rows"]
    total: dict[str, float] = {}
    for event in run.events("step"):
        for name, share in event["sample_share"].items():
            total[name] = total.get(name, 0.0) + share * rows
    return total


def _require(mixer: Mixer, run: RunFolder, steps: list[dict[str, Any]]) -> None:
    for signal in sorted(mixer.needs):
        field, mixers = _FIELDS[signal]
        if not any(field in event.get("signals", {}) for event in steps):
            raise RunError(
                f"{run.path} recorded no {signal}, which the mixer asks for",
                remedy=f"replay a run whose own mixer asked for it: {mixers}",
            )


def _outcome(
    number: int, event: Mapping[str, Any], names: tuple[str, ...], batch_rows: int
) -> StepOutcome:
    """A step as the mixer would have seen it, each row with the mean loss of its domain."""
    shares = [event["sample_share"][name] for name in names]
    count_K = np.rint(np.array(shares) * batch_rows).astype(int)
    domain_B = np.repeat(np.arange(len(names)), count_K)
    losses = [event["domain_loss"].get(name, np.nan) for name in names]
    loss_B = torch.tensor([losses[k] for k in domain_B], dtype=torch.float32)
    return StepOutcome(
        step=number,
        domain_B=domain_B,
        sample_id_B=domain_B.astype(np.int64) << 40,
        loss_B=loss_B,
        weight_B=torch.ones_like(loss_B),
        valid_B=torch.ones(len(loss_B), dtype=torch.bool),
        signals=_signals(event.get("signals", {}), domain_B, len(names)),
    )


def _signals(recorded: Mapping[str, Any], domain_B: np.ndarray, domains: int) -> dict[Signal, Any]:
    found: dict[Signal, Any] = {}
    if "gram" in recorded:
        gram_KK = symmetric(recorded["gram"], domains)
        found[Signal.DOMAIN_GRADIENTS] = DomainGradients(
            gram_KK, np.array(recorded["domain_rows"]), recorded["sampling_error"]
        )
    if "row_squares" in recorded:
        found[Signal.ROW_GRADIENTS] = np.array(recorded["row_squares"], dtype=float)
    if "excess_nats" in recorded:
        excess_K = np.array(recorded["excess_nats"], dtype=float)
        found[Signal.EXCESS_LOSS] = torch.from_numpy(excess_K[domain_B]).float()
    if "weight_norms" in recorded:
        found[Signal.TRACKED_NORMS] = TrackedNorms(
            np.array(recorded["weight_norms"]), np.array(recorded["change_norms"])
        )
    return found
