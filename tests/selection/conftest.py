"""A generated source of known topics and copies, and a small model, shared by the room."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.core import Pool, SelectionTask

TOPICS = ("alpha", "beta", "gamma", "delta")


class PlantedSource:
    """Rows of four topics with words of their own; `copies` rows repeat the text of row 0.

    The id of a row says its topic: id = topic << 40 | row.
    """

    domains = TOPICS
    content_hash = "planted topics"

    def __init__(self, rows_of_topic: int = 30, words: int = 40, copies: int = 0):
        rng = np.random.default_rng(0)
        self.texts: dict[int, str] = {}
        for topic, name in enumerate(TOPICS):
            for row in range(rows_of_topic):
                text = " ".join(f"{name}{word}" for word in rng.integers(0, 60, words))
                self.texts[topic << 40 | row] = text
        for copy in range(copies):
            self.texts[0 << 40 | (rows_of_topic + copy)] = self.texts[0]
        self.asked_texts = 0

    @property
    def sample_id_N(self) -> np.ndarray:
        return np.array(list(self.texts), dtype=np.int64)

    def pool(self) -> Pool:
        ids = self.sample_id_N
        return Pool(ids, ids >> 40, np.full(len(ids), 16))

    def text(self, sample_id: int) -> str:
        self.asked_texts += 1
        return self.texts[sample_id]

    def tokens(self, sample_id_B: np.ndarray) -> np.ndarray:
        return np.stack([np.random.default_rng(i).integers(0, 50, 17) for i in sample_id_B])

    def task(self, **fields) -> SelectionTask:
        return SelectionTask(self, np.zeros((1, 17), dtype=np.int64), **fields)


@pytest.fixture
def topics() -> PlantedSource:
    return PlantedSource()


@pytest.fixture(scope="session")
def small_model():
    """A decoder of 50 entries and rows of 16 tokens."""
    from workbench.config import ModelConfig
    from workbench.models import build_model

    overrides = {
        "num_hidden_layers": 1,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_attention_heads": 2,
    }
    config = ModelConfig(name="tiny", overrides=overrides)
    return build_model(config, vocab_size=50, context_tokens=16, seed=0)
