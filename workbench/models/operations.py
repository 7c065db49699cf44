"""Operations of a block of work, counted from what torch dispatches.

    with counted() as operations: model(inputs, labels)
    operations.total                       # one multiplication and one addition count two

Matrix products, convolutions, attention and our own kernels (`kernels.counting`) count;
decompositions and what is done in numpy do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode

_COUNTING: ContextVar[FlopCounterMode | None] = ContextVar("counting", default=None)


@dataclass
class Counted:
    """Filled when the block ends."""

    total: float = 0.0


def counted_so_far() -> float:
    """Operations since the outermost block that counts began; 0 outside of any."""
    mode = _COUNTING.get()
    return float(mode.get_total_flops()) if mode is not None else 0.0


@contextmanager
def counted() -> Iterator[Counted]:
    """Count the operations of a block; some overhead per operation, once for nested blocks.

    Operations are taken apart to be counted, which may change the last bits of their results.
    """
    from torch.utils.flop_counter import FlopCounterMode

    found, before = Counted(), counted_so_far()
    if _COUNTING.get() is not None:
        try:
            yield found
        finally:
            found.total = counted_so_far() - before
        return
    with FlopCounterMode(display=False, custom_mapping=_formulas()) as mode:
        token = _COUNTING.set(mode)
        try:
            yield found
        finally:
            found.total = counted_so_far()
            _COUNTING.reset(token)


def _formulas() -> dict[Any, Any]:
    """What the counter does not know: attention on a CPU, sums in place and in another type."""
    import torch
    from torch.utils.flop_counter import mm_flop, sdpa_flop_count

    def forward(query, key, value, *_args: Any, out_shape: Any = None, **_options: Any) -> int:
        return sdpa_flop_count(query, key, value)

    def backward(_grad, query, key, value, *_args: Any, **_options: Any) -> int:
        return 2 * sdpa_flop_count(query, key, value)

    def product(_sum, left, right, *_args: Any, out_shape: Any = None, **_options: Any) -> int:
        # torch's own formula takes no type of the sum, as the losses in parts give it on a GPU.
        return mm_flop(left, right)

    aten = torch.ops.aten
    return {
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
        aten.addmm: product,
        aten.addmm_: product,
    }
