"""Mixtures over SlimPajama's seven domains and The Pile's 22 that papers published.

    MIXERS.build("static", task, mixture="slimpajama-doge")

DoGE: Fan et al. 2024 (arXiv 2310.15393); DoReMi: Xie et al. 2023 (arXiv 2305.10429); both vectors
as Sow et al. 2025 (arXiv 2502.06733) combine them with reweighting.  `pile`: the weights of the
corpus itself, the static baseline of AC-ODM's experiments (Ma et al. 2026, arXiv 2505.23878).
"""

from __future__ import annotations

from workbench.core import ConfigError

SLIMPAJAMA = ("arxiv", "book", "cc", "c4", "github", "stackexchange", "wikipedia")
PUBLISHED: dict[str, dict[str, float]] = {
    "slimpajama-doge": dict(
        zip(SLIMPAJAMA, (0.088, 0.045, 0.269, 0.214, 0.070, 0.166, 0.148), strict=True)
    ),
    "slimpajama-doremi": dict(
        zip(SLIMPAJAMA, (0.04235, 0.08201, 0.381, 0.1141, 0.0654, 0.0847, 0.2305), strict=True)
    ),
    "pile": {
        "pile-cc": 0.1811,
        "pubmed central": 0.1440,
        "books3": 0.1207,
        "openwebtext2": 0.1001,
        "arxiv": 0.0896,
        "github": 0.0759,
        "freelaw": 0.0612,
        "stackexchange": 0.0513,
        "uspto": 0.0365,
        "pubmed abstracts": 0.0307,
        "gutenberg": 0.0217,
        "opensubtitles": 0.0155,
        "wikipedia": 0.0153,
        "dm math": 0.0124,
        "ubuntu irc": 0.0088,
        "bookcorpus2": 0.0075,
        "europarl": 0.0073,
        "hackernews": 0.0062,
        "youtubesubtitles": 0.0060,
        "philpapers": 0.0038,
        "nih": 0.0030,
        "enron": 0.0014,
    },
}
_OTHER_NAMES = {
    "commoncrawl": "cc",
    "books": "book",
    "wiki": "wikipedia",
    # As The Pile's own files call them.
    "uspto backgrounds": "uspto",
    "gutenberg (pg-19)": "gutenberg",
    "wikipedia (en)": "wikipedia",
    "dm mathematics": "dm math",
    "nih exporter": "nih",
    "enron emails": "enron",
}


def published_mixture(name: str, domains: tuple[str, ...]) -> dict[str, float]:
    """A published vector under the corpus' own domain names, such as `RedPajamaArXiv`.

    Raises:
        ConfigError: the corpus lacks one of the vector's domains, or has another.
    """
    vector = PUBLISHED[name]
    found = {_plain_name(domain): domain for domain in domains}
    missing = sorted(set(vector) - set(found))
    extra = sorted(found[plain] for plain in set(found) - set(vector))
    if missing or extra:
        raise ConfigError(
            f"mixture '{name}' does not fit this corpus: missing {missing}, unknown {extra}",
            remedy=f"use a corpus with the domains {', '.join(vector)}, or give a mapping",
        )
    return {found[plain]: share for plain, share in vector.items()}


def _plain_name(domain: str) -> str:
    plain = domain.lower().removeprefix("redpajama").strip("_- ")
    return _OTHER_NAMES.get(plain, plain)
