"""Files and folders that are whole or absent, whenever the process dies.

Everything is written beside its place under a name starting with `.aside-`, forced to disk, then
renamed.  Readers ignore such names; the next writer clears them.

    with aside_folder(run / "checkpoints" / "step_000000100") as folder: ...
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from workbench.core import RunError

ASIDE = ".aside-"
DOOMED = ".aside-doomed-"
REPLACED = ".aside-replaced-"
_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_ROOM_MIB = 1


@contextmanager
def writing(path: Path, run: Path) -> Iterator[None]:
    """Turn a full or read-only disk into a RunError that names `path` and says how to go on."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise _disk_full(path, run) from error
        if error.errno in _FORBIDDEN:
            raise RunError(
                f"cannot write {path}: {error.strerror}", remedy="make the run folder writable"
            ) from error
        raise
    except RuntimeError as error:
        # torch's archive writer reports a failed write as a RuntimeError without an errno.
        if shutil.disk_usage(run).free < _NO_ROOM_MIB * 2**20:
            raise _disk_full(path, run) from error
        raise


def _disk_full(path: Path, run: Path) -> RunError:
    return RunError(
        f"disk full while writing {path}", remedy=f"free space and run `workbench resume {run}`"
    )


def sync(path: Path) -> None:
    """Force a file or a folder's entries to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def aside_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; what was written there replaces `path` in one step."""
    temporary = path.with_name(ASIDE + path.name)
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_file(path: Path, content: bytes) -> None:
    """Replace a small file in one step."""
    with aside_file(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def aside_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; on success it becomes `path`, on error it is removed."""
    temporary = path.with_name(ASIDE + path.name)
    _remove(temporary)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for folder, _, files in os.walk(temporary):
            for name in files:
                sync(Path(folder, name))
            sync(Path(folder))
        _take_place(temporary, path)
    except BaseException:
        _remove(temporary)
        raise


def _take_place(temporary: Path, path: Path) -> None:
    # A folder cannot be renamed over a filled one: the old one steps back first, and
    # `clear_leftovers` puts it back if the process dies between the two renames.
    replaced = path.with_name(REPLACED + path.name)
    if path.exists():
        _remove(replaced)
        os.rename(path, replaced)
    os.rename(temporary, path)
    sync(path.parent)
    _remove(replaced)


def remove_folder(path: Path) -> None:
    """Remove a folder so that readers see it whole or not at all."""
    if not path.exists():
        return
    doomed = path.with_name(DOOMED + path.name)
    _remove(doomed)
    os.rename(path, doomed)
    sync(path.parent)
    _remove(doomed)


def clear_leftovers(folder: Path) -> None:
    """Remove what a killed writer left aside in `folder`, and put back what it had moved away."""
    for leftover in folder.glob(f"{ASIDE}*"):
        original = leftover.with_name(leftover.name.removeprefix(REPLACED))
        if leftover.name.startswith(REPLACED) and not original.exists():
            os.rename(leftover, original)
        else:
            _remove(leftover)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
