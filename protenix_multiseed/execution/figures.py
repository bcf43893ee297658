"""Measured seconds of the model, and estimates made from them.

Source: the tables of ``docs/engine.md``. :data:`FIGURES` are of one H100, protenix_base_default_v1.0.0, 10 cycles, 200
steps, five samples. :data:`CPU` is of two cores, the demo model, 2 cycles, 8 steps, five samples.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

CARD = "H100"
MODELS = frozenset({"protenix_base_default_v1.0.0", "protenix_base_20250630_v1.0.0"})  # equal sizes
CYCLES, STEPS, SAMPLES = 10, 200, 5


class Figure(NamedTuple):
    """Seconds of the stages of one batch."""

    tokens: int
    precision: str
    seeds: int
    trunk: float
    sample: float
    score: float


FIGURES = (
    Figure(120, "reference", 1, 0.13, 0.54, 0.01),
    Figure(120, "reference", 5, 0.39, 1.58, 0.07),
    Figure(120, "fast", 1, 0.18, 0.37, 0.02),
    Figure(120, "fast", 5, 0.40, 0.89, 0.08),
    Figure(245, "reference", 1, 0.33, 0.87, 0.03),
    Figure(245, "reference", 5, 1.44, 3.04, 0.15),
    Figure(245, "fast", 1, 0.34, 0.49, 0.03),
    Figure(245, "fast", 5, 1.44, 1.68, 0.16),
    Figure(600, "reference", 1, 2.45, 1.82, 0.19),
    Figure(600, "reference", 5, 12.0, 7.58, 0.97),
    Figure(600, "fast", 1, 2.46, 1.01, 0.20),
    Figure(600, "fast", 5, 11.9, 4.16, 0.95),
    Figure(1200, "reference", 1, 10.3, 3.90, 0.83),
    Figure(1200, "reference", 5, 51.3, 17.7, 4.09),
    Figure(1200, "fast", 1, 10.3, 2.10, 0.82),
    Figure(1200, "fast", 5, 51.2, 9.73, 4.14),
    Figure(2000, "reference", 1, 39.3, 7.28, 2.85),
    Figure(2000, "fast", 1, 39.2, 4.17, 2.85),
    Figure(4096, "reference", 1, 215.3, 13.0, 8.5),
    Figure(4096, "fast", 1, 215.3, 13.0, 8.5),  # of this size both precisions are equal
)
CPU = Figure(245, "reference", 5, 54.5, 29.3, 40.9)
STAGES = ("trunk", "sample", "score")


MOST_TOKENS = FIGURES[-1].tokens  # nothing is known of larger jobs


def hold_for(card: str | None, model: str, tokens: int) -> bool:
    """Return whether :data:`FIGURES` were measured on such a card with such a model, up to jobs of this size.

    Args:
        card: Name of the GPU; None for a CPU or an unknown GPU.
    """
    return card is not None and CARD in card and model in MODELS and tokens <= MOST_TOKENS


def batch_seconds(seeds: int, *, precision: str, tokens: int, cycles: int, steps: int, samples: int) -> float:
    """Estimate the seconds that the measured GPU computes for one batch, without start-up and writing.

    Args:
        tokens: At most :data:`MOST_TOKENS`.
    """
    parts = np.array([cycles / CYCLES, steps / STEPS * samples / SAMPLES, samples / SAMPLES])
    first, further = _stages(precision, tokens)
    return float(parts @ (first + (seeds - 1) * further))


def stage_seconds(precision: str, tokens: int, *, cycles: int, steps: int, on_gpu: bool) -> dict[str, float]:
    """Return seconds of the stages of a batch, of which only the ratios mean something on another device."""
    if on_gpu:
        trunk, sample, score = _stages(precision, min(tokens, FIGURES[-1].tokens))[1]
        return dict(zip(STAGES, (trunk * cycles / CYCLES, sample * steps / STEPS, score), strict=True))
    return dict(zip(STAGES, (CPU.trunk * cycles / 2, CPU.sample * steps / 8, CPU.score), strict=True))


def share_done(seconds: Mapping[str, float], stage: str, done: int, total: int) -> float:
    """Return the share of a batch's time that is over, 0 to 1.

    Args:
        seconds: Seconds that each of :data:`STAGES` takes, of an earlier batch or of :func:`stage_seconds`.
        stage, done, total: The running stage, its finished steps, and all its steps.
    """
    place = STAGES.index(stage)
    over = sum(seconds[name] for name in STAGES[:place]) + seconds[stage] * done / total
    return over / sum(seconds[name] for name in STAGES)


def _stages(precision: str, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the seconds of trunk, sampling and scoring: of one seed, and of each further seed of a batch [3]."""
    rows = [row for row in FIGURES if row.precision == precision]
    one = {row.tokens: np.array(row[3:]) for row in rows if row.seeds == 1}
    more = dict(one)  # if larger batches were not measured, a further seed takes as long as the first
    more |= {row.tokens: (np.array(row[3:]) - one[row.tokens]) / (row.seeds - 1) for row in rows if row.seeds > 1}
    at = np.log(list(one))
    first, further = (
        np.exp([np.interp(math.log(tokens), at, column) for column in np.log(list(known.values())).T])
        for known in (one, more)
    )
    return first, further
