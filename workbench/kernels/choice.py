"""Which form of a kernel runs where, and why.

    choose("factors", x_bTD)             # Choice(form="torch", reason="the tensors are on the cpu")
    kernel_report("cuda")                # kernel to Choice, for records and `workbench doctor`

Triton runs on CUDA devices with matrix units, where it is installed and types and widths suit it;
the torch forms run everywhere.  The variable WORKBENCH_KERNELS says otherwise: `auto`, `torch` or
`triton`; with `triton`, what cannot run in Triton is an error and not the torch form.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from workbench.core import ConfigError, unknown_name

Form = Literal["torch", "triton"]
WISHES = ("auto", "torch", "triton")
VARIABLE = "WORKBENCH_KERNELS"
KERNELS = ("loss", "domain gradients", "factors", "scores")
TYPES = (torch.float32, torch.bfloat16, torch.float16)
OLDEST_CAPABILITY = (8, 0)
"""Of a CUDA device: matrix units for bfloat16, and shared memory for the tiles."""
NARROWEST = 64
"""Tensors with a shorter last dimension stay with torch: a tile would be mostly padding."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """The form of a kernel, and one line that says why."""

    form: Form
    reason: str


@dataclass(frozen=True)
class Place:
    """What a choice depends on beside the types: the device, what is installed, what is wished.

    interpreted: whether Triton was imported to interpret its kernels, on any device.
    """

    device: str
    capability: tuple[int, int] | None
    has_triton: bool
    interpreted: bool = False
    wish: str = "auto"

    @classmethod
    def of(cls, device: torch.device | str) -> Place:
        """This process and one of its devices.

        Raises:
            ConfigError: WORKBENCH_KERNELS is none of `WISHES`.
        """
        wish = os.environ.get(VARIABLE) or "auto"
        if wish not in WISHES:
            problem, remedy = unknown_name(f"value of {VARIABLE}", wish, WISHES)
            raise ConfigError(problem, remedy=remedy)
        device = torch.device(device)
        capability = _capability(device) if device.type == "cuda" else None
        return cls(device.type, capability, *_triton(), wish=wish)


def choose(kernel: str, *tensors: Tensor) -> Choice:
    """The form for these tensors; said once in the log, as information, for every reason.

    Raises:
        ConfigError: WORKBENCH_KERNELS is unknown, or asks for Triton where it cannot run.
    """
    types = tuple({x.dtype: None for x in tensors})
    width = min(x.shape[-1] for x in tensors)
    choice = form_for(types, Place.of(tensors[0].device), width=width)
    _say_once(kernel, choice)
    return choice


def form_for(types: tuple[torch.dtype, ...], place: Place, width: int = NARROWEST) -> Choice:
    """The form for tensors of these types and of this least width at a place; see `choose`."""
    if place.wish == "torch":
        return Choice("torch", f"{VARIABLE} asks for it")
    obstacle = _obstacle(types, place)
    if place.wish == "auto":
        reason = obstacle or _reluctance(place, types, width)
        return Choice("torch", reason) if reason else Choice("triton", "on a CUDA device")
    if obstacle:
        raise ConfigError(
            f"{VARIABLE} asks for Triton, but {obstacle}", remedy=f"set {VARIABLE} to auto"
        )
    return Choice("triton", f"{VARIABLE} asks for it")


def kernel_report(
    device: torch.device | str = "cpu", dtype: torch.dtype = torch.bfloat16
) -> dict[str, Choice]:
    """The choice for every kernel on a device, for tensors of one type."""
    choice = form_for((dtype,), Place.of(device))
    return dict.fromkeys(KERNELS, choice)


def _obstacle(types: tuple[torch.dtype, ...], place: Place) -> str:
    """Why Triton cannot run, or nothing."""
    if place.device != "cuda" and not place.interpreted:
        return f"the tensors are on the {place.device}"
    if not place.has_triton:
        return "triton is not installed"
    if place.capability is not None and place.capability < OLDEST_CAPABILITY:
        return "the device is of compute capability {}.{}".format(*place.capability)
    if len(types) > 1:
        return "the tensors are of several types"
    if not set(types) <= set(TYPES):
        return f"the tensors are {', '.join(map(str, types))}".replace("torch.", "")
    return ""


def _reluctance(place: Place, types: tuple[torch.dtype, ...], width: int) -> str:
    """Why Triton should not run although it could, or nothing."""
    if place.device != "cuda":
        return f"the tensors are on the {place.device}"
    if place.interpreted:
        return "triton was imported to interpret its kernels"
    if width < NARROWEST:
        return f"a width of {width} is below {NARROWEST}"
    if torch.float32 in types:
        return "float32 is multiplied without matrix units"
    return ""


@lru_cache
def _triton() -> tuple[bool, bool]:
    """Whether Triton is installed, and whether it interprets."""
    if importlib.util.find_spec("triton") is None:
        return False, False
    from workbench.kernels.tiling import INTERPRETED

    return True, INTERPRETED


@lru_cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


@lru_cache
def _say_once(kernel: str, choice: Choice) -> None:
    _log.info("%s: %s form, because %s", kernel, choice.form, choice.reason)
