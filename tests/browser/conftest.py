"""JupyterLab on a folder of its own, and a headless Chromium that opens it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

START_SECONDS = 60
CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/apputils-extension/themes": {"adaptive-theme": False},
}


@dataclass
class Lab:
    """A running JupyterLab: its address and the folder it serves."""

    url: str
    folder: Path

    def write(self, name: str, *sources: str) -> None:
        """A notebook with one code cell per source."""
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(source) for source in sources],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        )
        nbformat.write(notebook, self.folder / name)

    def open(self, page, name: str) -> None:
        """The notebook `name` alone on the page, its kernel idle."""
        page.goto(f"{self.url}/doc/tree/{name}?reset")
        page.wait_for_function(
            "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel"
            "?.status === 'idle'",
            timeout=START_SECONDS * 1000,
        )

    @staticmethod
    def command(page, name: str, **arguments) -> None:
        """Run a command of JupyterLab, without waiting for what it starts."""
        page.evaluate(
            "([name, args]) => { window.jupyterapp.commands.execute(name, args); }",
            [name, arguments],
        )

    @staticmethod
    def execute(page, code: str) -> tuple[str, float]:
        """What code sent to the kernel like a cell printed, and its round trip in milliseconds.

        A run in the background warns on the standard error of whichever cell is at work.
        """
        return page.evaluate(
            """async code => {
              const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
              const began = performance.now();
              const future = kernel.requestExecute({code});
              let text = '';
              future.onIOPub = message => {
                const content = message.content;
                if (content.name === 'stderr') return;
                text += content.text ?? (content.traceback ?? []).join('\\n');
              };
              await future.done;
              return [text, performance.now() - began];
            }""",
            code,
        )


def find_chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="session")
def chromium() -> str:
    found = find_chromium()
    if found is None and os.environ.get("WORKBENCH_REQUIRE_BROWSER") == "1":
        pytest.fail("no Chromium found, and WORKBENCH_REQUIRE_BROWSER=1")
    if found is None:
        pytest.skip("no Chromium found: install chromium to test the live panel")
    return found


@pytest.fixture(scope="session")
def lab(chromium, tmp_path_factory) -> Iterator[Lab]:
    home, folder = tmp_path_factory.mktemp("jupyter"), tmp_path_factory.mktemp("notebooks")
    with serve(folder, home) as running:
        yield running


@pytest.fixture(scope="module")
def page(lab, chromium):
    with browse(chromium) as opened:
        yield opened


class browse:
    """A page of a headless Chromium, closed at the end of the block."""

    def __init__(self, chromium: str, *, width: int = 1180, height: int = 900):
        self._chromium = chromium
        self._size = {"width": width, "height": height}

    def __enter__(self):
        from playwright.sync_api import sync_playwright

        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(
            executable_path=self._chromium, args=[*CHROMIUM_FLAGS, "--no-first-run"]
        )
        return self._browser.new_page(viewport=self._size)

    def __exit__(self, *failure) -> None:
        self._browser.close()
        self._playwright.stop()


class serve:
    """JupyterLab on `folder` without token on a free port, its settings and files in `home`."""

    def __init__(self, folder: Path, home: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._folder, self._home = folder, home

    def __enter__(self) -> Lab:
        for name, content in SETTINGS.items():
            path = self._home / "settings" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))
        self._log = (self._home / "lab.log").open("w")
        self._process = subprocess.Popen(
            self._command(), env=self._environment(), stdout=self._log, stderr=self._log
        )
        self._wait()
        return Lab(f"http://127.0.0.1:{self._port}", self._folder)

    def _command(self) -> list[str]:
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.append("--allow-root")
        return [
            *command,
            "--ip=127.0.0.1",
            f"--port={self._port}",
            "--ServerApp.port_retries=0",
            f"--ServerApp.root_dir={self._folder}",
            "--IdentityProvider.token=",
            "--LabApp.extension_manager=readonly",
        ]

    def _environment(self) -> dict[str, str]:
        own = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
        folders = {name: str(self._home / name.lower()) for name in own}
        return {
            **os.environ,
            **folders,
            "JUPYTERLAB_SETTINGS_DIR": str(self._home / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(self._home / "workspaces"),
            "WORKBENCH_CACHE": os.environ.get("WORKBENCH_CACHE", str(self._home / "prepared")),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/api", timeout=2):
                    return
            except OSError:
                time.sleep(0.2)
        self.__exit__()
        raise RuntimeError((self._home / "lab.log").read_text()[-2000:])

    def __exit__(self, *failure) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._log.close()
