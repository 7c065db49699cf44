"""How far influence scores can be trusted, as checks with plain verdicts.

    report = assess_trust(model, pool_rows_NT, reference_MT, direction)
    print(report)                                  # one sentence a check
    report.require()                               # PolicyError when one failed

Scores can be right and still worthless: on an over-confident checkpoint every scorer, and the
one-step oracle too, prefers noise.  So planted control rows must not outrank real ones.
Shapes: N rows of the pool, M reference rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from workbench.core import PolicyError, Progress, RandomStreams, silent
from workbench.influence.agreement import outranks, spearman
from workbench.influence.direction import Direction, reference_gradient
from workbench.influence.lds import Estimate
from workbench.influence.oracle import one_step_oracle
from workbench.influence.rows import require_rows
from workbench.influence.scores import WayName, score_rows
from workbench.models import Decoder
from workbench.models.linear_maps import linear_maps

MIN_ORACLE_AGREEMENT = 0.99
MIN_CLEAN_SHARE = 0.5
"""Below it the controls outrank the clean rows."""


@dataclass(frozen=True)
class Check:
    """One gate: what was measured, against what, and what to do when it failed."""

    name: str
    value: float
    threshold: float
    passed: bool
    sentence: str
    remedy: str


@dataclass(frozen=True)
class TrustReport:
    """The checks that were made; what was not asked for is not among them."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def verdict(self) -> str:
        """One sentence: trusted, or the first thing that speaks against it."""
        failed = [check for check in self.checks if not check.passed]
        if not failed:
            return f"influence scores pass all {len(self.checks)} checks"
        return f"influence scores are not to be trusted: {failed[0].sentence}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        checks = [asdict(check) for check in self.checks]
        return {"passed": self.passed, "verdict": self.verdict, "checks": checks}

    def require(self, *, despite_failures: bool = False) -> TrustReport:
        """The report itself, or PolicyError when a check failed.

        Args:
            despite_failures: go on anyway; the report still says what failed.
        """
        failed = [check for check in self.checks if not check.passed]
        if failed and not despite_failures:
            raise PolicyError(self.verdict, remedy=failed[0].remedy)
        return self

    def __str__(self) -> str:
        marks = {True: "passed", False: "FAILED"}
        return "\n".join(
            [self.verdict, *(f"{marks[c.passed]}  {c.name}: {c.sentence}" for c in self.checks)]
        )


def assess_trust(
    model: Decoder,
    rows_NT: np.ndarray,
    reference_MT: np.ndarray,
    direction: Direction,
    *,
    oracle_rows: int = 50,
    control_rows: int = 64,
    lds: Estimate | None = None,
    lds_gain: Estimate | None = None,
    repeats: Mapping[str, np.ndarray] | None = None,
    way: WayName = "auto",
    seed: int = 0,
    batch_rows: int = 16,
    device: str = "cpu",
    progress: Progress = silent,
) -> TrustReport:
    """Check scores along a direction on rows of the pool.

    Args:
        rows_NT: int64 (N, T + 1), drawn from the pool at random.
        oracle_rows, control_rows: how many of them each check uses; 0 leaves the check out.
        lds, lds_gain: of a proxy, from `influence.lds`; the gain is over the identity scores.
        repeats: scores of the same rows by other seeds or checkpoints, by name.
    Raises:
        DataError: no rows, or rows of another shape, type or vocabulary.
        PolicyError: nothing to check.
    """
    require_rows(model, rows_NT, "rows of the pool to check scores on", some=True)
    shared: dict[str, Any] = {"batch_rows": batch_rows, "device": device, "progress": progress}
    checks = []
    if oracle_rows:
        rows = rows_NT[:oracle_rows]
        checks.append(oracle_check(model, rows, reference_MT, tuple(direction.matrices), **shared))
    if control_rows:
        rows = rows_NT[:control_rows]
        score_n = score_rows(model, rows, direction, way=way, **shared).score_N
        for name, control in planted_controls(rows, len(model.head_VD), seed=seed).items():
            score_m = score_rows(model, control, direction, way=way, **shared).score_N
            checks.append(control_check(name, score_n, score_m))
    if lds is not None:
        checks.append(lds_check(lds))
    if lds_gain is not None:
        checks.append(lds_gain_check(lds_gain))
    if repeats:
        checks.append(stability_check(repeats))
    if not checks:
        raise PolicyError("no check was asked for", remedy="leave oracle_rows or control_rows on")
    return TrustReport(tuple(checks))


def oracle_check(
    model: Decoder,
    rows_NT: np.ndarray,
    reference_MT: np.ndarray,
    names: tuple[str, ...],
    *,
    batch_rows: int = 16,
    device: str = "cpu",
    progress: Progress = silent,
) -> Check:
    """Identity scores must rank rows as one tiny training step on each does."""
    maps = linear_maps(model, names=names)
    shared: dict[str, Any] = {"batch_rows": batch_rows, "device": device, "progress": progress}
    gradient = Direction(reference_gradient(model, reference_MT, maps, **shared))
    score_N = score_rows(model, rows_NT, gradient, **shared).score_N
    decrease_N = one_step_oracle(model, rows_NT, reference_MT, maps, **shared)
    value = spearman(score_N, decrease_N)
    return Check(
        "one-step oracle",
        value,
        MIN_ORACLE_AGREEMENT,
        value >= MIN_ORACLE_AGREEMENT,
        f"rank correlation {value:.3f} with what one training step on each of {len(rows_NT)} "
        "rows does to the reference loss",
        "score in float32 on the model the direction was made with",
    )


def planted_controls(
    rows_NT: np.ndarray, vocab_size: int, *, seed: int = 0
) -> dict[str, np.ndarray]:
    """Rows nobody should want, as many as given: uniform noise, and the rows' tokens shuffled."""
    rng = RandomStreams(seed)["controls"]
    return {
        "uniform noise": rng.integers(vocab_size, size=rows_NT.shape, dtype=np.int64),
        "shuffled tokens": rng.permuted(rows_NT, axis=1),
    }


def control_check(name: str, clean_n: np.ndarray, control_m: np.ndarray) -> Check:
    """Rows of the pool must not be outranked by a control."""
    share = outranks(clean_n, control_m)
    passed = share >= MIN_CLEAN_SHARE
    sentence = (
        f"rows of the pool score above {name} in {share:.0%} of pairs"
        if passed
        else f"{name} scores above rows of the pool in {1 - share:.0%} of pairs"
    )
    return Check(
        f"control: {name}",
        share,
        MIN_CLEAN_SHARE,
        passed,
        sentence,
        "take an earlier checkpoint or one that is less over-confident; other scorers will not "
        "do better on this one",
    )


def lds_check(estimate: Estimate) -> Check:
    """Scores must predict retraining better than chance."""
    return Check(
        "LDS",
        estimate.value,
        0.0,
        estimate.low > 0,
        f"linear datamodeling score {estimate}",
        "use more reference rows, an ensemble of checkpoints, or more retrainings",
    )


def lds_gain_check(estimate: Estimate) -> Check:
    """Curvature must not predict retraining worse than none does."""
    noise = "" if estimate.low > 0 or estimate.high < 0 else ", within noise"
    return Check(
        "LDS gain over identity",
        estimate.value,
        0.0,
        estimate.value > 0,
        f"linear datamodeling score {estimate.value:+.3f} against identity "
        f"[{estimate.low:.3f}, {estimate.high:.3f}]{noise}",
        "fit the factors on more rows, change the damping, or use the identity preconditioner",
    )


def stability_check(scores: Mapping[str, np.ndarray]) -> Check:
    """Scores of seeds or checkpoints must agree more than chance would.

    Raises:
        PolicyError: fewer than two, or scores of different rows.
    """
    if len(scores) < 2 or len({len(score_N) for score_N in scores.values()}) != 1:
        sizes = {name: len(score_N) for name, score_N in scores.items()}
        raise PolicyError(
            f"stability cannot be judged from {sizes}",
            remedy="give scores of the same rows from at least two seeds or checkpoints",
        )
    pairs = {(a, b): spearman(scores[a], scores[b]) for a, b in combinations(scores, 2)}
    worst = min(pairs, key=lambda pair: pairs[pair])
    chance = 1.96 / np.sqrt(max(len(scores[worst[0]]) - 1, 1))
    return Check(
        "stability",
        pairs[worst],
        float(chance),
        pairs[worst] > chance,
        f"lowest rank correlation {pairs[worst]:.3f}, between '{worst[0]}' and '{worst[1]}'; "
        f"chance alone reaches {chance:.3f}",
        "average the scores of several checkpoints, or use more reference rows",
    )
