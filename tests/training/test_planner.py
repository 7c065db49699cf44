"""The planner against measured memory, and what it says of models that nobody can make here."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from workbench.config import Policy, RunConfig, SelectionConfig, papers, presets
from workbench.config.paper_recipes import RECIPES
from workbench.core import ConfigError, ModelError
from workbench.kernels import domain_gradients, peak_mib
from workbench.kernels.choice import Place
from workbench.training import gauge as gauges
from workbench.training import planner
from workbench.training.cost import StepCost
from workbench.training.planner import check_fits_device, plan
from workbench.training.state import build_state
from workbench.training.step import train_step

TOLERANCE = 0.15
"""Of the measured peak; the planner leaves out what lives for an instant in the backward pass."""


@pytest.fixture(autouse=True, scope="module")
def measured_once():
    """Tracing a model of billions takes seconds, and many tests plan the same."""
    known, measure = {}, planner.footprint

    def footprint(*args, **options):
        key = repr((args, options))
        if key not in known:
            known[key] = measure(*args, **options)
        return known[key]

    planner.footprint = footprint
    yield
    planner.footprint = measure


def step_of(config, corpus):
    """Two steps: the optimiser's states come into being at the end of the first."""
    state = build_state(config, corpus)
    for _ in range(2):
        state.sampler.set_mixture(state.mixer.propose(state.step))
        train_step(state, state.sampler.draw(state.step))
        state.step += 1


@pytest.mark.parametrize(
    ("model", "training"),
    [
        ("tiny", {}),
        ("tiny", {"micro_batch_rows": 4}),
        ("tiny", {"activation_checkpointing": True}),
        ("tiny", {"precision": "bfloat16"}),
        ("tiny", {"mixer": Policy("alignment", tracked_layers=2, projection_width=64)}),
        ("small", {"batch_rows": 8}),
        ("small", {"batch_rows": 64, "micro_batch_rows": 16}),
    ],
)
def test_the_planned_peak_is_the_measured_one(nano_config, nano_corpus, model, training):
    config = nano_config.change(model=model, batch_rows=64).change(**training)
    measured = peak_mib(lambda: step_of(config, nano_corpus))
    planned = plan(config, vocab_size=nano_corpus.vocab_size, flops_per_second=1e9)
    assert planned.peak_mib == pytest.approx(measured, rel=TOLERANCE)


def test_the_planned_peak_is_the_measured_one_with_logits_in_parts(
    nano_config, nano_corpus, monkeypatch
):
    monkeypatch.setattr(planner, "FULL_LOGITS_MIB", 0)
    # The package has a function of the module's name.
    monkeypatch.setattr(sys.modules["workbench.kernels.sample_loss"], "FULL_LOGITS_MIB", 0)
    config = nano_config.change(model="tiny", batch_rows=64, micro_batch_rows=16)
    measured = peak_mib(lambda: step_of(config, nano_corpus))
    planned = plan(config, vocab_size=nano_corpus.vocab_size, flops_per_second=1e9)
    assert planned.peak_mib == pytest.approx(measured, rel=TOLERANCE)


def llama_7b(**changes):
    study = papers.reweighting("llama-7b", corpus="slimpajama-627b")
    return study["linupper"].change(device="cpu", micro_batch_rows=1, **changes)


def planned(config, **options):
    return plan(config, flops_per_second=4e14, corpus_domains=7, **options)


def test_llama_7b_is_planned_without_being_made():
    found = planned(llama_7b())
    assert found.parameters == 6_738_415_616
    assert found.parameters_mib == pytest.approx(4 * 6_738_415_616 / 2**20)
    assert found.optimizer_mib == 2 * found.parameters_mib
    assert found.tokens == 20_000 * 1024 * 4096
    assert found.flops == pytest.approx(6 * 6.6e9 * found.tokens, rel=0.2)
    assert found.disk_mib == 3 * 3 * found.parameters_mib
    days = found.flops / 4e14 / 86_400
    assert f"{days:,.1f} days" in str(found)


def test_shards_divide_what_is_kept_and_replicas_do_not():
    config = RunConfig().change(device="cpu", batch_rows=8, micro_batch_rows=1)
    alone = planned(config)
    replicated, sharded = (planned(config.change(parallel=p), devices=8) for p in ("ddp", "fsdp"))
    assert replicated.parameters_mib == alone.parameters_mib
    assert sharded.parameters_mib * 8 == alone.parameters_mib
    assert sharded.optimizer_mib * 8 == alone.optimizer_mib
    assert sharded.gradients_mib * 8 == alone.gradients_mib
    accumulating = planned(config.change(batch_rows=16, parallel="fsdp"), devices=8)
    assert accumulating.gradients_mib == alone.gradients_mib
    assert sharded.peak_mib < accumulating.peak_mib < replicated.peak_mib
    # Ranks on a CPU share its memory and its cores.
    assert replicated.seconds == pytest.approx(alone.seconds)
    assert replicated.free_mib == pytest.approx(alone.free_mib / 8, rel=0.2)


def test_recomputation_costs_a_third_more_operations_and_keeps_less():
    config = RunConfig().change(device="cpu", total_steps=10**4, evaluate_every_steps=10**4)
    plain, again = (planned(config.change(activation_checkpointing=f)) for f in (False, True))
    assert again.activations_mib < plain.activations_mib / 2
    assert again.flops == pytest.approx(plain.flops * 4 / 3, rel=0.01)


def test_a_mixer_that_keeps_gradients_by_domain_is_planned_for():
    config = RunConfig().change(device="cpu", micro_batch_rows=4)
    exact = planned(config.change(mixer=Policy("acodm", tracked_layers=3)))
    assert exact.policies_mib == pytest.approx(7 * 3 * 128 * 352 * 4 / 2**20)
    thin = planned(config.change(mixer=Policy("acodm", tracked_layers=3, projection_width=64)))
    assert 0 < thin.policies_mib < exact.policies_mib


@pytest.mark.parametrize(
    "training", [{}, {"micro_batch_rows": 4}, {"precision": "bfloat16"}], ids=str
)
def test_sketches_are_planned_as_large_as_they_are(nano_config, nano_corpus, monkeypatch, training):
    mixer = Policy("alignment", tracked_layers=2, projection_width=8)
    config = nano_config.change(model="tiny", mixer=mixer, **training)
    sketched, parts = [], []
    product = domain_gradients.domain_parts

    def watched(s_bTk, a_bTk, *others):
        sketched.append(a_bTk.nbytes)
        parts.append(product(s_bTk, a_bTk, *others))
        return parts[-1]

    monkeypatch.setattr(domain_gradients, "domain_parts", watched)
    state = build_state(config, nano_corpus)
    state.sampler.set_mixture(state.mixer.propose(0))
    train_step(state, state.sampler.draw(0))
    slots = state.signals.tracker._slots
    kept = [slot.parts_KOI.nbytes for slot in slots if slot.parts_KOI is not None]
    assert len(kept) == (2 if "micro_batch_rows" in training else 0)
    held = sum(kept) or max(each.nbytes for each in parts)
    held += sum(side.nbytes for slot in slots for side in slot.projections)
    # Both layers' sketches of a micro-batch wait for the backward pass.
    held += sum(sketched[:2])
    found = plan(
        config, corpus_domains=len(nano_corpus.domains), vocab_size=400, flops_per_second=1e9
    )
    assert found.policies_mib * 2**20 == held


@pytest.mark.parametrize(
    "mixer",
    [
        Policy("alignment", tracked_layers=2, projection_width=8),
        Policy("alignment", tracked_layers=2),
        Policy("pike", tracked_layers=2),
    ],
    ids=["projected", "exact", "row norms"],
)
def test_signals_are_planned_to_cost_what_a_run_says_of_them(nano_config, nano_corpus, mixer):
    config = nano_config.change(model="tiny", mixer=mixer)
    options = {"vocab_size": nano_corpus.vocab_size, "flops_per_second": 1e9}
    options["corpus_domains"] = len(nano_corpus.domains)
    asking, plain = (plan(each, **options) for each in (config, config.change(mixer="static")))
    state = build_state(config, nano_corpus)
    probed = StepCost(state).probe(state.mixer.needs)
    assert asking.flops - plain.flops == pytest.approx(config.training.total_steps * probed)
    assert asking.seconds > plain.seconds


@pytest.mark.parametrize("mixer", ["acodm", "alignment"])
def test_more_tracked_layers_than_the_model_has_are_refused_before_it_starts(mixer):
    one = {"name": "tiny", "overrides": {"num_hidden_layers": 1}}
    config = RunConfig(model=one, mixer=mixer).change(device="cpu")
    with pytest.raises(ModelError, match="layers cannot be tracked in a model of 1 blocks"):
        planned(config, devices=2)


@pytest.mark.parametrize("model", sorted(RECIPES))
def test_any_model_of_a_paper_is_rehearsed_with_the_layers_that_a_mixer_tracks(model):
    config = presets.pretraining("ci", model, "planted").change(mixer="acodm", device="cpu")
    assert planned(config, devices=2).policies_mib > 0


def test_the_catalogue_knows_the_domains_where_nobody_names_them():
    config = RunConfig().change(device="cpu", micro_batch_rows=4, mixer="acodm")
    assert config.corpus.name == "installed"
    alone = plan(config, corpus_domains=1, flops_per_second=1e9)
    for corpus, domains in (("pile-uncopyrighted", 17), ("slimpajama-627b", 7), ("planted", 6)):
        found = plan(config.change(corpus=corpus), flops_per_second=1e9)
        assert found.policies_mib == domains * alone.policies_mib and not found.warnings
    unknown = plan(config, flops_per_second=1e9)
    assert unknown.policies_mib == alone.policies_mib
    [warning] = check_fits_device(config, unknown)
    assert f"mixer 'acodm' keeps {alone.policies_mib:,.0f} MiB for each domain" in warning
    assert "'installed'" in warning
    for mixer in (Policy("static"), Policy("exp3"), Policy("acodm", projection_width=8)):
        assert not plan(config.change(mixer=mixer), flops_per_second=1e9).warnings


def test_a_refused_plan_names_what_was_not_counted():
    config = RunConfig().change(device="cpu", micro_batch_rows=4, mixer="acodm", model="llama-7b")
    found = plan(config, flops_per_second=1e9)
    with pytest.raises(ConfigError, match="MiB for each domain, counted for one"):
        check_fits_device(config, found)


def test_a_selector_that_judges_with_the_shards_of_its_run_gathers_them_on_every_rank():
    config = RunConfig().change(device="cpu", batch_rows=8, micro_batch_rows=1, parallel="fsdp")
    own = config.change(selector="quad")
    other = own.replace(selection=SelectionConfig(checkpoint="runs/judge"))
    found = [planned(each, devices=8) for each in (config, own, other)]
    whole = 4 * found[0].parameters / 2**20
    assert [each.selector_mib for each in found] == [0, pytest.approx(whole), 0]
    assert planned(own.change(parallel="ddp"), devices=8).selector_mib == 0
    huge = config.change(batch_rows=64, model="llama-7b", context_tokens=64)
    plain, judging = (planned(each, devices=64) for each in (huge, huge.change(selector="quad")))
    assert judging.peak_mib > 4 * judging.parameters / 2**20 >= 0.9 * plain.peak_mib


def test_a_selector_that_runs_no_model_is_planned_to_take_nothing():
    config = RunConfig().change(device="cpu", batch_rows=8, micro_batch_rows=1, parallel="fsdp")
    embedded = Policy("cluster_uniform", embedder="hidden")
    for selector, runs in (("random", 0), ("cluster_uniform", 0), (embedded, 1), ("perplexity", 1)):
        found = planned(config.change(selector=selector), devices=8)
        assert found.selector_mib == pytest.approx(runs * 4 * found.parameters / 2**20)
        assert sum("plans its own memory" in note for note in found.notes) == runs


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of 139 GiB that answers in a process of its own, and is asked nowhere else."""
    answered = []

    def run(command, **options):
        answered.append(command[-3:])
        text = json.dumps({"free_mib": 139 * 1024, "product_rate": 1e15})
        return subprocess.CompletedProcess(command, 0, stdout=text)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gauges.subprocess, "run", run)
    monkeypatch.setattr(Place, "of", classmethod(lambda cls, device: cls("cuda", (9, 0), True)))
    return answered


def test_a_gpu_is_asked_by_another_process_and_its_form_of_the_loss_is_planned_for(gpu):
    config = llama_7b(precision="bfloat16").change(device="cuda", micro_batch_rows=4)
    found = plan(config, devices=8)
    assert gpu == [["cuda", "bfloat16", "8"]]
    assert (found.free_mib, found.flops_per_second) == (139 * 1024, 4e14)
    head = 32_000 * 4096 / 2**20
    errors = min(512, 4 * 4096 * 32_000 * 2 / 2**20)
    assert found.loss_mib == pytest.approx(errors + (4 + 2) * head)


def test_a_gpu_elsewhere_is_planned_for_without_one_here(gpu, monkeypatch):
    config = llama_7b(parallel="fsdp").change(device="cuda", micro_batch_rows=4)
    asked = plan(config.change(precision="bfloat16"), devices=8, flops_per_second=4e14)
    gpu.clear()
    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(planner, "gauge", None)
    for device in ("cuda", "auto"):
        elsewhere = {"memory_gib": 139, "flops_per_second": 4e14, "device": device}
        found = plan(config, devices=8, **elsewhere)
        assert found.rows() == asked.rows() and found.seconds == asked.seconds
        assert (found.free_mib, found.device) == (139 * 1024, "cuda")
    assert "no device was asked: 139 GiB are taken to be free on each" in found.notes
    with pytest.raises(ConfigError, match="says nothing of its speed"):
        plan(config, devices=8, memory_gib=139)
    with pytest.raises(ConfigError) as refused:
        plan(config, devices=8, flops_per_second=4e14)
    assert "--memory-gib" in refused.value.remedy


@pytest.mark.parametrize(("parallel", "makers"), [("fsdp", 1), ("ddp", 8)])
def test_the_host_of_gpus_holds_the_models_that_ranks_make(gpu, parallel, makers):
    config = llama_7b(precision="bfloat16", parallel=parallel, activation_checkpointing=True)
    config = config.change(device="cuda")
    found = plan(config, devices=8)
    assert found.host_mib == pytest.approx(makers * 4 * 6_738_415_616 / 2**20)


def test_a_host_too_small_for_the_model_is_told(gpu, monkeypatch):
    config = llama_7b(precision="bfloat16", parallel="fsdp", activation_checkpointing=True)
    config = config.change(device="cuda")
    monkeypatch.setattr(planner, "free_mib", lambda device: 26_000)
    assert plan(config, devices=8).fits
    monkeypatch.setattr(planner, "free_mib", lambda device: 25_000)
    short = plan(config, devices=8)
    assert not short.fits
    with pytest.raises(ConfigError, match=r"whole on the host.*25,705 MiB, of which 25,000"):
        check_fits_device(config, short)


def test_a_device_answers_from_another_process_or_says_why_not(monkeypatch):
    found = gauges.gauge_elsewhere("cpu", "float32")
    assert found.free_mib > 0 and found.product_rate is not None and found.product_rate > 1e8
    failing = [sys.executable, "-c", "raise RuntimeError('out of memory')"]
    run = subprocess.run
    monkeypatch.setattr(gauges.subprocess, "run", lambda command, **how: run(failing, **how))
    with pytest.raises(ConfigError, match=r"'cuda' does not answer: RuntimeError: out of memory"):
        gauges.gauge_elsewhere("cuda")


def test_an_answer_is_found_below_what_libraries_print_and_told_where_there_is_none(monkeypatch):
    text = 'a library says hello\n{"free_mib": 5, "product_rate": null}\n'
    done = subprocess.CompletedProcess([], 0, stdout=text)
    monkeypatch.setattr(gauges.subprocess, "run", lambda *given, **how: done)
    assert gauges.gauge_elsewhere("cuda") == gauges.Gauge(5, None)
    for done.stdout, told in (("no driver", "'no driver'"), ("", "''"), ("[]", r"'\[\]'")):
        with pytest.raises(ConfigError, match=f"does not answer: {told} was printed"):
            gauges.gauge_elsewhere("cuda")


def test_the_fullest_of_the_gpus_asked_for_decides(monkeypatch):
    free = {"cuda": 80.0, "cuda:1": 7.0, "cuda:2": 60.0}
    monkeypatch.setattr(gauges, "free_mib", free.__getitem__)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [gauges.gauge_here("cuda", None, n).free_mib for n in (1, 2, 8)] == [80, 7, 7]


def test_a_model_that_does_not_fit_is_refused_with_the_numbers_and_what_would_help():
    config = papers.reweighting("llama-7b", corpus="slimpajama-627b")["uniform"]
    config = config.change(device="cpu")
    found = planned(config, devices=2)
    assert not found.fits
    with pytest.raises(ConfigError) as refused:
        check_fits_device(config, found)
    assert f"'llama-7b' needs {found.peak_mib:,.0f} MiB on each of 2 × cpu" in refused.value.problem
    for remedy in ("micro_batch_rows below 512", "activation_checkpointing", "fsdp", "devices"):
        assert remedy in refused.value.remedy
    check_fits_device(RunConfig(), plan(RunConfig().change(device="cpu"), flops_per_second=1e9))


def test_ranks_that_the_batch_cannot_be_dealt_to_are_refused():
    with pytest.raises(ConfigError, match="some of 17 ranks without a row"):
        plan(RunConfig(), devices=17, flops_per_second=1e9)


def test_the_rate_of_a_device_is_measured_where_none_is_given():
    found = plan(RunConfig().change(device="cpu", precision="float32"))
    assert found.flops_per_second > 1e8 and found.seconds > 0
    assert any("measured" in note for note in found.notes)
