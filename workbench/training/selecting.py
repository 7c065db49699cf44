"""The selector's part in a run: when it chooses, from what, with which model, and what it chose.

    selecting = build_selecting(config, corpus)
    if selecting is not None and selecting.due(step):
        choice = selecting.choose(step, model)          # the loop restricts the sampler to it

Shapes: N rows of the pool, n chosen rows, B rows of a batch, K domains.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from workbench.config import RunConfig, SelectionConfig
from workbench.core import (
    SELECTORS,
    PolicyError,
    Pool,
    Progress,
    Selection,
    SelectionTask,
    Selector,
    silent,
    stream_seed,
)
from workbench.data import PreparedCorpus
from workbench.influence.bill import Bill
from workbench.models import Decoder
from workbench.selection import TooFewDistinct, reference_rows
from workbench.training.finished import finished_model

UNKNOWN_CLUSTER = -1
MOST_REASONS = 20
"""Of a choice's event and manifest; the table `selected` has the reason of every row."""


@dataclass(frozen=True)
class Choice:
    """Chosen rows in order of their ids, with what is known of each.

    sample_id_n: int64, ascending; cluster_n: int32, `UNKNOWN_CLUSTER` where there is none;
    influence_n: float32, NaN where the row was not scored.
    """

    sample_id_n: np.ndarray
    cluster_n: np.ndarray
    influence_n: np.ndarray

    @classmethod
    def of(cls, selection: Selection) -> Choice:
        order_n, rows = np.argsort(selection.sample_id_N), len(selection)
        cluster_n, influence_n = selection.cluster_N, selection.influence_N
        if cluster_n is None:
            cluster_n = np.full(rows, UNKNOWN_CLUSTER)
        if influence_n is None:
            influence_n = np.full(rows, np.nan)
        return cls(
            np.asarray(selection.sample_id_N, dtype=np.int64)[order_n],
            np.asarray(cluster_n, dtype=np.int32)[order_n],
            np.asarray(influence_n, dtype=np.float32)[order_n],
        )

    def columns(self, sample_id_B: np.ndarray) -> dict[str, np.ndarray]:
        """What the ledger keeps of chosen rows, NaN where nothing is known."""
        place_B = np.searchsorted(self.sample_id_n, sample_id_B)
        cluster_B = self.cluster_n[place_B].astype(np.float64)
        cluster_B[cluster_B == UNKNOWN_CLUSTER] = np.nan
        return {"cluster": cluster_B, "influence": self.influence_n[place_B]}

    def state_dict(self) -> dict[str, Any]:
        return {name: torch.from_numpy(getattr(self, name)) for name in self.__dataclass_fields__}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Choice:
        return cls(**{name: state[name].numpy() for name in cls.__dataclass_fields__})


class Relay:
    """Progress of a selector, passed on to whoever watches at the time."""

    def __init__(self):
        self.to: Progress = silent

    def __call__(self, event: Mapping[str, Any]) -> None:
        self.to(event)


@dataclass
class Selecting:
    """State fields: the selector's, the step it was last asked, the choice in force, all rows ever
    chosen, whether nothing more can be, what was paid of the results that others left in the cache.

    judge: model of another run that judges instead of the run's own; batch_tokens: of one step.
    reference: what is known of the reference set; record, tables: what the run folder keeps of the
    last choice; shortfall: why it is smaller than its budget, empty where it is not.
    """

    selector: Selector
    config: SelectionConfig
    corpus: PreparedCorpus
    judge: Decoder | None
    batch_tokens: int
    relay: Relay
    reference: dict[str, Any]
    step: int | None = None
    choice: Choice | None = None
    offered_N: np.ndarray | None = None
    record: dict[str, Any] | None = None
    tables: dict[str, dict[str, Any]] | None = None
    shortfall: str = ""
    exhausted: bool = False
    bill: Bill = field(default_factory=Bill)

    def due(self, step: int) -> bool:
        """Whether the selector should choose before this step."""
        first, every = self.config.first_step, self.config.every_steps
        if step == self.step or step < first:
            return False
        if self.step is None:
            return True
        return every is not None and (step - first) % every == 0

    def choose(self, step: int, model: Decoder) -> Choice | None:
        """Let the selector choose from the rows it has not chosen before.

        Returns:
            None where a later choice finds no row: then the last one stays.
        Raises:
            PolicyError: a first choice without a row.  What the selector raises.
        """
        began = time.perf_counter()
        pool = self._pool()
        with self.bill.open():
            selection, budget_tokens = self._select(pool, model)
        # Only now: a choice that was cut short is due again.
        self.step = step
        self.shortfall = (
            "" if selection is None else self._shortfall(selection, pool, budget_tokens)
        )
        if selection is None or not len(selection):
            return self._keep()
        self.choice = Choice.of(selection)
        before_N = np.empty(0, np.int64) if self.offered_N is None else self.offered_N
        self.offered_N = np.union1d(before_N, self.choice.sample_id_n)
        seconds = time.perf_counter() - began
        self.record = self._record(selection, pool, budget_tokens, seconds)
        self.tables = {"selected": self._selected(selection), **self.named_tables()}
        return self.choice

    def _select(self, pool: Pool, model: Decoder) -> tuple[Selection | None, int]:
        """What the selector chooses and of how many tokens; online the last one takes what is left.

        Which rows repeat others is known to the selector alone, so it is asked for the whole
        budget first.
        """
        wanted_tokens = self._budget(pool)
        judge = self.judge or model
        try:
            return self.selector.select(pool, wanted_tokens, judge), wanted_tokens
        except TooFewDistinct as error:
            if self.offered_N is None:
                raise
            self.exhausted = error.tokens == 0
            if self.exhausted:
                return None, 0
            return self.selector.select(pool, error.tokens, judge), error.tokens

    def _keep(self) -> None:
        """The last choice stays; a first one without a row leaves nothing to train on."""
        if self.offered_N is None:
            raise PolicyError(
                self.shortfall,
                remedy="raise the budget, lower the selector's threshold, or judge with another "
                "model",
            )

    def _shortfall(self, selection: Selection, pool: Pool, budget_tokens: int) -> str:
        """A sentence when there is no row, or another of any length would have fitted."""
        chosen_N = np.isin(pool.sample_id_N, selection.sample_id_N)
        tokens = int(pool.tokens_N[chosen_N].sum())
        if len(selection) and budget_tokens - tokens < pool.tokens_N.max():
            return ""
        why = self.selector.diagnostics().get("stopped", "the selector gave no more")
        return f"the choice holds {tokens} of {budget_tokens} tokens: {why}"

    def notes(self) -> list[str]:
        """What a user should know of the reference set before the first choice."""
        reference, found = self.reference, []
        if reference.get("dropped"):
            found.append(
                f"{reference['dropped']} rows left the reference set, because they repeat text of "
                f"the pool ({reference['in_pool']}) or of the evaluation "
                f"({reference['in_evaluation']}); {reference['rows']} are left"
            )
        if short := reference.get("short"):
            shown = ", ".join(f"{name} {rows}" for name, rows in short.items())
            found.append(
                f"the reference set has fewer rows of some domains than their share: {shown}; "
                "lower held_out_rows or raise held_out_fraction, or name reference_domains"
            )
        return found

    @property
    def used_up(self) -> bool:
        """Whether choices go on but every row was chosen once, or repeats one that was."""
        if self.config.every_steps is None or self.offered_N is None:
            return False
        return self.exhausted or len(self.offered_N) == self.corpus.rows_K.sum()

    def _pool(self) -> Pool:
        pool = self.corpus.pool()
        if self.offered_N is None:
            return pool
        open_N = ~np.isin(pool.sample_id_N, self.offered_N, assume_unique=True)
        return Pool(pool.sample_id_N[open_N], pool.domain_N[open_N], pool.tokens_N[open_N])

    def _budget(self, pool: Pool) -> int:
        available = int(pool.tokens_N.sum())
        if self.config.budget_tokens is not None:
            wanted = self.config.budget_tokens
        elif self.config.every_steps is not None:
            wanted = self.config.every_steps * self.batch_tokens
        else:
            wanted = int(self.config.share * available)
        # Online, the last choice takes what is left.
        return wanted if self.offered_N is None else min(wanted, available)

    def _record(
        self, selection: Selection, pool: Pool, budget_tokens: int, seconds: float
    ) -> dict[str, Any]:
        chosen_N = np.isin(pool.sample_id_N, selection.sample_id_N)
        rows_K = np.bincount(pool.domain_N[chosen_N], minlength=len(self.corpus.domains))
        return {
            "rows": len(selection),
            "tokens": int(pool.tokens_N[chosen_N].sum()),
            "budget_tokens": budget_tokens,
            "pool_rows": len(pool),
            "seconds": seconds,
            "cached": asdict(self.bill.take()),
            "domains": dict(zip(self.corpus.domains, rows_K.tolist(), strict=True)),
            "reasons": dict(Counter(selection.reason_N).most_common(MOST_REASONS)),
            "reference": self.reference,
            "selector": dict(self.selector.diagnostics()),
        }

    def _selected(self, selection: Selection) -> dict[str, Any]:
        rows = len(selection)
        none_n = np.full(rows, np.nan, dtype=np.float32)
        return {
            "sample_id": selection.sample_id_N,
            "domain": self._names(self.corpus.domain_of(selection.sample_id_N)),
            "cluster": np.full(rows, UNKNOWN_CLUSTER, dtype=np.int32)
            if selection.cluster_N is None
            else selection.cluster_N,
            "influence": none_n if selection.influence_N is None else selection.influence_N,
            "reason": list(selection.reason_N),
            "documents": [
                ";".join(names) for names in self.corpus.documents(selection.sample_id_N)
            ],
        }

    def named_tables(self) -> dict[str, dict[str, Any]]:
        """The selector's tables as they are now, with domains by name."""
        tables = {name: dict(columns) for name, columns in self.selector.tables().items()}
        for columns in tables.values():
            if "domain" in columns:
                columns["domain"] = self._names(columns["domain"])
        return tables

    def _names(self, domain_N: np.ndarray) -> np.ndarray:
        return np.array(self.corpus.domains, dtype=object)[np.asarray(domain_N)]

    def state_dict(self) -> dict[str, Any]:
        return {
            "selector": self.selector.state_dict(),
            "step": self.step,
            "choice": None if self.choice is None else self.choice.state_dict(),
            "offered": None if self.offered_N is None else torch.from_numpy(self.offered_N),
            "exhausted": self.exhausted,
            "paid": self.bill.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.selector.load_state_dict(state["selector"])
        self.step, self.exhausted = state["step"], state.get("exhausted", False)
        self.bill.load_state_dict(state.get("paid", {}))
        choice, offered = state["choice"], state["offered"]
        self.choice = None if choice is None else Choice.from_state(choice)
        self.offered_N = None if offered is None else offered.numpy()


def build_selecting(config: RunConfig, corpus: PreparedCorpus) -> Selecting | None:
    """The selector of a config with its reference set, or None where there is no selector.

    Raises:
        DataError: no reference set that is apart from the pool and the evaluation.
        PolicyError: a checkpoint of another corpus.
    """
    if config.selector is None:
        return None
    check_selection(config, corpus)
    settings, training = config.selection, config.training
    reference_MT, reference = _reference(config, corpus)
    relay = Relay()
    task = SelectionTask(
        source=corpus,
        reference_MT=reference_MT,
        seed=stream_seed(config.seed, "selector"),
        device=training.device,
        batch_rows=training.micro_batch_rows or training.batch_rows,
        cache_dir=corpus.path / "selection",
        progress=relay,
    )
    judge = None
    if settings.checkpoint is not None:
        judge = finished_model(settings.checkpoint, corpus, "checkpoint").to(training.device)
    return Selecting(
        selector=SELECTORS.build(config.selector.name, task, **config.selector.options),
        config=settings,
        corpus=corpus,
        judge=judge,
        batch_tokens=training.batch_rows * corpus.context_tokens,
        relay=relay,
        reference=reference,
    )


def _reference(config: RunConfig, corpus: PreparedCorpus) -> tuple[np.ndarray, dict[str, Any]]:
    """Rows of the reference set and what was dropped from it; none where it is not used."""
    assert config.selector is not None
    if not getattr(SELECTORS.get(config.selector.name), "uses_reference", True):
        return np.empty((0, corpus.context_tokens + 1), dtype=np.int64), {}
    told: dict[str, Any] = {}
    rows_MT = reference_rows(
        corpus, config.selection, config.training.held_out_rows, progress=told.update
    )
    kept = ("dropped", "in_pool", "in_evaluation", "short")
    return rows_MT, {"rows": len(rows_MT), **{name: told[name] for name in kept}}


def check_selection(config: RunConfig, corpus: PreparedCorpus) -> None:
    """Raise PolicyError for a choice that this run or this corpus cannot have."""
    settings, tokens_N = config.selection, corpus.pool().tokens_N
    available, least = int(tokens_N.sum()), int(tokens_N.min())
    if settings.first_step >= config.training.total_steps:
        raise PolicyError(
            f"selection.first_step = {settings.first_step}, but the run ends at step "
            f"{config.training.total_steps}",
            remedy="choose earlier, or train longer",
        )
    if settings.budget_tokens is not None and settings.budget_tokens > available:
        raise PolicyError(
            f"selection.budget_tokens = {settings.budget_tokens}, the pool has {available}",
            remedy=f"set it to {available} at most, or give the corpus more text (max_domain_mb)",
        )
    if settings.budget_tokens is not None and settings.budget_tokens < least:
        raise PolicyError(
            f"selection.budget_tokens = {settings.budget_tokens}, the smallest row has {least}",
            remedy=f"set it to {least} at least",
        )
