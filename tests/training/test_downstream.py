"""Downstream tasks: local ones against a slow oracle, what guessing does, refusals, the folder."""

from __future__ import annotations

import builtins
import json
import math
import os
import shutil

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from workbench.batch import report
from workbench.cli import app
from workbench.core import ConfigError, DataError, RunError
from workbench.evaluation.task_scores import summarise
from workbench.evaluation.text_model import TextModel, windows
from workbench.tracking import RunFolder, downstream
from workbench.training import evaluate_downstream, train
from workbench.training.downstream import model_at

CONTEXT_TOKENS = 32


@pytest.fixture(scope="module")
def run(nano_config, cache_dir, tmp_path_factory):
    config = nano_config.change(total_steps=10, checkpoint_every_steps=5)
    return train(config, tmp_path_factory.mktemp("runs"), cache_dir=cache_dir)


@pytest.fixture
def text_model(run, nano_corpus):
    decoder, _, _ = model_at(run.folder, nano_corpus)
    return TextModel(decoder, nano_corpus.tokenizer, batch_rows=3, device="cpu")


def logprobs(decoder, tokens):
    """Log-probability of each token but the first, one row at a time: (T,) and whether greedy."""
    with torch.no_grad():
        hidden = decoder.hidden(torch.tensor([tokens[:-1]]))[0].double()
        table = torch.log_softmax(hidden @ decoder.head_VD.double().T, dim=-1)
    labels = torch.tensor(tokens[1:])
    return table[torch.arange(len(labels)), labels], table.argmax(-1) == labels


def oracle(decoder, tokenizer, context, continuation):
    """Log-probability of a continuation in a row that is cut on its left."""
    before, whole = tokenizer.encode([context, context + continuation])
    scored = len(whole) - len(before)
    assert 0 < scored <= CONTEXT_TOKENS
    value, best = logprobs(decoder, whole[-(CONTEXT_TOKENS + 1) :])
    return float(value[-scored:].sum()), bool(best[-scored:].all())


def is_cut(tokenizer, text):
    return len(tokenizer.encode([text])[0]) > CONTEXT_TOKENS + 1


# --- the model of text ---


def test_scores_of_a_batch_are_those_of_one_row_at_a_time(run, nano_corpus, text_model):
    decoder, tokenizer = text_model._model, nano_corpus.tokenizer
    pairs = [
        ("one two", " three"),
        ("a b c d e", " f"),
        ("zebra", " x y z"),
        ("so" + " long" * 40, " end"),
    ]
    found = text_model.loglikelihood(pairs)
    expected = [oracle(decoder, tokenizer, *pair) for pair in pairs]
    for (nats, greedy), (nats_there, greedy_there) in zip(found, expected, strict=True):
        assert nats == pytest.approx(nats_there, abs=1e-4)
        assert greedy is greedy_there
    assert text_model.cut_requests == 1


def test_spaces_at_the_end_of_a_context_belong_to_the_continuation(text_model):
    spaced, plain = text_model.loglikelihood([("one two ", "three"), ("one two", " three")])
    assert spaced == plain


def test_an_empty_context_starts_where_a_document_does(run, nano_corpus, text_model):
    tokens = nano_corpus.tokenizer.encode(["one two"])[0]
    value, _ = logprobs(text_model._model, [nano_corpus.eos_id, *tokens])
    ((nats, _),) = text_model.loglikelihood([("", "one two")])
    assert nats == pytest.approx(float(value.sum()), abs=1e-4)


def test_windows_predict_each_token_once_and_end_with_a_full_row():
    tokens = list(range(11))
    cut = list(windows(7, tokens, 10, 4))
    assert [w.tokens for w in cut] == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8], [6, 7, 8, 9, 10]]
    assert [w.scored for w in cut] == [4, 4, 2] and {w.request for w in cut} == {7}
    (only,) = windows(0, tokens, 2, 4)
    assert only.tokens == [6, 7, 8, 9, 10] and only.scored == 2


def test_a_long_text_is_read_in_rows_that_reach_back(nano_corpus, text_model):
    text = "red blue green " * 20
    tokens = [nano_corpus.eos_id, *nano_corpus.tokenizer.encode([text])[0]]
    assert len(tokens) > 2 * CONTEXT_TOKENS
    expected, at = 0.0, 1
    while at < len(tokens):
        end = min(at + CONTEXT_TOKENS, len(tokens))
        value, _ = logprobs(text_model._model, tokens[max(0, end - CONTEXT_TOKENS - 1) : end])
        expected, at = expected + float(value[-(end - at) :].sum()), end
    assert text_model.rolling([text]) == [pytest.approx(expected, abs=1e-3)]


def test_greedy_text_is_the_argmax_and_ends_before_a_stop(nano_corpus, text_model):
    tokenizer, prompt = nano_corpus.tokenizer, "one two"
    tokens = list(tokenizer.encode([prompt])[0])
    start = len(tokens)
    for _ in range(8):
        with torch.no_grad():
            hidden = text_model._model.hidden(torch.tensor([tokens]))[0, -1]
        tokens.append(int((text_model._model.head_VD @ hidden).argmax()))
    written = tokens[start:]
    if nano_corpus.eos_id in written:
        written = written[: written.index(nano_corpus.eos_id)]
    expected = tokenizer.decode(written)
    assert text_model.generate([(prompt, {"max_gen_toks": 8})]) == [expected]
    stop = expected[2:4]
    (stopped,) = text_model.generate([(prompt, {"max_gen_toks": 8, "until": [stop]})])
    assert stopped == expected[: expected.index(stop)]
    with pytest.raises(ConfigError, match="samples"):
        text_model.generate([(prompt, {"do_sample": True})])


# --- what the answers say ---


def test_an_interval_that_holds_the_level_of_guessing_is_called_near_chance():
    even = summarise([1, 0, 1, 0, 1, 1, 0, 0, 0, 1], chance=0.5)
    assert even["standing"] == "near chance" and even["value"] == 0.5
    assert summarise([1] * 40 + [0] * 4, chance=0.5)["standing"] == "above chance"
    assert summarise([0] * 40 + [1], chance=0.5)["standing"] == "below chance"
    assert summarise([1, 0, 1], chance=None)["standing"] is None


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    draws = [summarise(rng.random(60) < 0.25) for _ in range(2000)]
    covered = np.mean([each["low"] <= 0.25 <= each["high"] for each in draws])
    assert 0.93 < covered < 0.97


def test_an_interval_stays_within_zero_and_one_and_one_document_has_one():
    right = summarise([1])
    assert 0 < right["low"] < 1 and right["high"] == 1 and right["stderr"] is None


# --- tasks of lm-eval ---


def questions(folder, *, right, choices=4, count=24, seed=0):
    """A multiple-choice task on disk whose answers are `right(document number)`."""
    rng = np.random.default_rng(seed)
    words = ["red", "blue", "green", "one", "two", "three", "cat", "dog", "sun", "moon"]
    documents = [
        {
            "question": " ".join(rng.choice(words, 6 if n % 3 else 60)),
            "choices": [f"{w} {n}" for w in rng.choice(words, choices, replace=False)],
        }
        for n in range(count)
    ]
    for n, document in enumerate(documents):
        document["answer"] = right(n, document)
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    task = {
        "task": "local_questions",
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(path)},
            "cache_dir": str(folder / "datasets"),
        },
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }
    return task, documents


@pytest.fixture
def harness():
    pytest.importorskip("lm_eval", reason="lm-eval is not installed")


def test_accuracy_of_a_local_task_is_that_of_the_slow_oracle(
    harness, run, nano_corpus, cache_dir, tmp_path
):
    task, documents = questions(tmp_path, right=lambda n, document: n % 4)
    decoder, step, _ = model_at(run.folder, nano_corpus)
    hits, hits_per_letter = [], []
    for document in documents:
        scored = [
            oracle(decoder, nano_corpus.tokenizer, document["question"], f" {choice}")[0]
            for choice in document["choices"]
        ]
        letters = [len(choice) for choice in document["choices"]]
        hits.append(int(np.argmax(scored)) == document["answer"])
        hits_per_letter.append(int(np.argmax(np.divide(scored, letters))) == document["answer"])
    told = []
    records = evaluate_downstream(
        run, [task], cache_dir=cache_dir, progress=lambda *now: told.append(now)
    )
    record = records["local_questions"]
    assert record["metrics"]["acc"]["value"] == pytest.approx(np.mean(hits))
    assert record["metrics"]["acc_norm"]["value"] == pytest.approx(np.mean(hits_per_letter))
    assert record["metrics"]["acc"]["chance"] == 0.25
    texts = [f"{d['question']} {choice}" for d in documents for choice in d["choices"]]
    cut = sum(is_cut(nano_corpus.tokenizer, text) for text in texts)
    assert record["requests"] == 96 > record["cut_requests"] == cut > 0
    assert record["shots"] == 0
    assert told[-1] == ("local_questions: scoring", 96, 96)
    assert [each["step"] for each in downstream.read(run.path)] == [step] == [10]


def test_a_task_that_the_model_always_gets_right_is_above_chance(
    harness, run, nano_corpus, cache_dir, tmp_path
):
    decoder, _, _ = model_at(run.folder, nano_corpus, 5)

    def most_likely(n, document):
        pairs = [(document["question"], f" {choice}") for choice in document["choices"]]
        return int(np.argmax([oracle(decoder, nano_corpus.tokenizer, *pair)[0] for pair in pairs]))

    task, _ = questions(tmp_path, right=most_likely, choices=2)
    record = evaluate_downstream(run, [task], step=5, cache_dir=cache_dir)["local_questions"]
    metric = record["metrics"]["acc"]
    assert metric["value"] == 1 and metric["chance"] == 0.5
    assert metric["standing"] == "above chance"
    few = evaluate_downstream(run, [task], step=5, limit=2, cache_dir=cache_dir)["local_questions"]
    assert few["metrics"]["acc"]["documents"] == 2 and few["limit"] == 2
    assert few["metrics"]["acc"]["standing"] == "near chance"


def test_the_last_word_of_a_text_is_scored_as_perplexity_and_greedy_hits(
    harness, run, nano_corpus, cache_dir, tmp_path
):
    path = tmp_path / "words.jsonl"
    texts = ["red blue green", "one two three four", "sun moon"]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    settings = {"data_files": {"test": str(path)}, "cache_dir": str(tmp_path / "datasets")}
    yaml = tmp_path / "last_word.yaml"
    lines = {
        **{"task": "last_word", "dataset_path": "json", "dataset_kwargs": settings},
        **{"output_type": "loglikelihood", "test_split": "test"},
        "doc_to_text": "{{text.split(' ')[:-1]|join(' ')}}",
        "doc_to_target": "{{' '+text.split(' ')[-1]}}",
        "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
    }
    yaml.write_text(json.dumps(lines))  # every JSON file is a YAML file
    decoder, _, _ = model_at(run.folder, nano_corpus)
    split = [(text.rpartition(" ")[0], " " + text.rpartition(" ")[2]) for text in texts]
    scored = [oracle(decoder, nano_corpus.tokenizer, *pair) for pair in split]
    record = evaluate_downstream(run, [yaml], cache_dir=cache_dir)["last_word"]
    perplexity = record["metrics"]["perplexity"]
    assert perplexity["value"] == pytest.approx(math.exp(-np.mean([s[0] for s in scored])), 1e-3)
    assert perplexity["low"] < perplexity["value"] < perplexity["high"]
    assert record["metrics"]["acc"]["value"] == np.mean([s[1] for s in scored])
    assert record["metrics"]["acc"]["chance"] is None


def test_parts_of_a_group_count_by_their_documents(harness, run, cache_dir, tmp_path):
    parts = []
    for name, count, choices in (("few", 4, 2), ("many", 12, 4)):
        (tmp_path / name).mkdir()
        task, _ = questions(
            tmp_path / name, right=lambda n, document: 0, count=count, choices=choices
        )
        parts.append({**task, "task": name})
    group = {"group": "both", "task": parts}
    record = evaluate_downstream(run, [group], cache_dir=cache_dir)["both"]
    few, many = record["parts"]["few"]["acc"], record["parts"]["many"]["acc"]
    pooled = record["metrics"]["acc"]
    assert pooled["documents"] == 16
    assert pooled["value"] == pytest.approx((4 * few["value"] + 12 * many["value"]) / 16)
    assert pooled["chance"] == pytest.approx((4 * 0.5 + 12 * 0.25) / 16)


@pytest.fixture
def piqa_copy(tmp_path):
    """A folder as one gets by copying the dataset of PIQA, with other questions."""
    folder = tmp_path / "copies" / "baber" / "piqa"
    folder.mkdir(parents=True)
    rows = [
        {"goal": f"count to {n}", "sol1": f"one {n}", "sol2": f"two {n}", "label": n % 2}
        for n in range(10)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text(text)
    return tmp_path / "copies"


def test_a_named_task_reads_a_copy_of_its_dataset_and_takes_examples(
    harness, run, nano_corpus, cache_dir, piqa_copy, monkeypatch, tmp_path
):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    tasks = ("piqa", "piqa_2shot")
    records = evaluate_downstream(run, tasks, data=piqa_copy, cache_dir=cache_dir)
    assert [records[task]["shots"] for task in tasks] == [0, 2]
    decoder, _, _ = model_at(run.folder, nano_corpus)
    hits = []
    for n in range(10):
        prompt = f"Question: count to {n}\nAnswer:"
        answers = [f" {word} {n}" for word in ("one", "two")]
        scored = [oracle(decoder, nano_corpus.tokenizer, prompt, answer)[0] for answer in answers]
        hits.append(int(np.argmax(scored)) == n % 2)
    assert records["piqa"]["metrics"]["acc"]["value"] == pytest.approx(np.mean(hits))
    group = {"group": "some", "task": ["piqa", "sciq"]}
    with pytest.raises(DataError, match="some"):
        evaluate_downstream(run, [group], data=piqa_copy, cache_dir=cache_dir)
    assert records["piqa"]["cut_requests"] < records["piqa_2shot"]["cut_requests"] == 20
    assert records["piqa"]["metrics"]["acc"]["chance"] == 0.5
    assert {each["task"] for each in downstream.read(run.path)} >= set(tasks)


def test_tasks_that_cannot_be_had_are_refused_before_anything_is_computed(harness, run, cache_dir):
    with pytest.raises(ConfigError, match="did you mean 'piqa'"):
        evaluate_downstream(run, ["pika"], cache_dir=cache_dir)
    with pytest.raises(DataError, match=r"piqa, sciq.*download.*data="):
        evaluate_downstream(run, ["piqa", "sciq"], cache_dir=cache_dir)
    with pytest.raises(ConfigError, match="no task is named"):
        evaluate_downstream(run, [], cache_dir=cache_dir)
    with pytest.raises(ConfigError, match="limit = 0"):
        evaluate_downstream(run, ["piqa"], limit=0, cache_dir=cache_dir)


def test_code_is_executed_only_when_that_is_asked_for(harness, run, cache_dir, tmp_path):
    with pytest.raises(ConfigError, match=r"'humaneval' executes code.*execute_code=True"):
        evaluate_downstream(run, ["humaneval"], cache_dir=cache_dir)
    task, _ = questions(tmp_path, right=lambda n, document: 0, count=2)
    with pytest.raises(ConfigError, match="'local_questions' executes code"):
        evaluate_downstream(run, [{**task, "unsafe_code": True}], cache_dir=cache_dir)
    parent, child = tmp_path / "parent.yaml", tmp_path / "child.yaml"
    parent.write_text(json.dumps({**task, "unsafe_code": True}))
    child.write_text(json.dumps({"include": "parent.yaml", "task": "child"}))
    with pytest.raises(ConfigError, match="'child' executes code"):
        evaluate_downstream(run, [child], cache_dir=cache_dir)
    record = evaluate_downstream(run, [child], execute_code=True, cache_dir=cache_dir)
    assert "child" in record and "HF_ALLOW_CODE_EVAL" not in os.environ


def test_names_of_the_papers_are_known_to_the_harness(harness):
    from workbench.evaluation.downstream import PAPER_TASKS, _every_task, _leaves, _Named

    index = _every_task(pytest.importorskip("lm_eval.tasks").TaskManager).task_index
    named = {task: _Named.of(task, index) for task in PAPER_TASKS}
    assert len(_leaves(index, named["mmlu_5shot"].specs[0])) == 57
    assert named["mmlu_5shot"].shots == 5 and named["mmlu"].shots is None
    assert [task for task, each in named.items() if each.executes_code(index)] == ["humaneval"]


@pytest.fixture
def no_harness(monkeypatch):
    """lm-eval is not installed."""
    whole = builtins.__import__

    def missing(module, *arguments, **options):
        if module.split(".")[0] == "lm_eval":
            raise ModuleNotFoundError("No module named 'lm_eval'")
        return whole(module, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", missing)


def test_a_missing_package_is_one_line_with_the_extra_to_install(no_harness, run, cache_dir):
    with pytest.raises(ConfigError, match=r"pip install 'workbench\[downstream\]'"):
        evaluate_downstream(run, ["piqa"], cache_dir=cache_dir)


def test_a_step_that_is_not_there_is_named_before_tasks_are_read(no_harness, run, cache_dir):
    with pytest.raises(RunError, match="no checkpoint of step 77"):
        evaluate_downstream(run, ["piqa"], step=77, cache_dir=cache_dir)


def test_a_checkpoint_that_is_not_there_is_named(harness, run, cache_dir, tmp_path):
    task, _ = questions(tmp_path, right=lambda n, document: 0, count=2)
    with pytest.raises(RunError, match="no checkpoint of step 7"):
        evaluate_downstream(run, [task], step=7, cache_dir=cache_dir)


# --- the folder ---


def metric(value, standing):
    ends = {"low": value - 0.1, "high": value + 0.1, "chance": 0.25}
    return {"value": value, "stderr": 0.05, **ends, "standing": standing, "documents": 9}


def record(step, task, value=0.3, standing="near chance"):
    counted = {"step": step, "shots": 0, "requests": 36, "cut_requests": 2}
    return {"task": task, "metrics": {"acc": metric(value, standing)}, **counted}


def test_results_stand_in_the_report_and_go_when_the_run_is_rewound(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "copy")
    folder = RunFolder.open(tmp_path / "copy")
    shutil.rmtree(folder.path / "downstream", ignore_errors=True)
    downstream.write(folder.path, record(5, "piqa"))
    downstream.write(folder.path, record(10, "own task/é", 0.9, "above chance"))
    (folder.path / "downstream" / "step_000000010" / ".aside-sciq.json").write_text("{")
    text = report([folder], tmp_path / "report.html").read_text()
    assert "Downstream tasks" in text and "<td>piqa</td>" in text
    assert "<td>near chance</td>" in text and "2 of 36" in text
    with folder.lock():
        folder.rewind(5)
    assert [each["task"] for each in downstream.read(folder.path)] == ["piqa"]
    (folder.path / "downstream" / "step_000000005" / "piqa.json").write_text("{")
    with pytest.raises(RunError, match="evaluate the task again"):
        downstream.read(folder.path)


def test_the_command_shows_what_was_written(harness, run, cache_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(cache_dir))
    task, _ = questions(tmp_path, right=lambda n, document: n % 4, count=4)
    (tmp_path / "mine.yaml").write_text(json.dumps(task))
    asked = ["evaluate", run.path, "--tasks", tmp_path / "mine.yaml", "--step", 5, "--limit", 3]
    shown = CliRunner().invoke(app, [str(part) for part in asked])
    assert shown.exit_code == 0, shown.output
    assert "near chance" in shown.output and "acc_norm" in shown.output
    assert (run.path / "downstream" / "step_000000005" / "mine.json").exists()
    refused = CliRunner().invoke(app, ["evaluate", str(run.path), "--tasks", "humaneval"])
    assert refused.exit_code == 1 and "--execute-code" in refused.stderr


def test_a_result_is_replaced_whole(tmp_path):
    downstream.write(tmp_path, record(5, "piqa", 0.3))
    downstream.write(tmp_path, record(5, "piqa", 0.4))
    (only,) = downstream.read(tmp_path)
    assert only["step"] == 5 and only["metrics"]["acc"]["value"] == 0.4
