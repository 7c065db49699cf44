"""Shapes of the built-in decoders, as functions of vocabulary and context.

    fields = tiny(vocab_size=4096, context_tokens=128)      # fields of a `transformers` config

A preset returns plain fields, so that overrides are merged before the config derives others.
The papers' models are in `paper_presets`.
"""

from __future__ import annotations

from collections.abc import Callable

from workbench.models.paper_presets import PAPER_PRESETS, Fields


def tiny(vocab_size: int, context_tokens: int) -> Fields:
    """Llama-shaped, 4 layers × 128, tied: 1.3 M parameters at a vocabulary of 4096."""
    return _llama(vocab_size, context_tokens, layers=4, heads=4, width=128, intermediate_width=352)


def small(vocab_size: int, context_tokens: int) -> Fields:
    """Llama-shaped, 6 layers × 320, tied: 10 M parameters at a vocabulary of 8192."""
    return _llama(vocab_size, context_tokens, layers=6, heads=5, width=320, intermediate_width=864)


def _llama(
    vocab_size: int,
    context_tokens: int,
    *,
    layers: int,
    heads: int,
    width: int,
    intermediate_width: int,
) -> Fields:
    return {
        "model_type": "llama",
        "vocab_size": vocab_size,
        "max_position_embeddings": context_tokens,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_size": width,
        "intermediate_size": intermediate_width,
        "tie_word_embeddings": True,
    }


PRESETS: dict[str, Callable[[int, int], Fields]] = {
    "tiny": tiny,
    "small": small,
    # The smallest model of Radford et al. 2019, under the name it had here first.
    "mini-124m": PAPER_PRESETS["gpt2-124m"],
    **PAPER_PRESETS,
}
