"""Shares that sum to 1 while one is moved and others are held.

shares = Shares({"code": 0.5, "prose": 0.3, "noise": 0.2})
shares.move("code", 0.8)                 # {"code": 0.8, "prose": 0.12, "noise": 0.08}
shares.move("code", 0.9, held={"noise"})  # {"code": 0.9, "prose": 0.02, "noise": 0.08}
"""

from __future__ import annotations

from collections.abc import Collection, Mapping


class Shares:
    """Shares by name, in sum 1; `now` holds them."""

    def __init__(self, shares: Mapping[str, float]):
        self.now = dict(shares)
        self._ratio = dict(shares)

    def move(self, name: str, share: float, *, held: Collection[str] = ()) -> dict[str, float]:
        """Give `name` a share as far as there is room; the others that are not held scale with it.

        Others that were squeezed to nothing come back in the proportions they had.
        """
        held = [other for other in self.now if other in held and other != name]
        free = [other for other in self.now if other != name and other not in held]
        room = max(0.0, 1 - sum(self.now[other] for other in held))
        taken = min(max(share, 0.0), room) if free else room
        total = sum(self._ratio[other] for other in free)
        for other in free:
            part = self._ratio[other] / total if total > 0 else 1 / len(free)
            self.now[other] = part * (room - taken)
        self.now[name] = taken
        self._ratio[name] = taken
        if room > taken:
            self._ratio.update(self.now)
        return dict(self.now)
