"""The samples of one step as the browser and a table show them.

    samples = step_samples(run.ledger.step(120), 120, domains=["prose", "code"])
    rows = extremes(samples.rows, Texts(corpus))

Shapes: B rows of the step, K domains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from workbench.core import WorkbenchError
from workbench.plots.samples import histogram, places
from workbench.plots.theme import style
from workbench.training import Run, prepared_corpus

if TYPE_CHECKING:
    import pandas as pd

SHOWN_ROWS = 4
SHOWN_CHARACTERS = 1200
SHOWN_ORIGINS = 3
EXCERPT_CHARACTERS = 200


class Readable(Protocol):
    """What gives rows their text; `data.PreparedCorpus` is such."""

    def text(self, sample_id: int) -> str: ...
    def provenance(self, sample_id: int) -> list[dict[str, Any]]: ...


class Texts:
    """Text and origin of rows, or the reason why there is none."""

    def __init__(self, corpus: Readable | None, missing: WorkbenchError | None = None):
        self._corpus = corpus
        self.missing = missing

    def read(self, sample_id: int) -> dict[str, Any]:
        """`text`, cut to `SHOWN_CHARACTERS`, and `origin`; both None where there is no corpus."""
        if self._corpus is None:
            return {"text": None, "origin": None}
        text = self._corpus.text(sample_id)
        cut = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " …"
        origins = [str(each["origin"]) for each in self._corpus.provenance(sample_id)]
        more = f" and {len(origins) - SHOWN_ORIGINS} more" if len(origins) > SHOWN_ORIGINS else ""
        return {"text": cut, "origin": ", ".join(origins[:SHOWN_ORIGINS]) + more}

    def excerpt(self, sample_id: int) -> str:
        """The beginning of a row's text in one line; empty where there is no corpus."""
        text = " ".join((self.read(sample_id)["text"] or "").split())
        return text if len(text) <= EXCERPT_CHARACTERS else text[:EXCERPT_CHARACTERS] + " …"


def texts_of(run: Run, corpus: Readable | None = None) -> Texts:
    """Texts of a run's rows, from `corpus` or the prepared corpus the run was started on."""
    try:
        return Texts(corpus or prepared_corpus(run))
    except WorkbenchError as missing:
        return Texts(None, missing)


@dataclass(frozen=True)
class StepSamples:
    """The rows of one step that have a finite loss, and how many have none."""

    step: int
    rows: pd.DataFrame
    domains: list[str]
    left_out: int

    @property
    def effective_rows(self) -> float:
        """(Σ w)² / Σ w²: as many rows of equal weight would vary as much."""
        weight_B = self.rows["weight"].to_numpy(float)
        squares = float((weight_B**2).sum())
        return float(weight_B.sum() ** 2 / squares) if squares > 0 else 0.0

    @property
    def correlation(self) -> float | None:
        """Pearson's of weight and loss; None where one of them is constant."""
        loss_B, weight_B = (self.rows[name].to_numpy(float) for name in ("loss", "weight"))
        if len(loss_B) < 2 or np.ptp(loss_B) == 0 or np.ptp(weight_B) < 1e-6:
            return None
        return float(np.corrcoef(loss_B, weight_B)[0, 1])


def step_samples(rows: pd.DataFrame, step: int, domains: list[str]) -> StepSamples:
    """Ledger rows of one step; a domain not among `domains` is added behind them."""
    finite = rows.loc[np.isfinite(rows["loss"]) & np.isfinite(rows["weight"])]
    known = domains + sorted(set(rows["domain"]) - set(domains))
    return StepSamples(step, finite.reset_index(drop=True), known, len(rows) - len(finite))


def extremes(samples: StepSamples, texts: Texts, top: int = SHOWN_ROWS) -> dict[str, list[dict]]:
    """The `heaviest` and `lightest` rows with their text; of equal weights the more extreme loss.

    No row is in both lists, so a step of few rows has fewer than `top` of each.
    """
    order = np.lexsort((samples.rows["loss"], samples.rows["weight"]))
    top = min(top, len(order) // 2)
    chosen = {"heaviest": order[::-1][:top], "lightest": order[:top]}
    return {side: [_told(samples, i, texts) for i in rows] for side, rows in chosen.items()}


def _told(samples: StepSamples, place: int, texts: Texts) -> dict[str, Any]:
    row = samples.rows.iloc[int(place)]
    return {
        "sample": str(row["sample_id"]),
        "domain": samples.domains.index(row["domain"]),
        "loss": round(float(row["loss"]), 4),
        "weight": round(float(row["weight"]), 4),
        **texts.read(int(row["sample_id"])),
    }


def table(samples: StepSamples, texts: Texts, top: int = SHOWN_ROWS) -> pd.DataFrame:
    """Heaviest and lightest rows for a reader without the widget, their text in one line each."""
    import pandas as pd

    shown = [
        {
            "": f"{side} {place}",
            "domain": samples.domains[row["domain"]],
            "weight": row["weight"],
            "loss": row["loss"],
            "text": texts.excerpt(int(row["sample"])),
        }
        for side, rows in extremes(samples, texts, top).items()
        for place, row in enumerate(rows, 1)
    ]
    return pd.DataFrame(shown)


def drawn(samples: StepSamples, texts: Texts) -> dict[str, Any]:
    """Everything the browser draws of a step but its curves; numbers rounded to 4 digits."""
    rows, domains = samples.rows, samples.domains
    place_B = places(rows["domain"], domains)
    return {
        "step": samples.step,
        "rows": len(rows),
        "left_out": samples.left_out,
        "domains": [
            {"name": name, "colour": style(k).colour, "marker": style(k).symbol}
            for k, name in enumerate(domains)
        ],
        # As text: ids are 64 bits wide, numbers of the browser 53.
        "sample": rows["sample_id"].astype(str).tolist(),
        "domain": place_B.tolist(),
        "loss": np.round(rows["loss"].to_numpy(float), 4).tolist(),
        "weight": np.round(rows["weight"].to_numpy(float), 4).tolist(),
        "histograms": [
            _histogram("Losses", "nats per token", rows["loss"], place_B, len(domains)),
            _histogram("Weights", "mean 1", rows["weight"], place_B, len(domains), zero=True),
        ],
        "effective_rows": samples.effective_rows,
        "correlation": samples.correlation,
        "missing": texts.missing
        and {"problem": texts.missing.problem, "remedy": texts.missing.remedy},
        **extremes(samples, texts),
    }


def _histogram(
    title: str, unit: str, values: Any, place_B: np.ndarray, domains: int, *, zero: bool = False
) -> dict[str, Any]:
    edges, counts_K = histogram(values.to_numpy(float), place_B, domains, from_zero=zero)
    return {
        "title": title,
        "unit": unit,
        "edges": np.round(edges, 4).tolist(),
        "counts": counts_K.tolist(),
    }
