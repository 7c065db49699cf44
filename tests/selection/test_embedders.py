"""Embedders: topics come apart, vectors are kept block by block, and nothing is done twice."""

import sys
import types
from importlib.machinery import ModuleSpec

import numpy as np
import pytest
import torch

import workbench.selection.row_values as row_values_module
from workbench.core import ConfigError, DataError, NumericsError
from workbench.selection import EMBEDDERS, embed
from workbench.selection.row_values import ids_digest, read_arrays, row_values


def same_and_other_topic(embedding_ND, topic_N) -> tuple[float, float]:
    """Mean cosine within and between topics."""
    cosine = embedding_ND @ embedding_ND.T
    same = topic_N[:, None] == topic_N[None, :]
    return cosine[same].mean(), cosine[~same].mean()


def test_tfidf_vectors_are_of_unit_length_and_tell_topics_apart(topics):
    embedding_ND = embed(topics.task(), topics.sample_id_N, width=8)
    assert embedding_ND.shape == (120, 8) and embedding_ND.dtype == np.float32
    assert np.linalg.norm(embedding_ND, axis=1) == pytest.approx(1, abs=1e-5)
    same, other = same_and_other_topic(embedding_ND, topics.sample_id_N >> 40)
    assert same > 0.5 and abs(other) < 0.1


def test_a_row_without_words_has_the_zero_vector(topics):
    topics.texts[3] = "   "
    embedding_ND = embed(topics.task(), topics.sample_id_N, width=8)
    assert np.flatnonzero(np.linalg.norm(embedding_ND, axis=1) == 0).tolist() == [3]


def test_rows_come_back_in_the_order_asked_for_whatever_is_kept(topics, tmp_path):
    ids = topics.sample_id_N
    task = topics.task(cache_dir=tmp_path)
    first = embed(task, ids, width=8)
    read = topics.asked_texts
    shuffled = np.random.default_rng(1).permutation(len(ids))
    assert np.array_equal(embed(task, ids[shuffled], width=8), first[shuffled])
    assert topics.asked_texts == read, "read from the cache, not embedded again"
    assert np.allclose(embed(topics.task(), ids, width=8), first, atol=1e-6)


def test_other_settings_seeds_corpora_and_fits_share_no_vectors(topics, tmp_path):
    ids = topics.sample_id_N
    embed(topics.task(cache_dir=tmp_path), ids, width=8)
    for seed, width, rows in ((1, 8, 120), (0, 4, 120), (0, 8, 119)):
        embed(topics.task(cache_dir=tmp_path, seed=seed), ids[:rows], width=width)
    topics.content_hash = "another corpus"
    embed(topics.task(cache_dir=tmp_path), ids, width=8)
    assert len(list(tmp_path.iterdir())) == 5


def test_an_embedding_cut_short_continues_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(row_values_module, "BLOCK_BITS", 2)
    computed = []

    def squares(ids):
        if len(computed) == 3:
            raise KeyboardInterrupt
        computed.append(ids.tolist())
        return ids.astype(float) ** 2

    ids = np.arange(20)
    with pytest.raises(KeyboardInterrupt):
        row_values(squares, ids, folder=tmp_path)
    done, computed[:] = computed[:], []
    events = []
    values = row_values(
        lambda ids: squares(ids) if len(computed) < 2 else 1 / 0,
        ids,
        folder=tmp_path,
        progress=events.append,
        stage="squares",
    )
    assert values.tolist() == [i**2 for i in range(20)]
    assert done == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert computed == [[12, 13, 14, 15], [16, 17, 18, 19]]
    assert events[-1] == {"stage": "squares", "done": 20, "total": 20}
    assert not list(tmp_path.glob("*.tmp"))


def test_rows_that_joined_a_block_are_added_to_those_kept(tmp_path):
    asked = []

    def values(ids):
        asked.append(ids.tolist())
        return np.stack([ids, -ids], axis=1)

    row_values(values, np.array([5, 3]), folder=tmp_path)
    assert row_values(values, np.array([9, 3, 5]), folder=tmp_path)[:, 1].tolist() == [-9, -3, -5]
    assert asked == [[3, 5], [9]]


def test_a_damaged_block_is_named(tmp_path):
    row_values(lambda ids: ids, np.arange(3), folder=tmp_path)
    (block,) = tmp_path.iterdir()
    block.write_bytes(block.read_bytes()[:-30])
    with pytest.raises(DataError, match=rf"{block.name} is damaged.*delete it"):
        row_values(lambda ids: ids, np.arange(3), folder=tmp_path)
    assert read_arrays(tmp_path / "none.npz") is None


def test_a_set_of_ids_has_one_digest():
    assert ids_digest(np.array([3, 1])) == ids_digest(np.array([1, 3])) != ids_digest(np.array([1]))


def test_hidden_states_are_centred_and_leave_the_model_alone(topics, small_model, tmp_path):
    ids = topics.sample_id_N
    before = {n: p.clone() for n, p in small_model.state_dict().items()}
    task = topics.task(cache_dir=tmp_path)
    embedding_ND = embed(task, ids, small_model, embedder="hidden")
    assert embedding_ND.shape == (120, 16)
    assert np.linalg.norm(embedding_ND.mean(axis=0)) < 0.3
    assert small_model.training
    assert all(torch.equal(p, before[n]) for n, p in small_model.state_dict().items())
    one = small_model.hidden(torch.as_tensor(topics.tokens(ids)[:, :-1])).mean(dim=1)
    expected = (one - one.mean(dim=0)).detach().numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert embedding_ND == pytest.approx(expected, abs=1e-4)


def test_another_model_has_other_hidden_states_in_the_cache(topics, small_model, tmp_path):
    task = topics.task(cache_dir=tmp_path)
    first = embed(task, topics.sample_id_N, small_model, embedder="hidden")
    weight = next(small_model.parameters())
    with torch.no_grad():
        weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
        try:
            second = embed(task, topics.sample_id_N, small_model, embedder="hidden")
        finally:
            weight -= 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    assert np.abs(first - second).max() > 0.01


def test_vectors_that_are_not_finite_are_refused(topics, small_model):
    class Broken(torch.nn.Module):
        def hidden(self, tokens_BT):
            return torch.full((*tokens_BT.shape, 4), torch.nan)

    with pytest.raises(NumericsError, match="'hidden' gives vectors that are not finite"):
        embed(topics.task(), topics.sample_id_N, Broken(), embedder="hidden")


def test_what_is_missing_is_named_with_the_remedy(topics, monkeypatch):
    task, ids = topics.task(), topics.sample_id_N
    with pytest.raises(ConfigError, match="did you mean 'tfidf'"):
        embed(task, ids, embedder="tfdif")
    with pytest.raises(ConfigError, match="'hidden' has no model"):
        embed(task, ids, embedder="hidden")
    with pytest.raises(ConfigError, match="width = 0"):
        EMBEDDERS.build("tfidf", task, None, width=0)
    with pytest.raises(DataError, match="no rows"):
        embed(task, ids[:0])
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ConfigError, match=r"needs the package sentence-transformers.*pip install"):
        embed(task, ids, embedder="sentence", encoder="some-model")


def test_a_sentence_encoder_gets_the_text_of_the_rows(topics, monkeypatch):
    class SentenceTransformer:
        def __init__(self, name, device):
            if name != "here":
                raise OSError("no such folder")

        def encode(self, texts, **options):
            return np.array([[len(text), 1.0] for text in texts])

    module = types.ModuleType("sentence_transformers")
    module.__spec__ = ModuleSpec("sentence_transformers", None)
    module.SentenceTransformer = SentenceTransformer
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    embedding_ND = embed(topics.task(), topics.sample_id_N, embedder="sentence", encoder="here")
    lengths = [len(topics.texts[i]) for i in topics.sample_id_N.tolist()]
    assert embedding_ND[:, 0] / embedding_ND[:, 1] == pytest.approx(lengths, rel=1e-3)
    with pytest.raises(ConfigError, match="'there' cannot be loaded: no such folder"):
        embed(topics.task(), topics.sample_id_N, embedder="sentence", encoder="there")


def test_an_encoder_saved_anew_in_the_same_folder_shares_no_vectors(topics, monkeypatch, tmp_path):
    folder = tmp_path / "encoder"
    folder.mkdir()

    class SentenceTransformer:
        def __init__(self, name, device):
            self.offset = float((folder / "weights").read_text())

        def encode(self, texts, **options):
            return np.array([[len(text), self.offset] for text in texts])

    module = types.ModuleType("sentence_transformers")
    module.__spec__ = ModuleSpec("sentence_transformers", None)
    module.SentenceTransformer = SentenceTransformer
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    task = topics.task(cache_dir=tmp_path / "cache")
    found = []
    for weights in ("100", "900", "100"):
        (folder / "weights").write_text(weights)
        options = {"embedder": "sentence", "encoder": str(folder)}
        found.append(embed(task, topics.sample_id_N, **options))
    assert np.array_equal(found[0], found[2]) and not np.allclose(found[0], found[1])
