"""`transformers.Trainer` with a reweighter and a mixer; everything else is as you know it.

    trainer = PolicyTrainer(
        model, args, train_dataset=dataset, data_collator=collator,
        reweighter=Policy("linupper", temperature=0.4), mixer="exp3", domain=dataset["domain"],
    )
    trainer.train(); trainer.train(resume_from_checkpoint=True)

The loss is sum_i w_i nll_i / num_items_in_batch, with nll_i the sum over the tokens of row i: with
uniform weights, that of the plain Trainer.  Shapes: b rows of a micro-batch, B of a step.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

from workbench.config import Policy
from workbench.core import RunError, Scope
from workbench.integration.mixing import DomainMixer
from workbench.integration.reweighting import SampleReweighter
from workbench.integration.row_loss import RowLosses, batch_losses, require_row_losses
from workbench.integration.trainer_checks import require_plain_trainer

STATE_FILE = "workbench_policies.pt"


class PolicyTrainer(Trainer):
    """A Trainer whose policies decide how much each sample counts and which rows are drawn.

    Logs, beside the Trainer's: `ess_fraction`, `max_weight`, `weighted_loss`, `temperature`, and
    `mixture/<domain>`.  `loss` stays the unweighted one, comparable with any other run.  Every
    checkpoint holds the policies' state, from which training resumes exactly.

    Args:
        reweighter: name or `Policy`; uniform weights when None.
        mixer: name or `Policy`; the Trainer's own sampler when None.
        domain: of each row of `train_dataset`, (N,); needed by a mixer.
        arguments, options: of `transformers.Trainer`.
    Raises:
        WorkbenchError: a policy or setting of the Trainer under which the rows' losses, or their
            order, would not be what the policies need; nothing falls back.
    """

    def __init__(
        self,
        *arguments: Any,
        reweighter: str | Policy | None = None,
        mixer: str | Policy | None = None,
        domain: Sequence[Any] | None = None,
        **options: Any,
    ):
        super().__init__(*arguments, **options)
        require_plain_trainer(self, mixer=mixer, domain=domain)
        weighing = _policy(reweighter or "uniform")
        self.reweighter = SampleReweighter(weighing.name, **weighing.options)
        self.mixer: DomainMixer | None = None
        if mixer is not None:
            assert domain is not None
            self.mixer = self._build_mixer(_policy(mixer), domain)
            require_plain_trainer(self, mixer=mixer, domain=domain, needs=self.mixer.mixer.needs)
        self._fresh = copy.deepcopy(self.policy_state())
        self._proven = False
        self._step = _Step(0, None)
        self.add_callback(PolicyCallback(self))

    def _build_mixer(self, policy: Policy, domain: Sequence[Any]) -> DomainMixer:
        args = self.args
        batch_rows = self._train_batch_size * args.gradient_accumulation_steps * args.world_size
        steps = args.max_steps
        if steps <= 0:
            steps = max(int(args.num_train_epochs * max(len(domain) // batch_rows, 1)), 1)
        return DomainMixer(
            policy.name,
            domain,
            batch_rows=batch_rows,
            total_steps=steps,
            seed=args.seed if args.data_seed is None else args.data_seed,
            model=self.model,
            **policy.options,
        )

    # --- data ---

    def get_train_dataloader(self) -> DataLoader:
        """The Trainer's, or batches in the mixer's proportions.

        Those are not prepared by `accelerate`, which would draw a batch ahead of the mixer and
        divide once more what each rank has drawn for itself.
        """
        if self.mixer is None:
            return super().get_train_dataloader()
        collator = self._get_collator_with_removed_columns(self.data_collator, "training")
        return DataLoader(
            self.train_dataset,  # pyright: ignore[reportArgumentType]
            batch_sampler=self.mixer.batches(self._train_batch_size),
            collate_fn=collator,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, Tensor | int | None]:
        """The micro-batches of a step; with scope `step`, their weights are decided here."""
        samples, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        together = len(samples) > 1 and self.reweighter.scope is Scope.STEP
        weights = self._weights_of(samples) if samples and together else None
        self._step = _Step(len(samples), weights)
        return samples, items

    def _weights_of(self, samples: Sequence[Mapping[str, Any]]) -> list[Tensor]:
        """Weights of each micro-batch from a pass over the whole step without gradients."""
        assert self.model is not None
        device = self.args.device
        with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            rows = [
                batch_losses(self.model.train(), self._prepare_inputs(dict(each)))[0]
                for each in samples
            ]
        weight_B = self.reweighter(
            torch.cat([part.loss_B for part in rows]),
            valid_B=torch.cat([part.valid_B for part in rows]),
            step=self.state.global_step,
        )
        return list(weight_B.split([len(part.loss_B) for part in rows]))

    # --- loss ---

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The weighted loss in training, the Trainer's own in evaluation.

        Raises:
            ModelError: the model hides its rows' losses, or trains on another loss.
        """
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if not self._proven:
            require_row_losses(self.model, inputs)
            self._proven = True
        with self._forward(len(inputs["labels"])):
            rows, outputs = batch_losses(model, inputs)
        weight_b = self._weigh(rows)
        items = rows.tokens_B.sum() if num_items_in_batch is None else num_items_in_batch
        items = torch.as_tensor(items) / self._loss_scale(num_items_in_batch)
        nll_b = rows.loss_B * rows.tokens_B
        self._step.add(nll_b.detach(), rows, items, scaled=num_items_in_batch is not None)
        loss = (weight_b * nll_b).sum() / items
        return (loss, outputs) if return_outputs else loss

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Back-propagates the weighted loss of a micro-batch; returns the unweighted one."""
        super().training_step(model, inputs, num_items_in_batch)
        if self._step.complete and self.reweighter.scope is not Scope.STEP and self._split:
            # As a number, because a sharded gradient takes no plain tensor.
            factor = float(self.reweighter.finish())
            for parameter in model.parameters() if self.reweighter.scope is Scope.STREAM else ():
                if parameter.grad is not None:
                    parameter.grad.mul_(factor)
        plain = self._step.plain_loss
        return plain if self._step.scaled else plain / self.current_gradient_accumulation_steps

    @property
    def _split(self) -> bool:
        return self._step.micro_batches > 1

    @contextmanager
    def _forward(self, rows: int) -> Iterator[None]:
        if self.mixer is None:
            yield
            return
        with self.mixer.forward(rows):
            yield

    def _weigh(self, rows: RowLosses) -> Tensor:
        step = self.state.global_step
        if self._step.weights is not None:
            return self._step.weights[len(self._step.parts)]
        if self._split:
            return self.reweighter.ahead(rows.loss_B, valid_b=rows.valid_B, step=step)
        return self.reweighter(rows.loss_B, valid_B=rows.valid_B, step=step)

    def _loss_scale(self, items: Tensor | int | None) -> int:
        """Gradients are averaged over ranks, where the items are those of all ranks."""
        everywhere = self.args.average_tokens_across_devices and items is not None
        return self.accelerator.num_processes if everywhere else 1

    # --- record and state ---

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The Trainer's, with what the policies say of the last step."""
        if "loss" in logs:
            logs = {**logs, **self.diagnostics()}
        super().log(logs, start_time)

    def diagnostics(self) -> dict[str, float]:
        """Of the last step, as flat numbers.  Reads the device."""
        found = self.reweighter.diagnostics()
        if self.reweighter.last is not None and self._step.parts:
            found["weighted_loss"] = self._step.weighted_loss(self.reweighter.last.weight_B)
        if self.mixer is not None and self.mixer.mixture is not None:
            shares = self.mixer.mixture.as_dict().items()
            found |= {f"mixture/{name}": share for name, share in shares}
        return found

    def observe(self) -> None:
        """Tell the mixer what the step showed, after the optimiser's step."""
        last = self.reweighter.last
        if self.mixer is None or last is None:
            return
        scale = self._step.rows_divided_by * float(last.factor)
        self.mixer.observe(last.loss_B, last.weight_B, last.valid_B, gradient_scale=scale)

    def policy_state(self) -> dict[str, Any]:
        """Of reweighter and mixer, plain types and tensors."""
        mixer = None if self.mixer is None else self.mixer.state_dict()
        return {"reweighter": self.reweighter.state_dict(), "mixer": mixer}

    def load_policy_state(self, state: Mapping[str, Any]) -> None:
        """Continue where `policy_state` was taken.

        Raises:
            WorkbenchError: it is of other policies.
        """
        if (state["mixer"] is None) != (self.mixer is None):
            raise RunError(
                "the checkpoint was written " + ("without" if self.mixer else "with") + " a mixer",
                remedy="resume with the policies it was saved with",
            )
        self.reweighter.load_state_dict(state["reweighter"])
        if self.mixer is not None:
            self.mixer.load_state_dict(state["mixer"])

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any):
        """As in `Trainer`; the policies start over, or continue from the checkpoint's.

        Raises:
            RunError: the checkpoint holds no policies.
        """
        checkpoint = resume_from_checkpoint
        if checkpoint is True:
            checkpoint = get_last_checkpoint(str(self.args.output_dir))
        if checkpoint:
            self.load_policy_state(_read_state(Path(checkpoint) / STATE_FILE))
        else:
            self.load_policy_state(self._fresh)
        return super().train(resume_from_checkpoint, *args, **kwargs)


class PolicyCallback(TrainerCallback):
    """Tells the mixer of each finished step, and writes the policies beside each checkpoint."""

    def __init__(self, trainer: PolicyTrainer):
        self._trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer.observe()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.should_save:
            folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            torch.save(self._trainer.policy_state(), folder / STATE_FILE)


class _Step:
    """The micro-batches of one optimiser step: how many, and what was seen of them so far."""

    def __init__(self, micro_batches: int, weights: list[Tensor] | None):
        self.micro_batches, self.weights = micro_batches, weights
        self.parts: list[tuple[Tensor, RowLosses]] = []
        self.items = torch.ones(())
        self.scaled = True

    def add(self, nll_b: Tensor, rows: RowLosses, items: Tensor, *, scaled: bool) -> None:
        detached = RowLosses(rows.loss_B.detach(), rows.tokens_B)
        self.parts.append((nll_b, detached))
        self.items, self.scaled = items, scaled

    @property
    def complete(self) -> bool:
        return len(self.parts) == self.micro_batches

    @property
    def plain_loss(self) -> Tensor:
        """Of the last micro-batch, without weights, divided as the weighted one was."""
        return self.parts[-1][0].sum() / self.items

    @property
    def rows_divided_by(self) -> float:
        """The tokens by which the loss was divided, in rows of mean length."""
        tokens_B = torch.cat([rows.tokens_B for _, rows in self.parts])
        tokens_per_row = tokens_B.sum() / (tokens_B > 0).sum().clamp(min=1)
        items = self.items if self.scaled else self.items * self.micro_batches
        return float(items / tokens_per_row)

    def weighted_loss(self, weight_B: Tensor) -> float:
        """Over the step's rows of this rank, in nats per token."""
        nll_B = torch.cat([nll_b for nll_b, _ in self.parts])
        tokens = sum(rows.tokens_B.sum() for _, rows in self.parts)
        return float((weight_B * nll_B).sum() / tokens)


def _policy(policy: str | Policy) -> Policy:
    return Policy(policy) if isinstance(policy, str) else policy


def _read_state(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, weights_only=True)
    except FileNotFoundError:
        raise RunError(
            f"{path.parent} holds no policies",
            remedy="resume from a checkpoint that PolicyTrainer wrote",
        ) from None
