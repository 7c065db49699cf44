"""Options that are numbers, checked before anything is done with them.

require_number("clusters", clusters, least=1, whole=True)
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from workbench.core import ConfigError


def require_number(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    whole: bool = False,
) -> None:
    """ConfigError unless `value` is a finite number in the range; naming the option."""
    kinds = (int, np.integer) if whole else (int, float, np.number)
    fits = isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)
    if (
        fits
        and (least is None or value >= least)
        and (above is None or value > above)
        and (most is None or value <= most)
    ):
        return
    limits = {"at least": least, "above": above, "at most": most}
    said = " and ".join(f"{word} {limit:g}" for word, limit in limits.items() if limit is not None)
    noun = "a whole number" if whole else "a number"
    raise ConfigError(f"{name} = {value!r}", remedy=f"give {noun} {said}".rstrip())
