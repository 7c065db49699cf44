"""Records to Plotly figures: pure functions, the same live, afterwards and in a static page.

    plots.loss({"uniform": [a, b], "linupper": [c, d]})
    plots.show(plots.held_out(run))

Figures load Plotly when first asked for; a figure of a run without data says so.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.plots.clusters import arms, cluster_map
    from workbench.plots.comparison import costs, domain_verdicts, held_out_by_seconds
    from workbench.plots.curves import ess, held_out, loss, throughput, weight_share
    from workbench.plots.display import bundle, fragment, html, show
    from workbench.plots.forks import fork_tree, paired_difference
    from workbench.plots.influence import (
        control_scores,
        damping_slider,
        inverse_cosines,
        lds,
        score_scatter,
    )
    from workbench.plots.mixing import (
        energies,
        energy_walk,
        entropy,
        gram,
        learning,
        policy_path,
        rewards,
        scores,
    )
    from workbench.plots.pulls import pulls_replay
    from workbench.plots.replay import policy_replay
    from workbench.plots.samples import implied_mixture, mixture, weight_histograms, weights
    from workbench.plots.series import Runs
    from workbench.plots.shares import interplay
    from workbench.plots.static import png
    from workbench.plots.summaries import corpus, verdicts
    from workbench.plots.theme import CONFIG
    from workbench.plots.theory import (
        theory_bound,
        theory_controls,
        theory_covariance,
        theory_paths,
        theory_sliders,
    )
    from workbench.plots.what_if import predicted_losses

_HOME = {
    "clusters": ("arms", "cluster_map"),
    "comparison": ("costs", "domain_verdicts", "held_out_by_seconds"),
    "curves": ("ess", "held_out", "loss", "throughput", "weight_share"),
    "display": ("bundle", "fragment", "html", "show"),
    "forks": ("fork_tree", "paired_difference"),
    "influence": ("control_scores", "damping_slider", "inverse_cosines", "lds", "score_scatter"),
    "mixing": (
        "energies",
        "energy_walk",
        "entropy",
        "gram",
        "learning",
        "policy_path",
        "rewards",
        "scores",
    ),
    "pulls": ("pulls_replay",),
    "replay": ("policy_replay",),
    "samples": ("implied_mixture", "mixture", "weight_histograms", "weights"),
    "series": ("Runs",),
    "shares": ("interplay",),
    "static": ("png",),
    "summaries": ("corpus", "verdicts"),
    "theme": ("CONFIG",),
    "theory": (
        "theory_bound",
        "theory_controls",
        "theory_covariance",
        "theory_paths",
        "theory_sliders",
    ),
    "what_if": ("predicted_losses",),
}

__all__ = [
    "CONFIG",
    "Runs",
    "arms",
    "bundle",
    "cluster_map",
    "control_scores",
    "corpus",
    "costs",
    "damping_slider",
    "domain_verdicts",
    "energies",
    "energy_walk",
    "entropy",
    "ess",
    "fork_tree",
    "fragment",
    "gram",
    "held_out",
    "held_out_by_seconds",
    "html",
    "implied_mixture",
    "interplay",
    "inverse_cosines",
    "lds",
    "learning",
    "loss",
    "mixture",
    "paired_difference",
    "png",
    "policy_path",
    "policy_replay",
    "predicted_losses",
    "pulls_replay",
    "rewards",
    "score_scatter",
    "scores",
    "show",
    "theory_bound",
    "theory_controls",
    "theory_covariance",
    "theory_paths",
    "theory_sliders",
    "throughput",
    "verdicts",
    "weight_histograms",
    "weight_share",
    "weights",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOME.items():
        if name in names:
            return getattr(importlib.import_module(f"workbench.plots.{module}"), name)
    raise AttributeError(f"module 'workbench.plots' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
