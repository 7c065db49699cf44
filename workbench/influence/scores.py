"""Influence scores of candidate rows: how much each would lower the reference loss.

    scores = score_rows(model, rows_NT, direction)             # Scores: score_N, way, reason
    score = scorer(model, corpus, direction, cache_dir=...)    # by sample id, remembered
    score(sample_ids)                                          # float32 (n,), higher is better

score_i = <P, gradient of row i's mean token loss>, P the preconditioned reference gradient
(Zhang et al. 2025, arXiv 2409.16986, with the sign that makes higher more helpful).
Shapes: N rows, B rows of a batch, T tokens, L linear maps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from workbench.core import (
    ConfigError,
    DataError,
    ModelError,
    NumericsError,
    Progress,
    SampleSource,
    silent,
    unknown_name,
)
from workbench.influence.direction import Direction
from workbench.influence.memo import Memo, WeightWatch, content_key
from workbench.influence.ways import Scored, Way, at_rest, difference, forward_mode, ghost
from workbench.models import Decoder
from workbench.models.linear_maps import LinearMaps, linear_maps

WayName = Literal["auto", "ghost", "low_rank", "jvp", "difference"]
Precision = Literal["float32", "bfloat16"]
Scorer = Callable[[np.ndarray], np.ndarray]
"""Sample ids int64 (n,) to influence scores float32 (n,): higher is more helpful."""

RELATIVE_STEP: dict[str, float] = {"float32": 3e-4, "bfloat16": 1e-2}
"""|h P| / |W| of the difference by precision: curvature limits it above, rounding below;
`benchmarks/influence.py` prints what is left of the accuracy."""
DEFAULT_RANK = 64
SHARD_ROWS = 512
"""Rows scored between two writes of a scorer."""


@dataclass(frozen=True)
class Scores:
    """Scores of N rows and how they were found; float32, float64 for a float64 model.

    token_NT: the part of each position; map_N: the part of each linear map by name; both sum to
    score_N and are None unless asked for.
    """

    score_N: np.ndarray
    way: str
    reason: str
    token_NT: np.ndarray | None = None
    map_N: dict[str, np.ndarray] | None = None


@dataclass(frozen=True)
class Chosen:
    """A way and why: estimated cost of each that could be taken, in forward passes a row."""

    way: str
    reason: str
    passes: dict[str, float]


def choose_way(
    model: Decoder,
    maps: LinearMaps,
    *,
    way: WayName = "auto",
    rank: int | None = None,
    losses_known: bool = False,
    parts: bool = False,
) -> Chosen:
    """The cheapest way that gives what is asked for; a named way is taken as it is.

    Exact ways are always candidates; `low_rank` is one when a rank is given, `difference` when
    the rows' losses are known.  Costs count multiplications alone.

    Raises:
        ConfigError: unknown way, or one that cannot give what is asked for.
    """
    if way not in get_args(WayName):
        problem, remedy = unknown_name("way to score", way, get_args(WayName))
        raise ConfigError(problem, remedy=remedy)
    passes = _passes(model, maps, rank=rank, losses_known=losses_known)
    if way != "auto":
        if parts and way not in ("ghost", "low_rank"):
            raise ConfigError(
                f"way = '{way}' knows no parts of tokens or maps", remedy='take way="ghost"'
            )
        return Chosen(way, "named by the caller", passes)
    able = dict(passes)
    if parts:
        able = {name: able[name] for name in able if name in ("ghost", "low_rank")}
    if rank is None:
        able.pop("low_rank", None)
    if not losses_known:
        able.pop("difference", None)
    best = min(able, key=lambda name: able[name])
    others = ", ".join(f"{name} {cost:.2f}" for name, cost in able.items() if name != best)
    reason = f"{best}: {able[best]:.2f} forward passes a row" + (f"; {others}" if others else "")
    return Chosen(best, reason, passes)


def _passes(
    model: Decoder, maps: LinearMaps, *, rank: int | None, losses_known: bool
) -> dict[str, float]:
    """Multiplications in units of a forward pass; equal costs keep the order of preference."""
    forward = model.flops_per_token / 3
    contraction = sum(2 * found.outputs * found.inputs for found in maps) / forward
    width = sum(2 * (found.outputs + found.inputs) for found in maps)
    return {
        "ghost": 2 + contraction,
        "low_rank": 2 + (rank or DEFAULT_RANK) * width / forward,
        "jvp": 2 + contraction,
        "difference": 1.0 if losses_known else 2.0,
    }


def score_rows(
    model: Decoder,
    rows_NT: np.ndarray,
    direction: Direction,
    *,
    way: WayName = "auto",
    rank: int | None = None,
    loss_N: np.ndarray | None = None,
    relative_step: float | None = None,
    tokens: bool = False,
    per_map: bool = False,
    batch_rows: int = 16,
    device: str = "cpu",
    precision: Precision = "float32",
    over_ranks: bool = False,
    progress: Progress = silent,
) -> Scores:
    """Influence scores of rows; the model's weights, gradients and mode stay as they are.

    Args:
        rows_NT: int64 (N, T + 1): inputs are [:, :-1], labels [:, 1:].
        rank: of `low_rank`; `DEFAULT_RANK` when that way is named without one.
        loss_N: the rows' losses, where known, which halve the cost of `difference`.
        relative_step: of `difference`, |h P| / |W|; `RELATIVE_STEP` when None.
        tokens, per_map: also give the part of each position, of each linear map.
        precision: "bfloat16" computes under autocast and adds up in float32.
        over_ranks: every rank calls with the same rows, scores its part, and gets all scores.
    Raises:
        ConfigError: see `choose_way`.
        DataError: rows of the wrong shape.
        ModelError: a map the model does not have, or a model that is not on `device`.
        NumericsError: a score that is not finite.
    """
    _require_rows(rows_NT, loss_N)
    maps = linear_maps(model, names=tuple(direction.matrices))
    chosen = choose_way(
        model,
        maps,
        way=way,
        rank=rank,
        losses_known=loss_N is not None,
        parts=tokens or per_map,
    )
    scoring = _Scoring(model, maps, direction, chosen, rank, relative_step, device, precision)
    return scoring.score(
        rows_NT,
        loss_N,
        wanted=("row_B", *(["token_BT"] * tokens), *(["map_BL"] * per_map)),
        batch_rows=batch_rows,
        over_ranks=over_ranks,
        progress=progress,
    )


def scorer(
    model: Decoder,
    source: SampleSource,
    direction: Direction,
    *,
    way: WayName = "auto",
    rank: int | None = None,
    relative_step: float | None = None,
    batch_rows: int = 16,
    device: str = "cpu",
    precision: Precision = "float32",
    cache_dir: Path | None = None,
    progress: Progress = silent,
) -> Scorer:
    """Scores by sample id, each computed once.

    With `cache_dir` every `SHARD_ROWS` new scores are written as they come, under a key of the
    model's weights, the direction, the corpus and the way, so that work cut short goes on where it
    stopped.  With several ranks all call with the same ids, share the work, and rank 0 writes.

    Raises:
        PolicyError: from the scorer, when the model has changed since it was made.
        DataError: a damaged file in `cache_dir`.
    """
    maps = linear_maps(model, names=tuple(direction.matrices))
    chosen = choose_way(model, maps, way=way, rank=rank)
    scoring = _Scoring(model, maps, direction, chosen, rank, relative_step, device, precision)
    settings = {"way": chosen.way, "rank": rank, "step": scoring.step, "precision": precision}
    key = content_key(model, direction.matrices, source.content_hash, settings)
    memo = Memo(cache_dir / "influence_scores" / key if cache_dir else None)
    watch = WeightWatch(model)

    def score(sample_id_n: np.ndarray) -> np.ndarray:
        watch.require_unchanged()
        missing = memo.missing(sample_id_n)
        for first in range(0, len(missing), SHARD_ROWS):
            ids = missing[first : first + SHARD_ROWS]
            rows_NT = source.tokens(ids)
            found = scoring.score(rows_NT, batch_rows=batch_rows, over_ranks=True)
            memo.add(ids, found.score_N.astype(np.float32))
            done = first + len(ids)
            progress({"stage": "scores", "done": done, "total": len(missing), "way": found.way})
        return memo.get(sample_id_n)

    return score


@dataclass(frozen=True)
class _Scoring:
    """Everything about scoring but the rows."""

    model: Decoder
    maps: LinearMaps
    direction: Direction
    chosen: Chosen
    rank: int | None
    relative_step: float | None
    device: str
    precision: Precision

    def __post_init__(self):
        if self.precision not in RELATIVE_STEP:
            problem, remedy = unknown_name("precision", self.precision, RELATIVE_STEP)
            raise ConfigError(problem, remedy=remedy)
        place = self.model.head_VD.device
        if place.type != torch.device(self.device).type:
            raise ModelError(
                f"the model is on {place.type}, scoring was asked for on {self.device}",
                remedy=f"pass device='{place}', or move the model first",
            )

    @property
    def step(self) -> float:
        return self.relative_step or RELATIVE_STEP[self.precision]

    @cached_property
    def way(self) -> Way:
        matrices = self.direction.matrices
        if self.chosen.way == "low_rank":
            factors = self.direction.low_rank(self.rank or DEFAULT_RANK)
            sides = {name: (f.left_Or, f.right_Ir) for name, f in factors.items()}
            return ghost(self.model, self.maps, sides)
        if self.chosen.way == "jvp":
            return forward_mode(self.model, self.maps, matrices)
        if self.chosen.way == "difference":
            return difference(self.model, self.maps, matrices, relative_step=self.step)
        return ghost(self.model, self.maps, matrices)

    def score(
        self,
        rows_NT: np.ndarray,
        loss_N: np.ndarray | None = None,
        *,
        wanted: tuple[str, ...] = ("row_B",),
        batch_rows: int = 16,
        over_ranks: bool = False,
        progress: Progress = silent,
    ) -> Scores:
        ranks = _Ranks.here() if over_ranks else _Ranks()
        found = self._room(rows_NT, wanted)
        part = ranks.part(len(rows_NT))
        with at_rest(self.model):
            for first in range(part.start, part.stop, batch_rows):
                rows = slice(first, min(first + batch_rows, part.stop))
                scored = self._batch(rows_NT[rows], None if loss_N is None else loss_N[rows])
                for name in wanted:
                    found[name][rows] = getattr(scored, name)
                progress({"stage": "scores", "done": rows.stop, "total": part.stop})
        columns = {name: ranks.total(value).cpu().numpy() for name, value in found.items()}
        _require_finite(columns["row_B"])
        parts_BL = columns.get("map_BL")
        map_N = None if parts_BL is None else dict(zip(self.maps.names, parts_BL.T, strict=True))
        way, reason = self.chosen.way, self.chosen.reason
        return Scores(columns["row_B"], way, reason, columns.get("token_BT"), map_N)

    def _room(self, rows_NT: np.ndarray, wanted: tuple[str, ...]) -> dict[str, Tensor]:
        """Zeros for what is wanted of all rows, so that a sum over ranks puts parts together."""
        widths = {"row_B": (), "token_BT": (rows_NT.shape[1] - 1,), "map_BL": (len(self.maps),)}
        dtype = torch.promote_types(self.model.head_VD.dtype, torch.float32)
        return {
            name: torch.zeros(len(rows_NT), *widths[name], dtype=dtype, device=self.device)
            for name in wanted
        }

    def _batch(self, rows_BT: np.ndarray, loss_B: np.ndarray | None) -> Scored:
        known = None if loss_B is None else torch.from_numpy(loss_B).to(self.device)
        half = self.precision == "bfloat16"
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=half):
            return self.way(torch.from_numpy(rows_BT).to(self.device), known)


@dataclass(frozen=True)
class _Ranks:
    """Which rows this process scores; all of them unless torch.distributed is initialised."""

    rank: int = 0
    world: int = 1

    @classmethod
    def here(cls) -> _Ranks:
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    def part(self, rows: int) -> slice:
        return slice(self.rank * rows // self.world, (self.rank + 1) * rows // self.world)

    def total(self, value: Tensor) -> Tensor:
        if self.world > 1:
            dist.all_reduce(value)
        return value


def _require_rows(rows_NT: np.ndarray, loss_N: np.ndarray | None) -> None:
    if rows_NT.ndim != 2 or rows_NT.shape[1] < 2 or rows_NT.dtype != np.int64:
        raise DataError(
            f"rows are {rows_NT.dtype} of shape {rows_NT.shape}",
            remedy="give int64 rows of shape (N, T + 1)",
        )
    if loss_N is not None and loss_N.shape != (len(rows_NT),):
        raise DataError(
            f"losses of shape {loss_N.shape} for {len(rows_NT)} rows",
            remedy="give one loss per row, in nats per token",
        )


def _require_finite(score_N: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(score_N))
    if len(bad):
        raise NumericsError(
            f"{len(bad)} of {len(score_N)} scores are not finite, first row {bad[0]}",
            remedy="score with precision='float32', or take a checkpoint with finite losses",
        )
