"""What fitting needs is foreseen, and refused above the limit with the numbers."""

import re

import pytest

from tests.influence.conftest import small_rows
from workbench.config import ModelConfig
from workbench.core import ConfigError
from workbench.influence.factors import fit_factors
from workbench.kernels import peak_mib
from workbench.models import build_model
from workbench.models.linear_maps import linear_maps

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
def test_memory_stays_under_what_was_foreseen_and_under_the_limit(tiny, kind):
    maps, measured = linear_maps(tiny), []
    limit_mib = 0.7 * plan_of(tiny, kind=kind)["peak_mib"]
    for limit in (None, limit_mib):
        plan = plan_of(tiny, kind=kind, limit_mib=limit)
        measured.append(
            peak_mib(
                lambda limit=limit: fit_factors(tiny, BATCHES, maps, kind=kind, limit_mib=limit)
            )
        )
        # Finished factors are on the same host here: what they take is no part of the limit.
        assert measured[-1] <= plan["peak_mib"] + plan["stored_mib"]
    assert plan["peak_mib"] <= limit_mib and plan["sweeps"] > (2 if kind == "ekfac" else 1)
    assert measured[1] < measured[0]


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
