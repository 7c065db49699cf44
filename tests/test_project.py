"""What stands outside the package agrees with it: environments, commands, hooks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
CONDA_NAMES = {"pytorch": "torch"}
# What conda installs itself; everything else comes with the pip line.
BY_CONDA = {
    *("jupyterlab", "ipywidgets", "torch", "transformers", "datasets", "plotly"),
    *("umap-learn", "papermill", "pytest", "nbval"),
}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pip_specifiers() -> dict[str, SpecifierSet]:
    lines = project()["dependencies"] + project()["optional-dependencies"]["dev"]
    return {r.name: r.specifier for r in map(Requirement, lines)}


def conda_environment() -> tuple[dict[str, SpecifierSet], list[str], dict]:
    """Specifiers of the conda packages by their pip name, the pip lines, and the whole file."""
    content = yaml.safe_load((ROOT / "environment.yml").read_text())
    by_conda, by_pip = {}, []
    for entry in content["dependencies"]:
        if isinstance(entry, dict):
            by_pip += entry["pip"]
        else:
            name, specifier = re.fullmatch(r"([A-Za-z0-9_.-]+)(.*)", entry).groups()
            by_conda[CONDA_NAMES.get(name, name)] = SpecifierSet(specifier)
    return by_conda, by_pip, content


def test_conda_and_pip_ask_for_the_same_versions():
    conda, by_pip, content = conda_environment()
    assert content["name"] == project()["name"]
    assert content["channels"] == ["conda-forge"]
    assert set(conda) == BY_CONDA | {"python", "pip"}
    pip = pip_specifiers()
    drift = {n: (str(conda[n]), str(pip[n])) for n in BY_CONDA if conda[n] != pip[n]}
    assert not drift, "environment.yml and pyproject.toml differ"
    assert conda["python"] == SpecifierSet(project()["requires-python"])
    assert by_pip == ["-e .[dev]"]


def test_what_is_developed_with_has_the_versions_of_the_extras():
    extras = project()["optional-dependencies"]
    dev = {r.name: r for r in map(Requirement, extras.pop("dev"))}
    tested = ("trainer", "tensorboard", "wandb", "mlflow", "surrogate", "liger")
    for line in (line for extra in tested for line in extras[extra]):
        requirement = Requirement(line)
        assert dev[requirement.name].specifier == requirement.specifier, requirement.name


def test_every_dependency_says_which_versions():
    unpinned = [name for name, specifier in pip_specifiers().items() if not specifier]
    assert not unpinned


def test_every_command_in_the_readme_exists():
    from typer.main import get_command

    from workbench.cli import app

    readme = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = set(get_command(app).commands)
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", readme, re.DOTALL))
    assert set(re.findall(r"\bmake ([a-z]+)", code)) <= targets
    assert set(re.findall(r"(?<![\w./-])(?<!import )workbench ([a-z]+)", code)) <= commands


def test_ci_runs_lint_and_tests_and_stops_at_the_first_failure():
    script = (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert "set -euo pipefail" in script
    assert script.index("make lint") < script.rindex("make test")
    assert "export WORKBENCH_REQUIRE_BROWSER=1" in script


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    # Not the flags of a `make test` around this one.
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    command = ["make", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)


def test_an_old_python_is_refused_with_the_remedy(tmp_path):
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" && exit 0\nexit 1\n')
    old.chmod(0o755)
    done = make("env", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}")
    assert done.returncode != 0
    assert "Python 3.9.2 is too old: install Python 3.11 or newer" in done.stdout
    assert not (tmp_path / "venv").exists()


def test_an_environment_that_matches_is_not_installed_again(tmp_path):
    (tmp_path / ".installed").touch()
    done = make("env", f"VENV={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "Nothing to be done" in done.stdout


def secret_pattern() -> str:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    return next(hook["entry"] for hook in hooks if hook["id"] == "secrets")


def test_hooks_fetch_nothing():
    content = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert {repository["repo"] for repository in content["repos"]} == {"local"}
    assert {h["language"] for h in content["repos"][0]["hooks"]} <= {"system", "pygrep"}


@pytest.mark.parametrize(
    ("line", "is_secret"),
    [
        ("-----BEGIN RSA " + "PRIVATE KEY-----", True),
        ("token = '" + "Zx9" * 8 + "'", True),
        ("hf_" + "a1B2" * 9, True),
        ("AKIA" + "ABCDEFGH12345678", True),
        ("token = tokenizer.token_to_id('<eos>')", False),
        ("secret: str | None = None", False),
        ("tokens_per_second = total_tokens / seconds", False),
    ],
)
def test_the_secrets_hook_finds_keys_and_nothing_else(line, is_secret):
    assert bool(re.search(secret_pattern(), line)) is is_secret


def test_no_tracked_text_file_holds_a_secret():
    pattern = re.compile(secret_pattern())
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    found = []
    for name in listed.stdout.split("\n"):
        path = ROOT / name
        if path.is_file() and path.stat().st_size < 2_000_000:
            text = path.read_bytes().decode(errors="ignore")
            found += [name for line in text.splitlines() if pattern.search(line)]
    assert not found


def test_the_version_stands_once():
    program = "import workbench; print(workbench.__version__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == project()["version"]
