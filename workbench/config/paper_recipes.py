"""How each published model is trained: rows, batch, schedule and optimiser, by the model's name.

    RECIPES["llama-1.4b"].optimizer.peak_lr

From the papers: AC-ODM (arXiv 2505.23878) rows, batch, steps, rates, warm-up, betas, decay and
clipping of Pythia; reweighting (arXiv 2502.06733) all of GPT-2 but the betas and which model has
32 and which 48 rows, and of Llama the context, peak rate and betas; Quad (arXiv 2409.16986)
context, batch, steps, rate and betas.  Chosen here, because the papers leave it open:

- `gpt2-*`: betas (0.9, 0.95); 48 rows for the smallest model, 32 for the deeper ones.
- `llama-0.9b`: all of Pythia-1B's, which it is trained beside.
- `llama-1.4b`, `llama-7b`: 1024 rows, 16 for each of the paper's 64 GPUs; 20 000 steps, warm-up in
  the same proportion as GPT-2's (500 steps); decay to a tenth, weight decay 0.1, clipping at 1, as
  Llama (arXiv 2302.13971) has them.
- `quad-1.3b`: 4 M tokens as 4096 rows of 1024; a constant rate is not built here, so it decays to a
  tenth; 1 % warm-up; weight decay 0.1 and clipping at 1.
- Corpora: the catalogue's nearest to the paper's; of The Pile, what is still distributed.
- Tokenizers: the model's own, of Llama a copy that is not gated.
"""

from __future__ import annotations

from dataclasses import dataclass

from workbench.config.run import OptimizerConfig, RowsConfig, TrainingConfig

SLIMPAJAMA, PILE = "slimpajama-627b", "pile-uncopyrighted"
GPT2_TOKENIZER = "openai-community/gpt2"
PYTHIA_TOKENIZER = "EleutherAI/pythia-1b"
LLAMA_TOKENIZER = "huggyllama/llama-7b"


@dataclass(frozen=True)
class Recipe:
    """What a model's training needs beside text and policies."""

    corpus: str
    tokenizer: str
    rows: RowsConfig
    optimizer: OptimizerConfig
    training: TrainingConfig


def _schedule(steps: int, rows: int, *, precision: str = "auto") -> TrainingConfig:
    return TrainingConfig(
        total_steps=steps,
        batch_rows=rows,
        precision=precision,  # pyright: ignore[reportArgumentType]
        # AC-ODM's table is of step 41 500.
        evaluate_every_steps=500,
        checkpoint_every_steps=500,
        record_every_steps=50,
    )


def _gpt2(rows: int) -> Recipe:
    return Recipe(
        "slimpajama-6b",
        GPT2_TOKENIZER,
        RowsConfig(context_tokens=512),
        OptimizerConfig(peak_lr=5e-4, final_lr=1e-4, warmup_steps=500, weight_decay=0.01),
        _schedule(20_000, rows),
    )


def _acodm(corpus: str, tokenizer: str, peak_lr: float) -> Recipe:
    steps = 41_667
    return Recipe(
        corpus,
        tokenizer,
        RowsConfig(context_tokens=1024),
        OptimizerConfig(peak_lr=peak_lr, final_lr=peak_lr / 10, warmup_steps=round(0.01 * steps)),
        _schedule(steps, 1152),
    )


def _llama() -> Recipe:
    return Recipe(
        SLIMPAJAMA,
        LLAMA_TOKENIZER,
        RowsConfig(context_tokens=4096),
        OptimizerConfig(peak_lr=3e-4, final_lr=3e-5, warmup_steps=500),
        _schedule(20_000, 1024, precision="bfloat16"),
    )


def _quad() -> Recipe:
    return Recipe(
        SLIMPAJAMA,
        LLAMA_TOKENIZER,
        RowsConfig(context_tokens=1024),
        OptimizerConfig(peak_lr=5e-5, final_lr=5e-6, warmup_steps=75),
        _schedule(7500, 4096),
    )


RECIPES: dict[str, Recipe] = {
    "gpt2-124m": _gpt2(48),
    "gpt2-209m": _gpt2(32),
    "gpt2-294m": _gpt2(32),
    "pythia-410m": _acodm(PILE, PYTHIA_TOKENIZER, 3e-4),
    "pythia-1b": _acodm(PILE, PYTHIA_TOKENIZER, 2.5e-4),
    "llama-0.9b": _acodm(SLIMPAJAMA, LLAMA_TOKENIZER, 2.5e-4),
    "quad-1.3b": _quad(),
    "llama-1.4b": _llama(),
    "llama-7b": _llama(),
}
