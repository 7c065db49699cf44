"""Whether somebody can see and press a widget here.

    if has_front_end(): ...

A widget needs a browser at the other end of the kernel.  papermill, nbval, nbclient and consoles
are clients written in Python, which can only store what a cell shows.
"""

from __future__ import annotations

import re
from typing import Any

_PYTHON_CLIENT = re.compile(r".+_\d+_\d+")
"""`jupyter_client` numbers messages session_process_count; front ends in a browser use UUIDs."""


def has_front_end() -> bool:
    """Whether the cell being executed was sent by a front end that draws widgets."""
    kernel = _kernel()
    if kernel is None:
        return False
    message_id = kernel.get_parent("shell").get("header", {}).get("msg_id", "")
    return bool(message_id) and not _PYTHON_CLIENT.fullmatch(message_id)


def _kernel() -> Any | None:
    try:
        from IPython import get_ipython
    except ImportError:
        return None
    return getattr(get_ipython(), "kernel", None)
