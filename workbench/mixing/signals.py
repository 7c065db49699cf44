"""What a finished step says about its domains: losses, and how well their gradients agree.

    loss_K, count_K = domain_losses(outcome, domains=5)       # NaN where a domain had no row
    agreement = alignment(gram_KK)                            # AC-ODM's reward, Ma et al. 2026

Everything is float64 on the host: the mixers are small, and their vectors are checked to 1e-6.
Shapes: B rows, K domains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from workbench.core import StepOutcome
from workbench.mixing.energy import interaction


def domain_losses(outcome: StepOutcome, domains: int) -> tuple[np.ndarray, np.ndarray]:
    """Unweighted mean loss (K,) in nats, NaN for a domain without rows, and valid rows (K,)."""
    loss_B = outcome.loss_B.detach().double().cpu().numpy()
    return domain_means(loss_B, outcome.domain_B, outcome.valid_B.cpu().numpy(), domains)


def domain_means(
    value_B: np.ndarray, domain_B: np.ndarray, valid_B: np.ndarray, domains: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of a value per row over the valid rows of each domain, NaN without any; their count."""
    domain_b = domain_B[valid_B]
    count_K = np.bincount(domain_b, minlength=domains)
    sum_K = np.bincount(domain_b, weights=value_B[valid_B], minlength=domains)
    mean_K = np.full(domains, np.nan)
    np.divide(sum_K, count_K, out=mean_K, where=count_K > 0)
    return mean_K, count_K


def normalised(value_K: np.ndarray) -> np.ndarray:
    """(value - mean) / (std + 1e-8) with the unbiased std; zeros where values do not differ.

    Ma et al. 2026 (AC-ODM), state and reward normalisation.
    """
    value_K = np.asarray(value_K, dtype=np.float64)
    count = len(value_K)
    if count < 2:
        return np.zeros_like(value_K)
    # Written out, because five of these are made a step and `std` alone takes longer.
    centred_K = value_K - value_K.sum() / count
    return centred_K / (math.sqrt(centred_K @ centred_K / (count - 1)) + 1e-8)


@dataclass(frozen=True)
class Alignment:
    """How well each domain's gradient agrees with the others', (K,) each.

    interaction_K: W_i = sum over j != i of <g_i, g_j>; utility_K: u = W / (mean norm + 1e-6);
    reward_K: z = clamp(normalised(u), -3, 3).
    """

    interaction_K: np.ndarray
    utility_K: np.ndarray
    reward_K: np.ndarray

    @property
    def agreement(self) -> float:
        """sum W_i / sum |W_i|, from -1 to 1.

        Below 0 the domains oppose each other on the whole: a domain of pure noise, which agrees
        with nobody, then has the best reward.
        """
        scale = float(np.abs(self.interaction_K).sum())
        return float(self.interaction_K.sum()) / scale if scale > 0 else 0.0


def alignment(gram_KK: np.ndarray) -> Alignment:
    """The alignment reward of one step from H = g g^T.  Ma et al. 2026 (arXiv 2505.23878)."""
    gram_KK = np.asarray(gram_KK, dtype=np.float64)
    interaction_K = interaction(gram_KK)
    mean_norm = np.sqrt(np.maximum(np.diag(gram_KK), 0)).mean()
    utility_K = interaction_K / (mean_norm + 1e-6)
    return Alignment(interaction_K, utility_K, np.clip(normalised(utility_K), -3, 3))
