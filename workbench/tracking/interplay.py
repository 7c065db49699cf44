"""Whether one policy of a run undoes what another does, domain by domain.

    interplay = Interplay(corpus_share)          # share of the corpus's rows, by domain
    interplay.add(step_event)
    for conflict in interplay.conflicts("exp3"): print(conflict)

How much a domain counts in a step is a product: its share of the corpus × how the selector moved it
× how often the mixer samples it × the mean weight of its samples.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

SLOTS = ("selector", "mixer", "reweighter")
WINDOW_STEPS = 50
"""Steps over which what a policy does is averaged."""
FEWEST_STEPS = 20
LEAST_MOVE = math.log(1.1)
"""A policy moves a domain when it changes its share by a tenth, either way."""
LEAST_UNDONE = 0.25
"""Part of a move that has to be taken back for it to be said."""
CERTAIN_ERRORS = 3.0
"""Standard errors by which a mean weight must lie away from 1."""
_FOLLOW = "mixer='static' with mixture='natural' follows the choice"
_KEEP_CHOICE = {
    "static": "mixture='natural' follows the choice, floor=0 leaves more of it",
    "regmix": f"its small runs knew no choice: search again on the chosen rows; {_FOLLOW}",
    **dict.fromkeys(
        ("acodm", "direct"),
        f"it does not see the choice: lower entropy and floor, which pull to uniform; {_FOLLOW}",
    ),
}
"""What keeps more of a selector's choice, by mixer."""
_KEEP_MIXTURE = {
    "static": "or ask for the shares that should be left after weighing (mixture)",
    "regmix": "or fit the mixture on small runs that have this reweighter",
}
"""What keeps more of a mixture beside softer weights, by mixer."""


@dataclass(frozen=True)
class Conflict:
    """A domain that one policy moves and another moves back.

    moved: factor by which `mover` changed the domain's share, from `before` to `after`;
    returned: factor by which `undoer` changed it again; undone: part of the move taken back, on
    the scale of logarithms; above 1 when the domain now counts for less (or more) than before;
    mixer: the name of the one in use, which decides what helps.
    """

    domain: str
    mover: str
    undoer: str
    before: float
    after: float
    returned: float
    steps: int
    mixer: str

    @property
    def moved(self) -> float:
        return self.after / self.before

    @property
    def undone(self) -> float:
        return -math.log(self.returned) / math.log(self.moved)

    @property
    def key(self) -> tuple[str, str, str]:
        return self.domain, self.mover, self.undoer

    def __str__(self) -> str:
        verb = "raised" if self.moved > 1 else "lowered"
        return (
            f"domain '{self.domain}': the {self.mover} {verb} its share from {self.before:.1%} to "
            f"{self.after:.1%}, the {self.undoer} {self._doing()}: it counts "
            f"{self.after * self.returned:.1%}, {self.undone:.0%} of the change undone (mean of "
            f"{self.steps} steps); {self._remedy()}"
        )

    def _doing(self) -> str:
        if self.undoer == "mixer":
            return f"samples it {self.returned:.2f} times as often as it was chosen"
        return f"gives its samples a mean weight of {self.returned:.2f}"

    def _remedy(self) -> str:
        if self.undoer == "mixer":
            learned = f"it does not see the choice: floor=0 leaves more of it; {_FOLLOW}"
            return _KEEP_CHOICE.get(self.mixer, learned)
        beside = f"or leave this to one of the two ({self.mover}, reweighter)"
        if self.mover == "mixer":
            learned = f"{beside}: '{self.mixer}' moves on by its own signal and is taken back again"
            beside = _KEEP_MIXTURE.get(self.mixer, learned)
        return f"raise the reweighter's temperature or cap its weights (max_weight), {beside}"


class Interplay:
    """Reads step events in order; says what holds over the last `WINDOW_STEPS` of them.

    Args:
        corpus_share: share of the corpus's rows, by domain.
    """

    def __init__(self, corpus_share: Mapping[str, float]):
        self._domains = tuple(corpus_share)
        self._corpus_K = np.array(list(corpus_share.values()))
        self._first: list[np.ndarray] = []
        self._steps: dict[str, int] = dict.fromkeys(SLOTS, 0)
        self._seen: deque[tuple[np.ndarray, np.ndarray, np.ndarray]] = deque(maxlen=WINDOW_STEPS)

    def add(self, event: Mapping[str, Any]) -> None:
        """A `step` event; what selector and mixer do is followed anew where another pool begins.

        Events of an older workbench, without shares of the pool, say nothing.
        """
        if "pool_share" not in event:
            return
        pool_K, share_K = self._of(event["pool_share"]), self._of(event["effective_mixture"])
        # What is on offer moves the shares of a mixer that does nothing.
        if self._seen and not np.array_equal(pool_K, self._seen[-1][0], equal_nan=True):
            self.restart(("selector", "mixer"))
        if len(self._first) < FEWEST_STEPS:
            self._first.append(share_K)
        self._seen.append((pool_K, share_K, self._of(event["sample_weight"])))
        for slot in SLOTS:
            self._steps[slot] += 1

    def restart(self, slots: Collection[str] = SLOTS) -> None:
        """Policies were changed: what came before says nothing of what they do, only of others."""
        self._steps |= dict.fromkeys(slots, 0)
        if "mixer" in slots:
            self._first.clear()

    def conflicts(self, mixer: str) -> list[Conflict]:
        """What is undone at present, the most undone first.

        Args:
            mixer: the name of the one in use.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            found = [*self._mixer_undoes_selector(mixer), *self._weights_undo(mixer)]
        return sorted(found, key=lambda conflict: -conflict.undone)

    def _of(self, by_domain: Mapping[str, float]) -> np.ndarray:
        return np.array([by_domain.get(name, np.nan) for name in self._domains])

    def _window(self, *slots: str) -> tuple[np.ndarray, ...] | None:
        """Pool, shares and weights, (S, K) each, of the last steps in which none of `slots` was
        changed; None while they are too few."""
        steps = min(len(self._seen), *(self._steps[slot] for slot in slots))
        if steps < FEWEST_STEPS:
            return None
        return tuple(np.stack(part)[-steps:] for part in zip(*self._seen, strict=True))

    def _mixer_undoes_selector(self, mixer: str) -> list[Conflict]:
        if (window := self._window("selector", "mixer")) is None:
            return []
        pool_SK, share_SK, _ = window
        pool_K, share_K = pool_SK.mean(axis=0), share_SK.mean(axis=0)
        moved = (self._corpus_K, pool_K, share_K / pool_K)
        return self._conflicts("selector", "mixer", *moved, mixer, len(pool_SK))

    def _weights_undo(self, mixer: str) -> list[Conflict]:
        found = []
        if (window := self._window("mixer", "reweighter")) is not None:
            pool_SK, share_SK, weight_SK = window
            start_K = self._mixer_start_K(pool_SK, share_SK)
            moved = (start_K, share_SK.mean(axis=0), _certain_weight_K(weight_SK))
            found += self._conflicts("mixer", "reweighter", *moved, mixer, len(pool_SK))
        if (window := self._window("selector", "reweighter")) is not None:
            pool_SK, _, weight_SK = window
            moved = (self._corpus_K, pool_SK.mean(axis=0), _certain_weight_K(weight_SK))
            found += self._conflicts("selector", "reweighter", *moved, mixer, len(pool_SK))
        return found

    def _mixer_start_K(self, pool_SK: np.ndarray, share_SK: np.ndarray) -> np.ndarray:
        """The shares that the mixer moved from: its first ones, or the pool's if it stays there."""
        first_FK = np.stack(self._first)
        if np.allclose([*first_FK, *share_SK], first_FK[0], atol=0, equal_nan=True):
            return pool_SK.mean(axis=0)
        # A learner's first mixtures may be drawn at random: no single one is where it started.
        return first_FK.mean(axis=0)

    def _conflicts(
        self,
        mover: str,
        undoer: str,
        before_K: np.ndarray,
        after_K: np.ndarray,
        returned_K: np.ndarray,
        mixer: str,
        steps: int,
    ) -> list[Conflict]:
        moved_K, back_K = np.log(after_K / before_K), np.log(returned_K)
        clear_K = np.isfinite(moved_K) & np.isfinite(back_K)
        clear_K &= (np.abs(moved_K) >= LEAST_MOVE) & (np.abs(back_K) >= LEAST_MOVE)
        clear_K &= -back_K / moved_K >= LEAST_UNDONE
        return [
            Conflict(
                self._domains[k],
                mover,
                undoer,
                float(before_K[k]),
                float(after_K[k]),
                float(returned_K[k]),
                steps,
                mixer,
            )
            for k in np.flatnonzero(clear_K)
        ]


def _certain_weight_K(weight_SK: np.ndarray) -> np.ndarray:
    """Mean weight of each domain's samples; 1 where that is within its standard errors."""
    count_K = np.isfinite(weight_SK).sum(axis=0)
    mean_K = np.nansum(weight_SK, axis=0) / count_K
    spread_K = np.nansum((weight_SK - mean_K) ** 2, axis=0) / np.maximum(count_K - 1, 1)
    unsure_K = np.abs(mean_K - 1) <= CERTAIN_ERRORS * np.sqrt(spread_K / count_K)
    return np.where(unsure_K | (count_K < 2), 1.0, mean_K)
