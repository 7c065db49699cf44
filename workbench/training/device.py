"""Where and how precisely a run computes, resolved once and recorded.

config = resolve(config)          # "auto" replaced by what this machine has
stamp = environment(config, corpus)     # versions, commit, device: written into config.json
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from workbench.config import RunConfig
from workbench.core import ConfigError
from workbench.data import PreparedCorpus
from workbench.kernels import kernel_report
from workbench.training.ranks import Ranks

PACKAGES = ("workbench", "torch", "transformers", "tokenizers", "datasets", "numpy", "pyarrow")

# glibc mallopt parameters (malloc.h).
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def resolve(config: RunConfig) -> RunConfig:
    """The config with `device`, `precision` and `threads` made concrete for this machine."""
    device = _device(config.training.device)
    precision = config.training.precision
    if precision == "auto":
        precision = "bfloat16" if gains_from_bfloat16(device) else "float32"
    threads = config.training.threads or torch.get_num_threads()
    training = config.training.replace(device=device, precision=precision, threads=threads)
    return config.replace(training=training)


def resolve_elsewhere(config: RunConfig) -> RunConfig:
    """The config made concrete for a machine that is not asked: "auto" is a GPU, and bfloat16."""
    training = config.training
    device = "cuda" if training.device == "auto" else training.device
    precision = "bfloat16" if training.precision == "auto" else training.precision
    return config.replace(training=training.replace(device=device, precision=precision))


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"unknown device '{name}'", remedy="use auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"device '{name}' asked for, but this torch sees no CUDA device",
            remedy="use device=auto, or install a CUDA build of torch; to plan alone, give "
            "memory_gib and flops_per_second (--memory-gib, --flops)",
        )
    return name


def gains_from_bfloat16(device: str) -> bool:
    """Whether matrix products in bfloat16 are done in hardware there."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capability = torch.backends.cpu.get_cpu_capability()
    if not capability.startswith("AVX512"):
        return False
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def autocast(device: str, precision: str) -> AbstractContextManager:
    """Autocast to bfloat16 where the run asks for it; parameters stay float32."""
    if precision != "bfloat16":
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks instead of returning them to the system at every step.

    A step frees and allocates the same blocks; handing them back costs page faults worth up to a
    sixth of a small model's step on a CPU.  Does nothing on another C library.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def threads_of_rank(threads: int, started: Mapping[str, Any]) -> int:
    """Threads of a rank: those of the config, or its part of them on more ranks than then.

    Args:
        threads: of each rank that the run started on.
        started: its environment.
    """
    return min(threads, max(1, threads * started.get("ranks", 1) // Ranks.here().world))


def environment(config: RunConfig, corpus: PreparedCorpus) -> dict[str, Any]:
    """What a result depends on beside its config: versions, commit, device, corpus."""
    device = torch.device(config.training.device)
    cuda = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    dtype = getattr(torch, config.training.precision)
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git_commit": _git_commit(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": cuda or f"CPU ({torch.backends.cpu.get_cpu_capability()})",
        "threads": config.training.threads,
        "ranks": Ranks.here().world,
        "kernels": {name: asdict(each) for name, each in kernel_report(device, dtype).items()},
        "seed": config.seed,
        "content_hash": corpus.content_hash,
        "prepared": corpus.path.name,
        "domain_rows": dict(zip(corpus.domains, corpus.rows_K.tolist(), strict=True)),
        "corpus_notes": corpus.notes(),
        "command": " ".join(Path(a).name if i == 0 else a for i, a in enumerate(sys.argv)),
    }


def stamp(seed: int) -> str:
    """One line for the top of a notebook: versions, commit, device, threads, seed."""
    device = resolve(RunConfig()).training.device
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    packages = " · ".join(f"{p} {_version(p)}" for p in ("workbench", "torch", "transformers"))
    return (
        f"{packages} · commit {_git_commit() or 'unknown'} · {name}, "
        f"{torch.get_num_threads()} threads · seed {seed}"
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Commit of the checkout the package was imported from, with `+` when it has changes."""
    here = Path(__file__).parent
    try:
        commit = _git(here, "rev-parse", "--short=12", "HEAD")
        changed = _git(here, "status", "--porcelain", "--untracked-files=no", "--", str(here))
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    return done.stdout.strip()
