"""The learning-rate schedule and what AdamW decays."""

import itertools

import pytest
import torch

from workbench.config import OptimizerConfig
from workbench.training.optimizer import apply_settings, build_optimizer, learning_rate


def test_learning_rate_warms_up_then_follows_half_a_cosine():
    config = OptimizerConfig(peak_lr=1.0, final_lr=0.1, warmup_steps=4)
    rates = [learning_rate(step, config, total_steps=15) for step in range(15)]
    assert rates[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert rates[9] == pytest.approx(0.55)
    assert rates[14] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(rates[4:]))


def test_learning_rate_stays_at_the_end_value_past_the_end():
    config = OptimizerConfig(peak_lr=1.0, final_lr=0.1, warmup_steps=0)
    assert learning_rate(99, config, total_steps=10) == pytest.approx(0.1)


def test_matrices_are_decayed_and_vectors_are_not():
    model = torch.nn.Linear(3, 2)
    optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.3))
    decay = {p.ndim: g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decay == {2: 0.3, 1: 0.0}
    apply_settings(optimizer, OptimizerConfig(weight_decay=0.5, betas=(0.8, 0.9)))
    decay = {p.ndim: g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decay == {2: 0.5, 1: 0.0}
    assert all(g["betas"] == (0.8, 0.9) for g in optimizer.param_groups)
