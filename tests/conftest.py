"""A small corpus of known truth and a small model, shared by the tests of the rooms."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Kernels are proven by interpretation, on any machine; Triton decides when it is first imported.
os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest

from workbench.config import RunConfig

NANO = {
    "name": "tiny",
    "overrides": {
        "num_hidden_layers": 1,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
    },
}


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture(scope="session")
def nano_config() -> RunConfig:
    """A run of a few milliseconds a step on the generated corpus."""
    return RunConfig(
        name="nano",
        corpus={"name": "planted", "max_domain_mb": 0.05},
        tokenizer={"name": "bpe", "vocab_size": 400},
        rows={"context_tokens": 32},
        model=NANO,
        training={
            "total_steps": 40,
            "batch_rows": 8,
            "device": "cpu",
            "precision": "float32",
            "threads": 1,
            "ledger_every_steps": 5,
            "checkpoint_every_steps": 10,
            "evaluate_every_steps": 10,
            "held_out_rows": 4,
        },
    )


@pytest.fixture(scope="session")
def nano_corpus(nano_config, cache_dir):
    from workbench.data import prepare

    return prepare(nano_config.corpus, nano_config.tokenizer, nano_config.rows, cache_dir=cache_dir)
