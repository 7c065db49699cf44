"""JSON that survives NaN, infinities and numpy values.

Floats that JSON does not know are written as the strings "NaN", "Infinity" and "-Infinity", so
that every reader of JSON can read the file, and are floats again after `decode`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode(content: Any, *, indent: int | None = None) -> bytes:
    """One JSON text, ended by a newline; on one line unless `indent` is given."""
    separators = (",", ":") if indent is None else None
    options: dict[str, Any] = {"indent": indent, "separators": separators, "default": _plain}
    try:
        text = json.dumps(content, allow_nan=False, **options)
    except ValueError:
        text = json.dumps(_named_floats(content), **options)
    return text.encode() + b"\n"


def decode(text: bytes) -> Any:
    """What `encode` was given.

    Raises:
        ValueError: not JSON.
    """
    content = json.loads(text)
    return _real_floats(content) if b'"NaN"' in text or b'Infinity"' in text else content


def _plain(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return _named_floats(value.tolist())
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a run folder cannot hold a {type(value).__name__}")


def _named_floats(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _named_floats(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_named_floats(item) for item in value]
    return value


def _real_floats(value: Any) -> Any:
    if isinstance(value, str):
        return _NOT_FINITE.get(value, value)
    if isinstance(value, dict):
        return {key: _real_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_real_floats(item) for item in value]
    return value
