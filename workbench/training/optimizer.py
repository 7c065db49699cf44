"""AdamW with linear warm-up and cosine decay.

optimizer = build_optimizer(model, config.optimizer)
set_learning_rate(optimizer, learning_rate(step, config.optimizer, total_steps=300))
"""

from __future__ import annotations

import math

import torch
from torch import nn

from workbench.config import OptimizerConfig


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices and leaves norms and biases alone."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.peak_lr,
        betas=config.betas,
        eps=config.epsilon,
        fused=True,
    )


def apply_settings(optimizer: torch.optim.AdamW, config: OptimizerConfig) -> None:
    """Bring a running optimiser in line with changed settings; its moments stay."""
    for group in optimizer.param_groups:
        group["betas"] = config.betas
        group["eps"] = config.epsilon
        if group["weight_decay"] > 0 or group["params"][0].ndim >= 2:
            group["weight_decay"] = config.weight_decay


def learning_rate(step: int, config: OptimizerConfig, *, total_steps: int) -> float:
    """Rate of step `step` (from 0): linear to `peak_lr`, then half a cosine to `final_lr`."""
    if step < config.warmup_steps:
        return config.peak_lr * (step + 1) / config.warmup_steps
    decay_steps = max(1, total_steps - config.warmup_steps - 1)
    progress = min(1.0, (step - config.warmup_steps) / decay_steps)
    cosine = (1 + math.cos(math.pi * progress)) / 2
    return config.final_lr + (config.peak_lr - config.final_lr) * cosine


def set_learning_rate(optimizer: torch.optim.AdamW, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
