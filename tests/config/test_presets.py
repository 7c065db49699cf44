"""Presets: what a comparison holds equal, and what it leaves out."""

from __future__ import annotations

import pytest

import workbench.mixing  # noqa: F401  (fills the registry)
from workbench.config import presets
from workbench.core import MIXERS

SEARCHED = {"doremi", "regmix"}
"""Mixers that need runs of their own first; what they find comes in as a fixed mixture."""


@pytest.mark.parametrize("profile", presets.MIXING_PROFILES)
def test_every_mixer_is_compared_under_the_same_floor(profile):
    study = presets.mixing(profile, mixtures={"best fixed": "mixture.json"})
    compared = {label: configs[0].mixer for label, configs in study.items()}
    assert {policy.options["floor"] for policy in compared.values()} == {presets.MIXING_FLOOR}
    assert {policy.name for policy in compared.values()} | SEARCHED == set(MIXERS.names())
    assert compared["best fixed"].options["mixture"] == "mixture.json"
    assert compared["natural"].options["mixture"] == "natural"
    variants = {p.options["variant"] for p in compared.values() if p.name == "exp3"}
    assert variants == {"paper", "official"}
    for policy in compared.values():
        MIXERS.check(policy.name, policy.options)


def test_regret_is_measured_where_the_best_mixture_is_known_to_leave_out_noise():
    corpora = {
        configs[0].corpus.name
        for profile in presets.MIXING_PROFILES
        for configs in presets.mixing(profile).values()
    }
    assert corpora == {"planted"}
