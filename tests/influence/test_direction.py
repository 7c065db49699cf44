"""From a reference set to a direction: the gradient, its sign, low rank, files."""

import numpy as np
import pytest
import torch

from tests.influence.conftest import VOCAB, small_decoder, small_rows
from workbench.core import ConfigError, DataError, NumericsError, RunError
from workbench.influence.direction import Direction, reference_direction, reference_gradient
from workbench.influence.factors import fit_factors
from workbench.influence.preconditioners import PRECONDITIONERS, preconditioner
from workbench.models.linear_maps import linear_maps

REFERENCE = small_rows(7, seed=3)


def loss(decoder, rows=REFERENCE):
    rows = torch.from_numpy(rows)
    return decoder(rows[:, :-1], rows[:, 1:]).mean()


@pytest.mark.parametrize("batch_rows", [1, 3, 16])
@pytest.mark.parametrize("name", ["opt", "gpt2"])
def test_reference_gradient_is_that_of_the_mean_loss(name, batch_rows):
    decoder = small_decoder(name)
    maps = linear_maps(decoder)
    found = reference_gradient(decoder, REFERENCE, maps, batch_rows=batch_rows)
    assert all(p.grad is None for p in decoder.parameters())
    loss(decoder).backward()
    for one in maps:
        torch.testing.assert_close(found[one.name], one.to_OI(one.weight.grad))


def test_an_untied_head_has_a_gradient_as_well():
    decoder = small_decoder("gpt2", tie_word_embeddings=False)
    maps = linear_maps(decoder, head=True)
    found = reference_gradient(decoder, REFERENCE, maps)
    loss(decoder).backward()
    torch.testing.assert_close(found["model.lm_head"], decoder.head_VD.grad)


@pytest.mark.parametrize("name", PRECONDITIONERS)
def test_a_step_along_the_direction_lowers_the_reference_loss_as_predicted(name):
    """The published formula has a minus; here higher is more helpful."""
    decoder = small_decoder()
    maps = linear_maps(decoder)
    kind = "kfac" if name == "identity" else name
    factors = fit_factors(decoder, [small_rows(40)], maps, kind=kind)
    direction = reference_direction(decoder, REFERENCE, preconditioner(name, factors), maps)
    gradients = reference_gradient(decoder, REFERENCE, maps)
    predicted = sum(float((direction.matrices[k] * gradients[k]).sum()) for k in maps.names)
    before, step = loss(decoder).item(), 1e-4 / direction.norm
    with torch.no_grad():
        for one in maps:
            one.weight.sub_(step * one.from_OI(direction.matrices[one.name]))
    assert before - loss(decoder).item() == pytest.approx(step * predicted, rel=1e-3)
    assert direction.settings["preconditioner"] == name
    assert direction.settings["reference_rows"] == 7


def direction_of(*shapes):
    torch.manual_seed(0)
    return Direction({f"map{i}": torch.randn(shape) for i, shape in enumerate(shapes)}, {"a": 1})


def test_low_rank_is_the_best_one_and_says_what_it_keeps():
    direction = direction_of((5, 3), (4, 9))
    for rank in (1, 2, 8):
        for name, part in direction.low_rank(rank).items():
            matrix = direction.matrices[name]
            values = torch.linalg.svdvals(matrix)
            error = (matrix - part.left_Or @ part.right_Ir.T).norm()
            assert float(error) == pytest.approx(float(values[rank:].norm()), abs=1e-5)
            kept = values[:rank].square().sum() / values.square().sum()
            assert part.kept == pytest.approx(float(kept))
            assert part.left_Or.shape[1] == min(rank, *matrix.shape)


def test_a_direction_survives_its_file(tmp_path):
    direction = direction_of((5, 3), (4, 9))
    transposed = Direction({"t": direction.matrices["map0"].T}, direction.settings)
    for one in (direction, transposed):
        loaded = Direction.load(one.save(tmp_path / "deeper" / "direction.safetensors"))
        assert loaded.settings == one.settings and loaded.norm == one.norm
        for name, matrix in one.matrices.items():
            assert torch.equal(loaded.matrices[name], matrix)


def test_bad_files_and_reference_sets_are_refused(tmp_path):
    (tmp_path / "torn").write_bytes(b"\x08\x00")
    for name in ("torn", "absent"):
        with pytest.raises(RunError, match="no saved direction"):
            Direction.load(tmp_path / name)
    decoder = small_decoder()
    maps = linear_maps(decoder)
    for rows, problem in (
        (REFERENCE[:0], "no reference rows"),
        (REFERENCE.astype(np.int32), "reference rows are int32"),
        (REFERENCE.tolist(), "reference rows are a list"),
        (REFERENCE[0], r"reference rows are int64 of shape \(7,\)"),
        (REFERENCE + VOCAB, "the model knows 0 to 11"),
    ):
        with pytest.raises(DataError, match=problem):
            reference_gradient(decoder, rows, maps)
    with pytest.raises(ConfigError, match="batch_rows is 0"):
        reference_gradient(decoder, REFERENCE, maps, batch_rows=0)
    with pytest.raises(ConfigError, match="the rank is 0"):
        direction_of((5, 3)).low_rank(0)
    with torch.no_grad():
        decoder.head_VD[0] = torch.inf
    with pytest.raises(NumericsError, match=f"gradient of '{maps.names[0]}' is not finite"):
        reference_gradient(decoder, REFERENCE, maps)
