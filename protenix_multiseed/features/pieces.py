"""Featurize the seeds of one job in several workers: divide the seeds, and join what the workers have made."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from protenix_multiseed.types import Failure, Features, Job

MIN_SEEDS = 16  # of a piece. What all seeds share takes as long as some ten seeds, and each piece makes it again


def pieces(job: Job, most: int) -> tuple[Job, ...]:
    """Return the job with parts of its seeds, in their order: at most ``most`` parts, of equal numbers of seeds."""
    n_piece = max(1, min(most, len(job.seeds) // MIN_SEEDS))
    ends = [len(job.seeds) * number // n_piece for number in range(n_piece + 1)]
    return tuple(replace(job, seeds=job.seeds[a:b]) for a, b in pairwise(ends))


def joined(job: Job, made: Sequence[Sequence[Features | Failure]]) -> list[Features | Failure]:
    """Join the features and failures of the pieces of a job, the failures first.

    Seeds whose shared features and atoms are equal get one ``Features``, as if one worker had made it.
    """
    if len(made) == 1:
        return list(made[0])
    every = [one for of_piece in made for one in of_piece]
    failures = [one for one in every if isinstance(one, Failure)]
    if len(failures) == len(made) == len(every) and not any(one.seed for one in failures):
        return [replace(failures[0], job=job)]  # the job itself is wrong
    features = _merged(replace(one, job=job) for one in every if isinstance(one, Features))
    warnings = dict.fromkeys(text for one in features for text in one.warnings)
    features = [replace(one, warnings=()) for one in features]
    if features:
        features[0] = replace(features[0], warnings=tuple(warnings))
    of_seeds = (one if one.seed is None else replace(one, job=job) for one in failures)
    return [*of_seeds, *features]


def _merged(every: Iterable[Features]) -> list[Features]:
    merged = list[Features]()
    for one in every:
        for place, earlier in enumerate(merged):
            if _are_alike(earlier, one):
                merged[place] = replace(
                    earlier,
                    seeds=earlier.seeds + one.seeds,
                    warnings=earlier.warnings + one.warnings,
                    seconds=max(earlier.seconds, one.seconds),  # the pieces were made at the same time
                )
                break
        else:
            merged.append(one)
    return merged


def _are_alike(one: Features, other: Features) -> bool:
    """Return whether two ``Features`` differ in their seeds only."""
    return (
        one.entity_poly_type == other.entity_poly_type
        and one.arrays.keys() == other.arrays.keys()
        and one.atom_array.is_same(other.atom_array)
        and all(np.array_equal(value, other.arrays[name]) for name, value in one.arrays.items())
    )
