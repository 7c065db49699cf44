"""The model of a finished run, to judge or to be compared with.

model = finished_model("runs/reference", corpus, "reference")
"""

from __future__ import annotations

from pathlib import Path

import torch

from workbench.config import RunConfig
from workbench.core import PolicyError
from workbench.data import PreparedCorpus
from workbench.models import Decoder, build_model
from workbench.tracking import RunFolder
from workbench.training.shards import FOLDER as SHARDS
from workbench.training.shards import load_model_shards

STATE_FILE = "state.pt"


def finished_model(path: str, corpus: PreparedCorpus, role: str) -> Decoder:
    """The model of a run's newest checkpoint, in evaluation mode, on the CPU.

    Args:
        role: the setting that names the run, for errors.
    Raises:
        PolicyError: no run or no checkpoint there, or it was trained on other text or rows.
    """
    if not RunFolder.holds_run(Path(path)):
        raise PolicyError(f"{role} '{path}' is no run folder", remedy=f"train the {role} run first")
    folder = RunFolder.open(path)
    if folder.environment.get("prepared") != corpus.path.name:
        raise PolicyError(
            f"{role} '{path}' was trained on other text, rows or tokens",
            remedy="train it with the same corpus, tokenizer and context_tokens",
        )
    steps = folder.checkpoints()
    if not steps:
        raise PolicyError(f"{role} '{path}' has no checkpoint", remedy="let it finish")
    saved_in = folder.checkpoint_path(steps[-1])
    saved = torch.load(saved_in / STATE_FILE, weights_only=True, map_location="cpu")
    model = build_model(
        RunConfig(**saved["config"]).model,
        vocab_size=corpus.vocab_size,
        context_tokens=corpus.context_tokens,
        seed=0,
    )
    if "model" in saved:
        model.load_state_dict(saved["model"])
    else:
        load_model_shards(model, saved_in / SHARDS)
    return model.eval()
