"""Mixtures over SlimPajama's seven domains that papers found and published.

    MIXERS.build("static", task, mixture="slimpajama-doge")

DoGE: Fan et al. 2024 (arXiv 2310.15393); DoReMi: Xie et al. 2023 (arXiv 2305.10429); both vectors
as Sow et al. 2025 (arXiv 2502.06733) combine them with reweighting.
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
}
_OTHER_NAMES = {"commoncrawl": "cc", "books": "book", "wiki": "wikipedia"}


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
