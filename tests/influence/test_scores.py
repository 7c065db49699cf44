"""Scores in four ways against every row's own gradient; memory, ranks, precision."""

import copy
import os

import numpy as np
import pytest
import torch
import torch.distributed as dist
from scipy.stats import spearmanr

from tests.influence import toy
from workbench.core import ConfigError, DataError, ModelError, NumericsError, PolicyError
from workbench.influence import scores as scores_module
from workbench.influence.choice import choose_way
from workbench.influence.direction import Direction
from workbench.influence.documents import document_scores
from workbench.influence.scores import row_losses, score_rows, scorer
from workbench.kernels.influence_scores import reference_scores
from workbench.models.linear_maps import linear_maps

N = 10


def rows(count=N):
    return toy.random_rows(count)


def drawn_direction(model, seed=3, **which) -> Direction:
    generator = torch.Generator().manual_seed(seed)
    return Direction(
        {
            found.name: torch.randn(found.outputs, found.inputs, generator=generator)
            for found in linear_maps(model, **which)
        }
    )


def truth(model, rows_NT, direction):
    maps = linear_maps(model, names=tuple(direction.matrices))
    tokens = torch.from_numpy(rows_NT)
    model = copy.deepcopy(model).double()
    weights = [model.get_submodule(found.name).weight for found in maps]
    matrices = [found.from_OI(direction.matrices[found.name]) for found in maps]
    return reference_scores(model(tokens[:, :-1], tokens[:, 1:]), weights, matrices).numpy()


@pytest.mark.parametrize("kind", toy.SHAPES)
@pytest.mark.parametrize("way", ["ghost", "jvp"])
def test_exact_ways_equal_every_row_s_own_gradient(kind, way):
    model, rows_NT = toy.decoder(kind), rows()
    direction = drawn_direction(model)
    found = score_rows(model, rows_NT, direction, way=way, batch_rows=4)
    expected_N = truth(model, rows_NT, direction).sum(axis=1)
    # Llama's norm computes in float32 whatever its weights are, so its forward-mode derivative
    # rounds where the backward pass does not.
    tolerance = 1e-6 if (kind, way) == ("llama", "jvp") else 1e-12
    np.testing.assert_allclose(
        found.score_N, expected_N, rtol=0, atol=tolerance * _scale(expected_N)
    )
    assert (found.way, found.score_N.dtype) == (way, np.float64)


def _scale(values):
    return max(1.0, float(np.abs(values).max()))


def test_a_head_is_scored_like_any_map():
    model, rows_NT = toy.decoder("gpt2", tie_word_embeddings=False), rows()
    direction = drawn_direction(model, head=True)
    expected_N = truth(model, rows_NT, direction).sum(axis=1)
    for way in ("ghost", "jvp"):
        found = score_rows(model, rows_NT, direction, way=way).score_N
        np.testing.assert_allclose(found, expected_N, atol=1e-12 * _scale(expected_N), rtol=0)


@pytest.mark.parametrize("kind", toy.SHAPES)
def test_parts_of_tokens_and_maps_add_up_to_the_score(kind):
    model, rows_NT = toy.decoder(kind), rows()
    direction = drawn_direction(model)
    found = score_rows(model, rows_NT, direction, tokens=True, per_map=True, batch_rows=3)
    expected_NL = truth(model, rows_NT, direction)
    np.testing.assert_allclose(found.token_NT.sum(axis=1), found.score_N, atol=1e-11)
    for name, expected_N in zip(direction.matrices, expected_NL.T, strict=True):
        np.testing.assert_allclose(found.map_N[name], expected_N, atol=1e-11)


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_differences_rank_like_the_exact_scores_in_float32(kind):
    model, rows_NT = toy.decoder(kind, dtype=torch.float32), rows(200)
    direction = drawn_direction(model)
    exact_N = score_rows(model, rows_NT, direction).score_N
    loss_N = row_losses(model, rows_NT)
    central = score_rows(model, rows_NT, direction, way="difference")
    known = score_rows(model, rows_NT, direction, way="difference", loss_N=loss_N)
    assert spearmanr(central.score_N, exact_N).statistic >= 0.999
    assert spearmanr(known.score_N, exact_N).statistic >= 0.999
    assert "named by the caller; Spearman 0.99" in known.reason or "1.0000" in known.reason
    np.testing.assert_allclose(central.score_N, exact_N, atol=0.02 * np.abs(exact_N).max())


def test_losses_to_be_differenced_are_not_rounded_to_float32():
    model, rows_NT = toy.decoder(dtype=torch.float32), rows(100)
    tokens = torch.from_numpy(rows_NT)
    with torch.no_grad():
        coarse_N = model(tokens[:, :-1], tokens[:, 1:]).double().numpy()
        exact_N = copy.deepcopy(model).double()(tokens[:, :-1], tokens[:, 1:]).numpy()
    found_N = row_losses(model, rows_NT)
    assert found_N.dtype == np.float64
    assert np.std(found_N - exact_N) < np.std(coarse_N - exact_N) / 2


def test_auto_takes_the_difference_where_it_ranks_as_ghost_does():
    model, rows_NT = toy.decoder(dtype=torch.float32), rows(1500)
    direction, loss_N = drawn_direction(model), row_losses(model, rows_NT)
    found = score_rows(model, rows_NT, direction, loss_N=loss_N, batch_rows=500)
    assert found.way == "difference" and "with ghost on 64 rows at a relative step" in found.reason
    exact_N = score_rows(model, rows_NT, direction, batch_rows=500).score_N
    assert spearmanr(found.score_N, exact_N).statistic >= 0.999


def test_auto_takes_no_approximation_that_ranks_otherwise():
    model, rows_NT = toy.decoder(dtype=torch.float32), rows(1500)
    direction, loss_N = drawn_direction(model), row_losses(model, rows_NT)
    exact_N = score_rows(model, rows_NT, direction, batch_rows=500).score_N
    rounded_N = loss_N.astype(np.float16).astype(np.float64)
    coarse = score_rows(model, rows_NT, direction, loss_N=rounded_N, batch_rows=500)
    low = score_rows(model, rows_NT, direction, rank=1, batch_rows=500)
    for found, way in ((coarse, "difference"), (low, "low_rank")):
        assert found.way == "ghost" and f"{way} is not close enough, Spearman" in found.reason
        np.testing.assert_array_equal(found.score_N, exact_N)


def test_the_cost_of_the_probe_falls_on_approximations():
    model = toy.decoder()
    maps = linear_maps(model)
    assert choose_way(model, maps, losses_known=True, probe_share=0.01).way == "difference"
    assert choose_way(model, maps, losses_known=True, probe_share=1.0).way == "ghost"
    assert choose_way(model, maps, rank=1, probe_share=1.0).way == "ghost"


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_full_rank_is_exact_and_a_lower_rank_is_the_score_of_its_product(kind):
    model, rows_NT = toy.decoder(kind), rows()
    direction = drawn_direction(model)
    exact_N = score_rows(model, rows_NT, direction, way="ghost").score_N
    full_N = score_rows(model, rows_NT, direction, way="low_rank").score_N
    np.testing.assert_allclose(full_N, exact_N, atol=1e-4)
    products = {n: f.left_Or @ f.right_Ir.T for n, f in direction.low_rank(3).items()}
    low_N = score_rows(model, rows_NT, direction, way="low_rank", rank=3).score_N
    expected_N = score_rows(model, rows_NT, Direction(products)).score_N
    np.testing.assert_allclose(low_N, expected_N, atol=1e-4)
    assert np.abs(low_N - exact_N).max() > 0.01


@pytest.mark.parametrize("batch_rows", [1, 3, 64])
def test_scores_do_not_depend_on_the_batch(batch_rows):
    model, rows_NT = toy.decoder(dtype=torch.float32), rows()
    direction = drawn_direction(model)
    whole = score_rows(model, rows_NT, direction, batch_rows=N).score_N
    found = score_rows(model, rows_NT, direction, batch_rows=batch_rows).score_N
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, whole, rtol=1e-4, atol=1e-4)


def test_a_token_s_part_does_not_depend_on_the_other_rows_scored():
    model, rows_NT = toy.decoder(dtype=torch.float32), rows()
    direction = drawn_direction(model)
    alone = score_rows(model, rows_NT[4:5], direction, tokens=True)
    among = score_rows(model, rows_NT, direction, tokens=True)
    np.testing.assert_allclose(among.token_NT[4], alone.token_NT[0], rtol=1e-4, atol=1e-4)


def test_scores_of_documents_add_up_to_those_of_the_rows_they_are_in():
    model, rows_NT = toy.decoder(), rows(3)
    scores = score_rows(model, rows_NT, drawn_direction(model), tokens=True)
    # The second document goes on in the second row, whose first token is the first row's last.
    spans = [[("a", 0, 4), ("b", 5, toy.T)], [("b", 0, 2), ("c", 3, toy.T)], [("d", 0, toy.T)]]
    provenance = [[{"document": d, "first": f, "last": t} for d, f, t in row] for row in spans]
    found = document_scores(scores.token_NT, provenance)
    assert found["b"] == pytest.approx(scores.token_NT[0, 5:].sum() + scores.token_NT[1, :3].sum())
    assert found["d"] == pytest.approx(scores.score_N[2])
    assert sum(found.values()) == pytest.approx(scores.score_N.sum())
    with pytest.raises(DataError, match="2 provenances for 3 rows"):
        document_scores(scores.token_NT, provenance[:2])


def test_a_document_s_part_depends_on_what_it_is_packed_with():
    """A departure from the specification: documents of a row see each other, as in training."""
    model, (row_T, other_T) = toy.decoder(), rows(2)
    half = toy.T // 2
    packed_NT = np.stack([row_T, np.concatenate([row_T[:half], other_T[half:]])])
    scores = score_rows(model, packed_NT, drawn_direction(model), tokens=True)
    first_N = scores.token_NT[:, :half].sum(axis=1)
    assert abs(first_N[0] - first_N[1]) > 1e-2 * np.abs(scores.score_N).max()


def test_bfloat16_ranks_like_float32():
    model, rows_NT = toy.decoder(dtype=torch.float32), rows(100)
    direction = drawn_direction(model)
    exact = score_rows(model, rows_NT, direction).score_N
    try:
        coarse = score_rows(model, rows_NT, direction, precision="bfloat16").score_N
    except RuntimeError as error:
        pytest.skip(f"no bfloat16 autocast on this machine: {error}")
    assert coarse.dtype == np.float32 and not np.array_equal(coarse, exact)
    assert spearmanr(coarse, exact).statistic >= 0.95


@pytest.mark.parametrize("way", ["ghost", "low_rank", "jvp", "difference"])
def test_the_model_stays_as_it_was(way):
    model = toy.decoder(dtype=torch.float32).train()
    model.model.model.layers[0].eval()
    first = next(model.parameters())
    first.requires_grad_(False)
    second = model.model.model.layers[1].mlp.up_proj.weight
    second.grad = torch.ones_like(second)
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    score_rows(model, rows(), drawn_direction(model), way=way)
    _fail_midway(model, way)
    torch.testing.assert_close(model.state_dict(), before, atol=0, rtol=0)
    assert [module.training for module in model.modules()] == modes
    assert not first.requires_grad and second.requires_grad
    assert [p.grad is not None for p in model.parameters()].count(True) == 1
    assert torch.equal(second.grad, torch.ones_like(second))


def _fail_midway(model, way):
    """A forward pass that dies must leave nothing behind either."""

    def die(*_):
        raise KeyboardInterrupt

    hook = model.model.model.layers[1].register_forward_pre_hook(die)
    with pytest.raises(KeyboardInterrupt):
        score_rows(model, rows(), drawn_direction(model), way=way, relative_step=1e-3)
    hook.remove()


def test_the_way_is_chosen_by_cost_and_the_reason_recorded():
    model = toy.decoder()
    maps = linear_maps(model)
    exact = choose_way(model, maps)
    assert exact.way == "ghost" and "forward passes" in exact.reason and "jvp" in exact.reason
    assert choose_way(model, maps, losses_known=True).way == "difference"
    assert choose_way(model, maps, losses_known=True, parts=True).way == "ghost"
    assert choose_way(model, maps, rank=1).way == "low_rank"
    assert choose_way(model, maps, rank=1000).way == "ghost"
    named = choose_way(model, maps, way="jvp")
    assert (named.way, named.reason) == ("jvp", "named by the caller")
    assert 2 < exact.passes["ghost"] < 3


def test_wrong_asks_are_refused():
    model = toy.decoder()
    direction, rows_NT = drawn_direction(model), rows()
    with pytest.raises(ConfigError, match="did you mean 'ghost'"):
        score_rows(model, rows_NT, direction, way="gost")
    with pytest.raises(ConfigError, match="did you mean 'bfloat16'"):
        score_rows(model, rows_NT, direction, precision="bf16")
    with pytest.raises(ConfigError, match="knows no parts"):
        score_rows(model, rows_NT, direction, way="jvp", tokens=True)
    with pytest.raises(DataError, match="int32"):
        score_rows(model, rows_NT.astype(np.int32), direction)
    with pytest.raises(DataError, match="losses of shape"):
        score_rows(model, rows_NT, direction, loss_N=np.zeros(3))
    with pytest.raises(DataError, match=r"ids from 64 to 12[67], the model knows 0 to 63"):
        score_rows(model, rows_NT % toy.V + toy.V, direction)
    with pytest.raises(DataError, match="ids from"):
        row_losses(model, rows_NT + toy.V)
    with pytest.raises(DataError, match="rows of the source have ids"):
        scorer(model, Source(shift=toy.V), direction)(np.arange(2))
    for wrong, problem in (
        ({"rank": 0}, "the rank is 0"),
        ({"rank": -1, "way": "low_rank"}, "the rank is -1"),
        ({"relative_step": 0, "way": "difference"}, "relative_step is 0"),
        ({"relative_step": -1e-3}, "relative_step is -0.001"),
        ({"batch_rows": 0}, "batch_rows is 0"),
    ):
        with pytest.raises(ConfigError, match=problem):
            score_rows(model, rows_NT, direction, **wrong)
        with pytest.raises(ConfigError, match=problem):
            scorer(model, Source(), direction, **wrong)
    with pytest.raises(ConfigError, match="batch_rows is 0"):
        row_losses(model, rows_NT, batch_rows=0)
    turned = Direction({name: matrix.T for name, matrix in direction.matrices.items()})
    for way in ("ghost", "low_rank", "jvp", "difference"):
        with pytest.raises(ModelError, match=r"gate_proj' is \(32, 48\), its weight \(48, 32\)"):
            score_rows(model, rows_NT, turned, way=way)
    with pytest.raises(ModelError, match="model is on cpu"):
        score_rows(model, rows_NT, direction, device="cuda")
    with pytest.raises(ConfigError, match="needs relative_step"):
        scorer(model, Source(), direction, way="difference")
    with pytest.raises(NumericsError, match="direction is zero"):
        zero = Direction({n: torch.zeros_like(m) for n, m in direction.matrices.items()})
        score_rows(model, rows_NT, zero, way="difference")
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(NumericsError, match="10 of 10 scores are not finite, first row 0"):
        score_rows(model, rows_NT, direction)


class Source:
    """Rows by id, which counts what it is asked for and can be told to die."""

    domains, content_hash = ("only",), "hash"

    def __init__(self, dies_after=None, shift=0):
        self.asked, self.dies_after, self.shift = [], dies_after, shift

    def tokens(self, sample_id_B):
        if self.dies_after is not None and len(self.asked) >= self.dies_after:
            raise KeyboardInterrupt
        self.asked += sample_id_B.tolist()
        return rows(100)[np.asarray(sample_id_B)] + self.shift

    def text(self, sample_id):
        return str(sample_id)


def test_a_scorer_gives_scores_in_order_and_each_row_once():
    model, source = toy.decoder(dtype=torch.float32), Source()
    direction = drawn_direction(model)
    seen = []
    score = scorer(model, source, direction, progress=seen.append)
    ids = np.array([7, 3, 7, 50])
    expected = score_rows(model, rows(100)[ids], direction).score_N
    np.testing.assert_allclose(score(ids), expected, rtol=1e-4, atol=1e-5)
    assert score(ids).dtype == np.float32
    score(np.array([3, 4]))
    assert source.asked == [3, 7, 50, 4]
    assert seen[0] == {"stage": "scores", "done": 3, "total": 3, "way": "ghost"}
    assert score(np.array([], dtype=np.int64)).shape == (0,)


def test_scoring_cut_short_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(scores_module, "SHARD_ROWS", 4)
    model = toy.decoder(dtype=torch.float32)
    direction, ids = drawn_direction(model), np.arange(10)
    dying = Source(dies_after=8)
    with pytest.raises(KeyboardInterrupt):
        scorer(model, dying, direction, cache_dir=tmp_path)(ids)
    left = Source()
    resumed = scorer(model, left, direction, cache_dir=tmp_path)(ids)
    assert dying.asked == list(range(8)) and left.asked == [8, 9]
    np.testing.assert_array_equal(resumed, scorer(model, Source(), direction)(ids))


def test_what_is_kept_belongs_to_weights_direction_and_corpus(tmp_path):
    model = toy.decoder(dtype=torch.float32)
    direction, ids = drawn_direction(model), np.arange(3)

    def asked(model=model, direction=direction, content_hash="hash"):
        source = Source()
        source.content_hash = content_hash
        scorer(model, source, direction, cache_dir=str(tmp_path))(ids)
        return source.asked

    assert asked() == [0, 1, 2] and asked() == []
    assert asked(direction=drawn_direction(model, seed=4)) == [0, 1, 2]
    assert asked(content_hash="other") == [0, 1, 2]
    assert asked(model=toy.decoder(dtype=torch.float32, seed=1)) == [0, 1, 2]


def test_a_damaged_file_is_named_and_deleting_it_helps(tmp_path):
    model = toy.decoder(dtype=torch.float32)
    direction = drawn_direction(model)
    score = scorer(model, Source(), direction, cache_dir=tmp_path)
    score(np.arange(3))
    score(np.arange(5))
    first, second = sorted(tmp_path.rglob("part_*.npz"))
    first.write_bytes(first.read_bytes()[:50])
    with pytest.raises(DataError, match=r"part_000000\.npz cannot be read"):
        scorer(model, Source(), direction, cache_dir=tmp_path)
    first.unlink()
    source = Source()
    scorer(model, source, direction, cache_dir=tmp_path)(np.arange(5))
    assert source.asked == [0, 1, 2] and second.exists()


def test_a_scorer_refuses_a_model_that_has_moved_on():
    model = toy.decoder(dtype=torch.float32)
    score = scorer(model, Source(), drawn_direction(model))
    score(np.arange(2))
    with torch.no_grad():
        next(model.parameters()).add_(1)
    with pytest.raises(PolicyError, match="changed since this scorer was made"):
        score(np.arange(2))


def _scored_on_ranks(world, folder, count):
    """Scores of `count` rows by forked gloo ranks; every rank stores what it got."""
    children = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            try:
                store = dist.FileStore(str(folder / "store"), world)
                dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
                model = toy.decoder(dtype=torch.float32)
                cache = folder / f"cache{rank}"  # the ranks see each other's files nowhere
                score = scorer(model, Source(), drawn_direction(model), cache_dir=cache)
                score(np.arange(count // 2))
                np.save(folder / f"rank{rank}.npy", score(np.arange(count)))
                dist.barrier()
                os._exit(0)
            except BaseException as error:
                print(f"rank {rank}: {error!r}", flush=True)
                os._exit(1)
        children.append(child)
    assert not any(os.waitpid(child, 0)[1] for child in children)
    return [np.load(folder / f"rank{rank}.npy") for rank in range(world)]


@pytest.mark.parametrize("count", [9, 2])
def test_two_ranks_give_the_scores_of_one(tmp_path, count):
    model = toy.decoder(dtype=torch.float32)
    expected = scorer(model, Source(), drawn_direction(model))(np.arange(count))
    torch.set_num_threads(1)
    found = _scored_on_ranks(2, tmp_path, count)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-5)
    assert [folder.name for folder in tmp_path.glob("cache*")] == ["cache0"]
