"""What a planned run needs, as numbers, as a table and in words; `planner.plan` makes it.

found = plan(config, devices=8)
found.fits, found.peak_mib, found.table()
print(found)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class RunPlan:
    """Memory of one device in MiB, and what the whole run takes.

    activations_mib: of one forward pass, with what `activation_checkpointing` says; loss_mib: of
    logits, as many as exist at a time, and of what their form keeps of the head; copies_mib:
    weights converted to bfloat16, and with fsdp weights gathered; policies_mib: what signals of a
    mixer keep on the device; selector_mib: with fsdp the whole model that judges, before a step;
    peak_mib: of what exists at the same time, less than their sum where gradients take the place
    of activations; free_mib: of the device.
    host_mib: of the host of GPUs, where every rank (with fsdp the first alone) makes the whole
    model before it moves; 0 on a CPU, where that is in the peak; host_free_mib: there.
    tokens, flops, seconds: of all steps and evaluations; disk_mib: of checkpoints.
    warnings: what the plan may be wrong about; notes: what it took for granted.
    """

    device: str
    devices: int
    parallel: str
    parameters: int
    parameters_mib: float
    gradients_mib: float
    optimizer_mib: float
    activations_mib: float
    loss_mib: float
    copies_mib: float
    policies_mib: float
    selector_mib: float
    peak_mib: float
    free_mib: float
    host_mib: float
    host_free_mib: float
    tokens: int
    flops: float
    flops_per_second: float
    seconds: float
    disk_mib: float
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        return self.peak_mib <= self.free_mib and self.host_mib <= self.host_free_mib

    def rows(self) -> list[dict[str, Any]]:
        """A table of the memory of one device."""
        parts = ("parameters", "gradients", "optimizer", "activations", "loss", "copies")
        more = ("policies", "selector", "peak")
        shown = {part: getattr(self, f"{part}_mib") for part in (*parts, *more)}
        return [{"part": part, "mib": round(value)} for part, value in shown.items()]

    def table(self) -> pd.DataFrame:
        """`rows` for a notebook."""
        import pandas as pd

        return pd.DataFrame(self.rows()).set_index("part")

    def __str__(self) -> str:
        spread = f"{self.devices} × {self.device}" + (
            f" ({self.parallel})" if self.devices > 1 else ""
        )
        return (
            f"{self.parameters / 1e6:,.1f} M parameters on {spread}: {self.peak_mib:,.0f} MiB at "
            f"the peak of each, {self.free_mib:,.0f} free; {self.tokens / 1e9:,.3g} B tokens, "
            f"{self.flops:.2g} operations, {_duration(self.seconds)} at "
            f"{self.flops_per_second:.2g} a second and device; {self.disk_mib:,.0f} MiB of "
            "checkpoints"
        )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 86_400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:,.1f} days"
