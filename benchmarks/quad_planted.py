"""Does Quad find what is worth training on where the truth is known?  A planted pool, over seeds.

    python -m benchmarks.quad_planted --seeds 5

The pool has 8 topics × {clean, shuffled, duplicated, noise}, 200 rows each.  A topic is a Markov
chain over words of its own; `shuffled` are clean rows with their tokens permuted; `duplicated`
repeats a few rows, which the model has memorised; `noise` is uniform.  The reference set is fresh
clean rows.  Reported: the AUC of scores of clean rows against the rest; what share of the accepted
rows is clean, and what share is shuffled or noise; how many clean clusters are reached; all with
EK-FAC, with identity, and with the cosine of gradients, which is identity divided by a row's norm.
Seeds that are done are kept in --out, so a study that was cut short continues.
Shapes: N pool, M reference rows, T tokens, V vocabulary.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import record
from workbench.config import ModelConfig
from workbench.core import SELECTORS, Pool, RandomStreams, SelectionTask
from workbench.influence.agreement import outranks
from workbench.models import Decoder, build_model
from workbench.models.linear_maps import linear_maps, observed, token_loss
from workbench.selection.embedders import EMBEDDERS
from workbench.selection.judging import Judge, JudgeSettings, influence_judge

KINDS = ("clean", "shuffled", "duplicated", "noise")
SHARE = 0.2


@dataclass
class PlantedPool:
    """A `SampleSource` of known truth: id = (topic · kinds + kind) << 40 | row.

    rows: of each topic and kind; copies: of each distinct duplicated row.
    """

    seed: int = 0
    topics: int = 8
    rows: int = 200
    copies: int = 200
    words: int = 16
    context_tokens: int = 32
    domains: tuple[str, ...] = KINDS
    content_hash: str = field(init=False, repr=False)
    tokens_N: np.ndarray = field(init=False, repr=False)

    def __post_init__(self):
        rng = RandomStreams(self.seed)
        parts = []
        for topic in range(self.topics):
            clean = self._walk(topic, rng["clean"], self.rows)
            shuffled = rng["shuffled"].permuted(
                self._walk(topic, rng["shuffled"], self.rows), axis=1
            )
            distinct = self._walk(topic, rng["duplicated"], -(-self.rows // self.copies))
            duplicated = np.repeat(distinct, self.copies, axis=0)[: self.rows]
            noise = rng["noise"].integers(self.vocab_size, size=clean.shape)
            parts += [clean, shuffled, duplicated, noise]
        self.tokens_N = np.concatenate(parts).astype(np.int64)
        self.content_hash = f"planted {self!r}"

    @property
    def vocab_size(self) -> int:
        return self.topics * self.words

    def _chains(self) -> list[np.ndarray]:
        """Of each topic, what may follow each of its words: 4 successors, the first most likely.

        The first successors form one cycle, so that every row visits words every other row visits:
        a chain with parts of its own would make rows that the reference set says nothing of.
        """
        rng = RandomStreams(self.seed)["chains"]
        chains = []
        for _ in range(self.topics):
            chain = rng.integers(self.words, size=(self.words, 4))
            cycle = rng.permutation(self.words)
            chain[cycle, 0] = np.roll(cycle, -1)
            chains.append(chain)
        return chains

    def _walk(self, topic: int, rng: np.random.Generator, rows: int) -> np.ndarray:
        chain = self._chains()[topic]
        words = np.empty((rows, self.context_tokens + 1), dtype=np.int64)
        words[:, 0] = rng.integers(self.words, size=rows)
        for place in range(self.context_tokens):
            follows = rng.choice(4, size=rows, p=[0.5, 0.25, 0.15, 0.1])
            words[:, place + 1] = chain[words[:, place], follows]
        return words + topic * self.words

    def reference(self, rows: int) -> np.ndarray:
        """Clean rows of all topics that are not in the pool, int64 (M, T + 1)."""
        rng = RandomStreams(self.seed)["reference"]
        each = -(-rows // self.topics)
        return np.concatenate([self._walk(topic, rng, each) for topic in range(self.topics)])

    def tokens(self, sample_id_B: np.ndarray) -> np.ndarray:
        ids = np.asarray(sample_id_B)
        return self.tokens_N[(ids >> 40) * self.rows + (ids & ((1 << 40) - 1))]

    def text(self, sample_id: int) -> str:
        return " ".join(f"t{token}" for token in self.tokens(np.array([sample_id]))[0])

    def kind(self, sample_id_N: np.ndarray) -> np.ndarray:
        """Place in `KINDS` of each row."""
        return (np.asarray(sample_id_N) >> 40) % len(KINDS)

    def pool(self) -> Pool:
        group_N = np.repeat(np.arange(self.topics * len(KINDS)), self.rows)
        ids = (group_N.astype(np.int64) << 40) | np.tile(
            np.arange(self.rows), self.topics * len(KINDS)
        )
        return Pool(ids, group_N % len(KINDS), np.full(len(ids), self.context_tokens))


@EMBEDDERS.register("planted")
class PlantedEmbedder:
    """Topic and kind of a row as a unit vector: clusters are then the planted ones."""

    fit_rows = 0

    def __init__(self, task: SelectionTask, model: Any = None):
        self._source = task.source

    def settings(self) -> dict[str, Any]:
        return {}

    def fit(self, sample_id_B: np.ndarray) -> None:
        pass

    def vectors(self, sample_id_B: np.ndarray) -> np.ndarray:
        source = self._source
        assert isinstance(source, PlantedPool)
        return np.eye(source.topics * len(KINDS), dtype=np.float32)[sample_id_B >> 40]


def trained(source: PlantedPool, *, steps: int, batch_rows: int = 32, layers: int = 2) -> Decoder:
    """A decoder trained on random rows of the pool, until it knows the duplicated ones."""
    overrides = {
        "num_hidden_layers": layers,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
    }
    model = build_model(
        ModelConfig(name="tiny", overrides=overrides),
        vocab_size=source.vocab_size,
        context_tokens=source.context_tokens,
        seed=source.seed,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    rng, ids = RandomStreams(source.seed)["training"], source.pool().sample_id_N
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1, (step + 1) / 20)
        rows = torch.from_numpy(source.tokens(rng.choice(ids, batch_rows)))
        model(rows[:, :-1], rows[:, 1:]).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return model.eval()


def cosine_judge(task: SelectionTask, pool: Pool, model: Any, settings: JudgeSettings) -> Judge:
    """Identity scores over the norm of a row's gradient, which is what a cosine ranks by."""
    plain = influence_judge(task, pool, model, settings)

    def score(sample_id_n: np.ndarray) -> np.ndarray:
        rows_nT = task.source.tokens(sample_id_n)
        return plain.score(sample_id_n) / gradient_norms(model, rows_nT, task.batch_rows)

    return Judge(score, plain.controls, plain.settings)


def gradient_norms(model: Decoder, rows_nT: np.ndarray, batch_rows: int) -> np.ndarray:
    """Norm of each row's gradient over all linear maps, float32 (n,).

    |sum_t s_t a_t^T|^2 = sum_tu (s_t . s_u)(a_t . a_u): no gradient is made.
    """
    maps = linear_maps(model)
    squares_n = np.zeros(len(rows_nT), dtype=np.float32)
    for first in range(0, len(rows_nT), batch_rows):
        rows = slice(first, first + batch_rows)
        square_b = torch.zeros(len(rows_nT[rows]))

        def see(_: Any, a_bTI: torch.Tensor, s_bTO: torch.Tensor, into: Any = square_b) -> None:
            into += ((s_bTO @ s_bTO.mT) * (a_bTI @ a_bTI.mT)).sum(dim=(1, 2))

        with observed(model, maps, see):
            token_loss(model, maps, torch.from_numpy(rows_nT[rows])).sum().backward()
        squares_n[rows] = square_b.numpy()
    return np.sqrt(np.maximum(squares_n, 1e-30))


CONTENDERS = {
    "ekfac": ("ekfac", influence_judge),
    "identity": ("identity", influence_judge),
    "identity_cosine": ("identity", cosine_judge),
}


def auc(source: PlantedPool, sample_id_N: np.ndarray, score_N: np.ndarray) -> dict[str, float]:
    """Part of the pairs in which a clean row scores above another, by its kind and over all."""
    kind_N = source.kind(sample_id_N)
    others = {kind: kind_N == place for place, kind in enumerate(KINDS) if kind != "clean"}
    clean_n = score_N[kind_N == 0]
    by_kind = {kind: outranks(clean_n, score_N[other_N]) for kind, other_N in others.items()}
    return {"rest": outranks(clean_n, score_N[kind_N != 0]), **by_kind}


def accepted(source: PlantedPool, sample_id_n: np.ndarray) -> dict[str, float]:
    """Shares of the accepted rows by what they are, and clean clusters with an accepted row."""
    kind_n = source.kind(sample_id_n)
    return {
        "clean": float((kind_n == 0).mean()),
        "duplicated": float((kind_n == 2).mean()),
        "shuffled_or_noise": float(np.isin(kind_n, (1, 3)).mean()),
        "clean_clusters": float(len(np.unique(sample_id_n[kind_n == 0] >> 40))),
    }


def study(
    source: PlantedPool, model: Decoder, *, embedder: str = "planted", reference_rows: int = 128
) -> dict[str, Any]:
    """What every contender's scores and Quad's choices with them are worth on one pool."""
    task = SelectionTask(source, source.reference(reference_rows), seed=source.seed, batch_rows=64)
    pool = source.pool()
    budget = int(SHARE * pool.tokens_N.sum())
    found = {}
    for name, (preconditioner, judge) in CONTENDERS.items():
        judged = judge(task, pool, model, JudgeSettings(preconditioner=preconditioner))
        scores = judged.score(pool.sample_id_N)
        # Near-duplicates stay in: it is the scores that have to find them.
        selector = SELECTORS.get("quad")(
            task,
            lambda *_, judged=judged: judged,
            clusters=source.topics * len(KINDS),
            embedder=embedder,
            preconditioner=preconditioner,
            deduplicate=False,
            trust="warn",
        )
        selection = selector.select(pool, budget, model)
        diagnostics = selector.diagnostics()
        found[name] = {
            "auc": auc(source, pool.sample_id_N, scores),
            "accepted": accepted(source, selection.sample_id_N),
            "scored_share": diagnostics["scored_rows"] / len(pool),
            "clusters": diagnostics["clusters"],
            "gate_failed": diagnostics["gate"]["failed"],
        }
    return found


def study_of_seed(seed: int, *, steps: int, embedder: str, out: Path) -> dict[str, Any]:
    """`study` of a seed, kept in `out`."""
    path = out / f"{embedder}-{steps}-{seed}.json"
    if not path.exists():
        source = PlantedPool(seed=seed)
        found = study(source, trained(source, steps=steps), embedder=embedder)
        out.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".aside")
        aside.write_text(json.dumps(found))
        aside.replace(path)
    return json.loads(path.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--embedder", default="planted", help="planted, tfidf or hidden")
    parser.add_argument("--out", type=Path, default=Path("out/benchmark-quad-planted"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    how = {"steps": options.steps, "embedder": options.embedder}
    found = {}
    for seed in range(options.seeds):
        found[seed] = study_of_seed(seed, **how, out=options.out)
        for name, own in found[seed].items():
            print(seed, f"{name:16}", _shown(own["auc"]), "|", _shown(own["accepted"]), flush=True)
    command = f"python -m benchmarks.quad_planted --seeds {options.seeds} --steps {options.steps}"
    name = "quad_planted" if options.embedder == "planted" else f"quad_planted_{options.embedder}"
    payload = {
        "pool": repr(PlantedPool()),
        "share": SHARE,
        **how,
        "seeds": found,
        "mean": _means(found),
    }
    print(
        "written:", record(name, payload, command=f"{command} --embedder {options.embedder}").name
    )


def _means(found: Mapping[int, Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    runs = list(found.values())
    return {
        name: {
            what: {
                key: float(np.mean([run[name][what][key] for run in runs]))
                for key in runs[0][name][what]
            }
            for what in ("auc", "accepted")
        }
        for name in CONTENDERS
    }


def _shown(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in values.items())


if __name__ == "__main__":
    main()
