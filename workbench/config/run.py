"""RunConfig: everything that decides a run, in frozen parts.

config = RunConfig(reweighter=Policy("linupper", temperature=0.4), seed=1)
config.change(temperature=1.0, peak_lr=3e-4)      # a new RunConfig; short names resolve
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, field_validator, model_serializer, model_validator

from workbench.config.part import Part
from workbench.core import MIXERS, REWEIGHTERS, SELECTORS, ConfigError, unknown_name

# Stays inside the folder of runs; file systems take names up to 255 bytes.
_FOLDER_NAME = re.compile(r"[^/\\\x00-\x1f\x7f]{1,200}")
POLICY_SLOTS = {"selector": SELECTORS, "mixer": MIXERS, "reweighter": REWEIGHTERS}


class CorpusConfig(Part):
    """Where the text comes from and how it is split into domains and held-out documents."""

    name: str = "installed"
    """`installed`, `planted`, a catalogue name, a folder, a file or glob, or a `datasets` name."""
    text_column: str = "text"
    domain_column: str | None = None
    """Column that names the domain, dots reaching into nested fields; the file's folder if None."""
    domains: tuple[str, ...] | None = None
    """Keep only these domains, in this order; all when None."""
    subset: str | None = None
    split: str = "train"
    streaming: bool = True
    held_out_fraction: float = Field(default=0.1, gt=0, lt=1)
    max_domain_mb: float | None = Field(default=2.0, gt=0)
    """Text taken per domain, in 10^6 bytes; None for all of it."""
    max_document_kb: float | None = Field(default=60.0, gt=0)
    """A longer document is cut here, in 10^3 bytes, so that one file cannot fill a domain."""
    noise_mb: float | None = Field(default=None, gt=0)
    """Adds a domain `noise` of random letters, in 10^6 bytes: one that no good policy favours."""
    strict: bool = False
    """Refuse a file that is not UTF-8 instead of skipping and counting it."""
    seed: int = 0
    """Seed of the generated corpus `planted`."""
    workers: int | None = Field(default=None, ge=1)
    """Processes that tokenise; None for one a core, and 1 for none beside this one.  The prepared
    rows do not depend on it, and a small corpus starts none."""


class TokenizerConfig(Part):
    """`bpe` is trained on the corpus; anything else is a name or folder for `transformers`."""

    name: str = "bpe"
    vocab_size: int = Field(default=4096, ge=300)
    """Entries of the trained `bpe` tokenizer, special tokens included."""
    train_mb: float = Field(default=10.0, gt=0)
    """Text the tokenizer is trained on at most, in 10^6 bytes, spread evenly over the domains."""


class RowsConfig(Part):
    """How documents are packed into rows."""

    context_tokens: int = Field(default=128, ge=8)
    shard_mib: float = Field(default=64.0, gt=0)


class ModelConfig(Part):
    """A preset (`tiny`, `small`, a paper's), a `transformers` model type, or a local folder."""

    name: str = "tiny"
    overrides: dict[str, Any] = Field(default_factory=dict)
    """Fields of the `transformers` config to change, such as {"num_hidden_layers": 2}."""
    pretrained: bool = False
    """Load the folder's weights instead of only its shape."""


class OptimizerConfig(Part):
    """AdamW with linear warm-up, cosine decay and gradient clipping."""

    peak_lr: float = Field(default=2e-3, gt=0)
    final_lr: float = Field(default=2e-4, ge=0)
    warmup_steps: int = Field(default=20, ge=0)
    weight_decay: float = Field(default=0.1, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = Field(default=1e-8, gt=0)
    clip_norm: float | None = Field(default=1.0, gt=0)


class TrainingConfig(Part):
    """How long, how wide, on what, and how often things are written."""

    total_steps: int = Field(default=300, ge=1)
    match_run: str | None = None
    """Folder of a finished run: train as many steps as its operations allow, those of choosing its
    data included, in place of `total_steps`."""
    batch_rows: int = Field(default=16, ge=1)
    """Rows of one optimiser step over all ranks and micro-batches."""
    micro_batch_rows: int | None = Field(default=None, ge=1)
    """Rows of one forward pass on one rank; None for no gradient accumulation."""
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int | None = Field(default=None, ge=1)
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Under `torchrun`: every rank holds the whole model, or a shard of each of its tensors."""
    activation_checkpointing: bool = False
    """Compute each layer's activations again in the backward pass instead of keeping them."""
    compile: bool = False
    """Compile the model's body with `torch.compile`: half a minute at the start."""
    record_every_steps: int = Field(default=5, ge=1)
    """How often collected step values are read from the device and written."""
    ledger_every_steps: int = Field(default=50, ge=1)
    checkpoint_every_steps: int = Field(default=100, ge=1)
    keep_checkpoints: int = Field(default=2, ge=1)
    evaluate_every_steps: int = Field(default=50, ge=1)
    held_out_rows: int = Field(default=32, ge=1)
    """Held-out rows per domain that each evaluation reads at most."""


class SelectionConfig(Part):
    """When the selector chooses, how much, and what the choice is judged by.

    Offline: one choice at `first_step`.  Online: again every `every_steps`, each row once.
    """

    share: float = Field(default=0.2, gt=0, le=1)
    """Part of the pool's tokens that an offline choice may take."""
    budget_tokens: int | None = Field(default=None, ge=1)
    """Tokens of one choice; None for `share`, or online for what is trained until the next."""
    first_step: int = Field(default=0, ge=0)
    """Until then the run trains on the whole pool."""
    every_steps: int | None = Field(default=None, ge=1)
    """Choose again this often, from rows not chosen before; None for a single choice."""
    checkpoint: str | None = None
    """Folder of a finished run of the same corpus whose model judges an offline choice at step 0;
    None for this run's own model."""
    reference: str | None = None
    """Text of the reference set: a file or folder as for a corpus; None for held-out rows that no
    evaluation reads."""
    reference_domains: tuple[str, ...] | None = None
    """Domains of those held-out rows; all when None."""
    reference_rows: int = Field(default=64, ge=1)
    """Rows of the reference set at most, spread evenly over its domains."""

    @model_validator(mode="after")
    def _judged_once(self) -> Self:
        if self.checkpoint is not None and (self.every_steps or self.first_step):
            raise ConfigError(
                "SelectionConfig.checkpoint is for one choice at step 0",
                remedy="leave out every_steps and first_step, or leave out checkpoint",
            )
        return self


class Policy(Part):
    """A policy by name with its options: `Policy("linupper", temperature=0.4)`."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)

    def __init__(self, name: str | None = None, /, **options: Any):
        if name is not None:
            options = {"name": name, "options": options}
        super().__init__(**options)

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, fields: Any) -> Any:
        """Accept "linupper", {"name": …, "temperature": …} and {"name": …, "options": {…}}."""
        if isinstance(fields, str):
            return {"name": fields, "options": {}}
        if isinstance(fields, dict):
            flat = {k: v for k, v in fields.items() if k not in ("name", "options")}
            return {"name": fields.get("name"), "options": {**fields.get("options", {}), **flat}}
        return fields

    @model_serializer
    def _flat(self) -> dict[str, Any]:
        return {"name": self.name, **self.options}


class RunConfig(Part):
    """One run: text, rows, model, optimiser, loop, and the three policies."""

    name: str = "run"
    """Also the name of the run's folder."""
    seed: int = Field(default=0, ge=0)
    corpus: CorpusConfig = CorpusConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    rows: RowsConfig = RowsConfig()
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    selection: SelectionConfig = SelectionConfig()
    selector: Policy | None = None
    mixer: Policy = Policy("static")
    reweighter: Policy = Policy("uniform")

    if TYPE_CHECKING:
        # Parts are also taken as names and mappings, which the field types do not say.
        def __init__(self, **fields: Any) -> None: ...

    @field_validator("name")
    @classmethod
    def _name_of_one_folder(cls, name: str) -> str:
        if name in (".", "..") or not name.strip() or not _FOLDER_NAME.fullmatch(name):
            raise ConfigError(
                f"RunConfig.name = {name!r} cannot be the name of the run's folder",
                remedy="give 1 to 200 characters without / and \\ that are not '.' or '..'",
            )
        return name

    @field_validator("corpus", mode="before")
    @classmethod
    def _corpus_by_name(cls, value: Any) -> Any:
        return {"name": str(value)} if isinstance(value, (str, Path)) else value

    @field_validator("tokenizer", "model", mode="before")
    @classmethod
    def _part_by_name(cls, value: Any) -> Any:
        return {"name": str(value)} if isinstance(value, (str, Path)) else value

    @model_validator(mode="after")
    def _batch_splits(self) -> Self:
        micro, batch = self.training.micro_batch_rows, self.training.batch_rows
        if micro is not None and batch % micro:
            raise ConfigError(
                f"batch_rows = {batch} is not a multiple of micro_batch_rows = {micro}",
                remedy=f"set batch_rows to {max(micro, batch // micro * micro)}",
            )
        return self

    @classmethod
    def read(cls, path: str | Path) -> RunConfig:
        """A RunConfig from a JSON file, or from the `config` entry of a run's config.json."""
        try:
            fields = dict(json.loads(Path(path).read_text()))
        except (OSError, TypeError, ValueError) as error:
            raise ConfigError(
                f"cannot read a config from {path}: {error}", remedy="give a JSON file"
            ) from None
        return cls(**fields.get("config", fields))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `RunConfig(**config.to_dict()) == config`."""
        return self.model_dump(mode="json")

    def change(self, **changes: Any) -> RunConfig:
        """A new config with fields changed by short or dotted name.

        `temperature=0.4` finds the one part that has it; `reweighter="quadratic"` swaps a whole
        policy; pass `**{"mixer.temperature": 1.0}` where a short name stands in several parts.

        Raises:
            ConfigError: no part has the name (the nearest is suggested), or several have.
        """
        config = self
        for name, value in changes.items():
            config = config._changed(config._resolve(name), value)
        return config

    def dotted(self, name: str) -> str:
        """The full name of a setting, such as `training.total_steps` or `reweighter`.

        Raises:
            ConfigError: as in `change`.
        """
        return ".".join(self._resolve(name))

    def _changed(self, path: tuple[str, ...], value: Any) -> RunConfig:
        if len(path) == 1:
            return self.replace(**{path[0]: value})
        part = getattr(self, path[0])
        if isinstance(part, Policy):
            return self.replace(**{path[0]: Policy(part.name, **{**part.options, path[1]: value})})
        return self.replace(**{path[0]: part.replace(**{path[1]: value})})

    def _resolve(self, name: str) -> tuple[str, ...]:
        paths = self.field_paths()
        if name in type(self).model_fields or name in paths:
            return tuple(name.split("."))
        owners = [path for path in paths if path.split(".")[1] == name]
        policies = [f"{slot}.{name}" for slot in POLICY_SLOTS if name in self._options(slot)]
        if len(owners + policies) == 1:
            return tuple((owners + policies)[0].split("."))
        if "." in name and name.split(".")[0] in POLICY_SLOTS:
            return tuple(name.split(".", 1))
        if owners or policies:
            raise ConfigError(
                f"'{name}' is ambiguous", remedy=f"write one of: {', '.join(owners + policies)}"
            )
        known = {p.split(".")[1] for p in paths} | set(type(self).model_fields)
        known.update(*(self._options(slot) for slot in POLICY_SLOTS))
        problem, remedy = unknown_name("setting", name, known)
        raise ConfigError(problem, remedy=remedy)

    def _options(self, slot: str) -> set[str]:
        """Options that the policy in a slot takes, as far as its registry is loaded."""
        policy = getattr(self, slot)
        if policy is None:
            return set()
        registry = POLICY_SLOTS[slot]
        known = registry.options(policy.name) if policy.name in registry.names() else {}
        return set(known) | set(policy.options)

    def field_paths(self) -> list[str]:
        """Dotted names of all settings outside the policies, such as `training.total_steps`."""
        parts = [n for n in type(self).model_fields if n not in POLICY_SLOTS]
        return [
            f"{part}.{name}"
            for part in parts
            if isinstance(getattr(self, part), Part)
            for name in type(getattr(self, part)).model_fields
        ]
