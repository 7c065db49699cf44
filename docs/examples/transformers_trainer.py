"""`transformers.Trainer` with a selector, a mixer and a reweighter, stopped and resumed.

python docs/examples/transformers_trainer.py          # seconds on a laptop, no download
"""

from __future__ import annotations

import tempfile

import numpy as np
import torch
from datasets import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, TrainingArguments

import workbench as wb
from workbench.integration import PolicyTrainer, choose_rows


def rows() -> Dataset:
    """Rows as any tokenised dataset has them, with a column that names the domain."""
    corpus = wb.prepare(
        wb.RunConfig(corpus={"name": "planted", "max_domain_mb": 0.05}).corpus,
        wb.RunConfig(tokenizer={"vocab_size": 400}).tokenizer,
        wb.RunConfig(rows={"context_tokens": 31}).rows,
    )
    pool = corpus.pool()
    tokens = corpus.tokens(pool.sample_id_N).tolist()
    domain = [corpus.domains[k] for k in pool.domain_N]
    return Dataset.from_dict({"input_ids": tokens, "labels": tokens, "domain": domain})


def new_model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=400, n_positions=32, n_embd=32, n_layer=4, n_head=2)
    )


def chosen(dataset: Dataset) -> Dataset:
    """Half of the rows, in equal parts from clusters of their text."""
    selection = choose_rows(
        "cluster_uniform", dataset, new_model(), share=0.5, domain=dataset["domain"]
    )
    print(f"chosen {len(selection)} of {len(dataset)} rows")
    return dataset.select(np.sort(selection.sample_id_N))


def trainer(dataset: Dataset, out_dir: str, steps: int) -> PolicyTrainer:
    arguments = TrainingArguments(
        output_dir=out_dir,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        max_steps=steps,
        learning_rate=3e-3,
        lr_scheduler_type="constant",
        logging_steps=10,
        save_steps=10,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    return PolicyTrainer(
        new_model(),
        arguments,
        train_dataset=dataset,
        reweighter=wb.Policy("linupper", temperature=0.4),
        mixer="exp3",
        domain=dataset["domain"],
    )


def main() -> dict[str, float]:
    everything = rows()
    dataset = chosen(everything)
    with tempfile.TemporaryDirectory() as out_dir:
        trainer(dataset, out_dir, steps=10).train()
        resumed = trainer(dataset, out_dir, steps=20)
        resumed.train(resume_from_checkpoint=True)
    logged = [entry for entry in resumed.state.log_history if "loss" in entry]
    for entry in logged:
        shares = {name: share for name, share in entry.items() if name.startswith("mixture/")}
        most = max(shares, key=shares.__getitem__)
        print(
            f"step {entry['step']}: loss {entry['loss']:.2f}, weighted {entry['weighted_loss']:.2f}"
            f", ESS {entry['ess_fraction']:.2f}, most of {most} ({shares[most]:.2f})"
        )
    return {
        "chosen": len(dataset) / len(everything),
        "first": logged[0]["loss"],
        "last": logged[-1]["loss"],
        "steps": len(logged),
    }


if __name__ == "__main__":
    main()
