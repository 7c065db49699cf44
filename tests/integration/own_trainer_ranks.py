"""One rank of a `PolicyTrainer` under torchrun's variables; rank 0 stores what it trained.

python own_trainer_ranks.py OUT_DIR own-order|mixed ROWS_OF_A_RANK
"""

import sys

import own_rows as own
import torch
from transformers import TrainingArguments

from workbench.config import Policy
from workbench.integration import PolicyTrainer

out_dir, data, rows = sys.argv[1:]
mixed = {"mixer": "exp3", "domain": own.DOMAIN} if data == "mixed" else {}
trainer = PolicyTrainer(
    own.llama(),
    TrainingArguments(
        output_dir=out_dir,
        per_device_train_batch_size=int(rows),
        max_steps=2,
        learning_rate=0.1,
        optim="sgd",
        max_grad_norm=0.0,
        lr_scheduler_type="constant",
        use_cpu=True,
        report_to=[],
        save_strategy="no",
    ),
    train_dataset=own.rows() if mixed else own.rows(8),
    reweighter=Policy("linupper", temperature=0.3),
    **mixed,
)
trainer.train()
said = trainer.diagnostics()
if trainer.args.process_index == 0:
    torch.save([own.parameters(trainer.model), said], f"{out_dir}/rank0.pt")
