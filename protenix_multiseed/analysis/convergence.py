"""Would more seeds help? The best score after k seeds, in the order of the run and averaged over all choices of k."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TOLERANCE = 0.005  # a smaller rise of ranking_score does not count as an improvement


@dataclass(frozen=True, slots=True, kw_only=True)
class Convergence:
    """The best ranking score of a job as a function of the number of seeds.

    Attributes:
        seeds: Seeds in the order they are counted. Seeds read from files are in ascending order.
        best: Best score after each seed.
        expected: Mean best score of k of these seeds chosen at random, for k from 1.
        last_gain: Number of seeds until the best score was within the tolerance of the final best score.
    """

    seeds: tuple[int, ...]
    best: tuple[float, ...]
    expected: tuple[float, ...]
    last_gain: int


def convergence(by_seed: Sequence[tuple[int, float]], tolerance: float = TOLERANCE) -> Convergence:
    """Compute the convergence of one job.

    Args:
        by_seed: Every seed with its best ranking score, in the order to count them.
        tolerance: A smaller rise of the score does not count as an improvement.
    """
    scores = np.asarray([score for _, score in by_seed], dtype=np.float64)
    ordered, best = np.sort(scores), np.maximum.accumulate(scores).tolist()
    return Convergence(
        seeds=tuple(seed for seed, _ in by_seed),
        best=tuple(best),
        expected=tuple(expected_best(ordered, count) for count in range(1, len(scores) + 1)),
        last_gain=next(count for count, score in enumerate(best, start=1) if score >= best[-1] - tolerance),
    )


def expected_best(ordered: np.ndarray, count: int) -> float:
    """Return the mean of the highest score over all choices of ``count`` scores, by order statistics.

    The highest score of a choice is the p-th of n with probability C(p-1, count-1) / C(n, count). For p = n this is
    count / n. Each lower p has the probability of p + 1 times (p - count + 1) / p. The m highest scores are enough:
    the others together have a probability of at most (1 - m / n) ** count, which is below 1e-17 for m = 40 n / count.
    So the means for all counts take n log n steps.

    Args:
        ordered: The scores in ascending order.
    """
    n = len(ordered)
    lowest = max(count, n - math.ceil(40 * n / count))
    places = np.arange(n - 1, lowest - 1, -1)
    chances = count / n * np.cumprod(np.concatenate([[1.0], (places - count + 1) / places]))
    return float(ordered[lowest - 1 :][::-1] @ chances)


def is_stable(scores: Sequence[float], patience: int, tolerance: float = TOLERANCE) -> bool:
    """Whether the last ``patience`` seeds did not raise the best score by more than the tolerance."""
    if len(scores) <= patience:
        return False
    return max(scores[-patience:]) <= max(scores[:-patience]) + tolerance
