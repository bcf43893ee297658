"""Match the copies of a chain between samples, because identical copies can appear in any order."""

from collections.abc import Sequence

import biotite.structure as struc
import numpy as np
from scipy.optimize import linear_sum_assignment


def match_copies(coordinates: np.ndarray, chains: Sequence[str], components: Sequence[str]) -> np.ndarray:
    """Reorder every sample's tokens so that its chain copies match those of the first sample.

    Take the largest chain that has copies. Superpose each of its copies in turn on the first copy in the first sample.
    Assign the other copies by the distance of their centres. Keep the order with the lowest RMSD.

    Args:
        coordinates: Central atom of every token [N_sample, N_token, 3], Angstrom.
        chains, components: Chain of each token, and its residue or ligand [N_token].

    Returns:
        For each sample, its token indices in the matched order [N_sample, N_token].
    """
    n_sample, n_token = coordinates.shape[:2]
    orders = np.tile(np.arange(n_token), (n_sample, 1))
    groups = _repeated_chains(np.asarray(chains), np.asarray(components))
    if not groups:
        return orders
    best = coordinates[0]
    for index in range(1, n_sample):
        candidates = [
            orders[index],
            *(_order_from_anchor(best, coordinates[index], groups, copy) for copy in groups[0]),
        ]
        orders[index] = min(candidates, key=lambda order: _rmsd(best, coordinates[index][order]))
    return orders


def _repeated_chains(chains: np.ndarray, components: np.ndarray) -> list[list[np.ndarray]]:
    """Token indices of the chains that occur more than once, grouped by identical content, largest chain first."""
    by_content: dict[tuple[str, ...], list[np.ndarray]] = {}
    for chain in dict.fromkeys(chains.tolist()):
        tokens = np.flatnonzero(chains == chain)
        by_content.setdefault(tuple(components[tokens].tolist()), []).append(tokens)
    repeated = [copies for copies in by_content.values() if len(copies) > 1]
    return sorted(repeated, key=lambda copies: -len(copies[0]))


def _order_from_anchor(
    best: np.ndarray, sample: np.ndarray, groups: list[list[np.ndarray]], copy: np.ndarray
) -> np.ndarray:
    """Order of a sample's tokens after superposing ``copy`` on the first copy of the best sample."""
    anchor = groups[0][0]
    if len(anchor) >= 3:
        _, transformation = struc.superimpose(best[anchor], sample[copy])
        laid = transformation.apply(sample)
    else:  # fewer than 3 tokens define no rotation: shift only
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
