"""Fit the factors of every linear map on rows of the training distribution.

    factors = fit_factors(decoder, batches, maps, kind="ekfac", seed=0, folder=cache)
    factors.name, factors.settings                 # what they are a function of
    preconditioner("ekfac", factors)

One pass over the rows makes A and S, a second one EK-FAC's eigenvalues; a group of maps at a time
where all together would not fit.  With several ranks each takes every world-th batch.
Shapes: b rows, T tokens, O outputs, I inputs of a map.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from workbench.core import (
    ConfigError,
    DataError,
    ModelError,
    Progress,
    RandomStreams,
    silent,
    unknown_name,
)
from workbench.influence import bill
from workbench.influence.curvature import (
    KINDS,
    SETTINGS_FILE,
    Factors,
    MapFactors,
    content_name,
    finish,
    finished_files,
    kept_cost,
    load_parts,
    save_parts,
)
from workbench.influence.labels import Labels, differentiate, require_labels
from workbench.influence.planner import FactorPlan, Room, plan_factors
from workbench.influence.rows import require_rows
from workbench.kernels.kronecker import add_row_squares, eigenbasis, token_moments
from workbench.kernels.memory import free_mib
from workbench.models.decoder import Decoder
from workbench.models.linear_maps import LinearMap, See, input_leaders, observed

STREAM = "factor labels"


def fit_factors(
    model: Decoder,
    rows: Iterable[np.ndarray],
    maps: Sequence[LinearMap],
    *,
    kind: str = "ekfac",
    labels: Labels = "sampled",
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = silent,
    limit_mib: float | None = None,
    folder: str | Path | None = None,
) -> Factors:
    """Statistics of the curvature of each map, in eigenbases; `planner` says the cost at first.

    The same on any number of ranks, which must share `folder`, and in any grouping, up to
    rounding: labels of a batch depend on the seed and its place alone.

    Args:
        rows: batches of int64 (b, T + 1), full rows; read several times, so no generator.
        kind: "adam", "kfac", or "ekfac", which serves K-FAC as well.
        labels: "sampled" from the model for the true Fisher matrix, or those of the "data".
        device: where the model is; finished factors are on the host.
        limit_mib: memory on the device beside the model; None for what is free.  On the CPU the
            finished factors count as well, unless there is a folder, from which they are mapped.
        folder: where factors are kept by name; those found are used, unfinished ones completed.
    Raises:
        ConfigError: unknown kind or labels; a map that does not fit even alone.
        DataError: no rows, rows that cannot be read twice, or of another shape, type or vocabulary.
        ModelError: no maps.
        NumericsError: a factor that is zero or not finite, naming the map.
    """
    if not maps:
        raise ModelError("there are no maps to fit", remedy="take those of linear_maps(model)")
    data = _Data.read(model, rows)
    settings = _settings(model, maps, data, kind, labels, seed)
    path = None if folder is None else Path(folder) / content_name(settings)
    if path is not None and (path / SETTINGS_FILE).exists():
        found = Factors.load(path)
        _owe(path)
        return found
    fit = _Fit(model, rows, data, kind, labels, seed, device, progress)
    keeps = path is None and torch.device(device).type == "cpu"
    plan = fit.plan(maps, Room(limit_mib, fit.free_mib(), keeps))
    progress({"stage": "plan", "done": 0, "total": plan.sweeps, "plan": str(plan), **plan.numbers})
    parts: dict[str, MapFactors] = {}
    files = []
    for number, group in enumerate(plan.groups):
        if path is None:
            parts |= fit.group(group)
            continue
        files.append(f"maps_{number:04d}_{len(group)}.safetensors")
        parts |= _kept(path / files[-1], group, fit, number)
    if path is not None:
        if fit.rank == 0:
            finish(path, settings, files)
        fit.wait()
    return Factors(settings, parts)


def _settings(
    model: Decoder, maps: Sequence[LinearMap], data: _Data, kind: str, labels: str, seed: int
) -> dict[str, Any]:
    """All that factors are a function of, checked."""
    if kind not in KINDS:
        problem, remedy = unknown_name("kind of factors", kind, KINDS)
        raise ConfigError(problem, remedy=remedy)
    require_labels(labels)
    return {
        "kind": kind,
        "labels": labels,
        "seed": seed if labels == "sampled" else None,
        "rows": data.rows,
        "tokens": data.tokens,
        "maps": [found.name for found in maps],
        "data": data.digest,
        "model": _digest_of(model),
    }


def _owe(path: Path) -> None:
    """Tell what finished factors cost whoever fitted them."""
    files = finished_files(path)
    cost_n2 = np.array([kept_cost(file) for file in files])
    bill.read(f"factors {path.name}", np.arange(len(files)), cost_n2)


def _kept(file: Path, group: Sequence[LinearMap], fit: _Fit, number: int) -> dict[str, MapFactors]:
    """A group's factors from its file, fitted first unless an earlier attempt has."""
    name, id_1 = f"factors {file.parent.name}", np.array([number])
    if file.exists():
        found = load_parts(file)
        if list(found) == [one.name for one in group]:
            bill.read(name, id_1, np.array([kept_cost(file)]))
            return found
    with bill.measured() as spent:
        parts = fit.group(group)
    bill.computed(name, id_1)
    if fit.rank == 0:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_parts(file, parts, cost=(spent.seconds, spent.flops))
    fit.wait()
    return load_parts(file)


@dataclass(frozen=True)
class _Data:
    """What is known of the rows before any of them is used."""

    batches: int
    rows: int
    tokens: int
    largest: np.ndarray
    digest: str

    @classmethod
    def read(cls, model: Decoder, batches: Iterable[np.ndarray]) -> _Data:
        if iter(batches) is batches:
            raise DataError(
                "rows can be read only once", remedy="give a list of batches, not a generator"
            )
        digest = hashlib.blake2b(digest_size=8)
        count = rows = tokens = 0
        largest = np.empty((0, 0), dtype=np.int64)
        for batch in batches:
            require_rows(model, batch, f"rows of batch {count}", some=True)
            digest.update(str(batch.shape).encode() + np.ascontiguousarray(batch).tobytes())
            count, rows = count + 1, rows + len(batch)
            tokens += batch[:, 1:].size
            largest = batch if batch.size > largest.size else largest
        if not tokens:
            raise DataError("there are no rows to fit factors on", remedy="give at least one row")
        return cls(count, rows, tokens, largest, digest.hexdigest())


class _Fit:
    """One fit: its rows, labels and place among the ranks."""

    def __init__(
        self,
        model: Decoder,
        rows: Iterable[np.ndarray],
        data: _Data,
        kind: str,
        labels: str,
        seed: int,
        device: str,
        progress: Progress,
    ):
        self.model, self.rows, self.data = model, rows, data
        self.kind, self.labels, self.device, self.progress = kind, labels, device, progress
        self.random = RandomStreams(seed)
        ranks = dist.is_available() and dist.is_initialized()
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if ranks else (0, 1)
        self.leaders: dict[str, str] = {}

    def free_mib(self) -> float:
        """The least of all ranks: they must agree on groups, or one waits for sums forever."""
        free = torch.tensor(free_mib(self.device), device=self.device)
        if self.world > 1:
            dist.all_reduce(free, op=dist.ReduceOp.MIN)
        return float(free)

    def plan(self, maps: Sequence[LinearMap], room: Room) -> FactorPlan:
        self.leaders = input_leaders(self.model, maps, self._on_device(self.data.largest[:1, :2]))
        batches = -(-self.data.batches // self.world)
        return plan_factors(
            self.model,
            lambda rows: self._differentiate(maps, self.data.largest[:rows], 0, _ignore),
            maps,
            self.leaders,
            kind=self.kind,
            batches=batches,
            batch_shape=self.data.largest[:, 1:].shape,
            room=room,
            device=self.device,
        )

    def group(self, maps: Sequence[LinearMap]) -> dict[str, MapFactors]:
        """Factors of maps that fit together, on the host."""
        leaders = {found.name: self._leader(found, maps) for found in maps}
        tokens_per_row = self.data.tokens / self.data.rows
        if self.kind == "adam":
            squares = self._squares(maps, leaders, {}, {})
            return {
                name: MapFactors(tokens_per_row, squares_OI=square.cpu())
                for name, square in squares.items()
            }
        moments_in, moments_out = self._moments(maps, leaders)
        values_in, vectors_in = self._bases(moments_in, "inputs")
        values_out, vectors_out = self._bases(moments_out, "output gradients")
        squares = {}
        if self.kind == "ekfac":
            squares = self._squares(maps, leaders, vectors_in, vectors_out)
        # Once for all maps of a leader: their files then hold it once as well.
        host_in = {name: vectors.cpu() for name, vectors in vectors_in.items()}
        return {
            name: MapFactors(
                tokens_per_row,
                input_vectors_II=host_in[leader],
                output_vectors_OO=vectors_out[name].cpu(),
                input_values_I=values_in[leader],
                output_values_O=values_out[name],
                squares_OI=squares[name].cpu() if squares else None,
            )
            for name, leader in leaders.items()
        }

    def _leader(self, found: LinearMap, maps: Sequence[LinearMap]) -> str:
        """Of this group: the first map with the same inputs."""
        leader = self.leaders[found.name]
        return next(one.name for one in maps if self.leaders[one.name] == leader)

    def _moments(
        self, maps: Sequence[LinearMap], leaders: dict[str, str]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Sums over all tokens of a a^T by leader and of s s^T by map, over ranks."""
        leading = set(leaders.values())
        inputs = {m.name: self._zeros(m, m.inputs, m.inputs) for m in maps if m.name in leading}
        outputs = {m.name: self._zeros(m, m.outputs, m.outputs) for m in maps}

        def see(found: LinearMap, a_bTI: Tensor, s_bTO: Tensor) -> None:
            if found.name in inputs:
                inputs[found.name] += token_moments(a_bTI)
            outputs[found.name] += token_moments(s_bTO)

        self._sweep(maps, see, "factors")
        return self._total(inputs), self._total(outputs)

    def _squares(
        self,
        maps: Sequence[LinearMap],
        leaders: dict[str, str],
        vectors_in: dict[str, Tensor],
        vectors_out: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """Mean over all rows of the squared gradient in the given bases, or in none."""
        squares = {m.name: self._zeros(m, m.outputs, m.inputs) for m in maps}

        def see(found: LinearMap, a_bTI: Tensor, s_bTO: Tensor) -> None:
            square_OI = squares[found.name]
            if vectors_out:
                a_bTI = a_bTI.to(square_OI.dtype) @ vectors_in[leaders[found.name]]
                s_bTO = s_bTO.to(square_OI.dtype) @ vectors_out[found.name]
            add_row_squares(square_OI, a_bTI, s_bTO)

        self._sweep(maps, see, "eigenvalues")
        return {name: sum_.div_(self.data.rows) for name, sum_ in self._total(squares).items()}

    def _bases(
        self, moments: dict[str, Tensor], of: str
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Eigenvalues of the mean over tokens, and eigenvectors, which take the moments' place."""
        values, vectors = {}, {}
        for name in list(moments):
            mean = moments.pop(name).div_(self.data.tokens)
            values[name], vectors[name] = _basis(mean, f"{of} of {name}")
        return values, vectors

    def _sweep(self, maps: Sequence[LinearMap], see: See, stage: str) -> None:
        for index, batch in enumerate(self.rows):
            if index % self.world == self.rank:
                self._differentiate(maps, batch, index, see)
            event = {"stage": stage, "done": index + 1, "total": self.data.batches}
            self.progress({**event, "first_map": maps[0].name, "maps": len(maps)})

    def _differentiate(
        self, maps: Sequence[LinearMap], batch: np.ndarray, index: int, see: See
    ) -> None:
        rows = self._on_device(batch)
        generator = self.random.at(STREAM, index)
        with observed(self.model, maps, see):
            differentiate(self.model, maps, rows, labels=self.labels, generator=generator)

    def wait(self) -> None:
        """For all ranks: they must agree on which files exist, or one waits for sums forever."""
        if self.world > 1:
            dist.barrier()

    def _total(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.world > 1:
            for value in sums.values():
                dist.all_reduce(value)
        return sums

    def _zeros(self, found: LinearMap, *shape: int) -> Tensor:
        dtype = torch.promote_types(found.weight.dtype, torch.float32)
        return torch.zeros(*shape, dtype=dtype, device=self.device)

    def _on_device(self, batch: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(batch)).to(self.device)


def _basis(moments_DD: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Eigenvalues on the host, eigenvectors as wide as the moments, row by row in memory."""
    # A function of its own, so that no float64 basis outlives it beside the next.
    values_D, vectors_DD = eigenbasis(moments_DD, name)
    return values_D.cpu(), vectors_DD.to(moments_DD).contiguous()


def _ignore(_found: LinearMap, _a: Tensor, _s: Tensor) -> None:
    """The planner's probe keeps nothing."""


def _digest_of(model: Decoder) -> str:
    """Of all weights, as they are now."""
    digest = hashlib.blake2b(digest_size=8)
    for name, parameter in model.named_parameters():
        content = parameter.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(name.encode() + content.numpy().tobytes())
    return digest.hexdigest()
