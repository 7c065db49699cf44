"""Peak memory: what the meter reads, and what the chunked loss promises."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from workbench.kernels import peak_mib, sample_loss
from workbench.kernels.memory import sent

MIB = 2**18
"""Float32 numbers of one MiB."""


def test_peak_counts_what_is_alive_together():
    def one_after_the_other():
        for _ in range(3):
            torch.empty(4 * MIB)

    def together():
        return [torch.empty(4 * MIB) for _ in range(3)]

    assert peak_mib(one_after_the_other) == pytest.approx(4, abs=0.01)
    assert peak_mib(together) == pytest.approx(12, abs=0.01)


def test_peak_counts_temporaries_inside_an_operator():
    x = torch.zeros(64, 4 * MIB // 64)
    assert peak_mib(lambda: torch.logsumexp(x, dim=1)) > 3.9


def test_memory_of_before_does_not_count():
    before = torch.empty(4 * MIB)
    assert peak_mib(lambda: torch.empty(MIB)) == pytest.approx(1, abs=0.01)
    assert before.numel() == 4 * MIB


def test_chunked_loss_needs_an_eighth_of_full_logits():
    """Above inputs and gradients, at V = 32 768, 2048 tokens, D = 512 in float32."""
    vocab, width, rows, tokens = 32768, 512, 2, 1024
    hidden = torch.zeros(rows, tokens, width, requires_grad=True)
    head = torch.zeros(vocab, width, requires_grad=True)
    labels = torch.zeros(rows, tokens, dtype=torch.int64)
    gradients_mib = 4 * (hidden.numel() + head.numel()) / 2**20

    def chunked():
        sample_loss(hidden, head, labels, form="chunked").sum().backward()

    def full():
        logits = F.linear(hidden, head).flatten(0, 1)
        F.cross_entropy(logits, labels.flatten()).backward()

    chunked_mib = peak_mib(chunked) - gradients_mib
    hidden.grad = head.grad = None
    full_mib = peak_mib(full) - gradients_mib
    assert full_mib > 2 * 4 * rows * tokens * vocab / 2**20
    assert chunked_mib <= full_mib / 8


def test_what_is_sent_to_a_gpu_lies_where_the_copy_need_not_wait(monkeypatch):
    asked = []
    x = torch.arange(3)
    pinned = type("Pinned", (), {"to": lambda self, *to, **how: asked.append((to, how))})
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned())
    sent(x, "cuda:1")
    assert asked == [(("cuda:1",), {"non_blocking": True})]
    assert sent(x, "cpu") is x
