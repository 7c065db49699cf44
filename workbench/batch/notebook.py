"""Notebooks without a front end: parameters in, executed copy out.

    execute("notebooks/00_tour.ipynb", "out/tour.ipynb", {"profile": "ci", "seed": 1})

papermill runs the cells; this module makes its unknown parameters an error, keeps widget state out
of the copy, passes on what a cell prints while it runs, and turns a failed cell into one line.
"""

from __future__ import annotations

import os
import re
import signal
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.core import ConfigError, RunError, unknown_name

if TYPE_CHECKING:
    from papermill.exceptions import PapermillExecutionError

Progress = Callable[[str, int, int | None], None]
"""progress(what, done, total): called when a cell starts and for every line a cell prints."""


class Interrupted(RunError):
    """The execution of a notebook was interrupted; nothing is wrong with it."""


class Interrupter:
    """Ends an execution that runs in another thread.

    The first `press` interrupts the cell at work, and a run that it trains stops with a
    checkpoint; the second kills the kernel.
    """

    def __init__(self) -> None:
        self.pressed = 0
        self._kernel: int | None = None

    def kernel_started(self, process: int) -> None:
        self._kernel = process

    def press(self) -> None:
        self.pressed += 1
        if self._kernel is not None:
            with suppress(ProcessLookupError):
                os.kill(self._kernel, signal.SIGINT if self.pressed == 1 else signal.SIGKILL)


_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_FAILED_LINE = re.compile(r"Cell In\[\d+\], line (\d+)")


def execute(
    notebook: str | Path,
    output: str | Path,
    parameters: Mapping[str, Any] | None = None,
    *,
    progress: Progress | None = None,
    timeout_seconds: int | None = None,
    interrupter: Interrupter | None = None,
) -> Path:
    """Run every cell of a notebook and store the executed copy, also when a cell fails.

    Args:
        notebook: an .ipynb file with a cell tagged `parameters`.
        output: where the executed copy goes; folders are created.
        parameters: values for names of that cell; paths are passed as text.
        progress: told the code cell at work and the last line it printed.
        timeout_seconds: the longest a single cell may take; None for no limit.
        interrupter: ends the execution from another thread.
    Returns:
        The path of the executed copy.
    Raises:
        ConfigError: a parameter that the notebook does not have, naming the nearest.
        RunError: the notebook is missing, or a cell failed or took too long.
        Interrupted: a cell was interrupted.
    """
    notebook, output = Path(notebook), Path(output)
    _check_there(notebook)
    values = {name: _plain(value) for name, value in (parameters or {}).items()}
    if values:
        _check_parameters(notebook, values)
    output.parent.mkdir(parents=True, exist_ok=True)
    _run_cells(notebook, output, values, progress, timeout_seconds, interrupter or Interrupter())
    return output


def notebook_parameters(notebook: str | Path) -> list[str]:
    """Names in the notebook's cell tagged `parameters`, in their order.

    Raises:
        ConfigError: it names no kernel.
        RunError: no such notebook.
    """
    import papermill

    path = Path(notebook)
    _check_there(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return list(papermill.inspect_notebook(path))
        except ValueError:
            raise ConfigError(
                f"{path.name} names no kernel", remedy="open it in JupyterLab and save it"
            ) from None


def read_parameters(path: str | Path, notebook: str | Path) -> dict[str, Any]:
    """Parameters from a YAML file, as `papermill -f` takes them, checked against the notebook.

    Raises:
        ConfigError: the file cannot be read, or names a parameter that the notebook does not have.
        RunError: no such notebook.
    """
    import yaml

    try:
        values = dict(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    # yaml's errors are no ValueErrors; whatever a parser says, the file is at fault.
    except Exception as error:
        raise ConfigError(
            f"cannot read parameters from {path}: {' '.join(str(error).split())}",
            remedy="write lines such as `model: tiny`",
        ) from None
    _check_parameters(Path(notebook), values)
    return values


def _check_there(notebook: Path) -> None:
    if not notebook.is_file():
        raise RunError(f"{notebook} is not a notebook", remedy="give the path of an .ipynb file")


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _check_parameters(notebook: Path, values: Mapping[str, Any]) -> None:
    known = notebook_parameters(notebook)
    for name in values:
        if name not in known:
            problem, remedy = unknown_name("parameter", name, known)
            raise ConfigError(f"{problem} of {notebook.name}", remedy=remedy)


def _run_cells(
    notebook: Path,
    output: Path,
    values: dict[str, Any],
    progress: Progress | None,
    timeout_seconds: int | None,
    interrupter: Interrupter,
) -> None:
    import nbformat
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    cells = nbformat.read(notebook, as_version=4).cells
    # papermill adds one cell, with the values, after the tagged one.
    total = sum(cell.cell_type == "code" for cell in cells) + bool(values)
    reader = _Reader(progress or _silent, total, interrupter)
    try:
        papermill.execute_notebook(
            notebook,
            output,
            values,
            kernel_name="python3",
            progress_bar=False,
            stdout_file=reader,
            stderr_file=reader,
            execution_timeout=timeout_seconds,
            on_cell_start=reader.cell_started,
            store_widget_state=False,
            kernel_manager_class=_kernel_manager(interrupter),
            # Its warnings about transport go to the terminal, past every cell.
            extra_arguments=["--log-level=ERROR"],
        )
    except papermill.PapermillExecutionError as error:
        if error.ename == "KeyboardInterrupt":
            raise _interrupted(notebook, output) from None
        raise _failed_cell(notebook, output, error) from None
    except (CellTimeoutError, DeadKernelError) as error:
        if interrupter.pressed:
            raise _interrupted(notebook, output) from None
        reason = (
            f"took longer than {timeout_seconds} s"
            if isinstance(error, CellTimeoutError)
            else "ended its kernel (out of memory?)"
        )
        raise RunError(
            f"{notebook.name}: code cell {reader.done + 1} {reason}",
            remedy=f"the cells before it are in {output}; use a smaller profile",
        ) from None
    reader.finished()


def _silent(what: str, done: int, total: int | None) -> None:
    return None


class _Reader:
    """The file papermill writes the cells' printed text to; passes whole lines on."""

    def __init__(self, progress: Progress, total: int, interrupter: Interrupter):
        self._progress = progress
        self._interrupter = interrupter
        self._total = total
        self._partial = ""
        self._started = 0

    @property
    def done(self) -> int:
        return max(0, self._started - 1)

    def cell_started(self, cell: Any, cell_index: int) -> None:
        del cell_index
        # Between two cells the kernel has nothing to interrupt.
        if self._interrupter.pressed:
            raise Interrupted("interrupted between two cells")
        if cell.cell_type == "code":
            self._started += 1
            self._tell(_title(cell.source))

    def write(self, text: str) -> None:
        *lines, self._partial = (self._partial + text).replace("\r", "\n").split("\n")
        for line in lines:
            if line.strip():
                self._tell(_ANSI.sub("", line).strip())

    def flush(self) -> None:
        return None

    def finished(self) -> None:
        self._progress("done", self._total, self._total)

    def _tell(self, what: str) -> None:
        self._progress(what, self.done, self._total)


def _title(source: str) -> str:
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    return lines[0][:60] if lines else ""


def _kernel_manager(interrupter: Interrupter) -> type:
    """nbclient's manager of kernels, telling the process it starts."""
    from jupyter_client.manager import AsyncKernelManager
    from jupyter_client.provisioning.local_provisioner import LocalProvisioner

    class Manager(AsyncKernelManager):
        async def _async_launch_kernel(self, kernel_cmd: list[str], **options: Any) -> None:
            await super()._async_launch_kernel(kernel_cmd, **options)
            if isinstance(self.provisioner, LocalProvisioner) and self.provisioner.pid:
                interrupter.kernel_started(self.provisioner.pid)

    return Manager


def _interrupted(notebook: Path, output: Path) -> Interrupted:
    return Interrupted(
        f"{notebook.name} was interrupted", remedy=f"the executed part is in {output}"
    )


def _failed_cell(notebook: Path, output: Path, error: PapermillExecutionError) -> RunError:
    lines = str(error.source).splitlines()
    traceback = _ANSI.sub("", "\n".join(error.traceback))
    match = _FAILED_LINE.search(traceback)
    number = int(match[1]) if match else 0
    at = f" at `{lines[number - 1].strip()}`" if 0 < number <= len(lines) else ""
    return RunError(
        f"{notebook.name}: cell [{error.exec_count}] failed{at}: {error.ename}: {error.evalue}",
        remedy=f"the executed part is in {output}",
    )
