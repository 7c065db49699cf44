"""A fork in processes of its own, on several devices if asked.

    running = fork("runs/a", 100, devices=2, mixer="exp3")    # returns at once
    running.wait()

The folder is made here, so that what cannot work is refused before a process starts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench.batch.launch import Launched, attach, check_devices, devices_of
from workbench.tracking import RunFolder


def fork(
    path: str | Path,
    step: int,
    *,
    devices: int | None = None,
    name: str | None = None,
    **changes: Any,
) -> Launched:
    """Train a run that shares the steps before `step` with that at `path`, under `changes`.

    Args:
        step: the first step that is the fork's own; the parent may still be training.
        devices: ranks; as many as the parent was launched on when None.
        name: of its folder, beside the parent's; made of the changes when None.
    Raises:
        ConfigError: a device that is not there, or rows of a batch that do not fit so many.
        WorkbenchError: a step not reached yet, or a change that does not fit.
    """
    from workbench.training.fork import fork as make_folder
    from workbench.training.fork import settings_before
    from workbench.training.rows import prepared_again

    parent = RunFolder.open(Path(path).absolute())
    devices = devices_of(parent.path) if devices is None else devices
    # Before there is a folder; what it warns of, `attach` says.
    check_devices(settings_before(parent, step).change(**changes), devices)
    made = make_folder(parent, step, changes, prepared_again(parent), name=name)
    return attach(made.path, devices=devices)
