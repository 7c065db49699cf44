"""Settings on and off in every combination: what each does, and at what cost.

    runs = train_study(presets.together("demo"), "runs/together")
    for each in factorial(runs, without=["noise"]): print(each)
    longer = train_study(at_equal_compute(study, runs, "quad"), "runs/together")

A label names what is on, joined by " + "; `none` has nothing on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.batch.comparison import (
    by_seed,
    check_comparable,
    check_same_measure,
    final_held_out,
)
from workbench.core import ConfigError, RunError, unknown_name

if TYPE_CHECKING:
    from workbench.config import RunConfig
    from workbench.evaluation import Verdict
    from workbench.tracking import RunFolder
    from workbench.training import Run

NONE = "none"
JOINED = " + "


def factorial(
    runs: Mapping[str, Sequence[Run]],
    *,
    without: Collection[str] = (),
    repeated: bool = False,
) -> list[Verdict]:
    """Main effects and interactions on the mean held-out loss, paired by seed.

    Args:
        without: domains that do not count, such as one known to be noise.
        repeated: several runs of a label and seed are repeats, which set the noise floor;
            otherwise they are refused.
    Raises:
        RunError: a run that is not finished, was never evaluated, or was measured on other text
            or is of another length than those of its seed; a seed twice.  A run that matches one
            of them counts as long as that, if all match one or are matched.
        DataError: a combination is missing, or the combinations share no seed.
    """
    from workbench.evaluation import effects, mean_nats

    cells = {
        parts(label): by_seed(label, [run.folder for run in own], repeated=repeated)
        for label, own in runs.items()
    }
    _check_alike(cells.values())
    values = {
        cell: {
            seed: [mean_nats(final_held_out(run)["losses"], without) for run in own]
            for seed, own in seeds.items()
        }
        for cell, seeds in cells.items()
    }
    return effects(values)


def at_equal_compute(
    study: Mapping[str, Sequence[RunConfig]], runs: Mapping[str, Sequence[Run]], dear: str
) -> dict[str, list[RunConfig]]:
    """The settings without `dear`, each as long as the operations of its twin with it allow.

    Args:
        study, runs: the configs, and the finished runs of those that have `dear` on.
    Raises:
        ConfigError: no label says that `dear` is on.
        RunError: a label without a twin that has `dear` on, or a twin without one of its seeds.
    """
    _check_twins(study, runs, dear)
    return {
        label: [
            config.replace(
                name=f"{config.name}_equal_compute",
                training=config.training.replace(match_run=str(run.path)),
            )
            for config in own
            for run in runs[str(_twin(label, dear, runs))]
            if run.config.seed == config.seed
        ]
        for label, own in study.items()
        if dear not in parts(label)
    }


def parts(label: str) -> tuple[str, ...]:
    """What a label says is on."""
    return tuple(name for name in label.split(JOINED) if name != NONE)


def _check_twins(
    study: Mapping[str, Sequence[RunConfig]], runs: Mapping[str, Sequence[Run]], dear: str
) -> None:
    known = {name for label in runs for name in parts(label)}
    if dear not in known:
        problem, remedy = unknown_name("setting", dear, known)
        raise ConfigError(problem, remedy=remedy)
    for label, own in study.items():
        if dear in parts(label):
            continue
        twin = _twin(label, dear, runs)
        if twin is None:
            raise RunError(
                f"'{label}' has no twin with '{dear}' on among {', '.join(runs)}",
                remedy=f"train it with '{dear}' too, or leave '{label}' out of the study",
            )
        there = {run.config.seed for run in runs[twin]}
        if lost := [config.seed for config in own if config.seed not in there]:
            raise RunError(
                f"'{twin}' has no run with seed {', '.join(map(str, lost))}, which '{label}' has",
                remedy="train it with these seeds, or leave them out of the study",
            )


def _check_alike(cells: Collection[Mapping[int, Sequence[RunFolder]]]) -> None:
    """RunError for a run measured otherwise, or of another length, than others of its seed."""
    of_seed: dict[int, list[RunFolder]] = {}
    for seeds in cells:
        for seed, own in seeds.items():
            of_seed.setdefault(seed, []).extend(own)
    for runs in of_seed.values():
        lengths = [_with_the_length_of(run, runs) for run in runs]
        for run, length in zip(runs, lengths, strict=True):
            check_same_measure(runs[0], run)
            check_comparable(lengths[0], length)
        matched = [run for run, length in zip(runs, lengths, strict=True) if run is not length]
        plain = [run for run in runs if run not in matched and lengths.count(run) == 1]
        if matched and plain:
            raise RunError(
                f"{plain[0].path} was not given the operations of a run that cost more, "
                f"{matched[0].path} was",
                remedy="compare all at equal steps, or all at equal operations: at_equal_compute",
            )


def _with_the_length_of(run: RunFolder, others: Sequence[RunFolder]) -> RunFolder:
    """The run whose operations this one was given, where it is among the others; else itself."""
    path = run.config["training"].get("match_run")
    found = (other for other in others if path and other.path.resolve() == Path(path).resolve())
    return next(found, run)


def _twin(label: str, dear: str, labels: Collection[str]) -> str | None:
    wanted = {dear, *parts(label)}
    return next((other for other in labels if set(parts(other)) == wanted), None)
