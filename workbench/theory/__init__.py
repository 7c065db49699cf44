"""Convex problems with known optimum: what theory promises of reweighting, checked step by step."""

from workbench.theory.descent import CONTROLS, Trajectory, descend
from workbench.theory.experiments import (
    CONDITIONS,
    STRATEGIES,
    Condition,
    Exploration,
    check,
    compare,
    explore,
    run_condition,
    run_conditions,
    summarise,
    tuned,
)
from workbench.theory.problems import (
    LinearRegression,
    Problem,
    Stream,
    linear_regression,
    stream,
)

__all__ = [
    "CONDITIONS",
    "CONTROLS",
    "STRATEGIES",
    "Condition",
    "Exploration",
    "LinearRegression",
    "Problem",
    "Stream",
    "Trajectory",
    "check",
    "compare",
    "descend",
    "explore",
    "linear_regression",
    "run_condition",
    "run_conditions",
    "stream",
    "summarise",
    "tuned",
]
