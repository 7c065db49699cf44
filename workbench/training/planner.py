"""What a run will need before it starts: memory by part on each device, time, tokens, disk.

    found = plan(config, devices=8, device="cuda")
    print(found, *found.warnings, *found.notes, sep="\n")
    check_fits_device(config, found)       # ConfigError with the numbers and the remedies

The model is never made: its shape is enough.  What a selector computes has a planner of its own
(`influence.planner`), and its time is not in these numbers.
Shapes: K domains, T tokens.
"""

from __future__ import annotations

import math

import torch

from workbench.config import RunConfig
from workbench.core import ConfigError
from workbench.data.catalogue import domain_count
from workbench.kernels.choice import Place, form_for
from workbench.kernels.chunked import CHUNK_MIB
from workbench.kernels.memory import free_mib
from workbench.kernels.sample_loss import FULL_LOGITS_MIB
from workbench.models.footprint import MIB, Footprint, footprint
from workbench.training.device import resolve, resolve_elsewhere
from workbench.training.gauge import gauge
from workbench.training.run_plan import RunPlan
from workbench.training.signal_costs import (
    FLOAT_BYTES,
    asked_by_mixer,
    selector_runs_a_model,
    signal_flops,
)
from workbench.training.spread import check_world

MOMENTS = 2
"""Numbers that AdamW keeps of each parameter."""
REACHED_SHARE = 0.4
"""Of the rate of large matrix products, what a training step is assumed to reach."""
LEAST_MIB = 0.1
"""For each domain: less is not worth a warning where their number is unknown."""
UNKNOWN_VOCAB = 50_257
"""Stands in for a tokenizer that is not read for a plan: GPT-2's size."""


def plan(
    config: RunConfig,
    *,
    corpus_domains: int | None = None,
    devices: int = 1,
    device: str | None = None,
    flops_per_second: float | None = None,
    memory_gib: float | None = None,
    vocab_size: int | None = None,
) -> RunPlan:
    """Plan a run without preparing its text.

    Args:
        corpus_domains: K, for the mixer's signals and the evaluations; as many as the config names
            or the catalogue knows when None, or else one, with a warning where a mixer's memory
            grows with them.
        devices: ranks of `torchrun`, each with a device of its own; CPU ranks share one memory.
        device: such as "cuda" to plan for; that of the config when None.
        flops_per_second: that training reaches on one device; a share of what a short matrix
            product reaches there when None.
        memory_gib: free on each device of another machine, of which none is asked; its rate must
            be given too, and its host is taken to be large enough.
        vocab_size: of the tokenizer, where it is not `bpe` and the model takes its size from it.
    Raises:
        ConfigError: unknown model or device, one that does not answer, or whose rate is neither
            given nor asked; ranks that the batch cannot be dealt to.
    """
    here = memory_gib is None
    config = config if device is None else config.change(device=device)
    config = resolve(config) if here else resolve_elsewhere(config)
    check_world(config.training, devices)
    notes: list[str] = []
    shape = _shape(config, vocab_size, notes)
    known = corpus_domains or domain_count(config.corpus)
    domains = known or 1
    if known is None:
        notes.append("evaluations are counted for one domain")
    memory = _memory(config, shape, devices, domains, notes)
    tokens, flops = _work(config, shape, domains)
    free, flops_per_second = _given(config, devices, memory_gib, flops_per_second, notes)
    whole = shape.parameters * FLOAT_BYTES / MIB
    sharing = _sharing(config, devices)
    return RunPlan(
        device=config.training.device,
        devices=devices,
        parallel=config.training.parallel,
        parameters=shape.parameters,
        **memory,
        free_mib=free / sharing,
        host_mib=_makers(config, devices) * whole,
        host_free_mib=free_mib("cpu") if here else math.inf,
        tokens=tokens,
        flops=flops,
        flops_per_second=flops_per_second,
        seconds=flops / flops_per_second / devices * sharing,
        # The new one is written before the oldest is removed.
        disk_mib=(1 + MOMENTS) * whole * (config.training.keep_checkpoints + 1),
        warnings=() if known else _unknown_domains(config, shape, devices),
        notes=tuple(notes),
    )


def check_fits_device(config: RunConfig, planned: RunPlan) -> list[str]:
    """What the plan may be wrong about, where it fits.

    Raises:
        ConfigError: it does not fit; with the numbers, the warnings and what would help.
    """
    if planned.fits:
        return list(planned.warnings)
    if planned.peak_mib <= planned.free_mib:
        raise ConfigError(
            f"'{config.model.name}' is made whole on the host before it moves to its devices: "
            f"{planned.host_mib:,.0f} MiB, of which {planned.host_free_mib:,.0f} are free",
            remedy="use fewer devices, or parallel='fsdp', where one rank makes it for all; a host "
            "with more memory; or a smaller model",
        )
    training, remedies = config.training, []
    rows = training.micro_batch_rows or math.ceil(training.batch_rows / planned.devices)
    if rows > 1:
        remedies.append(f"set micro_batch_rows below {rows}")
    if not training.activation_checkpointing:
        remedies.append("activation_checkpointing=True")
    if planned.devices > 1 and training.parallel != "fsdp":
        remedies.append("parallel='fsdp'")
    remedies.append("use more devices with parallel='fsdp', or a smaller model")
    largest = sorted(planned.rows()[:-1], key=lambda row: -row["mib"])[:3]
    told = ", ".join(f"{row['part']} {row['mib']:,}" for row in largest)
    doubt = "".join(f"; {warning}" for warning in planned.warnings)
    raise ConfigError(
        f"'{config.model.name}' needs {planned.peak_mib:,.0f} MiB on each of {planned.devices} × "
        f"{planned.device}, of which {planned.free_mib:,.0f} are free (most: {told}){doubt}",
        remedy="; ".join(remedies),
    )


def _given(
    config: RunConfig,
    devices: int,
    memory_gib: float | None,
    flops_per_second: float | None,
    notes: list[str],
) -> tuple[float, float]:
    """Free MiB and operations a second of a device: as given, or else as the device answers."""
    if memory_gib is not None and flops_per_second is not None:
        notes.append(f"no device was asked: {memory_gib:g} GiB are taken to be free on each")
        return memory_gib * 1024, flops_per_second
    if memory_gib is not None:
        raise ConfigError(
            "a device that is not asked says nothing of its speed",
            remedy="give flops_per_second (--flops) too",
        )
    precision = config.training.precision if flops_per_second is None else None
    found = gauge(config.training.device, precision, devices)
    if flops_per_second is None:
        assert found.product_rate is not None
        flops_per_second = REACHED_SHARE * found.product_rate
        notes.append(f"time: {REACHED_SHARE:.0%} of the measured {found.product_rate:.2g} FLOP/s")
    return found.free_mib, flops_per_second


def _shape(config: RunConfig, vocab_size: int | None, notes: list[str]) -> Footprint:
    if vocab_size is None:
        trained = config.tokenizer.name == "bpe"
        vocab_size = config.tokenizer.vocab_size if trained else _published_vocab(config)
        if vocab_size is None:
            vocab_size = UNKNOWN_VOCAB
            notes.append(f"the tokenizer is taken to have {UNKNOWN_VOCAB:,} entries")
    return footprint(
        config.model,
        vocab_size=vocab_size,
        context_tokens=config.rows.context_tokens,
        precision=config.training.precision,
    )


def _published_vocab(config: RunConfig) -> int | None:
    """Of a model that has its own vocabulary, whatever the tokenizer; None for another."""
    from workbench.models.paper_presets import PAPER_PRESETS

    if config.model.name not in PAPER_PRESETS:
        return None
    fields = PAPER_PRESETS[config.model.name](1, config.rows.context_tokens)
    return {**fields, **config.model.overrides}["vocab_size"]


def _makers(config: RunConfig, devices: int) -> int:
    """Ranks that make the whole model in the host's memory before it moves to their GPUs."""
    if not _on_cuda(config):
        return 0
    return 1 if config.training.parallel == "fsdp" else devices


def _memory(
    config: RunConfig, shape: Footprint, devices: int, domains: int, notes: list[str]
) -> dict[str, float]:
    training = config.training
    sharded = devices > 1 and training.parallel == "fsdp"
    whole = shape.parameters * FLOAT_BYTES / MIB
    own = whole / devices if sharded else whole
    rank_rows = math.ceil(training.batch_rows / devices)
    rows = min(training.micro_batch_rows or rank_rows, rank_rows)
    accumulates = rows < rank_rows
    kept = shape.row.recomputed_mib if training.activation_checkpointing else shape.row.kept_mib
    logits, of_head = _loss(config, shape, rows * config.rows.context_tokens)
    parts = {
        "parameters_mib": own,
        # A shard's gradients are whole until the last micro-batch, when ranks exchange them.
        "gradients_mib": whole if accumulates else own,
        "optimizer_mib": MOMENTS * own,
        "activations_mib": rows * kept,
        "loss_mib": logits + of_head,
        "copies_mib": _copies(config, shape, sharded),
        "policies_mib": _policies(config, shape, domains, rows, split=accumulates or devices > 1),
        "selector_mib": whole if sharded and _judges_itself(config) else 0.0,
    }
    if config.selector is not None and selector_runs_a_model(config):
        notes.append(f"selector '{config.selector.name}' plans its own memory and time")
    moving = parts["activations_mib"] + parts["loss_mib"] + parts["copies_mib"]
    if training.activation_checkpointing:
        # Logits are gone before the first block is computed again.
        moving -= min(logits, rows * max(shape.row.blocks))
    # Without accumulation on one device, gradients take the place of activations as they are made;
    # the head's comes first.
    together = accumulates or devices > 1
    head = 0.0 if of_head else shape.outside_blocks * FLOAT_BYTES / MIB
    gradients = parts["gradients_mib"]
    held = parts["parameters_mib"] + parts["optimizer_mib"] + parts["policies_mib"]
    stepping = moving + gradients if together else max(moving + head, gradients)
    # The first rank makes the whole model beside its part, on a CPU in the memory it trains in.
    building = whole if sharded and not _on_cuda(config) else 0.0
    return {**parts, "peak_mib": held + max(stepping, parts["selector_mib"], building)}


def _loss(config: RunConfig, shape: Footprint, tokens: int) -> tuple[float, float]:
    """What a backward pass holds of logits, in the form that `sample_loss` takes on the device.

    Beside it what forms that make the logits twice hold of the head: a copy in the type of the
    products, and its gradient in float32.
    """
    logits = FLOAT_BYTES * tokens * shape.vocab_size / MIB
    if logits <= FULL_LOGITS_MIB:
        return 3 * logits, 0.0
    dtype = getattr(torch, config.training.precision)
    narrow_bytes = dtype.itemsize if dtype.itemsize < FLOAT_BYTES else 0
    of_head = (FLOAT_BYTES + narrow_bytes) * shape.vocab_size * shape.width / MIB
    place = _place(config)
    if form_for((dtype,), place, width=shape.width).form == "torch":
        return 3 * min(CHUNK_MIB, logits), of_head
    from workbench.kernels.triton_loss import ERROR_MIB

    return min(ERROR_MIB, logits * dtype.itemsize / FLOAT_BYTES), of_head


def _place(config: RunConfig) -> Place:
    """Where the run will be; a GPU that is not here is taken to have Triton and be recent."""
    if _on_cuda(config) and not torch.cuda.is_available():
        return Place("cuda", None, has_triton=True)
    return Place.of(config.training.device)


def _copies(config: RunConfig, shape: Footprint, sharded: bool) -> float:
    """Weights in another form than the one that is kept."""
    if not sharded:
        return shape.fixed_mib
    width = 2 if _on_cuda(config) and config.training.precision == "bfloat16" else FLOAT_BYTES
    # The next block is gathered while one is at work; the embeddings stay.
    return width * (2 * shape.largest_block + shape.outside_blocks) / MIB


def _policies(
    config: RunConfig, shape: Footprint, domains: int, micro_rows: int, *, split: bool
) -> float:
    """What the signals of a mixer keep, more where a step is split, and a reference model."""
    asked = asked_by_mixer(config, shape, domains)
    found = shape.parameters * FLOAT_BYTES if asked.reference else 0.0
    if asked.tracked is not None:
        found += asked.tracked.kept_bytes(
            rows=micro_rows,
            tokens=config.rows.context_tokens,
            number_bytes=getattr(torch, config.training.precision).itemsize,
            split=split,
        )
    return found / MIB


def _judges_itself(config: RunConfig) -> bool:
    """Whether a selector is given the run's own model, gathered on every rank."""
    if config.selector is None or config.selection.checkpoint is not None:
        return False
    return selector_runs_a_model(config)


def _unknown_domains(config: RunConfig, shape: Footprint, devices: int) -> tuple[str, ...]:
    """A warning where the mixer keeps more the more domains there are."""
    one, two = (_memory(config, shape, devices, count, [])["policies_mib"] for count in (1, 2))
    if two - one < LEAST_MIB:
        return ()
    return (
        f"mixer '{config.mixer.name}' keeps {two - one:,.0f} MiB for each domain, counted for one: "
        f"how many '{config.corpus.name}' has is not known (give corpus_domains, or set the "
        "mixer's projection_width)",
    )


def _work(config: RunConfig, shape: Footprint, domains: int) -> tuple[int, float]:
    """Tokens that are trained on; operations of steps, of their signals and of evaluations.

    Signals are counted for every step: some mixers ask for theirs now and then.
    """
    training, context = config.training, config.rows.context_tokens
    tokens = training.total_steps * training.batch_rows * context
    again = 4 / 3 if training.activation_checkpointing else 1.0
    evaluations = training.total_steps // training.evaluate_every_steps + 1
    evaluated = evaluations * domains * training.held_out_rows * context
    asked = asked_by_mixer(config, shape, domains)
    signals = signal_flops(
        asked.needs,
        asked.tracked,
        row_flops=shape.flops_per_token * context,
        rows=training.batch_rows,
        tokens=context,
    )
    passes = shape.flops_per_token * (tokens * again + evaluated / 3)
    return tokens, passes + training.total_steps * signals


def _on_cuda(config: RunConfig) -> bool:
    return torch.device(config.training.device).type == "cuda"


def _sharing(config: RunConfig, devices: int) -> int:
    """Ranks that share one memory and one set of cores: all of them on a CPU."""
    return 1 if _on_cuda(config) else devices
