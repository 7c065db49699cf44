"""`python -m workbench …`, and on several devices `torchrun --nproc-per-node 2 -m workbench …`."""

from workbench.cli import app

app()
