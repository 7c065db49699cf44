"""`PolicyTrainer` against `transformers.Trainer` and against gradients written out by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.integration import own_rows as own
from workbench.config import Policy
from workbench.core import ConfigError, ModelError, PolicyError, RunError
from workbench.integration.row_loss import batch_losses
from workbench.reweighting import sample_weights

pytest.importorskip("accelerate", reason="transformers.Trainer needs accelerate")

LINUPPER = Policy("linupper", temperature=0.3)


def arguments(out_dir, **changes):
    from transformers import TrainingArguments

    settings = {
        "per_device_train_batch_size": 8,
        "max_steps": 4,
        "learning_rate": 1e-2,
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "dataloader_pin_memory": False,
    }
    return TrainingArguments(output_dir=str(out_dir), **{**settings, **changes})


def trained(out_dir, *, kind=None, model=None, rows=None, policies=None, **changes):
    from workbench.integration import PolicyTrainer

    trainer = (kind or PolicyTrainer)(
        model or own.llama(),
        arguments(out_dir, **changes),
        train_dataset=rows or own.rows(),
        **(policies or {}),
    )
    trainer.train()
    return trainer


def plain():
    from transformers import Trainer

    return Trainer


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def descent(**changes):
    """One step whose change of the parameters is minus the gradient."""
    return {
        "max_steps": 1,
        "optim": "sgd",
        "learning_rate": 1.0,
        "max_grad_norm": 0.0,
        "lr_scheduler_type": "constant",
        **changes,
    }


class Refined(torch.nn.Module):
    """A model outside the library's conventions: its forward takes no loss arguments."""

    def __init__(self):
        super().__init__()
        self.inner = own.llama()
        self.config = self.inner.config

    def forward(self, input_ids, attention_mask=None, labels=None):
        return self.inner(input_ids=input_ids, attention_mask=attention_mask, labels=labels)


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("build", [own.llama, Refined], ids=["llama", "no loss arguments"])
def test_uniform_weights_reproduce_the_plain_trainer(tmp_path, accumulation, build):
    split = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": accumulation}
    expected = trained(tmp_path / "plain", kind=plain(), model=build(), **split)
    found = trained(tmp_path / "ours", model=build(), **split)
    torch.testing.assert_close(
        own.parameters(found.model), own.parameters(expected.model), rtol=1e-4, atol=2e-6
    )
    assert losses(found) == pytest.approx(losses(expected), rel=1e-5)


def test_gpt2_with_dropout_reproduces_the_plain_trainer(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    def model():
        torch.manual_seed(0)
        return GPT2LMHeadModel(
            GPT2Config(vocab_size=own.VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=32)
        )

    expected = trained(tmp_path / "plain", kind=plain(), model=model())
    found = trained(tmp_path / "ours", model=model())
    torch.testing.assert_close(
        own.parameters(found.model), own.parameters(expected.model), rtol=1e-4, atol=2e-6
    )


@pytest.mark.parametrize("micro_rows", [8, 2])
def test_the_gradient_is_that_of_the_weighted_loss_of_the_whole_step(tmp_path, micro_rows):
    """sum_i w_i nll_i / tokens, weights from all 8 rows, however the step is cut."""
    rows = own.rows(8)
    found = trained(
        tmp_path,
        rows=rows,
        policies={"reweighter": Policy("linupper", temperature=0.3, scope="step")},
        per_device_train_batch_size=micro_rows,
        gradient_accumulation_steps=8 // micro_rows,
        **descent(),
    )
    model = own.llama()
    before = own.parameters(model)
    of_rows, _ = batch_losses(model, own.stacked(rows))
    weight = sample_weights(of_rows.loss_B, strategy="linupper", temperature=0.3)
    nll = of_rows.loss_B * of_rows.tokens_B
    ((weight * nll).sum() / of_rows.tokens_B.sum()).backward()
    change = before - own.parameters(found.model)
    torch.testing.assert_close(change, own.gradient(model), rtol=1e-3, atol=1e-6)
    again, _ = batch_losses(model, own.stacked(rows))
    uniform = torch.autograd.grad(again.token_mean(), list(model.parameters()))
    plain_gradient = torch.cat([part.flatten() for part in uniform])
    assert (change - plain_gradient).norm() > 0.02 * plain_gradient.norm()


def test_streamed_weights_have_mean_1_and_the_gradient_they_say(tmp_path):
    """The second of two steps, in micro-batches, with the loss range of the first."""
    rows, rate = own.rows(8), 0.01
    cut = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    found = trained(
        tmp_path,
        rows=rows,
        policies={"reweighter": LINUPPER},
        **descent(**{**cut, "max_steps": 2, "learning_rate": rate}),
    )
    last = found.reweighter.last
    assert last.weight_B.mean().item() == pytest.approx(1, rel=1e-5)
    assert last.weight_B.std() > 0.05

    model = own.llama()
    of_first = batch_losses(model, own.stacked(rows))[0]
    of_first.token_mean().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= rate * parameter.grad
            parameter.grad = None
    before = own.parameters(model)
    of_rows, _ = batch_losses(model, own.stacked(rows))
    # The order of the second epoch is the Trainer's: rows are matched by their loss.
    place = torch.cdist(of_rows.loss_B.detach()[:, None], last.loss_B[:, None]).argmin(dim=1)
    nll = of_rows.loss_B * of_rows.tokens_B
    ((last.weight_B[place] * nll).sum() / of_rows.tokens_B.sum()).backward()
    change = (before - own.parameters(found.model)) / rate
    torch.testing.assert_close(change, own.gradient(model), rtol=1e-2, atol=1e-4)


def test_weights_are_logged_and_the_loss_stays_comparable(tmp_path):
    found = trained(tmp_path / "ours", policies={"reweighter": LINUPPER})
    first = next(entry for entry in found.state.log_history if "loss" in entry)
    assert first["weighted_loss"] > first["loss"]
    assert 0 < first["ess_fraction"] < 1 < first["max_weight"]
    assert first["temperature"] == pytest.approx(0.3)
    expected = trained(tmp_path / "plain", kind=plain())
    assert losses(found)[0] == pytest.approx(losses(expected)[0], rel=1e-5)


def test_bfloat16_gives_the_weights_of_float32_to_its_precision(tmp_path):
    full = trained(tmp_path / "full", policies={"reweighter": LINUPPER}, max_steps=1)
    half = trained(tmp_path / "half", policies={"reweighter": LINUPPER}, max_steps=1, bf16=True)
    torch.testing.assert_close(
        half.reweighter.last.weight_B, full.reweighter.last.weight_B, rtol=0.1, atol=0.05
    )
    assert half.reweighter.last.loss_B.dtype == torch.float32


@pytest.mark.parametrize("mixer", ["exp3", "alignment", "acodm"])
def test_a_run_resumed_from_a_checkpoint_equals_one_that_never_stopped(tmp_path, mixer):
    from workbench.integration import PolicyTrainer

    policies = {"reweighter": LINUPPER, "mixer": mixer, "domain": own.DOMAIN}
    cut = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 9}
    # An epoch is 6 steps: the run crosses its end, and the checkpoints lie on either side.
    straight = trained(
        tmp_path, policies=policies, save_strategy="steps", save_steps=4, save_total_limit=3, **cut
    )
    for step in (4, 8):
        again = PolicyTrainer(
            own.llama(seed=9),
            arguments(tmp_path, **cut),
            train_dataset=own.rows(),
            **policies,
        )
        again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert torch.equal(own.parameters(again.model), own.parameters(straight.model))
        assert again.diagnostics() == straight.diagnostics()
        assert again.state.epoch == straight.state.epoch


def test_training_twice_starts_the_policies_over(tmp_path):
    from workbench.integration import PolicyTrainer

    model = own.llama()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    policies = {"reweighter": LINUPPER, "mixer": "acodm", "domain": own.DOMAIN}
    # Without momentum, because a Trainer keeps its optimiser's state.
    plain_descent = arguments(tmp_path, **descent(max_steps=3))
    trainer = PolicyTrainer(model, plain_descent, train_dataset=own.rows(), **policies)
    trainer.train()
    first = own.parameters(model)
    model.load_state_dict(start)
    trainer.train()
    assert torch.equal(first, own.parameters(model))


class Seen(list):
    """Rows that remember which of them were read."""

    def __init__(self, rows):
        super().__init__(rows)
        self.places = []

    def __getitem__(self, place):
        self.places.append(place)
        return super().__getitem__(place)


def test_the_mixture_decides_which_rows_are_trained_on(tmp_path):
    rows, only = Seen(own.rows()), Policy("static", mixture={"odd": 1.0})
    found = trained(
        tmp_path, rows=rows, policies={"mixer": only, "domain": own.DOMAIN}, max_steps=2
    )
    assert found.diagnostics()["mixture/odd"] == 1
    assert len(rows.places) == 16
    assert {own.DOMAIN[place] for place in rows.places} == {"odd"}


def test_an_evaluation_is_not_weighted(tmp_path):
    found = trained(tmp_path, policies={"reweighter": LINUPPER}, max_steps=1)
    metrics = found.evaluate(own.rows(8))
    model = found.model.eval()
    expected = model(**own.stacked(own.rows(8))).loss.detach()
    assert metrics["eval_loss"] == pytest.approx(float(expected), rel=1e-5)


def test_a_checkpoint_without_policies_is_refused(tmp_path):
    from workbench.integration import PolicyTrainer

    trained(tmp_path, kind=plain(), save_strategy="steps", save_steps=2)
    trainer = PolicyTrainer(own.llama(), arguments(tmp_path), train_dataset=own.rows())
    with pytest.raises(RunError, match="holds no policies"):
        trainer.train(resume_from_checkpoint=True)


def test_a_checkpoint_of_other_policies_is_refused(tmp_path):
    from workbench.integration import PolicyTrainer

    trained(tmp_path, save_strategy="steps", save_steps=2)
    for policies, message in (
        ({"reweighter": "linupper"}, "of reweighter 'uniform'"),
        ({"mixer": "exp3", "domain": own.DOMAIN}, "without a mixer"),
    ):
        trainer = PolicyTrainer(
            own.llama(), arguments(tmp_path), train_dataset=own.rows(), **policies
        )
        with pytest.raises((RunError, PolicyError), match=message):
            trainer.train(resume_from_checkpoint=True)


MIXED = {"mixer": "exp3", "domain": own.DOMAIN}
ALIGNED = {"mixer": "alignment", "domain": own.DOMAIN}


@pytest.mark.parametrize(
    ("changes", "policies", "message"),
    [
        ({"label_smoothing_factor": 0.1}, {}, "label_smoothing_factor"),
        ({}, {"compute_loss_func": lambda *_: None}, "compute_loss_func"),
        ({"dataloader_num_workers": 1}, MIXED, "dataloader_num_workers=0"),
        ({"ignore_data_skip": True}, MIXED, "ignore_data_skip"),
        ({"gradient_checkpointing": True}, ALIGNED, "gradient checkpointing"),
        ({}, {"mixer": "exp3"}, "domain of each"),
        ({}, {"mixer": "exp3", "domain": ["a"]}, "domain of each"),
        ({}, {"reweighter": "linuper"}, "did you mean 'linupper'"),
    ],
)
def test_settings_under_which_policies_would_be_wrong_are_refused(
    tmp_path, changes, policies, message
):
    with pytest.raises(ConfigError, match=message):
        trained(tmp_path, policies=policies, **changes)


def test_a_mixer_that_needs_more_than_a_trainer_gives_is_refused(tmp_path):
    with pytest.raises(PolicyError, match="'pike' needs row_gradients"):
        trained(tmp_path, policies={"mixer": "pike", "domain": own.DOMAIN})


def test_the_fused_loss_of_liger_is_refused_before_training(tmp_path):
    from workbench.integration.trainer_checks import require_plain_trainer

    trainer = trained(tmp_path, max_steps=1)
    trainer.args.use_liger_kernel = True
    with pytest.raises(ModelError, match="use_liger_kernel=False"):
        require_plain_trainer(trainer, mixer=None, domain=None)
    trainer.args.liger_kernel_config = {"fused_linear_cross_entropy": False}
    require_plain_trainer(trainer, mixer=None, domain=None)


def test_a_model_already_patched_by_liger_is_refused_before_training(tmp_path):
    def lce_forward(self, input_ids=None, **kwargs):
        raise AssertionError("never called")

    lce_forward.__module__ = "liger_kernel.transformers.model.llama"
    model = own.llama()
    model.forward = lce_forward.__get__(model)
    with pytest.raises(ModelError, match="fused linear cross-entropy"):
        trained(tmp_path, model=model)


def test_a_fused_loss_of_any_make_is_refused_at_the_first_step(tmp_path):
    model = own.llama()
    whole = model.forward

    def forward(input_ids=None, attention_mask=None, labels=None, **kwargs):
        outputs = whole(input_ids=input_ids, attention_mask=attention_mask, labels=labels)
        if model.training and labels is not None:
            return SimpleNamespace(loss=outputs.loss, logits=None)
        return outputs

    model.forward = forward
    before = own.parameters(model)
    with pytest.raises(ModelError, match="fused_linear_cross_entropy"):
        trained(tmp_path, model=model, policies={"reweighter": LINUPPER})
    assert torch.equal(before, own.parameters(model))


DRIVER = Path(__file__).with_name("own_trainer_ranks.py")


@pytest.mark.parametrize("data", ["own-order", "mixed"])
def test_two_ranks_take_the_step_of_one(tmp_path, data):
    """Weights have mean 1 over both ranks' rows, and the gradient is that of one process."""
    found = []
    for world in (1, 2):
        out = tmp_path / str(world)
        out.mkdir()
        command = [sys.executable, str(DRIVER), str(out), data, str(8 // world)]
        shared = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(29500 + os.getpid() % 1000),
            "WORLD_SIZE": str(world),
        }
        ranks = [
            subprocess.Popen(
                command,
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
                env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(world)
        ]
        errors = [each.communicate(timeout=240)[1] for each in ranks]
        assert not any(each.returncode for each in ranks), json.dumps(errors)[-3000:]
        found.append(torch.load(out / "rank0.pt"))
    (alone, said_alone), (together, said_together) = found
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)
    for name in ("ess_fraction", "max_weight"):
        assert said_together[name] == pytest.approx(said_alone[name], rel=1e-4)
