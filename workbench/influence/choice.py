"""Which way of scoring is cheapest among those that give what is asked for.

    chosen = choose_way(model, maps, rank=64)          # Chosen: way, reason, passes of each

Costs are multiplications in units of a forward pass of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from workbench.core import ConfigError, unknown_name
from workbench.influence.calibration import PROBE_PASSES
from workbench.models import Decoder
from workbench.models.linear_maps import LinearMaps

WayName = Literal["auto", "ghost", "low_rank", "jvp", "difference"]
EXACT_WAYS = ("ghost", "jvp")
DEFAULT_RANK = 64


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
    probe_share: float = 0.0,
) -> Chosen:
    """The cheapest way that gives what is asked for; a named way is taken as it is.

    Exact ways are always candidates; `low_rank` is one when a rank is given, `difference` when
    the rows' losses are known.  Costs count multiplications alone.  Whether an approximation is
    close enough is not known here: see `score_rows`.

    Args:
        probe_share: probe rows per row to score, whose cost falls on approximations.

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
    probe = {"low_rank": able["ghost"], "difference": PROBE_PASSES}
    able = {name: cost + probe_share * probe.get(name, 0) for name, cost in able.items()}
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
