"""Weights are global: any number of ranks gives the gradient of one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.integration.ranks_driver import CASES, SIGNALS, STARTS, choice, gradient, signals, start
from workbench.training.ranks import Ranks


@pytest.fixture(scope="module", params=[2, 4], ids=["2 ranks", "2 nodes x 2 ranks"])
def ranks(request, nano_config, nano_corpus, cache_dir, tmp_path_factory):
    """What every rank stored."""
    world, out_dir = request.param, tmp_path_factory.mktemp(f"world{request.param}")
    (out_dir / "config.json").write_text(json.dumps(nano_config.to_dict()))
    driver = Path(__file__).with_name("ranks_driver.py")
    done = subprocess.run(
        [sys.executable, driver, out_dir / "config.json", cache_dir, out_dir, str(world)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [torch.load(out_dir / f"rank{rank}.pt") for rank in range(world)]


@pytest.mark.parametrize("case", CASES)
def test_ranks_give_the_gradient_of_one_process(ranks, nano_config, nano_corpus, case):
    single = gradient(nano_config, nano_corpus, Ranks(), *CASES[case])
    for stored in ranks:
        ours = stored["cases"][case]
        torch.testing.assert_close(ours["loss_B"], single["loss_B"], atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(ours["weight_B"], single["weight_B"], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours["gradient"], single["gradient"], atol=1e-6, rtol=1e-4)


def relative_difference(found, expected):
    """The largest difference over the largest entry: entries near 0 are sums that cancel."""
    return (found - expected).abs().max() / expected.abs().max()


@pytest.mark.parametrize("case", SIGNALS)
def test_ranks_give_the_mixer_the_signals_of_one_process(ranks, nano_config, nano_corpus, case):
    single = signals(nano_config, nano_corpus, *SIGNALS[case])
    assert single["gram"].abs().max() > 1e-3
    for stored in ranks:
        ours = stored["signals"][case]
        for kind in ("gram", "rows"):
            assert relative_difference(ours[kind], single[kind]) < 1e-6


def test_ranks_choose_the_rows_of_one_process(ranks, nano_config, nano_corpus, tmp_path):
    single = choice(nano_config, nano_corpus, tmp_path)
    assert len(single["sample_id"]) > 20 and single["influence"].isfinite().any()
    for stored in ranks:
        assert torch.equal(stored["choice"]["sample_id"], single["sample_id"])
        torch.testing.assert_close(
            stored["choice"]["influence"],
            single["influence"],
            atol=1e-5,
            rtol=1e-3,
            equal_nan=True,
        )


@pytest.mark.parametrize("name", STARTS)
def test_shards_start_with_the_bits_of_one_process(ranks, nano_config, nano_corpus, name):
    single = start(nano_config, nano_corpus, *STARTS[name])
    assert single["tied"] == (name != "untied")
    for stored in ranks:
        ours = stored["starts"]["models"][name]
        assert ours["tensors"].keys() == single["tensors"].keys()
        for key, value in single["tensors"].items():
            assert ours["tensors"][key].dtype == value.dtype
            assert torch.equal(ours["tensors"][key], value), key
        assert {k: v for k, v in ours.items() if k != "tensors"} == {
            k: v for k, v in single.items() if k != "tensors"
        }


def test_one_rank_alone_builds_the_whole_of_what_lies_in_shards(ranks):
    assert [r["starts"]["built_whole"] for r in ranks] == [len(STARTS)] + [0] * (len(ranks) - 1)


def test_a_rank_reads_its_own_rows_alone(ranks, nano_config):
    own = nano_config.training.batch_rows // len(ranks)
    assert [stored["rows_read"] for stored in ranks] == [[own, own]] * len(ranks)


def test_weights_follow_global_rank(ranks):
    expected = {
        2: [[0.038020, 0.201296, 0.074053], [0.463177, 0.053061, 0.170393]],
        4: [[0.032616], [0.172687], [0.397348], [0.397348]],
    }[len(ranks)]
    for stored, weights in zip(ranks, expected, strict=True):
        torch.testing.assert_close(
            stored["vector"]["softmax_b"], torch.tensor(weights), atol=1e-6, rtol=0
        )


def test_loss_a_rank_backpropagates_under_averaging(ranks):
    """W * sum w_i loss_i, the published number for two ranks."""
    if len(ranks) != 2:
        pytest.skip("the specification gives it for two ranks")
    losses = [
        2 * float((stored["vector"]["softmax_b"] * stored["vector"]["loss_b"]).sum())
        for stored in ranks
    ]
    assert losses == pytest.approx([1.715308, 5.853521], abs=1e-5)


def test_parts_cover_the_batch_once_whatever_the_number_of_ranks():
    for rows in (1, 7, 8, 33):
        for world in (1, 2, 3, 8):
            parts = [Ranks(rank, world).part(rows) for rank in range(world)]
            assert [i for p in parts for i in range(p.start, p.stop)] == list(range(rows))
            sizes = [p.stop - p.start for p in parts]
            assert max(sizes) - min(sizes) <= 1
