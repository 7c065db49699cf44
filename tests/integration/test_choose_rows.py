"""Selectors over rows of one's own, judged with a plain model of `transformers`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.integration import own_rows as own
from workbench.core import ConfigError, DataError
from workbench.integration import TokenRows, choose_rows


def matrix():
    return torch.stack([row["input_ids"] for row in own.rows(padded=False)])


def test_chosen_rows_are_those_the_model_finds_easiest():
    model, tokens_NT = own.llama(), matrix()
    before = own.parameters(model)
    chosen = choose_rows("perplexity", tokens_NT, model, share=0.25, band="low")
    loss_N = torch.stack([model(input_ids=row[None], labels=row[None]).loss for row in tokens_NT])
    assert set(chosen.sample_id_N) == set(loss_N.argsort()[:12].tolist())
    assert torch.equal(before, own.parameters(model)) and model.training


def test_a_dataset_and_its_token_matrix_give_the_same_choice():
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"input_ids": matrix().tolist()})
    model = own.llama()
    expected = choose_rows("random", matrix(), model, share=0.5, seed=2)
    found = choose_rows("random", table, model, share=0.5, seed=2)
    assert found.sample_id_N.tolist() == expected.sample_id_N.tolist()
    assert len(table.select(np.sort(found.sample_id_N))) == 24


def test_influence_prefers_rows_like_the_reference_set():
    model, tokens_NT = own.llama(), matrix()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(5):
        model(input_ids=tokens_NT, labels=tokens_NT).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    chosen = choose_rows(
        "top_influence",
        tokens_NT[8:],
        model,
        reference=tokens_NT[:8:2],
        share=0.25,
        domain=own.DOMAIN[8:],
        preconditioner="identity",
    )
    assert np.mean([own.DOMAIN[8 + place] == "even" for place in chosen.sample_id_N]) > 0.8


def test_rows_without_a_tokenizer_are_told_apart_by_their_numbers():
    source = TokenRows(np.array([[1, 22, 3], [4, 5, 6]]), ["b", "a"])
    assert source.text(0) == "1 22 3"
    assert source.domains == ("a", "b") and source.domain_N.tolist() == [1, 0]


def test_padded_or_ragged_rows_are_refused():
    datasets = pytest.importorskip("datasets")
    padded = datasets.Dataset.from_dict(
        {"input_ids": [[1, 2, 0], [3, 4, 5]], "attention_mask": [[1, 1, 0], [1, 1, 1]]}
    )
    with pytest.raises(DataError, match="padded"):
        choose_rows("random", padded, own.llama())
    with pytest.raises(DataError, match="one length"):
        choose_rows("random", [[1, 2, 3], [4, 5]], own.llama())


def test_influence_without_a_reference_set_is_refused():
    with pytest.raises(DataError, match="reference="):
        choose_rows("top_influence", matrix(), own.llama())


def test_an_unknown_selector_is_refused_before_any_work():
    with pytest.raises(ConfigError, match="did you mean 'quad'"):
        choose_rows("qaud", matrix(), own.llama())
