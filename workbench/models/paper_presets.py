"""Shapes of the models that the published experiments train, complete with their vocabularies.

    fields = PAPER_PRESETS["llama-1.4b"](32_000, 4096)      # fields of a `transformers` config

The output embedding has the entries of the tokenizer that the shape was published with, whatever
tokenizer a run takes: one with more entries is refused, `overrides={"vocab_size": …}` changes it.
Reweighting: Sow et al. 2025 (arXiv 2502.06733); AC-ODM: Ma et al. 2026 (arXiv 2505.23878); Quad:
Zhang et al. 2025 (arXiv 2409.16986).  What a paper leaves open is chosen as follows:

- `gpt2-*`: GPT-2's vocabulary, MLP of 4 × width, tied embeddings, a position a token of the row.
- `llama-*`, `quad-1.3b`: the vocabulary of Llama 2, embeddings not tied, as in Llama.
- `llama-0.9b`: depth, width and heads of Pythia-1B, which the paper trains beside it, and the MLP
  that then gives 0.90 B.
- `quad-1.3b`: the paper gives depth, width and heads, as in Sheared-LLaMA 1.3B (Xia et al. 2023,
  arXiv 2310.06694), whose MLP is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

Fields = dict[str, Any]

GPT2_VOCAB = 50_257
PYTHIA_VOCAB = 50_304
"""Pythia's tokenizer, rounded up to a multiple of 128."""
LLAMA_VOCAB = 32_000


def _gpt2(vocab_size: int, context_tokens: int, *, layers: int, heads: int) -> Fields:
    del vocab_size
    return {
        "model_type": "gpt2",
        "vocab_size": GPT2_VOCAB,
        "n_positions": context_tokens,
        "n_layer": layers,
        "n_head": heads,
        "n_embd": 768,
    }


def _pythia(vocab_size: int, context_tokens: int, *, layers: int, width: int, heads: int) -> Fields:
    del vocab_size
    return {
        "model_type": "gpt_neox",
        "vocab_size": PYTHIA_VOCAB,
        "max_position_embeddings": context_tokens,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "tie_word_embeddings": False,
    }


def _llama(
    vocab_size: int,
    context_tokens: int,
    *,
    layers: int,
    width: int,
    heads: int,
    intermediate_width: int,
) -> Fields:
    del vocab_size
    return {
        "model_type": "llama",
        "vocab_size": LLAMA_VOCAB,
        "max_position_embeddings": context_tokens,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_size": width,
        "intermediate_size": intermediate_width,
        "tie_word_embeddings": False,
    }


_llama_24_deep = partial(_llama, layers=24, width=2048, heads=16)

PAPER_PRESETS: dict[str, Callable[[int, int], Fields]] = {
    "gpt2-124m": partial(_gpt2, layers=12, heads=12),
    "gpt2-209m": partial(_gpt2, layers=24, heads=16),
    "gpt2-294m": partial(_gpt2, layers=36, heads=24),
    "pythia-410m": partial(_pythia, layers=24, width=1024, heads=16),
    "pythia-1b": partial(_pythia, layers=16, width=2048, heads=8),
    "llama-0.9b": partial(_llama, layers=16, width=2048, heads=8, intermediate_width=5120),
    "quad-1.3b": partial(_llama_24_deep, intermediate_width=5504),
    "llama-1.4b": partial(_llama_24_deep, intermediate_width=5632),
    "llama-7b": partial(_llama, layers=32, width=4096, heads=32, intermediate_width=11_008),
}
