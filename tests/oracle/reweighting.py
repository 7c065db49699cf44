"""Slow truths of the weights: one row at a time, as the formulas are written."""

import math

STRATEGIES = {
    "linupper": lambda h, delta: min(h + delta, delta),
    "quadratic": lambda h, delta: 1 - h * h / delta**2,
    "extremes": lambda h, delta: abs(h),
    "upper": lambda h, delta: (h + delta) / 2,
}


def normalised(losses, kind, *, delta, floor):
    if kind == "rank":
        last = max(1, len(losses) - 1)
        ranks = [
            sum(other < loss for other in losses) + (sum(other == loss for other in losses) - 1) / 2
            for loss in losses
        ]
        return [delta * (2 * rank / last - 1) for rank in ranks]
    low, high = min(losses), max(losses)
    if kind == "quantile":
        low, high = quantile(losses, 0.05), quantile(losses, 0.95)
    width = max(high - low, floor)
    return [max(-delta, min(delta, delta * (2 * (x - low) / width - 1))) for x in losses]


def quantile(values, level):
    ordered = sorted(values)
    place = level * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def weights(losses, strategy, *, temperature, kind="range", delta=1.0, floor=1e-6):
    """Weights of mean 1."""
    h = normalised(losses, kind, delta=delta, floor=floor)
    exponents = [math.exp(STRATEGIES[strategy](x, delta) / temperature) for x in h]
    return [len(losses) * e / sum(exponents) for e in exponents]


def cut_and_redistribute(weights, cap):
    """Clip, hand the excess to the unclipped in proportion, repeat until none exceeds."""
    weights, clipped = list(weights), set()
    while any(w > cap * (1 + 1e-12) for w in weights):
        clipped |= {i for i, w in enumerate(weights) if w > cap * (1 + 1e-12)}
        free = [i for i in range(len(weights)) if i not in clipped]
        room = len(weights) - cap * len(clipped)
        total = sum(weights[i] for i in free)
        weights = [cap if i in clipped else w * room / total for i, w in enumerate(weights)]
    return weights


def effective_fraction(weights):
    return sum(weights) ** 2 / sum(w * w for w in weights) / len(weights)
