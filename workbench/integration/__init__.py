"""The policies inside a trainer of your own: a bare PyTorch loop, or `transformers.Trainer`.

    reweigh = SampleReweighter("linupper", temperature=0.4)     # weights of a batch from its losses
    mixer = DomainMixer("exp3", dataset["domain"], batch_rows=16, total_steps=1000)
    chosen = choose_rows("quad", tokens_NT, model, reference=held_out_MT, share=0.2)
    trainer = PolicyTrainer(model, args, train_dataset=dataset, reweighter="linupper")

Nothing here falls back: what cannot be done as asked is an error with its remedy.
`PolicyTrainer` loads `transformers.Trainer`, and so `accelerate`, when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.integration.choosing import TokenRows, choose_rows
from workbench.integration.mixing import DomainMixer
from workbench.integration.reweighting import SampleReweighter
from workbench.integration.row_loss import RowLosses, require_row_losses, row_losses

if TYPE_CHECKING:
    from workbench.integration.trainer import PolicyCallback, PolicyTrainer

__all__ = [
    "DomainMixer",
    "PolicyCallback",
    "PolicyTrainer",
    "RowLosses",
    "SampleReweighter",
    "TokenRows",
    "choose_rows",
    "require_row_losses",
    "row_losses",
]


def __getattr__(name: str) -> Any:
    if name in ("PolicyCallback", "PolicyTrainer"):
        from workbench.integration import trainer

        return getattr(trainer, name)
    raise AttributeError(f"module 'workbench.integration' has no attribute {name!r}")
