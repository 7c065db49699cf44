"""A language a small decoder learns in seconds, and decoders of known shape."""

import numpy as np
import torch

from workbench.models import Decoder

V, T = 64, 12
SHAPES = {
    "llama": {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2},
    "gpt2": {"n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": T},
    # Its MLP is given (b·T, I); its own ReLU has kinks, on which differences are not derivatives.
    "opt": {
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 48,
        "activation_function": "gelu",
        "num_attention_heads": 2,
    },
}
DROPOUT = {
    "llama": (),
    "gpt2": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    "opt": ("dropout", "attention_dropout"),
}


def decoder(kind="llama", dtype=torch.float64, seed=0, spread=0.1, **changes) -> Decoder:
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = {"vocab_size": V, **SHAPES[kind], **changes}
    if kind == "llama":
        fields |= {"intermediate_size": 48, "max_position_embeddings": T}
    dropout = dict.fromkeys(DROPOUT[kind], 0.0)
    config = AutoConfig.for_model(kind, **fields, **dropout)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").to(dtype)
    with torch.no_grad():  # fresh weights are so small that gradients hardly differ
        for p in model.parameters():
            p.add_(spread * torch.randn_like(p))
    return Decoder(model, context_tokens=T)


def random_rows(count, seed=0):
    return np.random.default_rng(seed).integers(0, V, (count, T + 1))


def chain_rows(count, seed=0, likelihood=0.7):
    """Rows of a Markov chain: a token's first successor has `likelihood`, later ones ever less."""
    rng = np.random.default_rng(seed)
    table = np.random.default_rng(99).integers(0, V, (V, 8))
    rows = rng.integers(0, V, (count, T + 1))
    for t in range(T):
        choice = np.minimum(rng.geometric(likelihood, count) - 1, 7)
        rows[:, t + 1] = table[rows[:, t], choice]
    return rows


def trained(rows_NT, steps=60, batch_rows=32, seed=0, rate=1e-2) -> Decoder:
    model = decoder(dtype=torch.float32, seed=seed, spread=0.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.from_numpy(rows_NT)
    for _ in range(steps):
        part = rows[torch.randint(len(rows), (batch_rows,), generator=generator)]
        optimizer.zero_grad(set_to_none=True)
        model(part[:, :-1], part[:, 1:]).mean().backward()
        optimizer.step()
    return model
