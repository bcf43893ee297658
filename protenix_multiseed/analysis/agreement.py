"""Measure whether samples agree: RMSD of superposed pairs, clusters with representatives, the spread of every token.

biotite computes lDDT and the superposition on the best sample. SciPy computes the clusters.
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import biotite.structure as struc
import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage

from protenix_multiseed.analysis.comparison import Agreement, Cluster
from protenix_multiseed.analysis.copies import match_copies

MOST_COMPARED = 1000  # every pair of at most this many samples is superposed; of more samples, the best-ranked
DISORDERED = 50.0  # below this pLDDT (very low in AlphaFold's terms) a token's place is arbitrary: it is not compared
_MIN_CORE_SHARE = 1 / 3  # of all tokens
_MOST_THREADS, _SAMPLES_PER_THREAD = 8, 100  # of the superposition of pairs; numpy computes outside the GIL
_LDDT_CHUNK = 50  # samples whose lDDT is computed at once


def agreement(
    coordinates: np.ndarray, plddt: np.ndarray, chains: Sequence[str], components: Sequence[str], cutoff: float
) -> Agreement:
    """Compare the samples of one job.

    Args:
        coordinates: Central atom of every token [N_sample, N_token, 3], Angstrom, in the order of the ranking.
        plddt: pLDDT of every token [N_sample, N_token], 0 to 100.
        chains, components: Chain of each token, and its residue or ligand [N_token].
        cutoff: Average distance within a cluster, Angstrom.
    """
    order = match_copies(coordinates, chains, components)
    coordinates, plddt = (
        np.take_along_axis(x, order[..., None] if x.ndim == 3 else order, axis=1) for x in (coordinates, plddt)
    )
    core = choose_core(plddt)
    rmsd, tm = superpose_pairs(coordinates[:, core])
    reference = coordinates[0]
    fitted, _ = struc.superimpose(reference, coordinates, atom_mask=core)
    spread = np.sqrt(((fitted - fitted.mean(axis=0)) ** 2).sum(axis=-1).mean(axis=0))
    lddt, interface_lddt = _lddt_to_best(coordinates, chains)
    return Agreement(
        order=order,
        core=core,
        rmsd=rmsd,
        tm=tm,
        lddt=lddt,
        interface_lddt=interface_lddt,
        clusters=cluster(rmsd, cutoff),
        spread=spread,
        cutoff=cutoff,
    )


def choose_core(plddt: np.ndarray) -> np.ndarray:
    """Choose the tokens to compare: median pLDDT over the samples of 50 or more.

    If fewer than 4 tokens, or fewer than a third, pass, all tokens are compared.

    Args:
        plddt: pLDDT of every token [N_sample, N_token], 0 to 100.

    Returns:
        Whether a token is compared [N_token].
    """
    ordered: np.ndarray = np.median(plddt, axis=0) >= DISORDERED
    return ordered if ordered.sum() >= max(4, _MIN_CORE_SHARE * len(ordered)) else np.ones(len(ordered), dtype=bool)


def superpose_pairs(coordinates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return RMSD (Angstrom) and TM-score of every pair of samples after least-RMSD superposition, each [N, N].

    The superposition is Kabsch's (1976), of one sample and all later ones at once. It gives biotite's result in a third
    of the time, which counts for the 500,000 pairs of 1,000 samples.

    The TM-score (Zhang and Skolnick 2004) is computed for this superposition. It is not maximized over superpositions.
    """
    n, length = coordinates.shape[:2]
    d0 = max(0.5, 1.24 * np.cbrt(length - 15) - 1.8)
    centred = coordinates - coordinates.mean(axis=1, keepdims=True, dtype=np.float64)
    rmsd, tm = np.zeros((n, n)), np.ones((n, n))

    def superpose(index: int) -> None:
        fixed, others = centred[index], centred[index + 1 :]
        left, _, right = np.linalg.svd(others.mT @ fixed)
        left[..., 2] *= np.linalg.det(left @ right)[:, None]  # -1 for a reflection, which is turned into a rotation
        apart = others @ (left @ right) - fixed
        squared = np.einsum("nlc,nlc->nl", apart, apart)
        rmsd[index, index + 1 :] = rmsd[index + 1 :, index] = np.sqrt(squared.mean(axis=-1))
        tm[index, index + 1 :] = tm[index + 1 :, index] = (1 / (1 + squared / d0**2)).mean(axis=-1)

    with ThreadPoolExecutor(min(_MOST_THREADS, len(os.sched_getaffinity(0)), -(-n // _SAMPLES_PER_THREAD))) as pool:
        try:
            done: Iterator[None] = pool.map(superpose, range(n - 1))
        except RuntimeError:  # Python starts no threads while it ends, when a script's last results are ranked
            done = map(superpose, range(n - 1))
        list(done)
    return rmsd, tm


def cluster(rmsd: np.ndarray, cutoff: float) -> tuple[Cluster, ...]:
    """Cluster samples by average linkage. Clusters and their members keep the order of the ranking."""
    n = len(rmsd)
    if n == 1:
        return (Cluster(members=(0,)),)
    tree = linkage(rmsd[np.triu_indices(n, k=1)], method="average")
    labels = fcluster(tree, cutoff, criterion="distance")
    groups: dict[int, list[int]] = {}
    for place, label in enumerate(labels.tolist()):
        groups.setdefault(label, []).append(place)
    return tuple(Cluster(members=tuple(members)) for members in groups.values())


def _lddt_to_best(coordinates: np.ndarray, chains: Sequence[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """LDDT of every sample to the first: over all pairs of tokens, and over pairs in different chains."""
    best = struc.AtomArray(coordinates.shape[1])
    best.chain_id, best.res_id, best.coord = np.asarray(chains), np.arange(len(best)), coordinates[0]
    lddt = np.nan_to_num(_lddt(best, coordinates), nan=1.0)
    if len(set(chains)) < 2:
        return lddt, None
    between = _lddt(best, coordinates, exclude_same_chain=True)
    return lddt, between if np.isfinite(between).all() else None  # NaN: no chains touch, so there is no interface


def _lddt(best: struc.AtomArray, coordinates: np.ndarray, **options: bool) -> np.ndarray:
    """LDDT in chunks of samples, because biotite holds all pairs in memory. NaN if no tokens are near each other."""
    parts = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        warnings.filterwarnings("ignore", "invalid value encountered", RuntimeWarning)
        for start in range(0, len(coordinates), _LDDT_CHUNK):
            some = struc.from_template(best, coordinates[start : start + _LDDT_CHUNK])
            parts.append(np.atleast_1d(struc.lddt(best, some, **options)))
    return np.concatenate(parts)
