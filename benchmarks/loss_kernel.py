"""Time and peak memory of the per-sample loss against the plain mean cross-entropy.

    python -m benchmarks.loss_kernel [--rounds-scale 0.2]

Forms of one loss: plain mean over full logits; per sample over full logits, over chunks, in Triton
and by Liger-Kernel; and cross-entropy computed twice from the logits, once by the model and once
for the weights, as published reweighting code does.  First the head alone, then whole training
steps.  Triton and Liger-Kernel need a CUDA device: without one the reason is recorded.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import append, compare, peak_device_mib, this_device
from workbench.config import ModelConfig
from workbench.core import ConfigError
from workbench.kernels import kernel_report, sample_loss
from workbench.kernels.liger import require_liger
from workbench.kernels.sample_loss import Form as SampleForm
from workbench.models import build_model

Form = Callable[[Tensor, Tensor, Tensor], None]
MOST_ERROR = 2e-2
"""Of the gradients, relative: products of bfloat16 are rounded to it."""


@dataclass(frozen=True)
class Head:
    """Sizes of an output embedding and of the batch it is given."""

    vocab: int
    width: int
    rounds: int
    rows: int = 16
    tokens: int = 128


HEADS = {
    "cpu": {
        "head V=4096 D=128": Head(4096, 128, rounds=20),
        "head V=32768 D=512": Head(32768, 512, rounds=5),
    },
    "cuda": {
        "head V=50304 D=768": Head(50304, 768, rounds=20, tokens=1024),
        "head V=32000 D=2048": Head(32000, 2048, rounds=20, tokens=2048),
        "head V=128256 D=4096": Head(128256, 4096, rounds=10, rows=4, tokens=2048),
    },
}
STEPS = {
    "step tiny V=4096": {"model": "tiny", "vocab": 4096, "rounds": 40},
    "step small V=8192": {"model": "small", "vocab": 8192, "rounds": 9},
}
ROWS, CONTEXT_TOKENS = 16, 128


def plain(hidden_BTD: Tensor, head_VD: Tensor, labels_BT: Tensor) -> None:
    F.cross_entropy(F.linear(hidden_BTD, head_VD).flatten(0, 1), labels_BT.flatten()).backward()


def per_sample(hidden_BTD: Tensor, head_VD: Tensor, labels_BT: Tensor, *, form: SampleForm) -> None:
    _weighted_mean(sample_loss(hidden_BTD, head_VD, labels_BT, form=form)).backward()


def twice(hidden_BTD: Tensor, head_VD: Tensor, labels_BT: Tensor) -> None:
    logits_NV = F.linear(hidden_BTD, head_VD).flatten(0, 1)
    # The model's own loss: its graph stays alive beside that of the weighted one.
    model_loss = F.cross_entropy(logits_NV, labels_BT.flatten())
    nll_N = F.cross_entropy(logits_NV, labels_BT.flatten(), reduction="none")
    _weighted_mean(nll_N.view(labels_BT.shape).mean(dim=1)).backward()
    del model_loss


def _weighted_mean(loss_B: Tensor) -> Tensor:
    return (torch.softmax(loss_B.detach(), dim=0) * loss_B).sum()


IN_TORCH: tuple[SampleForm, ...] = ("full", "chunked")
ON_CUDA: tuple[SampleForm, ...] = ("triton", "liger")
FORMS: dict[str, Form] = {
    "plain": plain,
    "twice": twice,
    **{name: partial(per_sample, form=name) for name in IN_TORCH},
}


def not_measured() -> dict[str, str]:
    """Forms that cannot run here, and why."""
    loss = kernel_report(this_device())["loss"]
    found = {str(name): loss.reason for name in ON_CUDA if loss.form != "triton"}
    try:
        require_liger()
    except ConfigError as error:
        found.setdefault("liger", str(error))
    return found


def head_case(head: Head) -> dict[str, Any]:
    """The head alone: float32 on the CPU, bfloat16 on a GPU."""
    device = this_device()
    options: dict[str, Any] = {
        "device": device,
        "dtype": torch.bfloat16 if device == "cuda" else torch.float32,
    }
    hidden = torch.randn(head.rows, head.tokens, head.width, **options).requires_grad_()
    weight = (0.02 * torch.randn(head.vocab, head.width, **options)).requires_grad_()
    labels = torch.randint(0, head.vocab, (head.rows, head.tokens), device=device)
    leaves = (hidden, weight)
    gradients_mib = sum(leaf.numel() * leaf.element_size() for leaf in leaves) / 2**20

    def run(form: Form) -> Callable[[], None]:
        def backward() -> None:
            form(hidden, weight, labels)
            hidden.grad = weight.grad = None

        return backward

    missing = not_measured()
    added: list[SampleForm] = [name for name in ON_CUDA if name not in missing]
    forms = FORMS | {name: partial(per_sample, form=name) for name in added}
    found = _measure({n: run(form) for n, form in forms.items()}, head.rounds, gradients_mib)
    for name in (*IN_TORCH, *added) if device == "cuda" else ():
        found[name]["error"] = _error(name, hidden, weight, labels)
    return found


def _error(form: SampleForm, hidden: Tensor, head: Tensor, labels: Tensor) -> float:
    """Largest relative error of the two gradients against float64; the run ends if it is wrong."""
    wide_hidden, wide_head = (x.detach().double().requires_grad_() for x in (hidden, head))
    # Both under the same weights of rows: those of the losses would differ by their rounding.
    weight_B = torch.linspace(0.1, 3.0, len(labels), device=labels.device)
    (sample_loss(wide_hidden, wide_head, labels, form="chunked") * weight_B).sum().backward()
    (sample_loss(hidden, head, labels, form=form) * weight_B).sum().backward()
    error = max(
        float((leaf.grad.double() - truth.grad).norm() / truth.grad.norm())  # pyright: ignore
        for leaf, truth in ((hidden, wide_hidden), (head, wide_head))
    )
    hidden.grad = head.grad = None
    if not error < MOST_ERROR:
        raise SystemExit(f"form '{form}' is wrong: relative error {error:.1e}")
    return error


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
        name: {"time": times[name], "peak_mib": round(peak_device_mib(function) - counted_mib, 1)}
        for name, function in contenders.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="time and memory of the loss")
    parser.add_argument("--rounds-scale", type=float, default=1.0, help="0.2 for a quick look")
    scale = parser.parse_args().rounds_scale
    torch.manual_seed(0)
    device = this_device()
    missing = not_measured()
    results: dict[str, Any] = {"not measured": missing}
    for name, reason in missing.items():
        print(f"form '{name}' is not measured: {reason}")
    for case, head in HEADS[device].items():
        rounds = max(3, round(head.rounds * scale))
        results[case] = head_case(replace(head, rounds=rounds))
        _print(case, results[case])
    # Steps on a GPU are those of `benchmarks.training`.
    for case, options in STEPS.items() if device == "cpu" else ():
        rounds = max(3, round(options["rounds"] * scale))
        results[case] = step_case(**{**options, "rounds": rounds})
        _print(case, results[case])
    meaning = "peak_mib: head, above inputs and gradients; step, above parameters and optimizer"
    command = f"python -m benchmarks.loss_kernel --rounds-scale {scale:g}"
    path = append("loss_kernel", {"meaning": meaning, **results}, command=command)
    print(f"\n{meaning}\nwritten to {path.name}")


def _print(case: str, result: dict[str, Any]) -> None:
    print(f"\n{case}, {'bfloat16' if this_device() == 'cuda' else 'float32'}")
    for name, value in result.items():
        error = f"  error {value['error']:.1e}" if "error" in value else ""
        print(f"  {name:8} {value['time']!s:38} peak {value['peak_mib']:8.1f} MiB{error}")


if __name__ == "__main__":
    main()
