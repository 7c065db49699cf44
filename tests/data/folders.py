"""What a prepared folder holds, to compare two preparations byte by byte."""

from __future__ import annotations

import json
from pathlib import Path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by relative path, without times."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
    manifest = json.loads(found.pop("manifest.json"))
    del manifest["seconds"]
    return {**found, "manifest": json.dumps(manifest).encode()}
