"""What a loop tells a person: that text is used up, and why a run ended.

    exhausted(corpus.domains, sampler.epochs_K)
    reason_of(error, folder.path, ranks)          # {"problem": …, "remedy": …}

Shapes: K domains.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from workbench.core import WorkbenchError
from workbench.training.ranks import Ranks

POOL_USED_UP = (
    "every row of the pool was chosen once, or repeats one that was, so the last choice stays; "
    "train fewer steps, select less often, or give the corpus more text (max_domain_mb)"
)


def reason_of(error: BaseException, path: Path, ranks: Ranks) -> dict[str, str]:
    """Fields of the event `failed`."""
    if isinstance(error, WorkbenchError):
        return {"problem": error.problem, "remedy": error.remedy}
    remedy = f"workbench resume {path}"
    if not ranks.lost(error):
        return {"problem": f"{type(error).__name__}: {error}", "remedy": remedy}
    said = str(error).splitlines()[0]
    return {
        "problem": f"another of the {ranks.world} ranks ended, as this one was told: {said}",
        "remedy": f"look for that rank's own error in the output, then {remedy}",
    }


def exhausted(domains: Sequence[str], epochs_K: np.ndarray, *, chosen: bool = False) -> list[str]:
    """A line for each domain whose rows were all drawn at least once, twice, four times …

    Args:
        chosen: the rows are those that a selector chose.
    """
    more = "choose more (selection.share)" if chosen else "give it more text (max_domain_mb)"
    return [
        f"domain '{name}' is exhausted: every row was drawn {_times(epochs)}; lower its share"
        + (" (mixture='natural' follows the choice)" if chosen else "")
        + f", or {more}"
        for name, epochs in zip(domains, epochs_K, strict=True)
        if epochs >= 1
    ]


def _times(epochs: float) -> str:
    count = 2 ** int(np.log2(epochs))
    return "once" if count == 1 else f"{count} times"
