"""A PyTorch loop of your own: rows chosen, domains mixed, samples weighed.

python docs/examples/bare_loop.py          # seconds on a laptop, no download
"""

from __future__ import annotations

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import workbench as wb
from workbench.integration import DomainMixer, SampleReweighter, choose_rows, row_losses

STEPS, BATCH_ROWS, TOKENS = 30, 8, 32


def main() -> dict[str, float]:
    torch.manual_seed(0)
    # Rows of token ids and the domain of each: here text that the workbench generates.
    corpus = wb.prepare(
        wb.RunConfig(corpus={"name": "planted", "max_domain_mb": 0.05}).corpus,
        wb.RunConfig(tokenizer={"vocab_size": 400}).tokenizer,
        wb.RunConfig(rows={"context_tokens": TOKENS}).rows,
    )
    pool = corpus.pool()
    tokens_NT = torch.from_numpy(corpus.tokens(pool.sample_id_N))
    domain_N = np.array(corpus.domains)[pool.domain_N]
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=corpus.vocab_size, **shape, **heads))

    # Select: half of the pool, in equal parts from clusters of its text.
    chosen = choose_rows("cluster_uniform", tokens_NT, model, share=0.5, domain=domain_N)
    keep_n = np.sort(chosen.sample_id_N)
    tokens_NT, domain_N = tokens_NT[keep_n], domain_N[keep_n]
    print(f"chosen {len(chosen)} of {len(pool)} rows")

    # Mix and reweight.
    sizes = {"batch_rows": BATCH_ROWS, "total_steps": STEPS}
    mixer = DomainMixer("acodm", domain_N, model=model, **sizes)
    reweigh = SampleReweighter("linupper", temperature=0.4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for step in range(STEPS):
        tokens_BT = tokens_NT[mixer.draw()]
        with mixer.forward(BATCH_ROWS):
            rows = row_losses(model(input_ids=tokens_BT).logits, tokens_BT)
        weight_B = reweigh(rows.loss_B, step=step)
        (weight_B * rows.loss_B).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        mixer.observe(rows.loss_B, weight_B)
        losses.append(float(rows.loss_B.detach().mean()))

    said = reweigh.diagnostics()
    print(f"loss {losses[0]:.2f} -> {losses[-1]:.2f} nats, largest weight {said['max_weight']:.2f}")
    shares = mixer.diagnostics()["mixture"]
    print("mixture", ", ".join(f"{name} {share:.2f}" for name, share in shares.items()))
    return {"first": losses[0], "last": losses[-1], **said}


if __name__ == "__main__":
    main()
