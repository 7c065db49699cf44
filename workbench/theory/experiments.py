"""Comparisons that tell a better direction from a longer step: the streaming toy and its controls.

    results = run_conditions(seeds=range(5))           # condition -> strategy -> one path a seed
    summarise(results)                                  # rows for a table

All are measurements: the step size of the toy is above 1/L, where no statement holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from workbench.core import ConfigError
from workbench.theory.descent import Trajectory, descend
from workbench.theory.problems import LinearRegression, Problem, linear_regression, stream

STRATEGIES = ("uniform", "linupper", "quadratic", "extremes")
TOY_STEP_SIZE = 0.02
STEP_SIZES = tuple(TOY_STEP_SIZE * 2 ** (k / 2) for k in range(12))
"""Tried by `tuned`: 0.02 to 0.9, a factor √2 apart."""

Paths: TypeAlias = dict[str, list[Trajectory]]


@dataclass(frozen=True)
class Condition:
    """One variation of the streaming toy: its data, its control, and how η is chosen."""

    data: Mapping[str, float] = field(default_factory=dict)
    control: str | None = None
    tuned: bool = False


CONDITIONS: Mapping[str, Condition] = {
    "one step size for all": Condition(),
    "gradient norms matched": Condition(control="norm_matched"),
    "step size tuned for each": Condition(tuned=True),
    "2 % outliers": Condition({"outliers": 0.02}),
    "redundant data": Condition({"redundancy": 0.95}),
    "redundant data, tuned": Condition({"redundancy": 0.95}, tuned=True),
}


def compare(
    problem: Problem,
    strategies: Mapping[str, tuple[str, float]],
    *,
    step_size: float,
    steps: int,
    **options: Any,
) -> dict[str, Trajectory]:
    """Paths from the same start on the same rows, by label.

    Args:
        strategies: label -> (strategy, temperature).
        options: of `descend`.
    """
    return {
        label: descend(
            problem, name, temperature=temperature, step_size=step_size, steps=steps, **options
        )
        for label, (name, temperature) in strategies.items()
    }


def check(paths: Mapping[str, Trajectory]) -> list[dict[str, Any]]:
    """One row per path: both sides of the averaged bound, mean C_t, and broken inequalities."""
    return [
        {
            "weights": label,
            "mean F(θ_t)": float(path.mean_loss_S.mean()),
            "bound": float(path.bound_S[-1]),
            "mean C_t": float(path.covariance_S.mean()),
            "smallest C_t": float(path.covariance_S.min()),
            "largest weight": path.max_weight,
            "broken steps": path.violations,
        }
        for label, path in paths.items()
    ]


def tuned(
    problem: Problem,
    strategy: str,
    *,
    steps: int,
    step_sizes: Sequence[float] = STEP_SIZES,
    **options: Any,
) -> Trajectory:
    """The path with the lowest mean test loss over the steps, among all step sizes.

    Sizes are tried from the smallest up, until one makes the losses diverge.
    """
    best: Trajectory | None = None
    for eta in sorted(step_sizes):
        path = descend(problem, strategy, step_size=eta, steps=steps, **options)
        if best is None or path.mean_test_loss < best.mean_test_loss:
            best = path
        if path.diverged:
            break
    if best is None:
        raise ConfigError("no step size to try", remedy="give at least one")
    return best


def run_condition(
    condition: Condition,
    *,
    strategies: Sequence[str] = STRATEGIES,
    temperature: float = 1.0,
    steps: int = 200,
    seeds: Iterable[int] = range(5),
) -> Paths:
    """Strategy -> one path a seed; all strategies see the same rows."""
    paths: Paths = {name: [] for name in strategies}
    for seed in seeds:
        problem = stream(steps=steps, seed=seed, **condition.data)  # pyright: ignore
        for name in strategies:
            options = {"temperature": temperature, "control": condition.control, "steps": steps}
            if condition.tuned:
                path = tuned(problem, name, **options)
            else:
                path = descend(problem, name, step_size=TOY_STEP_SIZE, **options)
            paths[name].append(path)
    return paths


def run_conditions(
    conditions: Mapping[str, Condition] = CONDITIONS, **options: Any
) -> dict[str, Paths]:
    """Every condition by name; options as for `run_condition`."""
    return {name: run_condition(each, **options) for name, each in conditions.items()}


def summarise(results: Mapping[str, Paths]) -> list[dict[str, Any]]:
    """One row per condition: each strategy's mean test loss over the steps, against uniform's.

    A ratio below 1 says that the strategy was ahead of uniform on average over the run.
    """
    rows = []
    for condition, paths in results.items():
        mean = {name: np.mean([p.mean_test_loss for p in own]) for name, own in paths.items()}
        ratios = {
            f"{name} / uniform": float(value / mean["uniform"])
            for name, value in mean.items()
            if name != "uniform"
        }
        rows.append({"condition": condition, "uniform": float(mean["uniform"]), **ratios})
    return rows


@dataclass(frozen=True)
class Exploration:
    """One setting of the explorer: the problem, and the paths of uniform weights, of the strategy,
    and of the strategy with every step as long as uniform weights would make it."""

    problem: LinearRegression
    uniform: Trajectory
    weighted: Trajectory
    norm_matched: Trajectory

    @property
    def test_ratio(self) -> float:
        """Test loss after the last step, over uniform's."""
        return float(self.weighted.test_loss_S[-1] / self.uniform.test_loss_S[-1])

    @property
    def matched_ratio(self) -> float:
        """The same with steps as long as uniform's."""
        return float(self.norm_matched.test_loss_S[-1] / self.uniform.test_loss_S[-1])


def explore(
    *,
    strategy: str = "linupper",
    temperature: float = 1.0,
    steps: int = 200,
    rows: int = 128,
    width: int = 50,
    **data: Any,
) -> Exploration:
    """Descend on one fixed batch with η = 1/L; `data` as for `linear_regression`."""
    problem = linear_regression(rows=rows, width=width, **data)
    step = {"step_size": 1 / problem.smoothness, "steps": steps}
    weighted = {**step, "temperature": temperature}
    return Exploration(
        problem,
        descend(problem, **step),
        descend(problem, strategy, **weighted),
        descend(problem, strategy, control="norm_matched", **weighted),
    )
