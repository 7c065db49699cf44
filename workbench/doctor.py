"""What this machine has, what is missing, and how to get it.

    checks = examine()
    works(checks)           # whether everything that training needs is there

Reads versions from the package's own metadata, so `pyproject.toml` stays the only place for them.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

OLDEST_PYTHON = (3, 11)
LITTLE_MEMORY_GIB = 4
LITTLE_DISK_GIB = 5
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_INSTALL = "run make env, or pip install -e '.[dev]'"
_GIB = 2**30


@dataclass(frozen=True)
class Check:
    """One thing looked at; `state` is `missing` only for what training cannot do without."""

    name: str
    found: str
    state: Literal["ok", "advice", "missing"] = "ok"
    wanted: str = ""
    remedy: str = ""


def works(checks: list[Check]) -> bool:
    """Whether nothing that training needs is missing."""
    return all(check.state != "missing" for check in checks)


def examine(folder: Path | None = None) -> list[Check]:
    """All checks; `folder` is where runs would be written, the current one if None."""
    return [
        _python(),
        *_packages(),
        *_device(),
        _memory(),
        _disk(folder or Path.cwd()),
        _program("git", ("git",), "stamps runs with the commit", "install git"),
        _program(
            "Chromium",
            BROWSERS,
            "runs the browser tests",
            "install chromium; without it those tests are skipped",
        ),
    ]


def _python() -> Check:
    wanted = f">={OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]}"
    if sys.version_info < OLDEST_PYTHON:
        return Check("Python", platform.python_version(), "missing", wanted, "install a newer one")
    return Check("Python", platform.python_version(), wanted=wanted)


def _packages() -> Iterator[Check]:
    try:
        metadata = importlib.metadata.metadata("workbench")
    except importlib.metadata.PackageNotFoundError:
        yield Check("workbench", "not installed", "missing", remedy=_INSTALL)
        return
    names = metadata.get_all("Provides-Extra") or []
    extras_of: dict[str, list[str]] = {}
    for line in metadata.get_all("Requires-Dist") or []:
        requirement = Requirement(line)
        extras = [extra for extra in names if _belongs_to(requirement, extra)]
        requirement.marker = None
        extras_of.setdefault(str(requirement), []).extend(extras)
    for line, extras in extras_of.items():
        # Developers have what every test needs; others want to know what a package is for.
        named = [extra for extra in extras if extra != "dev"] or extras
        yield _package(Requirement(line), ", ".join(named))


def _belongs_to(requirement: Requirement, extra: str) -> bool:
    marker = requirement.marker
    return bool(marker and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""}))


def _package(requirement: Requirement, extra: str) -> Check:
    wanted = str(requirement.specifier) + (f" ({extra})" if extra else "")
    remedy = f"pip install '{requirement.name}{requirement.specifier}'"
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        state = "advice" if extra else "missing"
        return Check(requirement.name, "not installed", state, wanted, remedy)
    if not requirement.specifier.contains(version, prereleases=True):
        return Check(requirement.name, version, "advice", wanted, remedy)
    return Check(requirement.name, version, wanted=wanted)


def _device() -> Iterator[Check]:
    import psutil

    model, flags = _processor()
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check("CPU", f"{model}, {cores} cores, {usable} threads usable")
    names = {"avx512f": "AVX-512", "avx512_bf16": "bfloat16", "amx_tile": "AMX", "avx2": "AVX2"}
    found = [label for flag, label in names.items() if flag in flags]
    yield Check("CPU instructions", ", ".join(found) or platform.machine())
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check("torch", f"cannot be imported: {error}", "missing", remedy=_INSTALL)
        return
    yield Check("torch threads", str(torch.get_num_threads()))
    yield _cuda(torch)
    yield _kernels(torch)


def _processor() -> tuple[str, set[str]]:
    """Model name and instruction flags, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine(), set()
    fields = dict(reversed([line.split(":", 1) for line in lines if ":" in line]))
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    return fields.get("model name", platform.machine()), set(fields.get("flags", "").split())


def _cuda(torch) -> Check:
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        memory = f"{card.total_memory / _GIB:.0f} GiB"
        return Check("CUDA device", f"{torch.cuda.device_count()} × {card.name}, {memory}")
    if torch.version.cuda:
        return Check(
            "CUDA device", "none", "advice", remedy="this torch is a CUDA build: check the driver"
        )
    return Check("CUDA device", "none (CPU build of torch)")


def _kernels(torch) -> Check:
    from workbench.core import ConfigError
    from workbench.kernels import kernel_report

    has_device = torch.cuda.is_available()
    try:
        choices = kernel_report("cuda" if has_device else "cpu").values()
    except ConfigError as error:
        return Check("kernels", error.problem, "advice", remedy=error.remedy)
    found = "; ".join(sorted({f"{choice.form}, because {choice.reason}" for choice in choices}))
    if has_device and any(choice.form == "torch" for choice in choices):
        remedy = "install triton, and leave WORKBENCH_KERNELS unset"
        return Check("kernels", found, "advice", "triton", remedy)
    return Check("kernels", found)


def _memory() -> Check:
    import psutil

    memory = psutil.virtual_memory()
    total, free = memory.total / _GIB, memory.available / _GIB
    found = f"{free:.1f} of {total:.1f} GiB free"
    if free < LITTLE_MEMORY_GIB:
        remedy = "close other programs, or lower batch_rows"
        return Check("memory", found, "advice", f">={LITTLE_MEMORY_GIB} GiB free", remedy)
    return Check("memory", found, wanted=f">={LITTLE_MEMORY_GIB} GiB free")


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free / _GIB
    wanted = f">={LITTLE_DISK_GIB} GiB free"
    if free < LITTLE_DISK_GIB:
        remedy = "free some space, or write runs elsewhere with --out"
        return Check("disk", f"{free:.0f} GiB free", "advice", wanted, remedy)
    return Check("disk", f"{free:.0f} GiB free", wanted=wanted)


def _program(name: str, commands: tuple[str, ...], purpose: str, remedy: str) -> Check:
    path = next(filter(None, map(shutil.which, commands)), None)
    if path:
        return Check(name, path, wanted=purpose)
    return Check(name, "not found", "advice", purpose, remedy)
