"""Downstream tasks of `lm-eval` on a decoder: accuracy with an interval and the level of guessing.

    loaded = load_tasks(("piqa", "mmlu_5shot"))           # needs the extra `downstream`
    record = evaluate_task(loaded[0], TextModel(decoder, tokenizer, ...), limit=100)

A task is a name of lm-eval, the path of one of its YAML files, or the mapping such a file holds; a
name may end in `_Nshot`.  `training.evaluate_downstream` does all of it for a run.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from workbench.core import ConfigError, DataError, nearest, unknown_name
from workbench.data.hub import reason_of
from workbench.evaluation.task_scores import perplexity, summarise
from workbench.evaluation.text_model import TextModel

PAPER_TASKS = (
    *("mmlu", "mmlu_5shot", "humaneval", "logiqa", "logiqa2", "sciq", "piqa", "lambada"),
)
"""What the published systems report."""
_NAMES = {"lambada": "lambada_openai"}
_SHOTS = re.compile(r"(.+)_(\d+)shot")
FEWSHOT_SEED = 1234
"""lm-eval's own, so that the examples in a prompt are those of its published numbers."""

Task = str | Path | Mapping[str, Any]


@dataclass(frozen=True)
class LoadedTask:
    """A task, or a group of them such as MMLU's 57 subjects, with its documents at hand."""

    label: str
    parts: dict[str, Any]
    """Tasks of lm-eval by their names."""

    @property
    def executes_code(self) -> bool:
        return any(getattr(part, "UNSAFE_CODE", False) for part in self.parts.values())


def load_tasks(
    tasks: Sequence[Task], *, data: str | Path | None = None, execute_code: bool = False
) -> list[LoadedTask]:
    """Find all tasks and their documents, before anything is computed.

    Args:
        data: folder with copies of datasets, each as `data/owner/name` or `data/name`; what is
            not there is read from the hub or its cache.
        execute_code: let tasks that run what the model wrote do so, in a process of this user.
    Raises:
        ConfigError: lm-eval is missing, a task is unknown, or executes code without leave.
        DataError: the documents of a task cannot be had.
    """
    manager = _manager(tasks)
    named = [_Named.of(task, manager.task_index) for task in tasks]
    if not execute_code:
        _refuse_code([each.label for each in named if each.executes_code(manager.task_index)])
    found, failed = [], {}
    with _allowing_code(execute_code):
        for each in named:
            try:
                found.append(LoadedTask(each.label, each.load(manager, data)))
            except Exception as error:  # those of datasets, fsspec and HTTP clients
                failed[each.label] = reason_of(error)
    if failed:
        raise DataError(
            f"tasks whose documents cannot be had: {', '.join(failed)}: "
            f"{next(iter(failed.values()))}",
            remedy="those of lm-eval need a download: run once with a network, after which the "
            "cache is enough, or give data= (--data) a folder with a copy as owner/name",
        )
    if not execute_code:
        # A file may say so in another that it includes.
        _refuse_code([each.label for each in found if each.executes_code])
    return found


def _refuse_code(labels: Sequence[str]) -> None:
    if labels:
        raise ConfigError(
            f"task '{labels[0]}' executes code that the model wrote",
            remedy="run it where that can do no harm, with execute_code=True (--execute-code), "
            "or leave the task out",
        )


def evaluate_task(
    task: LoadedTask, model: TextModel, *, limit: int | None = None, execute_code: bool = False
) -> dict[str, Any]:
    """Run a task's documents through a model.

    Args:
        limit: documents of each part at most; None for all.
    Returns:
        A record of plain JSON types: `metrics` by name as `task_scores.summarise` has them, over
        the documents of all parts, and the same for each of several `parts`; shots, limit,
        requests and how many were cut to the model's context, seconds, versions.
    """
    from lm_eval.evaluator import evaluate  # pyright: ignore[reportMissingImports]

    began, cut_before = time.perf_counter(), model.cut_requests
    adapter = _adapter(model)
    with _allowing_code(execute_code):
        answered: Any = evaluate(
            lm=adapter,
            task_dict={"tasks": task.parts},
            limit=limit,
            bootstrap_iters=0,
            log_samples=True,
            confirm_run_unsafe_code=execute_code,
        )
    samples = answered["samples"]
    answers = {name: _Answers.of(part, samples[name]) for name, part in task.parts.items()}
    each = {name: own.metrics() for name, own in answers.items()}
    first = next(iter(task.parts.values()))
    return {
        "task": task.label,
        "shots": first.config.num_fewshot,
        "limit": limit,
        "metrics": _together(list(answers.values())),
        **({"parts": each} if len(each) > 1 else {}),
        "requests": adapter.requests,
        "cut_requests": model.cut_requests - cut_before,
        "context_tokens": model.context_tokens,
        "seconds": time.perf_counter() - began,
        "harness": f"lm-eval {version('lm-eval')}",
        "versions": {name: str(part.VERSION) for name, part in task.parts.items()},
    }


def _manager(tasks: Sequence[Task]) -> Any:
    try:
        from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConfigError(
            "downstream tasks need lm-eval, which is not installed",
            remedy="pip install 'workbench[downstream]'",
        ) from None
    if not tasks:
        raise ConfigError("no task is named", remedy=f"choose some of: {', '.join(PAPER_TASKS)}")
    if any(_of_the_index(task) for task in tasks):
        return _every_task(TaskManager)
    return TaskManager(include_defaults=False)


def _of_the_index(task: Task) -> bool:
    """Whether a task is known by its name alone, or a member of a group is."""
    if isinstance(task, Mapping):
        return "group" in task and any(isinstance(member, str) for member in task["task"])
    return not Path(task).is_file()


@cache
def _every_task(manager: Any) -> Any:
    # Its fourteen thousand files take seconds to read.
    return manager()


@dataclass(frozen=True)
class _Named:
    """What a user called a task, and what lm-eval is asked for."""

    label: str
    specs: tuple[Any, ...]
    shots: int | None = None

    @classmethod
    def of(cls, task: Task, index: Mapping[str, Any]) -> _Named:
        if isinstance(task, Mapping):
            return cls._of_mapping(task)
        if Path(task).is_file():
            return cls(Path(task).stem, (str(task),))
        label = str(task)
        name, shots = _NAMES.get(label, label), None
        if name not in index and (match := _SHOTS.fullmatch(label)):
            name, shots = _NAMES.get(match[1], match[1]), int(match[2])
        if name not in index:
            likely = PAPER_TASKS if nearest(label, PAPER_TASKS) else index
            problem, remedy = unknown_name("task", label, likely)
            raise ConfigError(problem, remedy=remedy)
        return cls(label, (name,), shots)

    @classmethod
    def _of_mapping(cls, task: Mapping[str, Any]) -> _Named:
        name = task.get("group") or task.get("task")
        if not isinstance(name, str):
            raise ConfigError("a task's mapping has no name", remedy="add task: its name")
        return cls(name, tuple(task["task"]) if "group" in task else (dict(task),))

    def executes_code(self, index: Mapping[str, Any]) -> bool:
        """As far as is known without loading it, which can execute code already."""
        settings = [spec for spec in self.specs if isinstance(spec, dict)]
        for spec in self.specs:
            if isinstance(spec, str) and spec in index:
                settings += [index[leaf].cfg for leaf in _leaves(index, spec)]
        return any(each.get("unsafe_code") for each in settings)

    def load(self, manager: Any, data: str | Path | None) -> dict[str, Any]:
        """Tasks of lm-eval by name, with their documents."""
        index = manager.task_index
        specs = [
            _with_copies(index, spec, Path(data))
            if data is not None and isinstance(spec, str) and spec in index
            else spec
            for spec in self.specs
        ]
        parts = manager.load(specs)["tasks"]
        for part in parts.values():
            shots = part.config.num_fewshot if self.shots is None else self.shots
            part.set_config("num_fewshot", shots or 0)
            part.set_fewshot_seed(FEWSHOT_SEED)
        return parts


def _leaves(index: Mapping[str, Any], name: str) -> list[str]:
    """Names of the single tasks behind a name, which may be that of a group or of a tag."""
    entry = index[name]
    if entry.kind.name == "TAG":
        return sorted(entry.tags)
    if entry.kind.name != "GROUP":
        return [name]
    members = [m if isinstance(m, str) else m.get("task") or m["group"] for m in entry.cfg["task"]]
    return [leaf for m in members if m in index for leaf in _leaves(index, m)]


def _with_copies(index: Mapping[str, Any], name: str, data: Path) -> dict[str, Any]:
    """A name as a group, whose members are what lm-eval lets settings be changed of."""
    members = [_from_folder(index[leaf], data) for leaf in _leaves(index, name)]
    return {"group": f"copies of {name}", "task": members}


def _from_folder(entry: Any, data: Path) -> str | dict[str, str]:
    """A task that reads its documents from a folder, where that has them."""
    dataset = str(entry.cfg.get("dataset_path", ""))
    copies = [data / dataset, data / dataset.rpartition("/")[2]]
    here = next((copy for copy in copies if dataset and copy.is_dir()), None)
    return {"task": entry.name, "dataset_path": str(here)} if here else entry.name


@contextmanager
def _allowing_code(allowed: bool) -> Iterator[None]:
    """The metric of HumanEval asks this variable before it executes anything, also on loading."""
    before = os.environ.get("HF_ALLOW_CODE_EVAL")
    if allowed:
        os.environ["HF_ALLOW_CODE_EVAL"] = "1"
    try:
        yield
    finally:
        if allowed and before is None:
            del os.environ["HF_ALLOW_CODE_EVAL"]
        elif before is not None:
            os.environ["HF_ALLOW_CODE_EVAL"] = before


def _adapter(model: TextModel) -> Any:
    from lm_eval.api.model import LM  # pyright: ignore[reportMissingImports]

    class Adapter(LM):
        """The three questions of lm-eval, put to a `TextModel`."""

        requests = 0

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            self.requests += len(requests)
            return model.loglikelihood([request.args for request in requests])

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            self.requests += len(requests)
            return model.rolling([request.args[0] for request in requests])

        def generate_until(self, requests: list[Any]) -> list[str]:
            self.requests += len(requests)
            return model.generate([request.args for request in requests])

    return Adapter()


@dataclass(frozen=True)
class _Answers:
    """Per metric: its value for each document and how lm-eval sums them up; chance of each."""

    values: dict[str, list[Any]]
    aggregations: dict[str, Callable | None]
    chances: list[float]

    @classmethod
    def of(cls, part: Any, samples: Sequence[Mapping[str, Any]]) -> _Answers:
        values: dict[str, list[Any]] = {}
        aggregations: dict[str, Callable | None] = {}
        chances, chosen = [], part.OUTPUT_TYPE == "multiple_choice"
        first_filter = samples[0]["filter"]
        for sample in samples:
            several = "" if sample["filter"] == first_filter else f" ({sample['filter']})"
            for metric in sample["metrics"]:
                values.setdefault(metric + several, []).append(sample[metric])
                aggregations[metric + several] = part.aggregation().get(metric)
            if chosen and not several:
                chances.append(1 / len(part.doc_to_choice(sample["doc"])))
        return cls(values, aggregations, chances)

    def metrics(self) -> dict[str, Any]:
        return {name: self._metric(name, values) for name, values in self.values.items()}

    def _metric(self, name: str, values: list[Any]) -> dict[str, Any]:
        aggregation = self.aggregations[name]
        how = getattr(aggregation, "__name__", "mean")
        if how == "perplexity":
            return summarise(values, of_mean=perplexity)
        if how != "mean":
            assert aggregation is not None
            unknown = dict.fromkeys(("stderr", "low", "high", "chance", "standing"))
            return {"value": float(aggregation(values)), "documents": len(values), **unknown}
        guessed = self.chances and name.split()[0] in ("acc", "acc_norm", "acc_bytes")
        chance = sum(self.chances) / len(self.chances) if guessed else None
        return summarise(values, chance=chance)


def _together(answers: Sequence[_Answers]) -> dict[str, Any]:
    """The metrics that all parts have, each document counting the same."""
    shared = [name for name in answers[0].values if all(name in own.values for own in answers)]
    values = {name: [v for own in answers for v in own.values[name]] for name in shared}
    chances = [chance for own in answers for chance in own.chances]
    return _Answers(values, answers[0].aggregations, chances).metrics()
