"""Named corpora with origin and licence, from `catalogue.json` beside this module.

CorpusConfig(name="slimpajama-6b")              # resolves to a dataset, its columns and subset
python -m workbench.data.catalogue > data/README.md
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from workbench.config import CorpusConfig

_HEAD = """# Corpora

`CorpusConfig(name=…)` takes a name of this table, a folder, a file or glob, or any `datasets` name.
Nothing is stored here: each corpus is read where it lies or streamed from its origin, under the
licence given there. Sizes and licences are what the origins state; check them before you publish.

The table is printed by `python -m workbench.data.catalogue` from `workbench/data/catalogue.json`,
which ships with the package; a test keeps the two in step.

Your own text: a folder `<domain>/**/*.txt|md|py…`, `*.jsonl(.gz|.zst)` or `*.parquet`. The domain
is the column `domain_column` (dots reach into nested fields) or else the folder. For example
`CorpusConfig(name="dump/*.jsonl.zst", text_column="body", domain_column="meta.source")`.
"""


@cache
def entries() -> dict[str, dict[str, Any]]:
    """Entries by name: title, origin, licence, size, domain, `domains` where their number is
    known beforehand, and `load` for fetched ones."""
    text = resources.files("workbench.data").joinpath("catalogue.json").read_text("utf-8")
    return json.loads(text)


def resolve(config: CorpusConfig) -> CorpusConfig:
    """The config with the entry's dataset name and columns; a user's own setting wins."""
    load = entries()[config.name].get("load", {})
    default = CorpusConfig()
    chosen = {
        field: value
        for field, value in load.items()
        if field == "name" or getattr(config, field) == getattr(default, field)
    }
    return config.replace(**chosen)


def domain_count(config: CorpusConfig) -> int | None:
    """How many domains a corpus has, known before it is read: as named, or as its entry says.

    None where only reading would tell, or where another column than the entry's gives the domains.
    """
    count = len(config.domains) if config.domains else _listed_count(config)
    return count if count is None or config.noise_mb is None else count + 1


def _listed_count(config: CorpusConfig) -> int | None:
    deciding = ("name", "subset", "domain_column")
    asked = resolve(config) if config.name in entries() else config
    for name, entry in entries().items():
        listed = resolve(CorpusConfig(name=name))
        if all(getattr(asked, field) == getattr(listed, field) for field in deciding):
            return entry.get("domains")
    return None


def markdown() -> str:
    """The text of `data/README.md`."""
    parts = [_HEAD]
    for name, entry in entries().items():
        load = entry.get("load", {})
        parts.append(f"\n## `{name}`\n\n{entry['title']}.\n\n")
        rows = {k: entry[k] for k in ("origin", "licence", "size")} | {"domains": entry["domain"]}
        if load:
            rows["loads"] = ", ".join(f"{k} = `{v}`" for k, v in load.items())
        parts.extend(f"- {key}: {value}\n" for key, value in rows.items())
    return "".join(parts)


if __name__ == "__main__":
    print(markdown(), end="")
