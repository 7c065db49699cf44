"""A causal language model seen as a body, which makes hidden states, and an output embedding.

    decoder = Decoder(causal_lm, context_tokens=128)
    loss_B = decoder(tokens_BT, labels_BT)                 # nats per token of each row

Logits are never made here: the loss kernel decides how many of them exist at a time.
Shapes: B rows, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from workbench.kernels import sample_loss
from workbench.models.layers import blocks


class Decoder(nn.Module):
    """Wraps a `transformers` causal language model whose logits are hidden @ head.T.

    Args:
        model: the causal language model; `build_model` proves that its logits are of that form.
        context_tokens: tokens of a row, for `flops_per_token`.
    """

    def __init__(self, model: Any, *, context_tokens: int):
        super().__init__()
        self.model = model
        self.context_tokens = context_tokens

    def forward(self, tokens_BT: Tensor, labels_BT: Tensor) -> Tensor:
        """Loss of each row in nats per token, shape (B,): see `kernels.sample_loss`."""
        return sample_loss(self.hidden(tokens_BT), self.head_VD, labels_BT)

    def hidden(self, tokens_BT: Tensor) -> Tensor:
        """Last hidden states after the final norm, shape (B, T, D); the body only."""
        return self.model.base_model(input_ids=tokens_BT, use_cache=False).last_hidden_state

    def compile_blocks(self, backend: str = "inductor") -> None:
        """Compile the transformer blocks with `torch.compile`, in place, when they are first run.

        Block by block: one graph serves all of them, so that depth costs no compilation.  Before
        `shard`, and compatible with recomputation, which wraps a block from outside.  Names of
        parameters stay; copies of the model are not compiled.
        """
        for block in blocks(self):
            block.compile(backend=backend)

    @property
    def head_VD(self) -> nn.Parameter:
        """Weight of the output embedding, shape (V, D); tied or not."""
        return self.model.get_output_embeddings().weight

    @property
    def config(self) -> Any:
        """The model's `transformers` config."""
        return self.model.config

    @property
    def parameter_count(self) -> int:
        """Parameters, tied ones once."""
        return sum(p.numel() for p in self.parameters())

    @property
    def flops_per_token(self) -> float:
        """Floating-point operations of forward and backward for one token of a full row.

        6 N + 12 · layers · (heads · head width) · context, as in Chowdhery et al. 2022 (PaLM,
        appendix B).  N counts parameters that multiply: an embedding that is only looked up does
        not.  Attention is counted in full although half of it is masked.  Recomputation is not
        counted.
        """
        looked_up = {
            id(module.weight): module.weight.numel()
            for module in self.modules()
            if isinstance(module, nn.Embedding) and module.weight is not self.head_VD
        }
        multiplied = self.parameter_count - sum(looked_up.values())
        return 6.0 * multiplied + 12.0 * _attention_width(self.config) * self.context_tokens


def _attention_width(config: Any) -> int:
    """Sum over layers of heads × head width; 0 for a model without attention heads."""
    heads = getattr(config, "num_attention_heads", 0)
    if not heads:
        return 0
    head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return config.num_hidden_layers * heads * head_width
