"""Predictions written down before the run exists, and scored when it has finished.

    record_prediction(what_if, {"code": 0.5, "prose": 0.5}, "runs")
    wb.train(config.change(mixer=wb.Policy("static", mixture={"code": 0.5, "prose": 0.5})), "runs")
    print(score_predictions("runs", find_runs("runs")))

`predictions.jsonl` holds one JSON object a line and is only ever appended to.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.batch.comparison import group_runs
from workbench.batch.what_if import (
    Prediction,
    WhatIf,
    average_mixture,
    conditions,
    differing_condition,
    found,
    measured_losses,
)
from workbench.core import RunError
from workbench.tracking.events import EventLog

if TYPE_CHECKING:
    import pandas as pd

    from workbench.batch.comparison import Runs
    from workbench.tracking import RunFolder

PREDICTIONS_FILE = "predictions.jsonl"
SAME_SHARE = 0.01
"""A run is of the predicted mixture when no more of its rows would have to change domain."""


@dataclass(frozen=True)
class Score:
    """One recorded prediction against one run: losses in nats per token, by evaluated domain."""

    run: Path
    mixture: dict[str, float]
    predicted: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]
    measured: dict[str, float]
    level: float
    outside: float

    @property
    def inside(self) -> dict[str, bool]:
        """Whether the measured loss fell into the interval."""
        return {
            name: self.low[name] <= nats <= self.high[name] for name, nats in self.measured.items()
        }


@dataclass(frozen=True)
class Scores:
    """All recorded predictions: scored ones, mixtures still without a run, and runs left out."""

    scored: tuple[Score, ...]
    waiting: tuple[dict[str, float], ...]
    left_out: tuple[str, ...]

    def frame(self) -> pd.DataFrame:
        """A row per loss: run, loss, predicted, low, high, measured, error (nats), inside."""
        import pandas as pd

        rows = [
            {
                "run": score.run.name,
                "loss": name,
                "predicted": score.predicted[name],
                "low": score.low[name],
                "high": score.high[name],
                "measured": nats,
                "error": nats - score.predicted[name],
                "inside": score.inside[name],
            }
            for score in self.scored
            for name, nats in score.measured.items()
        ]
        columns = ["run", "loss", "predicted", "low", "high", "measured", "error", "inside"]
        return pd.DataFrame(rows, columns=pd.Index(columns))

    def __str__(self) -> str:
        lines = [_told(score) for score in self.scored]
        for where, own in (
            ("", self.scored),
            (" of mixtures outside the sampled ones", [s for s in self.scored if s.outside]),
        ):
            if own:
                hits = [hit for score in own for hit in score.inside.values()]
                levels = sorted({f"{score.level:.0%}" for score in own})
                lines.append(
                    f"{sum(hits)} of {len(hits)} predicted losses{where} fell inside their "
                    f"{' or '.join(levels)} intervals"
                )
        lines += [f"waiting for a run of {_mixture(mixture)}" for mixture in self.waiting]
        return "\n".join([*lines, *self.left_out]) or "nothing was predicted yet"


def record_prediction(
    what_if: WhatIf, mixture: Mapping[str, float], folder: str | Path
) -> Prediction:
    """Predict a mixture and append the prediction to a file, forced to disk before this returns.

    Args:
        folder: `predictions.jsonl` is in it; made if it is missing.
    Returns:
        The prediction; the line also holds the time, the surrogate's settings, the runs it was
        fitted on, and the settings that a run must have to be scored.
    Raises:
        ConfigError: as in `WhatIf.predict`.
        RunError: the file cannot be written.
    """
    prediction = what_if.predict(mixture)
    line = {
        "kind": "prediction",
        "time": time.time(),
        **asdict(prediction),
        "surrogate": what_if.settings,
        "runs": [str(path) for path in what_if.runs],
        "without": list(what_if.without),
        "conditions": what_if.conditions,
    }
    log = _log(folder)
    try:
        log.path.parent.mkdir(parents=True, exist_ok=True)
        # A writer that was killed may have left half a line, which would swallow this one.
        log.repair()
        log.write([line])
    except OSError as error:
        raise RunError(
            f"cannot write {log.path}: {error.strerror}",
            remedy="free space, or give a folder that can be written",
        ) from error
    return prediction


def read_predictions(folder: str | Path) -> list[dict[str, Any]]:
    """The complete lines of a folder's predictions, oldest first; none where there is no file.

    Raises:
        RunError: a line other than the last is damaged.
    """
    return _log(folder).read()


def score_predictions(folder: str | Path, runs: Runs | str | Path) -> Scores:
    """Hold recorded predictions against finished runs of their mixtures.

    A run counts when it was started after the prediction was recorded, under the same conditions
    as the runs the prediction came from, and its average effective mixture is the predicted one to
    1 % of the rows.  Each such run is scored by itself, as the intervals are of single runs.

    Args:
        folder: where predictions were recorded.
        runs: run folders, or a folder that holds them; unfinished ones wait.
    Raises:
        RunError: no such folder, a damaged line, or a run whose record lacks mixtures or
            evaluations.
    """
    if not Path(folder).is_dir():
        raise RunError(
            f"there is no folder {folder}", remedy="name the one that predictions were recorded in"
        )
    grouped = group_runs(found(runs)).values()
    finished = [run for own in grouped for run in own if run.status() == "finished"]
    mixtures = [average_mixture(run) for run in finished]
    scored, waiting, left_out = [], [], []
    for line in read_predictions(folder):
        own = [
            run
            for run, mixture in zip(finished, mixtures, strict=True)
            if _moved(mixture, line["mixture"]) <= SAME_SHARE
        ]
        reasons = {run.path: _no_test(run, line) for run in own}
        tests = [_score(run, line) for run in own if not reasons[run.path]]
        scored += tests
        left_out += [f"{path}: {reason}" for path, reason in reasons.items() if reason]
        if not tests:
            waiting.append(line["mixture"])
    return Scores(tuple(scored), tuple(waiting), tuple(dict.fromkeys(left_out)))


def _log(folder: str | Path) -> EventLog:
    return EventLog(Path(folder) / PREDICTIONS_FILE)


def _moved(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    names: Iterable[str] = dict.fromkeys([*one, *other])
    return 0.5 * sum(abs(one.get(name, 0.0) - other.get(name, 0.0)) for name in names)


def _no_test(run: RunFolder, line: Mapping[str, Any]) -> str:
    """Why a run of the predicted mixture is no test of the prediction; empty if it is one."""
    if run.events("started")[0]["time"] <= line["time"]:
        recorded = datetime.fromtimestamp(line["time"]).isoformat(" ", "seconds")
        return f"was started before the prediction of {recorded}"
    differs = differing_condition(line["conditions"], conditions(run))
    return f"differs from the fitted runs in {differs}" if differs else ""


def _score(run: RunFolder, line: Mapping[str, Any]) -> Score:
    measured = measured_losses(run, line["without"])
    return Score(
        run=run.path,
        mixture=line["mixture"],
        predicted=line["nats"],
        low=line["low"],
        high=line["high"],
        measured={name: measured[name] for name in line["nats"] if name in measured},
        level=line["level"],
        outside=line["outside"],
    )


def _told(score: Score) -> str:
    parts = [
        f"{name} {nats:.4f} (predicted {score.predicted[name]:.4f}, error "
        f"{nats - score.predicted[name]:+.4f}, {'inside' if score.inside[name] else 'OUTSIDE'} "
        f"{score.low[name]:.4f} to {score.high[name]:.4f})"
        for name, nats in score.measured.items()
    ]
    return f"{score.run.name}: {'; '.join(parts)}"


def _mixture(mixture: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:.1%}" for name, share in mixture.items())
