"""Runs side by side: what differs between them, and whether that made a difference.

groups = group_runs(find_runs("out"))       # {"linupper": [run, run, run], "uniform": […]}
for verdict in compare(groups, "uniform"):
    print(verdict)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.batch.settings import BOOKKEEPING, differing_settings, flatten
from workbench.config import POLICY_SLOTS
from workbench.core import ConfigError, RunError, WorkbenchError, unknown_name
from workbench.tracking import RunFolder, find_runs

if TYPE_CHECKING:
    from workbench.evaluation import Verdict
    from workbench.training import Run

    AnyRun = Run | RunFolder
    Runs = Mapping[str, AnyRun | Sequence[AnyRun]] | Iterable[AnyRun]

Groups = dict[str, list[RunFolder]]

# Held-out losses are of the same rows, and in the same units, only where these agree; batch_rows
# because a step with more rows has seen more text.
_SAME_PARTS = ("corpus.", "tokenizer.", "rows.")
_PLAIN = {"mixer.name": "static", "reweighter.name": "uniform"}
_SAME_SETTINGS = ("training.held_out_rows", "training.batch_rows")


def live_changes(run: RunFolder) -> list[str]:
    """What was changed while the run trained, such as `step 50: reweighter=linupper`."""
    by_step: dict[int, dict[str, Any]] = {}
    for event in sorted(run.events("set"), key=lambda event: event["step"]):
        by_step.setdefault(event["step"], {}).update(flatten(event["changes"]))
    return [
        f"step {step}: "
        + " ".join(f"{name.removesuffix('.name')}={value}" for name, value in changes.items())
        for step, changes in by_step.items()
    ]


def group_runs(runs: Runs) -> Groups:
    """Runs by label: the given labels, or else the settings in which the runs differ.

    Runs that differ in nothing but their seed and name are repetitions and share a label.  A run
    that was changed while it trained is apart: `uniform, changed at step 50: reweighter=linupper`.
    """
    groups: Groups = {}
    for label, run in _labelled(runs):
        changes = "; ".join(live_changes(run))
        suffix = f", changed at {changes}" if changes else ""
        groups.setdefault(label.removesuffix(suffix) + suffix, []).append(run)
    return groups


def _labelled(runs: Runs) -> Iterator[tuple[str, RunFolder]]:
    if isinstance(runs, Mapping):
        for label, own in runs.items():
            for run in own if isinstance(own, Sequence) else [own]:
                yield str(label), _folder(run)
        return
    folders = [_folder(run) for run in runs]
    differing = _without_implied(_without_idle(differing_settings(folders), folders))
    shown = _short_names(differing)
    rows = [
        {shown[name]: row[i] for name, row in differing.items() if row[i] is not None}
        for i in range(len(folders))
    ]
    exact, labels = ([_label(row, told) for row in rows] for told in (str, _brief))
    if len(set(labels)) < len(set(exact)):
        labels = exact
    for label, run in zip(labels, folders, strict=True):
        yield label or _plain_label(run, alone=len(folders) == 1), run


def _without_idle(
    differing: dict[str, list[Any]], folders: Sequence[RunFolder]
) -> dict[str, list[Any]]:
    """Leave out how often runs write, and how they would select if they did, where the rest
    tells the runs apart."""
    kept = dict(differing)
    for name, values in differing.items():
        used: list[Any] = [None] * len(folders)
        if name.startswith("selection."):
            used = [
                value if run.config.get("selector") else None
                for value, run in zip(values, folders, strict=True)
            ]
        elif name not in BOOKKEEPING:
            continue
        without = {own: row for own, row in kept.items() if own != name}
        if len({str(value) for value in used if value is not None}) > 1:
            without = {**kept, name: used}
        if _distinct(without) == _distinct(kept):
            kept = without
    return kept


def _without_implied(differing: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Leave out options that come with a policy, where the policy's name tells the runs apart."""
    kept = dict(differing)
    for name, values in differing.items():
        slot, _, option = name.partition(".")
        policies = differing.get(f"{slot}.name")
        if slot not in POLICY_SLOTS or option == "name" or policies is None:
            continue
        having = {p for p, value in zip(policies, values, strict=True) if value is not None}
        lacking = {p for p, value in zip(policies, values, strict=True) if value is None}
        without = {own: row for own, row in kept.items() if own != name}
        if lacking and not having & lacking and _distinct(without) == _distinct(kept):
            kept = without
    return kept


def _distinct(differing: dict[str, list[Any]]) -> int:
    return len({str(row) for row in zip(*differing.values(), strict=True)})


def _short_names(names: Iterable[str]) -> dict[str, str]:
    """Dotted names without their part, domains alone, where that leaves no two alike."""
    short = {name: name.removeprefix("mixer.mixture.").split(".", 1)[-1] for name in names}
    counts = Counter(short.values())
    # A name alone says enough: `linupper`, not `reweighter.name=linupper`.
    keep = {name for name, own in short.items() if counts[own] > 1 or own == "name"}
    return {name: name if name in keep else own for name, own in short.items()}


def choose_baseline(groups: Groups, name: str | None = None) -> str:
    """The label the others are compared to: `name`, else `uniform`, else the first.

    Raises:
        ConfigError: no group has that name; the nearest is suggested.
    """
    if name is None:
        return "uniform" if "uniform" in groups else next(iter(groups))
    if name not in groups:
        problem, remedy = unknown_name("label of runs", name, groups)
        raise ConfigError(problem, remedy=remedy)
    return name


def compare(
    runs: Runs,
    baseline: str | None = None,
    *,
    without: Collection[str] = (),
    repeated: bool = False,
) -> list[Verdict]:
    """Final held-out losses of every label against the baseline's, paired by seed.

    Args:
        without: domains that do not count, such as one known to be noise.
        repeated: several runs of a label and seed are repeats, which set the noise floor;
            otherwise they are refused.
    Returns:
        For each label but the baseline: its verdict on the mean over domains, then one a domain,
        named `label on domain`.
    Raises:
        ConfigError: no such baseline.
        RunError: runs that cannot be compared (another text, tokenizer, evaluation, batch or
            length, a seed twice, never evaluated), naming them.
        DataError: no common seed.
    """
    groups = group_runs(runs)
    if not groups:
        raise RunError("there are no runs to compare", remedy="give run folders")
    baseline = choose_baseline(groups, baseline)
    seeds = {label: by_seed(label, own, repeated=repeated) for label, own in groups.items()}
    return [
        verdict
        for label in groups
        if label != baseline
        for verdict in _verdicts(label, seeds[label], baseline, seeds[baseline], without)
    ]


def compare_each(
    runs: Runs,
    baseline: str | None = None,
    *,
    without: Collection[str] = (),
    repeated: bool = False,
) -> tuple[list[Verdict], list[str]]:
    """Verdicts of all labels that can be compared to the baseline, and why others cannot.

    Args:
        without, repeated: see `compare`.
    """
    groups = group_runs(runs)
    if not groups:
        raise RunError("there are no runs to compare", remedy="give run folders")
    baseline = choose_baseline(groups, baseline)
    verdicts, refusals = [], {}
    for label in groups:
        if label == baseline:
            continue
        pair = {name: groups[name] for name in (baseline, label)}
        try:
            verdicts += compare(pair, baseline, without=without, repeated=repeated)
        except WorkbenchError as error:
            refusals[str(error)] = None
    return verdicts, list(refusals)


def by_domain(verdicts: Iterable[Verdict]) -> dict[str, dict[str, Verdict]]:
    """Label -> domain -> verdict, of what `compare` gave; what is over all domains is left out."""
    found: dict[str, dict[str, Verdict]] = {}
    label = ""
    for verdict in verdicts:
        # A label's own verdict comes first, those on its domains after it.
        if found and verdict.name.startswith(f"{label} on "):
            found[label][verdict.name.removeprefix(f"{label} on ")] = verdict
        else:
            label = verdict.name
            found[label] = {}
    return found


def runs_at(*patterns: str | Path) -> list[RunFolder]:
    """All runs at or below the paths that match any pattern, such as `out/*/cells`, by path.

    Raises:
        RunError: none, or one that cannot be opened.
    """
    paths = sorted(path for pattern in patterns for path in glob(str(pattern), recursive=True))
    found = {run.path.resolve(): run for path in paths for run in find_runs(path)}
    if not found:
        raise RunError(
            f"no run at {', '.join(map(str, patterns))}", remedy="train some, or correct the path"
        )
    return list(found.values())


def _folder(run: AnyRun) -> RunFolder:
    return run if isinstance(run, RunFolder) else run.folder


def _brief(value: Any) -> str:
    """A value in at most three digits."""
    rounded = f"{value:.3g}" if isinstance(value, float) else ""
    return rounded if rounded and float(rounded) != value else str(value)


def _label(values: dict[str, Any], said: Callable[[Any], str]) -> str:
    """The values in words; plain policies go unsaid beside anything else."""
    told = {name: value for name, value in values.items() if _PLAIN.get(name) != value}
    told = told or dict(list(values.items())[-1:])
    return ", ".join(
        str(value) if name.endswith(".name") else f"{name}={said(value)}"
        for name, value in told.items()
    )


def _plain_label(run: RunFolder, *, alone: bool) -> str:
    """A label for what has no setting of its own to be called by."""
    reweighter = run.config.get("reweighter") or {}
    return str(run.config.get("name", "run") if alone else reweighter.get("name", "run"))


def by_seed(
    label: str, runs: Sequence[RunFolder], *, repeated: bool = False
) -> dict[int, list[RunFolder]]:
    """Seed -> runs of a label, more than one only where they are said to be repeats.

    Raises:
        RunError: a seed twice, naming both runs.
    """
    found: dict[int, list[RunFolder]] = {}
    for run in runs:
        own = found.setdefault(run.config["seed"], [])
        if own and not repeated:
            raise RunError(
                f"{own[0].path} and {run.path} are both '{label}' with seed {run.config['seed']}",
                remedy="leave one out, or give repeated=True (--repeated) for repeats",
            )
        own.append(run)
    return found


def _verdicts(
    label: str,
    treatment: dict[int, list[RunFolder]],
    baseline: str,
    base: dict[int, list[RunFolder]],
    without: Collection[str],
) -> Iterator[Verdict]:
    from workbench.evaluation import mean_nats, verdict

    seeds = sorted(set(treatment) & set(base))
    for seed in seeds:
        for run in [*base[seed][1:], *treatment[seed]]:
            check_comparable(base[seed][0], run)
    ours, theirs = (
        {seed: [final_held_out(run)["losses"] for run in own[seed]] for seed in seeds or own}
        for own in (treatment, base)
    )
    yield verdict(
        {seed: [mean_nats(losses, without) for losses in own] for seed, own in theirs.items()},
        {seed: [mean_nats(losses, without) for losses in own] for seed, own in ours.items()},
        name=label,
        baseline_name=baseline,
    )
    every = [losses for own in [*ours.values(), *theirs.values()] for losses in own]
    for domain in next(iter(theirs.values()))[0]:
        if domain not in without and all(domain in losses for losses in every):
            yield verdict(
                {seed: [losses[domain] for losses in own] for seed, own in theirs.items()},
                {seed: [losses[domain] for losses in own] for seed, own in ours.items()},
                name=f"{label} on {domain}",
                baseline_name=baseline,
            )


def final_held_out(run: RunFolder) -> dict[str, Any]:
    """The last held-out event of a run that has ended.

    Raises:
        RunError: the run is not finished, or was never evaluated.
    """
    status, events = run.status(), run.events("held_out")
    if status != "finished":
        raise RunError(
            f"{run.path} is {status}, so it has no final loss",
            remedy=f"finish it with: workbench resume {run.path}",
        )
    if not events:
        raise RunError(
            f"{run.path} was never evaluated", remedy="lower evaluate_every_steps and run again"
        )
    return events[-1]


def check_comparable(one: RunFolder, other: RunFolder) -> None:
    """Whether final held-out losses of two runs measure the same thing.

    Raises:
        RunError: another text, tokenizer, evaluation, batch or length, not finished, or never
            evaluated; names the runs.
    """
    check_same_measure(one, other)
    steps = [final_held_out(run)["step"] for run in (one, other)]
    if steps[0] != steps[1] and not _matched(one, other):
        raise RunError(
            f"{one.path} was last evaluated at step {steps[0]}, {other.path} at {steps[1]}",
            remedy="compare runs of the same length, or give one what the other cost: match_run",
        )


def _matched(one: RunFolder, other: RunFolder) -> bool:
    """Whether one of two runs was given the operations of the other, or both those of a third."""
    matches = [run.config["training"].get("match_run") for run in (one, other)]
    paths = [Path(path).resolve() if path else None for path in matches]
    own = [run.path.resolve() for run in (one, other)]
    return (
        paths[0] == own[1] or paths[1] == own[0] or (paths[0] is not None and paths[0] == paths[1])
    )


def check_same_measure(one: RunFolder, other: RunFolder) -> None:
    """Whether held-out losses of two runs are of the same rows and in the same units.

    Raises:
        RunError: another text, tokenizer, evaluation or batch; names the runs.
    """
    both = f"{one.path} and {other.path}"
    hashes = [run.environment.get("content_hash") for run in (one, other)]
    if hashes[0] != hashes[1]:
        raise RunError(
            f"{both} were trained on different text",
            remedy="compare runs whose corpus has the same content hash",
        )
    for name, values in differing_settings([one, other]).items():
        if name.startswith(_SAME_PARTS) or name in _SAME_SETTINGS:
            raise RunError(
                f"{both} differ in {name}: {values[0]} and {values[1]}, "
                "so their losses do not measure the same",
                remedy=f"compare runs of the same {name}",
            )
    rows = [run.environment.get("prepared") for run in (one, other)]
    if None not in rows and rows[0] != rows[1]:
        raise RunError(
            f"{both} used different prepared rows: {rows[0]} and {rows[1]}",
            remedy="train both again from one preparation",
        )
