"""From a ModelConfig to a seeded, checked decoder.

    decoder = build_model(ModelConfig(name="tiny"), vocab_size=4096, context_tokens=128, seed=0)

Presets and model types need no network; a local folder gives a shape or, if asked, its weights.
"""

from __future__ import annotations

import json
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from workbench.core import (
    PROCESS_GENERATORS,
    ConfigError,
    ModelError,
    nearest,
    stream_seed,
    unknown_name,
)
from workbench.models.decoder import Decoder
from workbench.models.presets import PRESETS, Fields
from workbench.models.probe import require_plain_head

if TYPE_CHECKING:
    from workbench.config import ModelConfig

SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def build_model(config: ModelConfig, *, vocab_size: int, context_tokens: int, seed: int) -> Decoder:
    """A decoder in float32 on the CPU, in training mode, with dropout off unless overridden.

    The weights are a function of the config and the seed alone, and the global random state is
    left as it was.

    Args:
        config: preset, `transformers` model type, or folder with a config.json; overrides.
        vocab_size: entries of the tokenizer.
        context_tokens: tokens of a row.
        seed: of the initial weights.
    Raises:
        ConfigError: unknown name or override; pretrained without a folder.
        ModelError: vocabulary or positions too small; weights that do not fit; logits that are
            not hidden @ head.T.
    """
    fields, attention = _fields(config, vocab_size, context_tokens)
    model_config = _transformers_config(fields)
    _require_room(model_config, vocab_size, context_tokens)
    if config.pretrained:
        model = _load(config.name, model_config, attention)
    else:
        model = _initialise(model_config, attention, seed)
    require_plain_head(model)
    return Decoder(model.train(), context_tokens=context_tokens)


def build_shape(config: ModelConfig, *, vocab_size: int, context_tokens: int) -> Decoder:
    """The decoder without its weights, on the meta device, or of whatever a fake mode makes.

    Args:
        config, vocab_size, context_tokens: as in `build_model`; weights of a folder are not read.
    Raises:
        ConfigError, ModelError: as in `build_model`.
    """
    from torch._guards import detect_fake_mode
    from transformers import AutoModelForCausalLM

    fields, attention = _fields(config, vocab_size, context_tokens)
    model_config = _transformers_config(fields)
    _require_room(model_config, vocab_size, context_tokens)
    with torch.device("cpu" if detect_fake_mode() else "meta"):
        model = _guarded(
            model_config.model_type,
            lambda: AutoModelForCausalLM.from_config(
                model_config, attn_implementation=attention, dtype=torch.float32
            ),
        )
    return Decoder(model.train(), context_tokens=context_tokens)


def _fields(config: ModelConfig, vocab_size: int, context_tokens: int) -> tuple[Fields, str]:
    """Fields of the `transformers` config with overrides applied, and the kind of attention."""
    fields = _base_fields(config, vocab_size, context_tokens)
    config_class = _config_class(fields["model_type"])
    known = {field.name for field in dataclass_fields(config_class)}
    aliases = config_class.attribute_map
    options = known | set(aliases) | {"attn_implementation"}
    overrides = dict(config.overrides)
    for name in overrides:
        if name not in options:
            problem, remedy = unknown_name("override", name, options)
            raise ConfigError(f"{problem} of model '{config.name}'", remedy=remedy)
    attention = overrides.pop("attn_implementation", "sdpa")
    if not config.pretrained:
        fields = {**_without_special_tokens(known), **fields}
    stored_names = {aliases.get(name, name): value for name, value in overrides.items()}
    return {**_without_dropout(config_class, fields), **stored_names}, attention


def _base_fields(config: ModelConfig, vocab_size: int, context_tokens: int) -> Fields:
    folder = Path(config.name).expanduser()
    if config.pretrained and not folder.is_dir():
        raise ConfigError(
            f"pretrained weights are read from a folder, and '{config.name}' is none",
            remedy="give the folder of a saved model, or set pretrained=False",
        )
    if config.name in PRESETS:
        return PRESETS[config.name](vocab_size, context_tokens)
    if folder.is_dir():
        stored = _read_config(folder)
        return stored if config.pretrained else {**stored, "vocab_size": vocab_size}
    _config_class(config.name)
    return {"model_type": config.name, "vocab_size": vocab_size}


def _read_config(folder: Path) -> Fields:
    path = folder / "config.json"
    try:
        fields = json.loads(path.read_text())
        fields["model_type"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"cannot read a model config from {path}: {error!r}",
            remedy="give a folder written by save_pretrained",
        ) from None
    return fields


def _config_class(model_type: str) -> Any:
    """Config class of a causal language model type; ConfigError with the nearest name."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        guess = nearest(model_type, [*PRESETS, *MODEL_FOR_CAUSAL_LM_MAPPING_NAMES])
        raise ConfigError(
            f"unknown model '{model_type}'",
            remedy=(f"did you mean '{guess}'? " if guess else "")
            + f"known: {', '.join(PRESETS)}, any causal model type of transformers such as llama "
            "or gpt2, a folder with a config.json",
        )
    return CONFIG_MAPPING[model_type]


def _without_special_tokens(known: set[str]) -> Fields:
    """No special tokens: the defaults are ids of another tokenizer, and a padding id would
    freeze the embedding of whatever token has that number here."""
    return {name: None for name in SPECIAL_TOKENS if name in known}


def _without_dropout(config_class: Any, fields: Fields) -> Fields:
    """All given fields, with every dropout probability of the class set to 0."""
    rates = {
        field.name: 0.0
        for field in dataclass_fields(config_class)
        if "drop" in field.name and isinstance(field.default, float)
    }
    return {**fields, **rates}


def _transformers_config(fields: Fields) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.for_model(**fields)
    except Exception as error:  # the config classes raise types of three libraries
        raise ConfigError(
            f"fields of model type '{fields['model_type']}' contradict: {_one_line(error)}",
            remedy="correct the overrides",
        ) from None


def _require_room(model_config: Any, vocab_size: int, context_tokens: int) -> None:
    entries = getattr(model_config, "vocab_size", None)
    if entries is None:
        raise ModelError(
            f"model type '{model_config.model_type}' has no vocabulary of its own",
            remedy="choose a text-only decoder",
        )
    if entries < vocab_size:
        raise ModelError(
            f"the model's vocabulary has {entries} entries, the tokenizer's {vocab_size}",
            remedy="use the model's own tokenizer, or a smaller one",
        )
    positions = getattr(model_config, "max_position_embeddings", None)
    if positions is not None and 0 < positions < context_tokens:
        raise ModelError(
            f"rows have {context_tokens} tokens, the model has positions for {positions}",
            remedy=f"set rows.context_tokens to at most {positions}, or override "
            "max_position_embeddings",
        )


def _initialise(model_config: Any, attention: str, seed: int) -> Any:
    from transformers import AutoModelForCausalLM

    # devices=[] and the CPU generator alone: torch.manual_seed would reseed GPUs too.
    with PROCESS_GENERATORS, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream_seed(seed, "model"))
        return _guarded(
            model_config.model_type,
            lambda: AutoModelForCausalLM.from_config(
                model_config, attn_implementation=attention, dtype=torch.float32
            ),
        )


def _load(folder: str, model_config: Any, attention: str) -> Any:
    from transformers import AutoModelForCausalLM

    model, report = _guarded(
        folder,
        lambda: AutoModelForCausalLM.from_pretrained(
            Path(folder).expanduser(),
            config=model_config,
            attn_implementation=attention,
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
        ),
    )
    missing = sorted(report["missing_keys"]) + sorted(map(str, report["mismatched_keys"]))
    if missing:
        raise ModelError(
            f"the weights in {folder} lack {len(missing)} tensors, first {missing[0]}",
            remedy="give a complete checkpoint, or set pretrained=False",
        )
    return model


def _guarded(name: str, make: Any) -> Any:
    try:
        return make()
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"model '{name}' cannot be built: {_one_line(error)}",
            remedy="correct the overrides (attn_implementation='eager' is one) or choose another "
            "model",
        ) from None


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text.split(". ")[0][:200] or type(error).__name__
