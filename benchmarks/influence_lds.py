"""LDS of identity, K-FAC and EK-FAC on a toy decoder, with attention and without it.

    python -m benchmarks.influence_lds --subsets 60 --seeds 3 --models 3

A decoder of 2 layers × 64 on 400 rows of the generated corpus: it is retrained on random halves,
and sums of scores must predict each held-out row's loss.  `random` scores show what chance does.
`lds` are scores of one checkpoint, `lds_of_ensemble` their mean over several, trained from other
seeds.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from benchmarks.measure import record
from workbench.config import RunConfig
from workbench.data import prepare
from workbench.influence.direction import Direction, reference_gradient
from workbench.influence.factors import fit_factors
from workbench.influence.lds import Retrained, lds, lds_gain, retrain
from workbench.influence.preconditioners import preconditioner
from workbench.influence.scores import score_rows
from workbench.models import Decoder, build_model
from workbench.models.linear_maps import linear_maps

ROWS = 400
QUERIES_PER_DOMAIN = 4
QUERY_DOMAINS = ("clean_prose", "clean_tales", "clean_records", "duplicated")
PRECONDITIONERS = ("identity", "kfac", "ekfac")
TRACKED = {"with attention": True, "without attention": False}
CONFIG = RunConfig(
    corpus={"name": "planted", "max_domain_mb": 0.05},
    tokenizer={"name": "bpe", "vocab_size": 400},
    rows={"context_tokens": 32},
    model={
        "name": "tiny",
        "overrides": {
            "num_hidden_layers": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_attention_heads": 2,
        },
    },
)


class Toy:
    """The corpus, its queries, and trainings on any of its rows."""

    def __init__(self, cache_dir: str, steps: int):
        corpus = prepare(CONFIG.corpus, CONFIG.tokenizer, CONFIG.rows, cache_dir=cache_dir)
        ids = np.random.default_rng(0).permutation(corpus.pool().sample_id_N)[:ROWS]
        self.rows_NT = corpus.tokens(ids)
        held_out = [corpus.held_out(domain, QUERIES_PER_DOMAIN) for domain in QUERY_DOMAINS]
        self.query_QT = np.concatenate(held_out)
        self._corpus, self._steps = corpus, steps

    def trained(self, chosen: np.ndarray, seed: int) -> Decoder:
        model = build_model(
            CONFIG.model,
            vocab_size=self._corpus.vocab_size,
            context_tokens=self._corpus.context_tokens,
            seed=seed,
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        rng = np.random.default_rng(seed)
        for _ in range(self._steps):
            part = torch.from_numpy(self.rows_NT[rng.choice(chosen, 25, replace=False)])
            optimizer.zero_grad(set_to_none=True)
            model(part[:, :-1], part[:, 1:]).mean().backward()
            optimizer.step()
        return model

    def query_losses(self, chosen: np.ndarray, seed: int) -> np.ndarray:
        model, queries = self.trained(chosen, seed), torch.from_numpy(self.query_QT)
        with torch.no_grad():
            return model(queries[:, :-1], queries[:, 1:]).numpy()

    def scores(self, model: Decoder, *, attention: bool) -> dict[str, np.ndarray]:
        """Scores of all rows for each query, (Q, N), by preconditioner."""
        maps = linear_maps(model, attention=attention)
        batches = list(self.rows_NT.reshape(-1, 25, self.rows_NT.shape[1]))
        factors = fit_factors(model, batches, maps, kind="ekfac", labels="data")
        gradients = [reference_gradient(model, query[None], maps) for query in self.query_QT]
        found = {}
        for name in PRECONDITIONERS:
            precondition = preconditioner(name, None if name == "identity" else factors)
            directions = [Direction(precondition.apply(gradient)) for gradient in gradients]
            found[name] = np.stack(
                [score_rows(model, self.rows_NT, d, batch_rows=100).score_N for d in directions]
            )
        return found


def checkpoint_scores(toy: Toy, seed: int) -> dict[str, np.ndarray]:
    """Scores, (Q, N), of a model trained on all rows, by preconditioner and maps tracked."""
    model = toy.trained(np.arange(ROWS), seed)
    return {
        f"{name}, {label}": score_QN
        for label, attention in TRACKED.items()
        for name, score_QN in toy.scores(model, attention=attention).items()
    }


def measure(scores: Mapping[str, np.ndarray], retrained: Retrained) -> dict[str, Any]:
    results = {}
    for name, score_QN in scores.items():
        results[name] = asdict(lds(score_QN, retrained))
        print(f"  {name:28} {lds(score_QN, retrained)}", flush=True)
    for label in TRACKED:
        gain = lds_gain(scores[f"ekfac, {label}"], scores[f"identity, {label}"], retrained)
        results[f"ekfac over identity, {label}"] = asdict(gain)
        print(f"  EK-FAC over identity, {label}: {gain}", flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subsets", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--models", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        toy = Toy(folder, options.steps)
        found = [checkpoint_scores(toy, seed) for seed in range(options.models)]
        means = {name: np.mean([one[name] for one in found], axis=0) for name in found[0]}
        random_QN = np.random.default_rng(1).normal(size=(len(toy.query_QT), ROWS))
        retrained = retrain(
            toy.query_losses, rows=ROWS, subsets=options.subsets, seeds=options.seeds
        )
        results = {
            **vars(options),
            "lds": measure({**found[0], "random": random_QN}, retrained),
            "lds_of_ensemble": measure(means, retrained),
        }
    command = "python -m benchmarks.influence_lds " + " ".join(
        f"--{name} {value}" for name, value in vars(options).items()
    )
    print("written:", record("influence_lds", results, command=command).name)


if __name__ == "__main__":
    main()
