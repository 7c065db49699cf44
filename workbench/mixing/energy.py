"""What a mixture of gradients does to the squared norm of the step: theory behind the reward.

    self_energy, interaction = energies(gram_KK, mixture_K)     # |G a|^2 is their sum
    predicted = linear_gain(gram_KK, mixture_K)

Ma et al. 2026 (arXiv 2505.23878).  Shapes: K domains, H = g g^T of shape (K, K).
"""

from __future__ import annotations

import numpy as np


def energies(gram_KK: np.ndarray, mixture_K: np.ndarray) -> tuple[float, float]:
    """sum a_i^2 H_ii, and the interaction E(a) = sum over i != j of a_i a_j H_ij."""
    own = float(mixture_K**2 @ np.diag(gram_KK))
    return own, float(mixture_K @ gram_KK @ mixture_K) - own


def interaction(gram_KK: np.ndarray) -> np.ndarray:
    """W_i = sum over j != i of H_ij, (K,)."""
    return gram_KK.sum(axis=1) - np.diag(gram_KK)


def surrogate(gram_KK: np.ndarray, mixture_K: np.ndarray) -> float:
    """J(a) = sum a_i W_i, linear in a: its maximum is one domain alone, where E is 0."""
    return float(mixture_K @ interaction(gram_KK))


def linear_gain(gram_KK: np.ndarray, mixture_K: np.ndarray) -> float:
    """E(u) + (2/K) (J(a) - J(u)): E to first order around the uniform mixture u.

    What it leaves out is (a - u)^T H_off (a - u), exactly.
    """
    uniform_K = np.full(len(mixture_K), 1 / len(mixture_K))
    rise = surrogate(gram_KK, mixture_K) - surrogate(gram_KK, uniform_K)
    return energies(gram_KK, uniform_K)[1] + 2 / len(mixture_K) * rise


def descent_gain(gram_KK: np.ndarray) -> np.ndarray:
    """W_i + H_ii, (K,): true first-order gain of raising domain i under gradient descent.

    The reward leaves out H_ii, because a domain of noise has a large one.
    """
    return gram_KK.sum(axis=1)
