"""Settings on and off in every combination: what each does, and at what cost.

    runs = train_study(presets.together("demo"), "runs/together")
    for each in factorial(runs, without=["noise"]): print(each)
    longer = train_study(at_equal_compute(study, runs, "quad"), "runs/together")

A label names what is on, joined by " + "; `none` has nothing on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from workbench.batch.comparison import by_seed, check_same_measure, final_held_out

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
            than those of its seed; a seed twice.
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
    """
    return {
        label: [
            config.replace(
                name=f"{config.name}_equal_compute",
                training=config.training.replace(match_run=str(run.path)),
            )
            for config in own
            for run in runs[_twin(label, dear, runs)]
            if run.config.seed == config.seed
        ]
        for label, own in study.items()
        if dear not in parts(label)
    }


def parts(label: str) -> tuple[str, ...]:
    """What a label says is on."""
    return tuple(name for name in label.split(JOINED) if name != NONE)


def _check_alike(cells: Collection[Mapping[int, Sequence[RunFolder]]]) -> None:
    """RunError for a run that was measured otherwise than the first of its seed."""
    first: dict[int, RunFolder] = {}
    for seeds in cells:
        for seed, own in seeds.items():
            for run in own:
                check_same_measure(first.setdefault(seed, run), run)


def _twin(label: str, dear: str, labels: Collection[str]) -> str:
    wanted = {dear, *parts(label)}
    return next(other for other in labels if set(parts(other)) == wanted)
