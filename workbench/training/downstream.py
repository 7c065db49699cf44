"""Downstream tasks on a checkpoint of a run, with the results in its folder.

    evaluate_downstream("runs/a", tasks=("piqa", "sciq"), limit=200)

Needs `pip install 'workbench[downstream]'`; most tasks download their documents once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from workbench.config import RunConfig
from workbench.core import ConfigError, stream_seed
from workbench.data import PreparedCorpus
from workbench.evaluation.downstream import PAPER_TASKS, Task, evaluate_task, load_tasks
from workbench.evaluation.text_model import TextModel
from workbench.models import Decoder, build_model
from workbench.tracking import RunFolder, downstream
from workbench.training import checkpoint
from workbench.training.device import resolve
from workbench.training.rows import prepared_corpus
from workbench.training.run import Run
from workbench.training.shards import load_model_shards

SAFE_TASKS = tuple(task for task in PAPER_TASKS if task != "humaneval")


def evaluate_downstream(
    run: Run | str | Path,
    tasks: Sequence[Task] = SAFE_TASKS,
    *,
    limit: int | None = None,
    step: int | None = None,
    execute_code: bool = False,
    data: str | Path | None = None,
    batch_rows: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    cache_dir: str | Path | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Evaluate a checkpoint on downstream tasks; each result is written as it is there.

    Args:
        run: a run or its folder; it may still be training.
        tasks: names of lm-eval, `name_Nshot`, YAML files or mappings; see `evaluation.downstream`.
        limit: documents of each task at most, for a quick look; all when None.
        step: of the checkpoint; the newest when None.
        execute_code: HumanEval executes what the model wrote; nothing does without this.
        data: folder with copies of datasets as `owner/name`, for machines without a network.
        batch_rows: rows of one forward pass; the run's micro-batch when None.
        device, precision: as in `TrainingConfig`; what this machine has, not what the run had.
        cache_dir: of prepared corpora; progress: told (task and stage, done, total).
    Returns:
        Records by task, as in `downstream/step_N/<task>.json`: see `evaluation.evaluate_task`.
    Raises:
        ConfigError: lm-eval is missing, a task is unknown, or executes code without leave.
        DataError: the documents of a task need a download that fails.
        RunError: no such checkpoint, or the run's tokenizer is gone.
    """
    run = run if isinstance(run, Run) else Run(RunFolder.open(run))
    if limit is not None and limit < 1:
        raise ConfigError(f"limit = {limit} leaves no document", remedy="give at least 1, or None")
    checkpoint.require(run.folder, step)
    loaded = load_tasks(tasks, data=data, execute_code=execute_code)
    corpus = prepared_corpus(run, cache_dir=cache_dir)
    model, step, config = model_at(run.folder, corpus, step)
    here = resolve(config.change(device=device, precision=precision)).training
    tell = progress or (lambda what, done, total: None)
    records = {}
    for task in loaded:

        def told(what: str, done: int, total: int | None, label: str = task.label) -> None:
            tell(f"{label}: {what}", done, total)

        text_model = TextModel(
            model.to(here.device),
            corpus.tokenizer,
            batch_rows=batch_rows or here.micro_batch_rows or here.batch_rows,
            device=here.device,
            precision=here.precision,
            progress=told,
        )
        answered = evaluate_task(task, text_model, limit=limit, execute_code=execute_code)
        records[task.label] = {"step": step, **answered}
        downstream.write(run.path, records[task.label])
    return records


def model_at(
    folder: RunFolder, corpus: PreparedCorpus, step: int | None = None
) -> tuple[Decoder, int, RunConfig]:
    """The model of a checkpoint in evaluation mode on the CPU, its step and its settings.

    Step 0 needs no checkpoint: it is the model that the run started from.

    Raises:
        RunError: no such checkpoint, or it is corrupt.
    """
    saved = checkpoint.load(folder, content_hash=corpus.content_hash, step=step)
    config = RunConfig(**(folder.config if saved is None else saved["config"]))
    model = build_model(
        config.model,
        vocab_size=corpus.vocab_size,
        context_tokens=corpus.context_tokens,
        seed=stream_seed(config.seed, "model"),
    )
    if saved is not None and "model" in saved:
        model.load_state_dict(saved["model"])
    elif saved is not None:
        load_model_shards(model, Path(saved["shards"]))
    return model.eval(), 0 if saved is None else saved["step"], config
