"""What each step showed, collected on the device and read back a few steps at a time.

    recorder.add(stepped, batch, mixture, supply, lap, …)         # hot loop: keeps references only
    events = recorder.flush()                                    # one transfer for all of them

Shapes: S steps waiting, B rows of a step, K domains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from workbench.core import IGNORE_INDEX, Batch, Mixture, NumericsError, Signal, StepOutcome
from workbench.data import PreparedCorpus
from workbench.data.sampler import Supply
from workbench.mixing.signals import domain_means
from workbench.tracking import RunFolder
from workbench.training.clock import Lap
from workbench.training.selecting import Choice
from workbench.training.step import Stepped

EXCERPT_CHARACTERS = 80


@dataclass(frozen=True)
class _Waiting:
    stepped: Stepped
    batch: Batch
    mixture: Mixture
    supply: Supply
    lap: Lap
    diagnostics: Mapping[str, Any]
    steps_left: int
    choice: Choice | None


class Recorder:
    """Turns finished steps into events and ledger rows of a run folder."""

    def __init__(self, folder: RunFolder, corpus: PreparedCorpus):
        self._folder = folder
        self._corpus = corpus
        self._waiting: list[_Waiting] = []
        self._rows: list[dict[str, np.ndarray]] = []

    def add(
        self,
        stepped: Stepped,
        batch: Batch,
        mixture: Mixture,
        supply: Supply,
        lap: Lap,
        diagnostics: Mapping[str, Any],
        steps_left: int,
        choice: Choice | None = None,
    ) -> None:
        """Keep a step, what it took, and the mixer's own diagnostics of it, until `flush`."""
        entry = _Waiting(stepped, batch, mixture, supply, lap, diagnostics, steps_left, choice)
        self._waiting.append(entry)

    @property
    def ledger_steps(self) -> int:
        """Steps whose ledger rows are read back but not yet written."""
        return len(self._rows)

    def flush(self) -> list[dict[str, Any]]:
        """Read the waiting steps back and write their events.

        Raises:
            NumericsError: a step's loss or gradient was not finite; names the rows and their text.
                Everything up to and including that step is recorded first.
        """
        if not self._waiting:
            return []
        loss_SB, weight_SB, valid_SB, norm_S = self._read_back()
        waiting, self._waiting = self._waiting, []
        events, failed = [], None
        for i, entry in enumerate(waiting):
            columns = self._ledger_rows(entry, loss_SB[i], weight_SB[i])
            self._rows.append(columns)
            event = _step_event(entry, loss_SB[i], weight_SB[i], valid_SB[i], norm_S[i])
            event["epochs_projected"] = self._epochs_projected(entry)
            events.append(event)
            bad_B = valid_SB[i] & ~np.isfinite(loss_SB[i])
            if bad_B.any() or not np.isfinite(norm_S[i]):
                failed = (entry, bad_B)
                break
        events = self._folder.append_many(events)
        if failed:
            raise self._non_finite(*failed)
        return events

    def flush_ledger(self) -> None:
        """Write the ledger rows read back so far as one part."""
        if not self._rows:
            return
        names = dict.fromkeys(name for rows in self._rows for name in rows)
        columns = {
            name: np.concatenate([rows.get(name, _unknown(rows["step"])) for rows in self._rows])
            for name in names
        }
        first, last = int(self._rows[0]["step"][0]), int(self._rows[-1]["step"][0])
        self._folder.write_ledger(columns, first, last)
        self._rows = []

    def _epochs_projected(self, entry: _Waiting) -> dict[str, float]:
        """How often each domain's rows will have been drawn if its share stays as it is."""
        supply, rows = entry.supply, entry.steps_left * len(entry.batch)
        rest_K = rows * supply.share_K / np.maximum(supply.rows_K, 1)
        return _by_domain(entry.mixture, supply.epochs_K + rest_K)

    def _read_back(self) -> tuple[np.ndarray, ...]:
        outcomes = [entry.stepped.outcome for entry in self._waiting]
        packed_S3B = torch.stack(
            [torch.stack([o.loss_B, o.weight_B, o.valid_B.float()]) for o in outcomes]
        )
        norm_S = torch.stack([entry.stepped.grad_norm.detach() for entry in self._waiting])
        host_S3B = packed_S3B.cpu().numpy()
        return host_S3B[:, 0], host_S3B[:, 1], host_S3B[:, 2] > 0, norm_S.float().cpu().numpy()

    def _ledger_rows(
        self, entry: _Waiting, loss_B: np.ndarray, weight_B: np.ndarray
    ) -> dict[str, np.ndarray]:
        names = np.array(self._corpus.domains, dtype=object)
        judged = entry.choice.columns(entry.batch.sample_id_B) if entry.choice else {}
        return {
            "step": np.full(len(entry.batch), entry.stepped.outcome.step, dtype=np.int32),
            "sample_id": entry.batch.sample_id_B,
            "domain": names[entry.batch.domain_B],
            "probability": entry.batch.probability_B.astype(np.float32),
            "loss": loss_B,
            "weight": weight_B,
            **judged,
        }

    def _non_finite(self, entry: _Waiting, bad_B: np.ndarray) -> NumericsError:
        step = entry.stepped.outcome.step
        if not bad_B.any():
            return NumericsError(
                f"step {step}: the gradient norm is not finite although every loss is",
                remedy=REMEDY.format(path=self._folder.path),
            )
        ids = entry.batch.sample_id_B[bad_B]
        shown = "; ".join(f"{i}: {self._excerpt(int(i))}" for i in ids[:3])
        more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
        return NumericsError(
            f"step {step}: the loss of {len(ids)} of {len(bad_B)} rows is not finite, rows "
            f"{shown}{more}",
            remedy=REMEDY.format(path=self._folder.path),
        )

    def _excerpt(self, sample_id: int) -> str:
        text = " ".join(self._corpus.text(sample_id).split())
        return repr(text[:EXCERPT_CHARACTERS])


REMEDY = (
    "lower the learning rate and continue from the last checkpoint with "
    "`workbench resume {path} --set peak_lr=…`, or from an earlier one with --step (0 starts over)"
)


def _step_event(
    entry: _Waiting,
    loss_B: np.ndarray,
    weight_B: np.ndarray,
    valid_B: np.ndarray,
    grad_norm: float,
) -> dict[str, Any]:
    loss, weight, domain = loss_B[valid_B], weight_B[valid_B], entry.batch.domain_B[valid_B]
    rows = max(1, len(loss))
    squares, supply_K = float((weight**2).sum()), entry.supply.rows_K
    event = {
        "kind": "step",
        "step": entry.stepped.outcome.step,
        "loss": _mean(loss),
        "weighted_loss": float((weight * loss).sum() / rows),
        "lr": entry.stepped.learning_rate,
        "grad_norm": float(grad_norm),
        "tokens": int((entry.batch.labels_BT != IGNORE_INDEX).sum()),
        **entry.lap.read(),
        "ess_fraction": float(weight.sum() ** 2 / squares / rows) if squares > 0 else 0.0,
        "max_weight": float(weight.max(initial=0.0)),
        "weight_loss_correlation": _correlation(weight, loss),
        "loss_min": float(loss.min(initial=np.inf)),
        "loss_max": float(loss.max(initial=-np.inf)),
        "mixture": entry.mixture.as_dict(),
        "effective_mixture": _by_domain(entry.mixture, entry.supply.share_K),
        "epochs": _by_domain(entry.mixture, entry.supply.epochs_K),
        "pool_share": _by_domain(entry.mixture, supply_K / supply_K.sum()),
        "sample_weight": {},
        "effective_share": {},
        "sample_share": {},
        "weight_share": {},
        "domain_loss": {},
    }
    if entry.diagnostics:
        event["mixer"] = plain(entry.diagnostics)
    if entry.stepped.outcome.signals:
        event["signals"] = _signals(entry.stepped.outcome, len(entry.mixture.domains))
    event.update({name: float(value) for name, value in entry.stepped.diagnostics.items()})
    total_weight = float(weight.sum())
    for k, name in enumerate(entry.mixture.domains):
        own = domain == k
        event["sample_share"][name] = float(own.sum() / rows)
        event["weight_share"][name] = float(weight[own].sum() / total_weight) if total_weight else 0
        if own.any():
            event["domain_loss"][name] = _mean(loss[own])
            event["sample_weight"][name] = _mean(weight[own])
            event["effective_share"][name] = float(entry.supply.share_K[k]) * _mean(weight[own])
    return event


def _by_domain(mixture: Mixture, value_K: np.ndarray) -> dict[str, float]:
    return dict(zip(mixture.domains, value_K.tolist(), strict=True))


def _signals(outcome: StepOutcome, domains: int) -> dict[str, Any]:
    """Small enough for an event, and enough for another mixer to be played over the run."""
    signals, found = outcome.signals, {}
    if Signal.DOMAIN_GRADIENTS in signals:
        gradients = signals[Signal.DOMAIN_GRADIENTS]
        found["gram"] = gradients.gram_KK[np.triu_indices(len(gradients.gram_KK))]
        found["domain_rows"] = gradients.count_K
        found["sampling_error"] = gradients.sampling_error
    if Signal.ROW_GRADIENTS in signals:
        found["row_squares"] = signals[Signal.ROW_GRADIENTS]
    if Signal.EXCESS_LOSS in signals:
        excess_B, valid_B = signals[Signal.EXCESS_LOSS].double().numpy(), outcome.valid_B.cpu()
        found["excess_nats"], _ = domain_means(excess_B, outcome.domain_B, valid_B.numpy(), domains)
    if Signal.TRACKED_NORMS in signals:
        norms = signals[Signal.TRACKED_NORMS]
        found["weight_norms"], found["change_norms"] = norms.weight_L, norms.change_L
    return plain(found)


def plain(value: Any) -> Any:
    """JSON types, floats to six digits: an event is read by people and drawn as curves."""
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(each) for each in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def _unknown(step_B: np.ndarray) -> np.ndarray:
    """An optional column of a step that has none."""
    return np.full(len(step_B), np.nan, dtype=np.float32)


def _correlation(weight: np.ndarray, loss: np.ndarray) -> float:
    """Pearson's; 0 where one of the two is constant."""
    spread = weight.std() * loss.std()
    if not spread > 0:
        return 0.0
    return float(((weight - weight.mean()) * (loss - loss.mean())).mean() / spread)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
