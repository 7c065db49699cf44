"""What fitting factors will need, said before it starts: passes, mebibytes, operations, minutes.

    room = Room(limit_mib=2048, free_mib=free_mib("cuda"))
    plan = plan_factors(decoder, probe, maps, leaders, kind="ekfac", batches=100, room=room, …)
    print(plan)                     # 2 passes over 100 batches, 1800 MiB at the peak, 3.1 minutes

Maps are taken in groups, as many at a time as fit beside a batch; each group costs its own passes
over the rows.  Nothing is run on a whole batch before it is known to fit.
Shapes: b rows, T tokens, O outputs, I inputs of a map.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.core import ConfigError
from workbench.kernels.kronecker import PRODUCT_MIB
from workbench.kernels.sample_loss import FULL_LOGITS_MIB
from workbench.models.decoder import Decoder
from workbench.models.linear_maps import LinearMap

_EIGH_FLOPS = 9
"""Operations of a symmetric eigendecomposition with vectors, times width cubed (Golub & Van
Loan, section 8.3)."""
_EIGH_BYTES = 32
"""Float64 matrix, vectors and workspace, per element of the widest factor."""
_PROBE_WIDTH = 256


@dataclass(frozen=True)
class Room:
    """Memory on the device beside the model: what the user allows, and what is there.

    keeps_factors: finished factors stay on the device, as on a host without files.
    """

    limit_mib: float | None = None
    free_mib: float = math.inf
    keeps_factors: bool = False

    @property
    def mib(self) -> float:
        return min(self.free_mib, math.inf if self.limit_mib is None else self.limit_mib)

    def __str__(self) -> str:
        if self.mib == self.limit_mib:
            return f"limit_mib = {self.limit_mib:g}"
        return f"{self.free_mib:.1f} MiB of memory are free"


@dataclass(frozen=True)
class FactorPlan:
    """How factors will be fitted and at what cost.

    groups: maps fitted together; peak_mib: on the device, of a batch, the largest group and the
    finished factors that stay there; batch_mib: of that a batch's own; stored_mib: of the finished
    factors; tflops: 10^12 operations of one rank; minutes: estimated from timed probes on the
    device.
    """

    groups: tuple[tuple[LinearMap, ...], ...]
    sweeps: int
    batches: int
    peak_mib: float
    batch_mib: float
    stored_mib: float
    tflops: float
    minutes: float

    @property
    def numbers(self) -> dict[str, float]:
        """All but the maps, by name."""
        return {name: value for name, value in vars(self).items() if name != "groups"}

    def __str__(self) -> str:
        return (
            f"{self.sweeps} passes over {self.batches} batches, {self.peak_mib:.1f} MiB at the "
            f"peak ({self.batch_mib:.1f} MiB of a batch), {self.stored_mib:.1f} MiB of factors, "
            f"{self.tflops:.3g} TFLOP, about {self.minutes:.2g} minutes"
        )


@dataclass(frozen=True)
class _Need:
    """Bytes and operations of a map's statistics; those of inputs once for all with one leader."""

    leader: str
    input_bytes: int
    held_bytes: int
    own_bytes: int
    workspace_bytes: int
    token_flops: float
    eigh_flops: float


def plan_factors(
    model: Decoder,
    probe: Callable[[int], None],
    maps: Sequence[LinearMap],
    leaders: Mapping[str, str],
    *,
    kind: str,
    batches: int,
    batch_shape: tuple[int, int],
    room: Room,
    device: str = "cpu",
) -> FactorPlan:
    """Group the maps so that they fit, and estimate what fitting takes.

    Args:
        probe: one forward and backward pass of so many rows of the largest batch.
        leaders: of `input_leaders`: maps with one input share its statistics.
        batches: of one rank's pass over the rows; batch_shape: (b, T) of the largest.
    Raises:
        ConfigError: a map does not fit even alone, with the numbers.
    """
    batch_tokens = math.prod(batch_shape)
    batch_mib = _held_mib(model, probe, batch_shape[0]) + _logits_mib(model, batch_tokens)
    needs = [_need(found, leaders, kind, batch_shape) for found in maps]
    groups = _grouped(maps, needs, batch_mib, room)
    batch_seconds = _seconds(lambda: probe(batch_shape[0]), device)
    by_name = dict(zip((found.name for found in maps), needs, strict=True))
    parts = [[by_name[found.name] for found in group] for group in groups]
    stored = [_stored_mib(part) for part in parts]
    kept = [sum(stored[:i]) if room.keeps_factors else 0.0 for i in range(len(parts))]
    sweeps = len(groups) * (2 if kind == "ekfac" else 1)
    pass_flops = model.flops_per_token * batch_tokens * 2 / 3
    statistics = sum(need.token_flops for need in needs) * batch_tokens * batches
    eigh_flops = sum(need.eigh_flops for need in needs)
    seconds = (sweeps * batches + statistics / pass_flops) * batch_seconds
    if kind != "adam":
        seconds += eigh_flops * _eigh_seconds(device)
    return FactorPlan(
        groups=groups,
        sweeps=sweeps,
        batches=batches,
        peak_mib=batch_mib + max(k + _mib(part) for k, part in zip(kept, parts, strict=True)),
        batch_mib=batch_mib,
        stored_mib=sum(stored),
        tflops=(sweeps * batches * pass_flops + statistics + eigh_flops) / 1e12,
        minutes=seconds / 60,
    )


def _need(
    found: LinearMap, leaders: Mapping[str, str], kind: str, batch_shape: tuple[int, int]
) -> _Need:
    size = torch.promote_types(found.weight.dtype, torch.float32).itemsize
    outputs, inputs, leader = found.outputs, found.inputs, leaders[found.name]
    squares = 0 if kind == "kfac" else outputs * inputs
    output_basis, input_basis = (0, 0) if kind == "adam" else (outputs**2, inputs**2)
    eigh = _EIGH_BYTES * max(output_basis, input_basis)
    # Row gradients held at a time, and their sum.
    held = min(batch_shape[0] * squares, int(PRODUCT_MIB * 2**20) // size)
    products = size * (squares + max(squares, held))
    leads = leader == found.name
    rotated = output_basis + input_basis if kind == "ekfac" else 0
    return _Need(
        leader=leader,
        input_bytes=size * input_basis,
        held_bytes=size * math.prod(batch_shape) * inputs,
        own_bytes=size * (output_basis + squares),
        workspace_bytes=max(eigh, products),
        token_flops=2.0 * (output_basis + leads * input_basis + rotated + squares),
        eigh_flops=_EIGH_FLOPS * (output_basis**1.5 + leads * input_basis**1.5),
    )


def _stored_mib(needs: Sequence[_Need]) -> float:
    inputs = {need.leader: need.input_bytes for need in needs}
    return (sum(inputs.values()) + sum(need.own_bytes for need in needs)) / 2**20


def _mib(needs: Sequence[_Need]) -> float:
    """Of a group, on the device: statistics, the inputs kept for them, and workspace."""
    held = {need.leader: need.held_bytes for need in needs}
    workspace = max(need.workspace_bytes for need in needs)
    return _stored_mib(needs) + (sum(held.values()) + workspace) / 2**20


def _grouped(
    maps: Sequence[LinearMap], needs: Sequence[_Need], batch_mib: float, room: Room
) -> tuple[tuple[LinearMap, ...], ...]:
    groups: list[list[LinearMap]] = []
    own: list[_Need] = []
    kept_mib = 0.0
    for found, need in zip(maps, needs, strict=True):
        if not own or batch_mib + kept_mib + _mib([*own, need]) > room.mib:
            kept_mib += _stored_mib(own) if room.keeps_factors else 0.0
            if batch_mib + kept_mib + _mib([need]) > room.mib:
                raise _refusal(found, _mib([need]), batch_mib, kept_mib, room)
            groups.append([])
            own = []
        groups[-1].append(found)
        own.append(need)
    return tuple(map(tuple, groups))


def _refusal(
    found: LinearMap, own_mib: float, batch_mib: float, kept_mib: float, room: Room
) -> ConfigError:
    needs = f"'{found.name}' alone needs {own_mib:.1f} MiB of factors beside {batch_mib:.1f} MiB"
    needs += " of a batch" + (f" and {kept_mib:.1f} MiB of finished factors" if kept_mib else "")
    remedies = ["give folder=, where finished factors are kept"] if kept_mib else []
    if room.mib == room.limit_mib:
        remedies.append(f"raise limit_mib to {batch_mib + kept_mib + own_mib + 1:.0f}")
    remedies += ["give smaller batches", "leave the map out with names="]
    return ConfigError(f"{room}, and {needs}", remedy=", or ".join(remedies))


def _held_mib(model: Decoder, probe: Callable[[int], None], rows: int) -> float:
    """MiB that a forward pass of so many rows keeps for its backward pass, beside the weights.

    From passes of one row and of two: a batch that does not fit is foreseen, not tried.  Logits
    are left out, since their number is bounded: see `_logits_mib`.
    """
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tensor.shape[-1:] != (len(model.head_VD),):
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    def mib(count: int) -> float:
        held.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            probe(count)
        return sum(held.values()) / 2**20

    one = mib(1)
    return one if rows == 1 else one + (rows - 1) * (mib(2) - one)


def _logits_mib(model: Decoder, batch_tokens: int) -> float:
    """MiB of logits, probabilities and their sums, as many as exist at a time."""
    return 3 * min(4 * batch_tokens * len(model.head_VD) / 2**20, FULL_LOGITS_MIB)


def _eigh_seconds(device: str) -> float:
    """Seconds per operation of an eigendecomposition."""
    # A generator of its own: planning must not change what a run draws.
    generator = torch.Generator(device).manual_seed(0)
    shape = (_PROBE_WIDTH, _PROBE_WIDTH)
    matrix = torch.rand(shape, dtype=torch.float64, device=device, generator=generator)
    matrix = matrix @ matrix.T
    return _seconds(lambda: torch.linalg.eigh(matrix), device) / (_EIGH_FLOPS * _PROBE_WIDTH**3)


def _seconds(run: Callable[[], object], device: str) -> float:
    started = time.perf_counter()
    run()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
