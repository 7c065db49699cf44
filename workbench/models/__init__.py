"""Decoders from `transformers` configs, seen as hidden states and an output embedding."""

from workbench.models.build import build_model, build_shape
from workbench.models.decoder import Decoder
from workbench.models.presets import PRESETS
from workbench.models.probe import require_plain_head

__all__ = ["PRESETS", "Decoder", "build_model", "build_shape", "require_plain_head"]
