"""Text in a still picture: markup undone, long names broken into lines, powers of ten.

    fitted("mixture.code=0.25, … against uniform", letters=40)     # at most three lines of 40

Names are shortened where they are shown alone: an axis takes equal names for one row.
"""

from __future__ import annotations

import html
import math
import re
import textwrap
from typing import Any

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MOST_LINES = 3


def plain(text: str | None) -> str:
    """The text that Plotly's markup stands for."""
    return html.unescape(re.sub(r"<br ?/?>", "\n", text or ""))


def fitted(name: str, letters: int) -> str:
    """A name in lines of at most `letters`, its middle left out where three do not hold it."""
    if all(len(line) <= letters for line in name.split("\n")):
        return name
    lines = textwrap.wrap(name, max(1, letters))
    # Lines end at words, so three of them seldom hold three times the letters.
    half = _MOST_LINES * letters // 2
    while len(lines) > _MOST_LINES and half > 1:
        lines = textwrap.wrap(f"{name[:half]}…{name[-half:]}", letters)
        half -= 1
    return "\n".join(lines)


def break_names(axis: Any, letters: int) -> None:
    """Break the names that stand at the ticks of an axis; one of numbers stays as it is."""
    from matplotlib.category import StrCategoryFormatter
    from matplotlib.ticker import FixedFormatter

    written = axis.get_major_formatter()
    if isinstance(written, (StrCategoryFormatter, FixedFormatter)):
        ticks = axis.get_majorticklocs()
        axis.set_ticks(
            ticks, labels=[fitted(name, letters) for name in written.format_ticks(ticks)]
        )


def label_powers(axis: Any) -> None:
    """Ticks at powers of ten, and between them where the axis is shorter than two decades.

    matplotlib would write them as formulas, which text from a corpus must never become.
    """
    from matplotlib.ticker import FuncFormatter

    def told(value: float, _position: int | None = None) -> str:
        exponent = round(math.log10(value))
        return f"10{str(exponent).translate(_SUPERSCRIPT)}"

    def between(value: float, _position: int | None = None) -> str:
        low, high = sorted(axis.get_view_interval())
        digit = round(value / 10 ** math.floor(math.log10(value)))
        return f"{value:g}" if high < 30 * low and digit in (2, 5) else ""

    axis.set_major_formatter(FuncFormatter(told))
    axis.set_minor_formatter(FuncFormatter(between))
