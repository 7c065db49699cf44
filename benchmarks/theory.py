"""Time of the theory room: one path of 300 full-batch steps, and one move of the explorer.

    python -m benchmarks.theory

Goals: 300 steps of 128 rows × 200 parameters in less than 0.3 s; a slider answered in 0.2 s.
"""

from __future__ import annotations

import argparse

from benchmarks.measure import compare, record
from workbench.theory import descend, explore, linear_regression

STEPS = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    problem = linear_regression()
    step = {"step_size": 1 / problem.smoothness, "steps": STEPS}
    times = compare(
        {
            "uniform": lambda: descend(problem, **step),
            "linupper": lambda: descend(problem, "linupper", **step),
            "linupper, norm_matched": lambda: descend(
                problem, "linupper", control="norm_matched", **step
            ),
            "linupper, shuffled": lambda: descend(problem, "linupper", control="shuffled", **step),
            "one move of the explorer": lambda: explore(outliers=0.02, noise=0.5, steps=120),
        },
        baseline="uniform",
        rounds=rounds,
    )
    print(f"{STEPS} full-batch steps, 128 × 200; explorer: 3 paths of 120 steps, 128 × 50")
    for name, timing in times.items():
        print(f"  {name:26} {timing}")
    meaning = "median seconds; ratio: time over uniform's"
    print(f"written: {record('theory', {'meaning': meaning, 'times': times}).name}")


if __name__ == "__main__":
    main()
