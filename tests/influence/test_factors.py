"""Fitting: against materialised gradients, over batches, groups and files."""

import numpy as np
import pytest
import torch

from tests.influence.conftest import VOCAB, small_decoder, small_rows
from workbench.core import ConfigError, DataError, ModelError, NumericsError, RunError
from workbench.influence.factors import Factors, fit_factors
from workbench.models.linear_maps import linear_maps

BATCHES = [small_rows(5, seed=0), small_rows(2, seed=1), small_rows(4, seed=2)]
FIELDS = ("input_values_I", "output_values_O", "kronecker_OI", "corrected_OI")


def assert_same(a, b, **tolerance):
    """Same curvature; bases may differ in the sign of their columns."""
    assert list(a.parts) == list(b.parts)
    for name in a.parts:
        for field in FIELDS:
            torch.testing.assert_close(
                getattr(a.of(name), field), getattr(b.of(name), field), **tolerance
            )


def row_gradients(decoder, found, rows):
    """Of the loss of each row summed over its tokens, (rows, O, I)."""
    rows = torch.from_numpy(rows)
    losses = decoder(rows[:, :-1], rows[:, 1:]) * (rows.shape[1] - 1)
    grads = [torch.autograd.grad(one, found.weight, retain_graph=True)[0] for one in losses]
    return torch.stack([found.to_OI(grad) for grad in grads])


@pytest.mark.parametrize("name", ["opt", "gpt2"])
def test_ekfac_is_the_mean_square_of_materialised_gradients_in_its_bases(name):
    decoder = small_decoder(name)
    maps = linear_maps(decoder)
    factors = fit_factors(decoder, BATCHES, maps, labels="data")
    adam = fit_factors(decoder, BATCHES, maps, labels="data", kind="adam")
    for found in maps:
        gradients = row_gradients(decoder, found, np.concatenate(BATCHES))
        part = factors.of(found.name)
        rotated = torch.stack([part.to_bases(gradient) for gradient in gradients])
        torch.testing.assert_close(part.squares_OI, rotated.square().mean(dim=0))
        torch.testing.assert_close(adam.of(found.name).squares_OI, gradients.square().mean(dim=0))
        torch.testing.assert_close(part.from_bases(rotated[0]), gradients[0])
        assert part.tokens_per_row == 6


def test_moments_are_means_over_tokens(decoder):
    (found,) = maps = linear_maps(decoder, names=("model.model.decoder.layers.1.fc2",))
    seen = []
    handle = found.module.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    part = fit_factors(decoder, BATCHES, maps, kind="kfac").of(found.name)
    handle.remove()
    a_NI = torch.cat(seen[-len(BATCHES) :])
    assert len(a_NI) == 11 * 6
    basis, values = part.input_vectors_II, part.input_values_I
    torch.testing.assert_close(basis @ values.diag() @ basis.T, a_NI.T @ a_NI / len(a_NI))
    assert part.squares_OI is None and (values[1:] >= values[:-1]).all()


@pytest.mark.parametrize("kind", ["kfac", "ekfac", "adam"])
def test_streaming_over_batches_changes_nothing(decoder, kind):
    maps = linear_maps(decoder)
    whole = fit_factors(decoder, [np.concatenate(BATCHES)], maps, kind=kind, labels="data")
    parts = fit_factors(decoder, BATCHES, maps, kind=kind, labels="data")
    for name in maps.names:
        field = "kronecker_OI" if kind == "kfac" else "corrected_OI"
        torch.testing.assert_close(getattr(whole.of(name), field), getattr(parts.of(name), field))
    assert whole.name != parts.name


def test_sampled_labels_follow_the_seed_alone(decoder):
    maps = linear_maps(decoder)
    first = fit_factors(decoder, BATCHES, maps, seed=1)
    torch.manual_seed(5)
    assert_same(fit_factors(decoder, BATCHES, maps, seed=1), first, rtol=0, atol=0)
    other = fit_factors(decoder, BATCHES, maps, seed=2)
    name = maps.names[0]
    assert not torch.allclose(other.of(name).corrected_OI, first.of(name).corrected_OI)
    assert other.name != first.name


def test_groups_of_maps_give_the_factors_of_all_at_once(decoder):
    maps = linear_maps(decoder)
    whole_events, events = [], []
    whole = fit_factors(decoder, BATCHES, maps, progress=whole_events.append)
    limit_mib = 0.9 * whole_events[0]["peak_mib"]
    grouped = fit_factors(decoder, BATCHES, maps, limit_mib=limit_mib, progress=events.append)
    groups = {event["first_map"] for event in events if event["stage"] == "factors"}
    assert 1 < len(groups) < len(maps)
    assert_same(grouped, whole)


def test_an_untied_head_is_fitted_as_well():
    decoder = small_decoder("gpt2", tie_word_embeddings=False)
    maps = linear_maps(decoder, head=True)
    factors = fit_factors(decoder, BATCHES, maps, labels="data")
    found = next(one for one in maps if one.kind == "head")
    gradients = row_gradients(decoder, found, np.concatenate(BATCHES))
    total = factors.of(found.name).squares_OI.sum()
    torch.testing.assert_close(total, gradients.square().sum(dim=(1, 2)).mean())
    sampled = fit_factors(decoder, BATCHES, maps)
    without = fit_factors(decoder, BATCHES, linear_maps(decoder))
    name = maps.names[0]
    torch.testing.assert_close(sampled.of(name).squares_OI, without.of(name).squares_OI)


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_is_added_up_in_float32(autocast):
    exact, coarse = small_decoder("gpt2").float(), small_decoder("gpt2").float()
    maps = linear_maps(exact)
    expected = fit_factors(exact, BATCHES, maps, labels="data")
    coarse = coarse if autocast else coarse.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = fit_factors(coarse, BATCHES, linear_maps(coarse), labels="data")
    for name in maps.names:
        part, truth = found.of(name), expected.of(name)
        assert part.squares_OI.dtype == torch.float32
        assert float(part.squares_OI.sum() / truth.squares_OI.sum()) == pytest.approx(1, abs=0.05)
        assert float(part.kronecker_OI.sum() / truth.kronecker_OI.sum()) == pytest.approx(
            1, abs=0.05
        )


def test_maps_with_the_same_inputs_share_their_basis(decoder, tmp_path):
    maps = linear_maps(decoder)
    layer = "model.model.decoder.layers.0.self_attn."
    made = fit_factors(decoder, BATCHES, maps)
    for factors in (made, Factors.load(made.save(tmp_path))):
        shared = {id(factors.of(f"{layer}{x}_proj").input_vectors_II) for x in "qkv"}
        assert len(shared) == 1
        out = factors.of(f"{layer}out_proj").input_vectors_II
        assert id(out) not in shared


def test_the_model_is_left_as_it_was(decoder):
    decoder.train()
    before = {name: p.detach().clone() for name, p in decoder.named_parameters()}
    fit_factors(decoder, BATCHES, linear_maps(decoder))
    for name, parameter in decoder.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None and parameter.requires_grad
    assert decoder.training and all(m.training for m in decoder.modules())


def test_progress_says_the_plan_first_and_counts_every_batch(decoder):
    events = []
    fit_factors(decoder, BATCHES, linear_maps(decoder), progress=events.append)
    assert events[0]["stage"] == "plan"
    assert "MiB" in events[0]["plan"] and "minutes" in events[0]["plan"]
    counted = [(event["stage"], event["done"], event["total"]) for event in events[1:]]
    assert counted == [(s, i, 3) for s in ("factors", "eigenvalues") for i in (1, 2, 3)]


def test_factors_survive_their_files_and_are_not_fitted_twice(decoder, tmp_path):
    maps, events = linear_maps(decoder), []
    fitted = fit_factors(decoder, BATCHES, maps, folder=tmp_path)
    again = fit_factors(decoder, BATCHES, maps, folder=tmp_path, progress=events.append)
    assert not events
    for found in (again, Factors.load(tmp_path / fitted.name)):
        assert_same(found, fitted, rtol=0, atol=0)
        assert found.settings == fitted.settings


def test_fitting_cut_short_goes_on_where_it_was(decoder, tmp_path):
    maps, plans = linear_maps(decoder), []
    fit_factors(decoder, BATCHES, maps, progress=plans.append)
    settings = {"folder": tmp_path, "limit_mib": 0.85 * plans[0]["peak_mib"]}

    def stop(event):
        stop.groups.add(event.get("first_map"))
        if len(stop.groups) > 2:
            raise KeyboardInterrupt

    stop.groups = set()
    with pytest.raises(KeyboardInterrupt):
        fit_factors(decoder, BATCHES, maps, progress=stop, **settings)
    (folder,) = tmp_path.iterdir()
    with pytest.raises(RunError, match="no finished factors"):
        Factors.load(folder)
    events = []
    found = fit_factors(decoder, BATCHES, maps, progress=events.append, **settings)
    assert maps.names[0] not in {event.get("first_map") for event in events}
    assert_same(found, fit_factors(decoder, BATCHES, maps))


def test_the_name_is_a_function_of_what_the_factors_are_made_of(decoder):
    maps = linear_maps(decoder)
    base = fit_factors(decoder, BATCHES, maps, kind="kfac")
    data = fit_factors(decoder, BATCHES, maps, kind="kfac", labels="data")
    rows = fit_factors(decoder, BATCHES[:2], maps, kind="kfac")
    fewer = fit_factors(decoder, BATCHES, maps[:3], kind="kfac")
    other = small_decoder()
    with torch.no_grad():
        next(other.parameters())[0, 0] += 1
    weights = fit_factors(other, BATCHES, linear_maps(other), kind="kfac")
    assert len({one.name for one in (base, data, rows, fewer, weights)}) == 5
    assert fit_factors(decoder, BATCHES, maps, kind="kfac").name == base.name


def test_damaged_files_are_refused(decoder, tmp_path):
    path = fit_factors(decoder, BATCHES, linear_maps(decoder), kind="kfac").save(tmp_path)
    file = path / "all.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(RunError, match=r"no finished factors.*fit them again"):
        Factors.load(path)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ((batch for batch in BATCHES), "only once"),
        ([], "no rows"),
        ([small_rows(2)[0]], r"rows of batch 0 are int64 of shape \(7,\)"),
        ([small_rows(2), np.full((1, 7), -100)], "batch 1 have ids from -100 to -100"),
        ([small_rows(2), small_rows(2) + VOCAB], "the model knows 0 to 11"),
        ([small_rows(2) + 0.5], "batch 0 are float64"),
        ([small_rows(2), small_rows(0)], "no rows of batch 1"),
        ([small_rows(2).tolist()], "batch 0 are a list"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(decoder, rows, problem):
    with pytest.raises(DataError, match=problem):
        fit_factors(decoder, rows, linear_maps(decoder))


def test_no_maps_are_refused(decoder):
    with pytest.raises(ModelError, match="no maps to fit"):
        fit_factors(decoder, BATCHES, [])


def test_unknown_kinds_are_refused_with_the_nearest(decoder):
    maps = linear_maps(decoder)
    with pytest.raises(ConfigError, match="did you mean 'ekfac'"):
        fit_factors(decoder, BATCHES, maps, kind="ekfacc")
    with pytest.raises(ConfigError, match="did you mean 'sampled'"):
        fit_factors(decoder, BATCHES, maps, labels="sample")


@pytest.mark.parametrize(
    ("value", "problem"),
    [(0.0, r"factor 'output gradients of .*k_proj' is zero"), (torch.inf, "is not finite")],
)
def test_factors_without_a_basis_are_named(value, problem):
    decoder = small_decoder()
    with torch.no_grad():
        decoder.head_VD.fill_(value)
    maps = linear_maps(decoder)
    with pytest.raises(NumericsError, match=problem) as error:
        fit_factors(decoder, BATCHES, maps)
    assert error.value.remedy
