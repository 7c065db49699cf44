"""A small model of `transformers` and rows of several lengths, for the tests of other trainers."""

from __future__ import annotations

import numpy as np
import torch

VOCABULARY, TOKENS, ROWS = 48, 12, 48
DOMAIN = ["even", "odd"] * (ROWS // 2)


def llama(seed: int = 0, **fields):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    shape = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32,
    }
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, **{**shape, **fields}))


def rows(count: int = ROWS, *, padded: bool = True) -> list[dict[str, torch.Tensor]]:
    """Rows with labels as `transformers` has them; the second half of a padded one is ignored.

    Even rows repeat few tokens, odd ones are uniform noise.
    """
    rng = np.random.default_rng(0)
    found = []
    for place in range(count):
        ids = torch.from_numpy(rng.integers(0, 4 if place % 2 == 0 else VOCABULARY, TOKENS))
        length = int(rng.integers(4, TOKENS + 1)) if padded else TOKENS
        labels = ids.clone()
        labels[length:] = -100
        mask = (torch.arange(TOKENS) < length).long()
        found.append({"input_ids": ids, "labels": labels, "attention_mask": mask})
    return found


def stacked(some: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([row[name] for row in some]) for name in some[0]}


def parameters(model) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def gradient(model) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters()])
