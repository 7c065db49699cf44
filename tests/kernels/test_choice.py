"""Which form of a kernel is chosen where, for devices that are not here."""

import logging
import sys

import pytest
import torch

from workbench.core import ConfigError
from workbench.kernels import choice
from workbench.kernels.choice import KERNELS, NARROWEST, Place, choose, form_for, kernel_report

BF16 = (torch.bfloat16,)
H200 = {"device": "cuda", "capability": (9, 0), "has_triton": True}
CPU = {"device": "cpu", "capability": None, "has_triton": True}


def test_a_gpu_with_triton_runs_triton():
    found = form_for(BF16, Place(**H200))
    assert (found.form, found.reason) == ("triton", "on a CUDA device")


@pytest.mark.parametrize(
    ("place", "types", "width", "reason"),
    [
        (CPU, BF16, 64, "the tensors are on the cpu"),
        (CPU | {"interpreted": True}, BF16, 64, "the tensors are on the cpu"),
        (H200 | {"has_triton": False}, BF16, 64, "triton is not installed"),
        (H200 | {"capability": (7, 5)}, BF16, 64, "the device is of compute capability 7.5"),
        (H200 | {"interpreted": True}, BF16, 64, "triton was imported to interpret its kernels"),
        (H200, (torch.float64,), 64, "the tensors are float64"),
        (H200, (torch.float32,), 64, "float32 is multiplied without matrix units"),
        (H200, (torch.float32, torch.bfloat16), 64, "the tensors are of several types"),
        (H200, BF16, NARROWEST - 1, f"a width of {NARROWEST - 1} is below {NARROWEST}"),
        (H200 | {"wish": "torch"}, BF16, 64, "WORKBENCH_KERNELS asks for it"),
    ],
)
def test_everything_else_runs_torch_and_says_why(place, types, width, reason):
    found = form_for(types, Place(**place), width)
    assert (found.form, found.reason) == ("torch", reason)


def test_a_wish_for_triton_is_granted_wherever_it_can_run():
    for place in (H200, CPU | {"interpreted": True}):
        found = form_for(BF16, Place(**place, wish="triton"), width=3)
        assert (found.form, found.reason) == ("triton", "WORKBENCH_KERNELS asks for it")


@pytest.mark.parametrize(
    ("place", "types", "reason"),
    [
        (CPU, BF16, "on the cpu"),
        (H200 | {"has_triton": False}, BF16, "not installed"),
        (H200, (torch.float64,), "float64"),
    ],
)
def test_a_wish_that_cannot_be_granted_is_an_error_and_no_silent_fallback(place, types, reason):
    with pytest.raises(ConfigError, match=reason) as error:
        form_for(types, Place(**place, wish="triton"))
    assert "WORKBENCH_KERNELS" in error.value.remedy


def test_the_variable_is_read_at_each_choice_and_its_slips_are_named(monkeypatch):
    x = torch.zeros(2, 64)
    assert choose("factors", x).reason == "the tensors are on the cpu"
    monkeypatch.setenv("WORKBENCH_KERNELS", "torch")
    assert choose("factors", x).reason == "WORKBENCH_KERNELS asks for it"
    monkeypatch.setenv("WORKBENCH_KERNELS", "tritn")
    with pytest.raises(ConfigError, match=r"'tritn'.*'triton'"):
        choose("factors", x)


def test_a_machine_without_triton_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: None)
    choice._triton.cache_clear()
    try:
        assert not Place.of("cpu").has_triton
    finally:
        choice._triton.cache_clear()


def test_the_report_has_a_row_for_every_kernel():
    report = kernel_report("cpu")
    assert tuple(report) == KERNELS
    assert {(row.form, row.reason) for row in report.values()} == {
        ("torch", "the tensors are on the cpu")
    }


def test_a_reason_is_logged_once(caplog):
    choice._say_once.cache_clear()
    with caplog.at_level(logging.INFO, logger="workbench.kernels.choice"):
        for _ in range(3):
            choose("scores", torch.zeros(1, 64))
    assert [record.getMessage() for record in caplog.records] == [
        "scores: torch form, because the tensors are on the cpu"
    ]
