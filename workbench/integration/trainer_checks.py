"""Settings of `transformers.Trainer` under which policies could not do what they say.

require_plain_trainer(trainer, mixer="exp3", domain=labels)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from workbench.core import ConfigError, ModelError, Signal
from workbench.integration.row_loss import NO_LOGITS

Check = tuple[Callable[[Any], bool], str, str]
"""Of a Trainer, whether it cannot be used; what is wrong; the remedy."""

OF_ANY_POLICY: tuple[Check, ...] = (
    (
        lambda t: t.compute_loss_func is not None,
        "compute_loss_func gives one loss for the batch",
        "leave it out: PolicyTrainer computes the rows' cross-entropy",
    ),
    (
        lambda t: bool(t.args.label_smoothing_factor),
        "label_smoothing_factor changes the loss of the rows",
        "set it to 0",
    ),
    (
        lambda t: t.args.n_gpu > 1,
        "DataParallel splits a batch after it was weighed",
        "start one process per GPU with torchrun",
    ),
    (
        lambda t: t.is_deepspeed_enabled,
        "DeepSpeed keeps gradients where weights of a step cannot be matched",
        "use DDP or FSDP",
    ),
    (
        lambda t: t.get_cp_size() * t.get_sp_size() > 1,
        "a row is divided over ranks, so no rank knows its loss",
        "turn context and sequence parallelism off",
    ),
    (
        lambda t: t.get_tp_size() > 1,
        "ranks of tensor parallelism see the same rows, which would count several times",
        "turn tensor parallelism off",
    ),
)
OF_A_MIXER: tuple[Check, ...] = (
    (
        lambda t: t.args.dataloader_num_workers > 0,
        "workers load batches before the mixer has seen the steps before",
        "set dataloader_num_workers=0",
    ),
    (
        lambda t: t.args.ignore_data_skip,
        "ignore_data_skip would repeat an epoch that the mixer has already moved past",
        "leave it out: the mixer's checkpoint knows the rows drawn",
    ),
    (
        lambda t: t.args.auto_find_batch_size,
        "auto_find_batch_size changes the batch under the mixer",
        "set per_device_train_batch_size",
    ),
)
OF_GRADIENTS: tuple[Check, ...] = (
    (
        lambda t: t.args.gradient_checkpointing,
        "gradient checkpointing computes layers again outside the mixer's sight",
        "turn it off, or use a mixer of losses such as exp3",
    ),
    (
        lambda t: t.args.torch_compile,
        "a compiled model hides its layers' inputs",
        "turn torch_compile off, or use a mixer of losses such as exp3",
    ),
    (
        lambda t: t.args.fp16,
        "fp16 scales gradients by a factor that changes",
        "use bf16, or a mixer of losses such as exp3",
    ),
)


def require_plain_trainer(
    trainer: Any,
    *,
    mixer: Any,
    domain: Sequence[Any] | None,
    needs: Collection[Signal] = (),
) -> None:
    """Refuse what would make the policies silently wrong.

    Args:
        needs: of the mixer, once it is built.
    Raises:
        ModelError: a fused cross-entropy.
        ConfigError: a setting, or a mixer without one domain per row.
    """
    _require_logits(trainer)
    checks = OF_ANY_POLICY + (OF_A_MIXER if mixer is not None else ())
    checks += OF_GRADIENTS if Signal.DOMAIN_GRADIENTS in needs else ()
    for wrong, problem, remedy in checks:
        if wrong(trainer):
            raise ConfigError(problem, remedy=remedy)
    if mixer is None:
        return
    try:
        rows = len(trainer.train_dataset)
    except TypeError:
        raise ConfigError(
            "a mixer draws rows by place, and the dataset is a stream",
            remedy="give a dataset with a length",
        ) from None
    if domain is None or len(domain) != rows:
        given = "none" if domain is None else str(len(domain))
        raise ConfigError(
            f"the mixer needs the domain of each of the {rows} rows, {given} given",
            remedy="add domain=dataset['domain']",
        )


def _require_logits(trainer: Any) -> None:
    args = trainer.args
    fused = (args.liger_kernel_config or {}).get("fused_linear_cross_entropy", True)
    module = getattr(getattr(trainer.model, "forward", None), "__module__", "") or ""
    if (args.use_liger_kernel and fused) or module.startswith("liger_kernel"):
        raise ModelError(
            "Liger's fused linear cross-entropy makes one loss for the batch and no logits",
            remedy=NO_LOGITS,
        )
