"""What happened in a run, as data: events, ledger, checkpoints, summary, in one folder."""

from workbench.tracking.events import LIFECYCLE, REQUIRED_FIELDS
from workbench.tracking.folder import RunFolder, Status, find_runs
from workbench.tracking.ledger import SCHEMA as LEDGER_SCHEMA
from workbench.tracking.ledger import Ledger

__all__ = [
    "LEDGER_SCHEMA",
    "LIFECYCLE",
    "REQUIRED_FIELDS",
    "Ledger",
    "RunFolder",
    "Status",
    "find_runs",
]
