"""What is known of the curvature of every linear map, and its files.

    factors = Factors.load(folder / name)
    part = factors.of("model.model.layers.0.mlp.up_proj")
    part.to_bases(gradient_OI) / part.corrected_OI                # Q_S^T V Q_A, element by element

All curvature is per token: F is the Fisher matrix of the mean loss per token, and a score is the
decrease of the reference loss for a unit of weight on one token.
Shapes: b rows, T tokens, O outputs, I inputs of a map.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from workbench.core import ConfigError, RunError, unknown_name

KINDS = ("adam", "kfac", "ekfac")
SETTINGS_FILE = "settings.json"


@dataclass(frozen=True)
class MapFactors:
    """Curvature of one linear map, in bases whose columns are eigenvectors.

    input_vectors_II, output_vectors_OO: of A and S; None for "adam", which has no bases.
    input_values_I, output_values_O: float64, ascending, of A and S, means over tokens.
    squares_OI: mean over rows of (Q_S^T G Q_A)^2, G the gradient of the loss summed over a row's
    tokens; None for "kfac".
    """

    tokens_per_row: float
    input_vectors_II: Tensor | None = None
    output_vectors_OO: Tensor | None = None
    input_values_I: Tensor | None = None
    output_values_O: Tensor | None = None
    squares_OI: Tensor | None = None

    @property
    def kronecker_OI(self) -> Tensor:
        """Eigenvalues of S ⊗ A, per token: K-FAC."""
        assert self.output_values_O is not None and self.input_values_I is not None
        return torch.outer(self.output_values_O, self.input_values_I)

    @property
    def corrected_OI(self) -> Tensor:
        """Mean squares of the gradient in the bases, per token: EK-FAC; in no basis: Adam."""
        assert self.squares_OI is not None
        return self.squares_OI.double() / self.tokens_per_row

    def to_bases(self, matrix_OI: Tensor) -> Tensor:
        """Q_S^T V Q_A."""
        if self.input_vectors_II is None or self.output_vectors_OO is None:
            return matrix_OI
        matrix_OI, input_II, output_OO = self._alike(matrix_OI)
        return output_OO.T @ matrix_OI @ input_II

    def from_bases(self, matrix_OI: Tensor) -> Tensor:
        """Q_S V Q_A^T, the inverse of `to_bases`."""
        if self.input_vectors_II is None or self.output_vectors_OO is None:
            return matrix_OI
        matrix_OI, input_II, output_OO = self._alike(matrix_OI)
        return output_OO @ matrix_OI @ input_II.T

    def _alike(self, matrix_OI: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        assert self.input_vectors_II is not None and self.output_vectors_OO is not None
        matrix_OI = matrix_OI.to(torch.promote_types(matrix_OI.dtype, self.input_vectors_II.dtype))
        return matrix_OI, self.input_vectors_II.to(matrix_OI), self.output_vectors_OO.to(matrix_OI)


@dataclass(frozen=True)
class Factors:
    """Factors by map, and the settings that they are a function of."""

    settings: dict[str, Any]
    parts: dict[str, MapFactors]

    @property
    def kind(self) -> str:
        return self.settings["kind"]

    @property
    def name(self) -> str:
        """Changes with anything that would change the factors: weights, rows, maps, settings."""
        return content_name(self.settings)

    def of(self, name: str) -> MapFactors:
        """Raises ConfigError for a map that was not fitted."""
        if name not in self.parts:
            problem, remedy = unknown_name("map of the factors", name, self.parts)
            raise ConfigError(problem, remedy=f"fit factors of the maps in use; {remedy}")
        return self.parts[name]

    def save(self, folder: str | Path) -> Path:
        """Write into `folder / name`, and return that."""
        path = Path(folder) / self.name
        path.mkdir(parents=True, exist_ok=True)
        save_parts(path / "all.safetensors", self.parts)
        return finish(path, self.settings, ["all.safetensors"])

    @classmethod
    def load(cls, path: str | Path) -> Factors:
        """From the folder that `save` or `fit_factors` made; tensors are mapped, not read.

        Raises:
            RunError: missing, unfinished or damaged.
        """
        path = Path(path)
        try:
            stored = json.loads((path / SETTINGS_FILE).read_text())
            parts: dict[str, MapFactors] = {}
            for file in stored["files"]:
                parts |= load_parts(path / file)
            settings = stored["settings"]
            return cls(settings, {name: parts[name] for name in settings["maps"]})
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"{path} holds no finished factors: {error}", remedy="fit them again"
            ) from None


def content_name(settings: dict[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True)
    return f"{settings['kind']}-{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"


def finish(path: Path, settings: dict[str, Any], files: Sequence[str]) -> Path:
    """Say what is complete, last of all."""
    aside = path / f".aside-{SETTINGS_FILE}"
    aside.write_text(json.dumps({"settings": settings, "files": list(files)}))
    aside.replace(path / SETTINGS_FILE)
    return path


def finished_files(path: Path) -> list[Path]:
    """The files of finished factors, in order."""
    return [path / name for name in json.loads((path / SETTINGS_FILE).read_text())["files"]]


def save_parts(
    path: Path, parts: dict[str, MapFactors], *, cost: tuple[float, float] = (0.0, 0.0)
) -> None:
    """One safetensors file, replaced whole; bases that maps share are written once.

    Args:
        cost: seconds and floating-point operations that the parts took.
    """
    tensors: dict[str, Tensor] = {}
    entries: dict[str, dict[str, Any]] = {}
    written: dict[int, str] = {}
    for name, part in parts.items():
        entry: dict[str, Any] = {"tokens_per_row": part.tokens_per_row}
        for field, value in vars(part).items():
            if isinstance(value, Tensor):
                key = written.setdefault(id(value), f"{name}.{field}")
                tensors[key] = value.contiguous()
                entry[field] = key
        entries[name] = entry
    aside = path.with_name(f".aside-{path.name}")
    save_file(tensors, aside, metadata={"parts": json.dumps(entries), "cost": json.dumps(cost)})
    aside.replace(path)


def load_parts(path: Path) -> dict[str, MapFactors]:
    with safe_open(path, "pt") as file:
        entries = json.loads(file.metadata()["parts"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    parts = {}
    for name, entry in entries.items():
        values = {k: tensors[v] for k, v in entry.items() if k != "tokens_per_row"}
        parts[name] = MapFactors(entry["tokens_per_row"], **values)
    return parts


def kept_cost(path: Path) -> tuple[float, float]:
    """Seconds and operations that the parts of a file took; 0 where an older workbench wrote it."""
    with safe_open(path, "pt") as file:
        seconds, flops = json.loads(file.metadata().get("cost", "[0, 0]"))
    return seconds, flops
