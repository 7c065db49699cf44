"""One self-contained HTML file about a set of runs: verdicts, settings, figures, events.

report(find_runs("out"), "out/report.html", title="uniform against linupper")
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.batch import page
from workbench.batch.comparison import (
    Groups,
    choose_baseline,
    compare_each,
    group_runs,
    live_changes,
)
from workbench.batch.notebook import Progress
from workbench.batch.settings import differing_settings, flatten
from workbench.core import RunError

if TYPE_CHECKING:
    from workbench.batch.comparison import Runs
    from workbench.evaluation import Verdict
    from workbench.tracking import RunFolder

FIGURES = {
    "loss": "Training loss over steps, in nats per token",
    "held_out": "Held-out loss over steps, its mean and each domain, in nats per token",
    "throughput": "Throughput over steps, in tokens per second",
}
"""Functions of `workbench.plots` drawn in every report, with what each shows."""

WEIGHT_FIGURES = {
    "ess": "Effective sample size over steps, as a fraction of the batch",
    "weight_share": "Share of the sample weight over steps, for each domain",
}
"""Drawn where a run gave its samples different weights."""

_NOTABLE = ("failed", "stopped", "resumed", "paused", "unpaused", "set", "warning")


def report(
    runs: Runs,
    out: str | Path,
    *,
    title: str = "Runs compared",
    baseline: str | None = None,
    verdicts: Sequence[Verdict] | None = None,
    repeated: bool = False,
    corpus_overview: Sequence[Mapping[str, Any]] = (),
    progress: Progress | None = None,
) -> Path:
    """Write the report; it opens offline and needs no file beside it.

    Args:
        runs: run folders, or label -> run or runs; see `group_runs`.
        out: the HTML file; replaced when it exists.
        baseline: label the others are compared to; `uniform`, or the first, when None.
        verdicts: comparisons to show; made from the runs when None.
        repeated: several runs of a label and seed are repeats, which set the noise floor.
        corpus_overview: rows of `PreparedCorpus.overview()`, where at hand.
        progress: told each part as it is drawn.
    Returns:
        The path of the file.
    Raises:
        ConfigError: no such baseline.
        RunError: no runs.
    """
    groups = group_runs(runs)
    if not groups:
        raise RunError("there are no runs to report on", remedy="give run folders")
    baseline = choose_baseline(groups, baseline)
    everyone = [run for own in groups.values() for run in own]
    refused: list[str] = []
    if verdicts is None and len(groups) > 1:
        verdicts, refused = compare_each(groups, baseline, repeated=repeated)
    sections = [
        page.section("Verdicts", *_verdicts(verdicts, refused)),
        page.section("Runs", _runs(groups)),
        page.section("Settings", *_settings(groups)),
        *_figures(groups, progress or _silent),
        *_downstream(everyone),
        page.section("Corpus", *_corpus(everyone, corpus_overview)),
        page.section("Events", _events(everyone)),
        page.section("Environment", _environment(everyone)),
    ]
    subtitle = f"{len(everyone)} runs, written {time.strftime('%Y-%m-%d %H:%M')}"
    return _write(Path(out), page.page(title, sections, subtitle=subtitle))


def _silent(what: str, done: int, total: int | None) -> None:
    return None


def _write(out: Path, html: str) -> Path:
    aside = out.with_name(out.name + ".part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(html, encoding="utf-8")
        os.replace(aside, out)
    except OSError as error:
        raise RunError(f"cannot write {out}: {error}", remedy="choose another --out") from None
    return out


def _verdicts(given: Sequence[Verdict] | None, refusals: Sequence[str]) -> list[str]:
    """The sentence of each verdict on the mean, then all of them as figure and table."""
    from workbench import plots

    if given is None:
        return [page.paragraph("One setting only: nothing to compare it to.")]
    refused = [page.paragraph(f"No verdict: {refusal}") for refusal in refusals]
    if not given:
        return refused
    sentences = [page.finding(f"{v}.", v.outcome) for v in given if " on " not in v.name]
    caption = "Final held-out loss, treatment minus baseline, paired by seed"
    note = "Each row has its own interval: of many rows, some leave out zero by chance."
    return [
        *sentences,
        *refused,
        page.figure(plots.verdicts(given), name="verdicts", caption=caption),
        page.table([_verdict_row(verdict) for verdict in given], caption="The same in numbers"),
        page.paragraph(note, quiet=True),
    ]


def _verdict_row(verdict: Verdict) -> dict[str, Any]:
    from workbench.evaluation.verdicts import COLUMNS

    return {heading: getattr(verdict, field) for heading, field in COLUMNS.items()}


def _runs(groups: Groups) -> str:
    rows = [_run_row(label, run) for label, own in groups.items() for run in own]
    return page.table(rows, caption="Every run, with its last training and held-out loss in nats")


def _run_row(label: str, run: RunFolder) -> dict[str, Any]:
    steps, held_out = run.events("step"), run.events("held_out")
    seconds = sum(event["seconds"] for event in steps)
    return {
        "setting": label,
        "run": run.path.name,
        "seed": run.config["seed"],
        "status": run.status(),
        "steps": f"{len(steps)} of {run.config['training']['total_steps']}",
        "loss": steps[-1]["loss"] if steps else None,
        "held_out_mean": held_out[-1]["mean_nats"] if held_out else None,
        "tokens_per_second": sum(e["tokens"] for e in steps) / seconds if seconds else None,
    }


def _settings(groups: Groups) -> list[str]:
    labels = [label for label, own in groups.items() for _ in own]
    everyone = [run for own in groups.values() for run in own]
    differing = differing_settings(everyone)
    rows = []
    for name, values in differing.items():
        by_label = {label: [] for label in groups}
        for label, value in zip(labels, values, strict=True):
            if value not in by_label[label]:
                by_label[label].append(value)
        rows.append({"name": name, **by_label})
    changed = {label: live_changes(own[0]) for label, own in groups.items()}
    if any(changed.values()):
        rows.append({"name": "changed while training", **changed})
    shared = [
        {"name": name, "value": value}
        for name, value in flatten(everyone[0].config).items()
        if name not in differing
        and name not in ("seed", "name")
        and all(flatten(run.config).get(name) == value for run in everyone)
    ]
    same = page.paragraph("The runs differ in nothing but their seed and name.", quiet=True)
    return [
        page.table(rows, caption="Settings in which the runs differ") or same,
        page.folded("Settings that all runs share", page.table(shared, caption="Shared settings")),
    ]


def _figures(groups: Groups, progress: Progress) -> list[str]:
    from workbench import plots

    weighted = any(_is_weighted(run) for own in groups.values() for run in own)
    wanted = {**FIGURES, **(WEIGHT_FIGURES if weighted else {})}
    sections = []
    for done, (name, caption) in enumerate(wanted.items()):
        progress(f"drawing {name}", done, len(wanted))
        drawn = page.figure(getattr(plots, name)(groups), name=name, caption=caption)
        sections.append(page.section(caption.split(" over")[0], drawn))
    progress("drawn", len(wanted), len(wanted))
    return sections


def _is_weighted(run: RunFolder) -> bool:
    return any(event["max_weight"] > 1 + 1e-6 for event in run.events("step"))


def _downstream(runs: list[RunFolder]) -> list[str]:
    """What runs were tested on beside their own text; nothing where none was."""
    from workbench.tracking import downstream

    rows = [
        {"run": run.path.name, **row}
        for run in runs
        for row in downstream.rows(downstream.read(run.path))
    ]
    if not rows:
        return []
    caption = (
        "Value of each metric with its 95 % interval over documents, and the level of guessing"
    )
    note = (
        "Near chance: guessing does as well, whatever the value. Requests are cut on their left "
        "where a prompt is longer than the model's rows."
    )
    drawn = [page.table(rows, caption=caption), page.paragraph(note, quiet=True)]
    return [page.section("Downstream tasks", *drawn)]


def _corpus(runs: list[RunFolder], overview: Sequence[Mapping[str, Any]]) -> list[str]:
    from workbench import plots

    hashes = dict.fromkeys(str(run.environment.get("content_hash")) for run in runs)
    names = dict.fromkeys(str(run.config["corpus"]["name"]) for run in runs)
    text = f"Corpus {', '.join(names)}; hash of all documents: {', '.join(hashes)}."
    caption = "Size of each domain, and which share of its documents are duplicates"
    notes = dict.fromkeys(n for run in runs for n in run.environment.get("corpus_notes", ()))
    return [
        page.paragraph(text),
        *(page.paragraph(note, quiet=True) for note in notes),
        page.figure(plots.corpus(overview), name="corpus", caption=caption) if overview else "",
        page.table(list(overview), caption="What the corpus holds, per domain"),
        page.folded("Rows trained on", page.table(_rows_seen(runs), caption="Per run and domain")),
    ]


def _rows_seen(runs: list[RunFolder]) -> list[dict[str, Any]]:
    """Per domain and run: rows trained on, how many were distinct, mean loss and weight."""
    query = (
        "select domain, count(*) as rows, count(distinct sample_id) as distinct_rows, "
        "avg(loss) as mean_loss_nats, avg(weight) as mean_weight from ledger "
        "group by domain order by domain"
    )
    return [
        {"run": run.path.name, **row}
        for run in runs
        if any((run.path / "ledger").glob("*.parquet"))
        for row in run.ledger.sql(query).to_dict("records")
    ]


def _events(runs: list[RunFolder]) -> str:
    rows = [
        {
            "run": run.path.name,
            "step": event["step"],
            "event": event["kind"],
            "detail": _detail(event),
        }
        for run in runs
        for event in _notable(run)
    ]
    if not rows:
        return page.paragraph(
            "All runs went straight through: nothing failed or was changed, nothing gave a warning."
        )
    return page.table(rows, caption="Failures, interruptions, changes and warnings")


def _notable(run: RunFolder) -> list[dict[str, Any]]:
    """Events to show, in order; a repeated warning stands at its first step, with `times`."""
    found: list[dict[str, Any]] = []
    warned: dict[str, dict[str, Any]] = {}
    for event in run.events():
        if event["kind"] == "warning" and event["message"] in warned:
            warned[event["message"]]["times"] += 1
        elif event["kind"] in _NOTABLE:
            found.append({**event, "times": 1})
            if event["kind"] == "warning":
                warned[event["message"]] = found[-1]
    return found


def _detail(event: Mapping[str, Any]) -> str:
    if event["kind"] == "failed":
        return f"{event['problem']} — {event['remedy']}"
    if event["kind"] == "warning":
        return event["message"] + (f" ({event['times']} times)" if event["times"] > 1 else "")
    changes = event.get("changes") or {}
    return ", ".join(f"{name} = {value}" for name, value in changes.items())


def _environment(runs: list[RunFolder]) -> str:
    """Each fact once, or every value it had, so that a mixed set of machines shows."""
    facts: dict[str, dict[str, None]] = {}
    for run in runs:
        for name, value in flatten(run.environment).items():
            if name != "seed":
                facts.setdefault(name, {})[page.shown(value)] = None
    rows = [{"fact": name, "value": list(values)} for name, values in facts.items()]
    return page.table(rows, caption="Where the runs were made")
