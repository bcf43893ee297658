"""Copies of one chain may stand in any order: which copy of a sample is which of the best one's."""

from collections.abc import Sequence

import biotite.structure as struc
import numpy as np
from scipy.optimize import linear_sum_assignment


def match_copies(coordinates: np.ndarray, chains: Sequence[str], components: Sequence[str]) -> np.ndarray:
    """The order of every sample's tokens in which its chains stand as the first sample's do [N_sample, N_token].

    Each copy of the largest repeated chain is laid on the first sample's in turn; the other copies follow by the
    distance of their centres; the order that ends with the lowest RMSD counts.

    Args:
        coordinates: [N_sample, N_token, 3].
        chains, components: Of each token [N_token].
    """
    n_sample, n_token = coordinates.shape[:2]
    orders = np.tile(np.arange(n_token), (n_sample, 1))
    groups = _copies(np.asarray(chains), np.asarray(components))
    if not groups:
        return orders
    best = coordinates[0]
    for index in range(1, n_sample):
        candidates = [orders[index], *(_order(best, coordinates[index], groups, copy) for copy in groups[0])]
        orders[index] = min(candidates, key=lambda order: _rmsd(best, coordinates[index][order]))
    return orders


def _copies(chains: np.ndarray, components: np.ndarray) -> list[list[np.ndarray]]:
    """Tokens of the chains that are there more than once, the largest first."""
    by_content: dict[tuple[str, ...], list[np.ndarray]] = {}
    for chain in dict.fromkeys(chains.tolist()):
        tokens = np.flatnonzero(chains == chain)
        by_content.setdefault(tuple(components[tokens].tolist()), []).append(tokens)
    repeated = [copies for copies in by_content.values() if len(copies) > 1]
    return sorted(repeated, key=lambda copies: -len(copies[0]))


def _order(best: np.ndarray, sample: np.ndarray, groups: list[list[np.ndarray]], copy: np.ndarray) -> np.ndarray:
    """The order that follows from laying one copy on the best one's first."""
    anchor = groups[0][0]
    if len(anchor) >= 3:
        _, transformation = struc.superimpose(best[anchor], sample[copy])
        laid = transformation.apply(sample)
    else:  # too few atoms to turn by: shifted only
        laid = sample - sample[copy].mean(axis=0) + best[anchor].mean(axis=0)
    order = np.arange(len(sample))
    for copies in groups:
        there, here = (np.stack([x[tokens].mean(axis=0) for tokens in copies]) for x in (best, laid))
        rows, columns = linear_sum_assignment(np.linalg.norm(there[:, None] - here[None], axis=-1))
        for row, column in zip(rows, columns, strict=True):
            order[copies[row]] = copies[column]
    return order


def _rmsd(best: np.ndarray, sample: np.ndarray) -> float:
    fitted, _ = struc.superimpose(best, sample)
    return float(struc.rmsd(best, fitted))
