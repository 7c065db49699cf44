"""Shards on one process: what torch says of them."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.distributed as dist

from workbench.config import ModelConfig
from workbench.models import build_model
from workbench.models.parallel import shard


@pytest.fixture
def alone_in_a_group(tmp_path):
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_shards_of_gpt2_are_silent_about_its_views(alone_in_a_group):
    config = ModelConfig(name="gpt2", overrides={"n_layer": 1, "n_embd": 16, "n_head": 2})
    model = build_model(config, vocab_size=400, context_tokens=8, seed=0)
    shard(model, device="cpu", dtype=None)
    tokens_BT = torch.arange(16).reshape(2, 8)
    with warnings.catch_warnings(record=True) as said:
        model(tokens_BT[:, :-1], tokens_BT[:, 1:]).sum().backward()
    assert [str(each.message) for each in said if "FSDP2" in str(each.message)] == []
