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
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

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
from workbench.influence.bill import measured
from workbench.influence.calibration import (
    PROBE_ROWS,
    TOLERANCE,
    agreement,
    best_step,
    probe_indices,
)
from workbench.influence.choice import DEFAULT_RANK, EXACT_WAYS, Chosen, WayName, choose_way
from workbench.influence.direction import Direction, require_rank
from workbench.influence.memo import Memo, WeightWatch, content_key
from workbench.influence.rows import require_batch_rows, require_rows
from workbench.influence.ways import (
    Scored,
    Way,
    difference,
    forward_mode,
    ghost,
    precise_loss,
)
from workbench.models import Decoder
from workbench.models.linear_maps import LinearMaps, at_rest, linear_maps

Precision = Literal["float32", "bfloat16"]
Scorer = Callable[[np.ndarray], np.ndarray]
"""Sample ids int64 (n,) to influence scores float32 (n,): higher is more helpful."""

SHARD_ROWS = 512
"""Rows scored between two writes of a scorer."""


@dataclass(frozen=True)
class Scores:
    """Scores of N rows and how they were found; float32, float64 for a float64 model.

    token_NT: the part of each position; map_N: the part of each linear map by name; both sum to
    score_N and are None unless asked for.  relative_step: of a difference.
    """

    score_N: np.ndarray
    way: str
    reason: str
    token_NT: np.ndarray | None = None
    map_N: dict[str, np.ndarray] | None = None
    relative_step: float | None = None


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
        way: "auto" takes an approximation only where probe rows show it to be close enough, see
            `calibration`; `Scores.reason` says what they showed.
        loss_N: from `row_losses`, halves the cost of `difference`; float32 sums are too coarse.
        relative_step: of `difference`, |h P| / |W|; measured on probe rows when None.
        tokens, per_map: also give the part of each position, of each linear map.
        precision: "bfloat16" computes under autocast and adds up in float32.
        over_ranks: every rank calls with the same rows, scores its part, and gets all scores.
    Raises:
        ConfigError: see `choose_way`; a rank or batch below 1, a step that is not above 0.
        DataError: rows of another shape or type, or with ids that the model does not know.
        ModelError: a map the model does not have or that has another shape, or a model that is
            not on `device`.
        NumericsError: a score that is not finite.
    """
    require_rows(model, rows_NT)
    require_batch_rows(batch_rows)
    _require_losses(loss_N, len(rows_NT))
    maps = linear_maps(model, names=tuple(direction.matrices))
    chosen = choose_way(
        model,
        maps,
        way=way,
        rank=rank,
        losses_known=loss_N is not None,
        parts=tokens or per_map,
        probe_share=min(1.0, PROBE_ROWS / max(1, len(rows_NT))),
    )
    scoring = _Scoring(model, maps, direction, chosen, rank, relative_step, device, precision)
    if way == "auto" or relative_step is None:
        scoring = _measured(scoring, rows_NT, loss_N, batch_rows, by_name=way != "auto")
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
    cache_dir: Path | str | None = None,
    progress: Progress = silent,
) -> Scorer:
    """Scores by sample id, each computed once.

    With `cache_dir` every `SHARD_ROWS` new scores are written as they come, under a key of the
    model's weights, the direction, the corpus and the way, so that work cut short goes on where it
    stopped.  With several ranks all call with the same ids, share the work, and rank 0 writes.

    Raises:
        ConfigError: as `score_rows`; `difference` without `relative_step`: there are no rows yet
            to measure it on.
        ModelError: as `score_rows`.
        PolicyError: from the scorer, when the model has changed since it was made.
        DataError: a damaged file in `cache_dir`; from the scorer, rows as in `score_rows`.
    """
    require_batch_rows(batch_rows)
    if way == "difference" and relative_step is None:
        raise ConfigError(
            "a scorer by 'difference' needs relative_step",
            remedy="score some rows with score_rows, and take its relative_step",
        )
    maps = linear_maps(model, names=tuple(direction.matrices))
    # "auto" takes no approximation here: there are no rows yet to measure it on.
    chosen = choose_way(model, maps, way=way, rank=None if way == "auto" else rank)
    scoring = _Scoring(model, maps, direction, chosen, rank, relative_step, device, precision)
    settings = {"way": chosen.way, "rank": rank, "step": relative_step, "precision": precision}
    key = content_key(model, direction.matrices, source.content_hash, settings)
    memo = Memo(Path(cache_dir) / "influence_scores" / key if cache_dir else None)
    watch = WeightWatch(model)

    def score(sample_id_n: np.ndarray) -> np.ndarray:
        watch.require_unchanged()
        missing = memo.missing(sample_id_n)
        for first in range(0, len(missing), SHARD_ROWS):
            ids = missing[first : first + SHARD_ROWS]
            rows_NT = source.tokens(ids)
            require_rows(model, rows_NT, "rows of the source")
            with measured() as spent:
                found = scoring.score(rows_NT, batch_rows=batch_rows, over_ranks=True)
            memo.add(ids, found.score_N.astype(np.float32), spent)
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
        if self.precision not in TOLERANCE:
            problem, remedy = unknown_name("precision", self.precision, TOLERANCE)
            raise ConfigError(problem, remedy=remedy)
        if self.rank is not None:
            require_rank(self.rank)
        step = self.relative_step
        if step is not None and not 0 < step < float("inf"):
            raise ConfigError(
                f"relative_step is {step}", remedy="give a positive one, or None to measure it"
            )
        place = self.model.head_VD.device
        if place.type != torch.device(self.device).type:
            raise ModelError(
                f"the model is on {place.type}, scoring was asked for on {self.device}",
                remedy=f"pass device='{place}', or move the model first",
            )
        for found in self.maps:
            given, own = self.direction.matrices[found.name].shape, (found.outputs, found.inputs)
            if tuple(given) != own:
                raise ModelError(
                    f"the direction of layer '{found.name}' is {tuple(given)}, its weight {own}",
                    remedy="make the direction for this model",
                )

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
            step = cast(float, self.relative_step)
            return difference(self.model, self.maps, matrices, relative_step=step)
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
        step = self.relative_step if way == "difference" else None
        return Scores(columns["row_B"], way, reason, columns.get("token_BT"), map_N, step)

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


def _measured(
    scoring: _Scoring,
    rows_NT: np.ndarray,
    loss_N: np.ndarray | None,
    batch_rows: int,
    *,
    by_name: bool,
) -> _Scoring:
    """The same with its step and accuracy measured, or, unless taken by name, an exact way."""
    chosen = scoring.chosen
    if chosen.way in EXACT_WAYS or (by_name and chosen.way == "low_rank"):
        return scoring
    picked = probe_indices(len(rows_NT))
    known_n = None if loss_N is None else loss_N[picked]

    def score(**changes: Any) -> np.ndarray:
        changed = replace(scoring, **changes)
        return changed.score(rows_NT[picked], known_n, batch_rows=batch_rows).score_N

    exact = replace(chosen, way="ghost")
    exact_n = score(chosen=exact, precision="float32")
    if chosen.way == "difference" and scoring.relative_step is None:
        found = best_step(lambda step: score(relative_step=step), exact_n)
    else:
        found = agreement(score(), exact_n, scoring.relative_step)
    if by_name or found.close_enough(scoring.precision):
        taken = replace(chosen, reason=f"{chosen.reason}; {found}")
        return replace(scoring, chosen=taken, relative_step=found.relative_step)
    reason = f"ghost, exact: {chosen.way} is not close enough, {found}"
    return replace(scoring, chosen=replace(exact, reason=reason))


def row_losses(
    model: Decoder,
    rows_NT: np.ndarray,
    *,
    batch_rows: int = 16,
    device: str = "cpu",
    precision: Precision = "float32",
) -> np.ndarray:
    """Mean loss per token of each row for `score_rows(loss_N=)`, float64 (N,); one forward pass."""
    require_rows(model, rows_NT)
    require_batch_rows(batch_rows)
    half = precision == "bfloat16"
    found = []
    with (
        at_rest(model),
        torch.no_grad(),
        torch.autocast(torch.device(device).type, torch.bfloat16, enabled=half),
    ):
        for first in range(0, len(rows_NT), batch_rows):
            part = torch.from_numpy(rows_NT[first : first + batch_rows]).to(device)
            found.append(precise_loss(model, (), part).cpu())
    return torch.cat(found).numpy()


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


def _require_losses(loss_N: np.ndarray | None, rows: int) -> None:
    if loss_N is not None and loss_N.shape != (rows,):
        raise DataError(
            f"losses of shape {loss_N.shape} for {rows} rows",
            remedy="give one loss per row, in nats per token",
        )


def _require_finite(score_N: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(score_N))
    if len(bad):
        raise NumericsError(
            f"{len(bad)} of {len(score_N)} scores are not finite, first row {bad[0]}",
            remedy="score with precision='float32', or take a checkpoint with finite losses",
        )
