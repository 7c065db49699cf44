"""Time and peak memory of the per-sample loss against the plain mean cross-entropy.

    python -m benchmarks.loss_kernel [--rounds-scale 0.2]

Four forms of one loss: plain mean over full logits; per sample over full logits; per sample over
chunks; and cross-entropy computed twice from the logits, once by the model and once for the
weights, as published reweighting code does.  First the head alone, then whole training steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import compare, record
from workbench.config import ModelConfig
from workbench.kernels import peak_mib, sample_loss
from workbench.models import build_model

Form = Callable[[Tensor, Tensor, Tensor], None]

HEADS = {
    "head V=4096 D=128": {"vocab": 4096, "width": 128, "rounds": 20},
    "head V=32768 D=512": {"vocab": 32768, "width": 512, "rounds": 5},
}
STEPS = {
    "step tiny V=4096": {"model": "tiny", "vocab": 4096, "rounds": 40},
    "step small V=8192": {"model": "small", "vocab": 8192, "rounds": 9},
}
ROWS, CONTEXT_TOKENS = 16, 128


def plain(hidden_BTD: Tensor, head_VD: Tensor, labels_BT: Tensor) -> None:
    F.cross_entropy(F.linear(hidden_BTD, head_VD).flatten(0, 1), labels_BT.flatten()).backward()


def full(hidden_BTD: Tensor, head_VD: Tensor, labels_BT: Tensor) -> None:
    _weighted_mean(sample_loss(hidden_BTD, head_VD, labels_BT, form="full")).backward()


def chunked(hidden_BTD: Tensor, head_VD: Tensor, labels_BT: Tensor) -> None:
    _weighted_mean(sample_loss(hidden_BTD, head_VD, labels_BT, form="chunked")).backward()


def twice(hidden_BTD: Tensor, head_VD: Tensor, labels_BT: Tensor) -> None:
    logits_NV = F.linear(hidden_BTD, head_VD).flatten(0, 1)
    # The model's own loss: its graph stays alive beside that of the weighted one.
    model_loss = F.cross_entropy(logits_NV, labels_BT.flatten())
    nll_N = F.cross_entropy(logits_NV, labels_BT.flatten(), reduction="none")
    _weighted_mean(nll_N.view(labels_BT.shape).mean(dim=1)).backward()
    del model_loss


def _weighted_mean(loss_B: Tensor) -> Tensor:
    return (torch.softmax(loss_B.detach(), dim=0) * loss_B).sum()


FORMS: dict[str, Form] = {"plain": plain, "full": full, "chunked": chunked, "twice": twice}


def head_case(*, vocab: int, width: int, rounds: int) -> dict[str, Any]:
    hidden = torch.randn(ROWS, CONTEXT_TOKENS, width, requires_grad=True)
    head = (0.02 * torch.randn(vocab, width)).requires_grad_()
    labels = torch.randint(0, vocab, (ROWS, CONTEXT_TOKENS))
    gradients_mib = 4 * (hidden.numel() + head.numel()) / 2**20

    def run(form: Form) -> Callable[[], None]:
        def backward() -> None:
            form(hidden, head, labels)
            hidden.grad = head.grad = None

        return backward

    return _measure({name: run(form) for name, form in FORMS.items()}, rounds, gradients_mib)


def step_case(*, model: str, vocab: int, rounds: int) -> dict[str, Any]:
    decoder = build_model(
        ModelConfig(name=model), vocab_size=vocab, context_tokens=CONTEXT_TOKENS, seed=0
    )
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-4, fused=True)
    tokens = torch.randint(0, vocab, (ROWS, CONTEXT_TOKENS + 1))

    def run(form: Form) -> Callable[[], None]:
        def step() -> None:
            form(decoder.hidden(tokens[:, :-1]), decoder.head_VD, tokens[:, 1:])
            optimizer.step()
            optimizer.zero_grad()

        return step

    return _measure({name: run(form) for name, form in FORMS.items()}, rounds, 0.0)


def _measure(
    contenders: dict[str, Callable[[], None]], rounds: int, counted_mib: float
) -> dict[str, Any]:
    """Timings and peaks; `counted_mib` of each peak are not the form's own.  A contender frees
    its gradients itself, as the meter must not see memory of before the call released."""
    times = compare(contenders, baseline="plain", rounds=rounds)
    return {
        name: {"time": times[name], "peak_mib": round(peak_mib(function) - counted_mib, 1)}
        for name, function in contenders.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="time and memory of the loss")
    parser.add_argument("--rounds-scale", type=float, default=1.0, help="0.2 for a quick look")
    scale = parser.parse_args().rounds_scale
    torch.manual_seed(0)
    results: dict[str, Any] = {}
    cases = [(head_case, HEADS), (step_case, STEPS)]
    for measure, settings in cases:
        for case, options in settings.items():
            rounds = max(3, round(options["rounds"] * scale))
            results[case] = measure(**{**options, "rounds": rounds})
            print(f"\n{case}, {ROWS} rows × {CONTEXT_TOKENS} tokens, float32")
            for name, value in results[case].items():
                print(f"  {name:8} {value['time']!s:38} peak {value['peak_mib']:7.1f} MiB")
    meaning = "peak_mib: head, above inputs and gradients; step, above parameters and optimizer"
    print(f"\n{meaning}\nwritten to {record('loss_kernel', {'meaning': meaning, **results})}")


if __name__ == "__main__":
    main()
