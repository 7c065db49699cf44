"""Decoders from `transformers` configs, seen as hidden states and an output embedding."""

from workbench.models.build import build_model
from workbench.models.decoder import Decoder
from workbench.models.presets import PRESETS
from workbench.models.probe import require_plain_head

__all__ = ["PRESETS", "Decoder", "build_model", "require_plain_head"]
