"""Whether more seeds would help: the best score after k seeds, as it was and as it would be on average."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TOLERANCE = 0.005  # of ranking_score: less is no improvement


@dataclass(frozen=True, slots=True, kw_only=True)
class Convergence:
    """The best ranking score of a job by the number of seeds.

    Attributes:
        seeds: In the order they are counted, that of their numbers where files are read.
        best: Best score after each seed.
        expected: Best score of k of these seeds chosen at random, on average, k from 1.
        last_gain: How many seeds it took to come within the tolerance of the best.
    """

    seeds: tuple[int, ...]
    best: tuple[float, ...]
    expected: tuple[float, ...]
    last_gain: int


def convergence(by_seed: Sequence[tuple[int, float]], tolerance: float = TOLERANCE) -> Convergence:
    """From every seed and its best score, in the order of the run."""
    scores = [score for _, score in by_seed]
    best = [max(scores[: count + 1]) for count in range(len(scores))]
    return Convergence(
        seeds=tuple(seed for seed, _ in by_seed),
        best=tuple(best),
        expected=tuple(expected_best(scores, count) for count in range(1, len(scores) + 1)),
        last_gain=next(count for count, score in enumerate(best, start=1) if score >= best[-1] - tolerance),
    )


def expected_best(scores: Sequence[float], count: int) -> float:
    """The mean, over all choices of ``count`` scores, of the highest, by order statistics.

    The highest of a choice is the p-th of n in ascending order with probability C(p-1, count-1) / C(n, count): from the
    last, count / n, each is the one above it times (p - count + 1) / p.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    n = len(ordered)
    places = np.arange(n - 1, count - 1, -1)
    chances = count / n * np.cumprod(np.concatenate([[1.0], (places - count + 1) / places]))
    return float(ordered[count - 1 :][::-1] @ chances)


def is_stable(scores: Sequence[float], patience: int, tolerance: float = TOLERANCE) -> bool:
    """Whether the last ``patience`` seeds brought no improvement beyond the tolerance."""
    if len(scores) <= patience:
        return False
    return max(scores[-patience:]) <= max(scores[:-patience]) + tolerance
