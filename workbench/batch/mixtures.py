"""Jobs that look for a mixture with runs of their own, and write it down for a static run.

    path = find_mixture(config, "out/doremi", method="doremi")
    train(config.change(mixer=Policy("static", mixture=str(path))), "out")

Every stage is a normal run folder; a job killed anywhere goes on when it is called again.
Shapes: N runs, K domains.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.batch.study import Say, train_study
from workbench.config import Policy
from workbench.core import ConfigError, unknown_name

if TYPE_CHECKING:
    from workbench.config import RunConfig
    from workbench.training import Run

MIXTURE_FILE = "mixture.json"
REGMIX_RUNS = 16


def find_mixture(
    config: RunConfig,
    out_dir: str | Path,
    *,
    method: str = "doremi",
    runs: int = REGMIX_RUNS,
    without: Collection[str] = (),
    say: Say = print,
) -> Path:
    """Look for a mixture of the corpus' domains.

    Args:
        config: of the small runs; their mixers are replaced, but options of a mixer `doge` or
            `doremi` hold for the proxy of that method.
        method: `doremi`: a reference run at the natural mixture, then a proxy run against it;
            `doge`: one proxy run; `regmix`: `runs` runs at random mixtures, then a regression.
        without: domains whose held-out loss `regmix` does not count; the others take none.
        say: given a line now and then.
    Returns:
        Path of mixture.json: the mixture by domain, the method, the surrogate's quality, and the
        names of the runs beside it, which `training.earlier` charges to whoever uses it.
    Raises:
        ConfigError: unknown method, or runs or domains that `regmix` could not regress on.  Said
            before anything is trained.
        WorkbenchError: what a run raises; the runs before it are complete.
    """
    methods: dict[str, Callable[[], dict[str, Any]]] = {
        "doremi": lambda: _doremi(config, Path(out_dir), say),
        "doge": lambda: _averaged(_train(config, out_dir, "proxy", _proxy(config, "doge"), say)),
        "regmix": lambda: _regmix(config, Path(out_dir), runs, without, say),
    }
    if method not in methods:
        problem, remedy = unknown_name("method", method, methods)
        raise ConfigError(problem, remedy=remedy)
    if without and method != "regmix":
        raise ConfigError(
            f"method '{method}' cannot leave out {', '.join(without)}",
            remedy="use method='regmix', or train on a corpus without them",
        )
    from workbench.tracking.durable import write_file

    path = Path(out_dir) / MIXTURE_FILE
    found = {"method": method, "config": config.to_dict(), **methods[method]()}
    write_file(path, json.dumps(found, indent=2).encode())
    say(f"{method}: " + ", ".join(f"{name} {p:.3f}" for name, p in found["mixture"].items()))
    return path


def _train(config: RunConfig, out_dir: str | Path, name: str, mixer: Policy, say: Say) -> Run:
    study = {name: [config.replace(name=name, mixer=mixer)]}
    return train_study(study, out_dir, say=say)[name][0]


def _proxy(config: RunConfig, method: str, **options: Any) -> Policy:
    own = config.mixer.options if config.mixer.name == method else {}
    return Policy(method, **{**own, **options})


def _doremi(config: RunConfig, out_dir: Path, say: Say) -> dict[str, Any]:
    natural = Policy("static", mixture="natural")
    reference = _train(config, out_dir, "reference", natural, say)
    proxy = _proxy(config, "doremi", reference=str(reference.path))
    return _averaged(_train(config, out_dir, "proxy", proxy, say), reference)


def _averaged(proxy: Run, *before: Run) -> dict[str, Any]:
    """The mean of the mixtures that the proxy's mixer went through, and the runs behind it."""
    return {
        "mixture": proxy.events("step")[-1]["mixer"]["average_mixture"],
        "runs": [run.path.name for run in (*before, proxy)],
    }


def _regmix(
    config: RunConfig, out_dir: Path, runs: int, without: Collection[str], say: Say
) -> dict[str, Any]:
    from workbench.core import RandomStreams
    from workbench.data import prepare
    from workbench.evaluation import held_out_curve
    from workbench.mixing.regmix import best_mixture
    from workbench.mixing.surrogate import fit_surrogate

    domains = prepare(config.corpus, config.tokenizer, config.rows).domains
    _check_regmix(domains, runs, without)
    drawn_NK = RandomStreams(config.seed).at("regmix").dirichlet(np.ones(len(domains)), runs)
    study = {
        f"mixture_{i}": [
            config.replace(
                name=f"mixture_{i}",
                mixer=Policy("static", mixture=dict(zip(domains, row.tolist(), strict=True))),
            )
        ]
        for i, row in enumerate(drawn_NK)
    }
    finished = train_study(study, out_dir, say=say)
    loss_N = [
        held_out_curve(own[0].events(), without=without).final_nats for own in finished.values()
    ]
    surrogate = fit_surrogate(drawn_NK, np.array(loss_N)[:, None])
    best_K = best_mixture(surrogate, domains=len(domains), seed=config.seed)
    return {
        "mixture": dict(zip(domains, best_K.tolist(), strict=True)),
        "runs": list(finished),
        "trials": [
            {"mixture": dict(zip(domains, row, strict=True)), "nats": loss}
            for row, loss in zip(drawn_NK.tolist(), loss_N, strict=True)
        ],
        "without": list(without),
        "explained": float(surrogate.explained_D[0]),
    }


def _check_regmix(domains: tuple[str, ...], runs: int, without: Collection[str]) -> None:
    from workbench.mixing.surrogate import FEWEST_MIXTURES

    if runs < FEWEST_MIXTURES:
        raise ConfigError(
            f"runs = {runs} are too few to regress on",
            remedy=f"train {FEWEST_MIXTURES} or more, several for each domain",
        )
    for name in without:
        if name not in domains:
            problem, remedy = unknown_name("domain", name, domains)
            raise ConfigError(f"{problem} in without", remedy=remedy)
    if set(without) == set(domains):
        raise ConfigError(
            "without leaves no domain whose loss counts", remedy="leave out fewer domains"
        )
