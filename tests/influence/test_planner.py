"""What fitting needs is foreseen, and refused above the limit with the numbers."""

import re

import pytest
import torch

from tests.influence.conftest import small_rows
from workbench.config import ModelConfig
from workbench.core import ConfigError
from workbench.influence import factors
from workbench.influence.factors import fit_factors
from workbench.influence.planner import _held_mib
from workbench.kernels import peak_mib
from workbench.models import build_model
from workbench.models.linear_maps import linear_maps, observed

BATCHES = [small_rows(2, seed=i) for i in range(3)]


@pytest.fixture(scope="module")
def tiny():
    """Factors are larger than a batch here, as in a model of real size."""
    overrides = {"num_hidden_layers": 2, "hidden_size": 96, "num_attention_heads": 2}
    return build_model(
        ModelConfig(name="tiny", overrides=overrides), vocab_size=64, context_tokens=6, seed=0
    )


def plan_of(decoder, **options):
    """What is said before the first pass."""
    said = []

    def stop(event):
        said.append(event)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        fit_factors(decoder, BATCHES, linear_maps(decoder), progress=stop, **options)
    return said[0]


@pytest.mark.parametrize("kind", ["adam", "kfac", "ekfac"])
def test_memory_stays_under_what_was_foreseen_and_under_the_limit(tiny, kind, tmp_path):
    maps, measured = linear_maps(tiny), []
    limit_mib = 0.7 * plan_of(tiny, kind=kind)["peak_mib"]
    for place, limit in ((None, None), (tmp_path, limit_mib)):
        options = {"kind": kind, "limit_mib": limit, "folder": place}
        plan = plan_of(tiny, **options)
        measured.append(
            peak_mib(lambda options=options: fit_factors(tiny, BATCHES, maps, **options))
        )
        # Mapped files are events of the allocator as well, although their pages are the file's.
        assert measured[-1] <= plan["peak_mib"] + (plan["stored_mib"] if place else 0)
    assert plan["peak_mib"] <= limit_mib and plan["sweeps"] > (2 if kind == "ekfac" else 1)
    assert measured[1] - plan["stored_mib"] < measured[0]


def test_finished_factors_count_on_a_host_unless_a_folder_keeps_them(tiny, tmp_path):
    maps = linear_maps(tiny)
    limit_mib = 0.8 * plan_of(tiny, kind="kfac")["peak_mib"]
    with pytest.raises(ConfigError, match="MiB of finished factors") as error:
        fit_factors(tiny, BATCHES, maps, kind="kfac", limit_mib=limit_mib)
    assert error.value.remedy.startswith("give folder=")
    assert plan_of(tiny, kind="kfac", limit_mib=limit_mib, folder=tmp_path)["sweeps"] > 1


def test_out_of_memory_is_foreseen_without_a_limit_and_before_a_batch_is_tried(tiny, monkeypatch):
    """A batch of 512 rows, of which no pass may ever see more than two."""
    seen, batch = [], small_rows(512)
    monkeypatch.setattr(factors, "free_mib", lambda _device: 30.0)
    hook = tiny.model.base_model.register_forward_pre_hook(
        lambda _m, _a, k: seen.append(len(k["input_ids"])), with_kwargs=True
    )
    with pytest.raises(ConfigError, match=r"30\.0 MiB of memory are free, and .* of a batch"):
        fit_factors(tiny, [batch], linear_maps(tiny))
    hook.remove()
    assert seen and max(seen) <= 2
    monkeypatch.setattr(factors, "free_mib", lambda _device: 1e6)
    assert len(fit_factors(tiny, [batch[:4]], linear_maps(tiny), kind="kfac").parts)


def test_what_a_batch_keeps_is_foreseen_from_two_rows(tiny):
    """Truth: a pass over the batch itself."""
    maps, batch = linear_maps(tiny), torch.from_numpy(small_rows(7))

    def probe(rows):
        with observed(tiny, maps, lambda *_: None):
            tiny(batch[:rows, :-1], batch[:rows, 1:]).sum().backward()

    for rows in (1, 2, 7):
        whole = _held_mib(tiny, lambda _, rows=rows: probe(rows), 1)
        assert _held_mib(tiny, probe, rows) == pytest.approx(whole, rel=0.01)


def test_the_plan_is_said_in_mebibytes_operations_and_minutes(tiny):
    plan = plan_of(tiny)
    assert re.search(
        r"2 passes over 3 batches, [\d.]+ MiB .* TFLOP, about .* minutes", plan["plan"]
    )
    assert 0 < plan["minutes"] < 1 and plan["peak_mib"] > plan["batch_mib"] > 0
    forward_and_backward = tiny.flops_per_token * 2 / 3 * 6 * 2 * 6
    assert plan["tflops"] > forward_and_backward / 1e12


def test_a_limit_that_no_grouping_can_keep_is_refused_with_the_numbers(tiny):
    with pytest.raises(
        ConfigError, match=r"limit_mib = 1, and '.*' alone needs [\d.]+ MiB"
    ) as error:
        fit_factors(tiny, BATCHES, linear_maps(tiny), limit_mib=1)
    enough = int(re.search(r"raise limit_mib to (\d+)", error.value.remedy).group(1))
    fit_factors(tiny, BATCHES, linear_maps(tiny)[:1], limit_mib=enough)


def test_more_statistics_cost_more(tiny):
    adam, kfac, ekfac = (plan_of(tiny, kind=kind) for kind in ("adam", "kfac", "ekfac"))
    assert (adam["sweeps"], kfac["sweeps"], ekfac["sweeps"]) == (1, 1, 2)
    for field in ("peak_mib", "stored_mib", "tflops"):
        assert adam[field] < kfac[field] < ekfac[field]
