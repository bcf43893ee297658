"""Whether samples agree: superposed pairs, clusters with their representatives, the spread of every token.

Superposition, RMSD and lDDT are biotite's, clustering is SciPy's.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import biotite.structure as struc
import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage

from protenix_multiseed.analysis.copies import match_copies

MOST_COMPARED = 1000  # samples of which every pair is superposed; the best-ranked of more
DISORDERED = 50.0  # pLDDT that AlphaFold calls very low; such tokens lie anywhere and are left out of the comparison
_FEW = 1 / 3
_AT_ONCE = 50  # samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Samples within a cutoff of each other on average, by their places in the ranking.

    Attributes:
        members: Places in the ranking from 0, best first; the first represents the cluster.
    """

    members: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """The samples of a job compared, in the order of the ranking.

    Attributes:
        order: Of each sample's tokens, in which copies of a chain stand as in the best [N, N_token].
        core: Tokens that are compared [N_token].
        rmsd: After superposition of the core [N, N], Angstrom.
        tm: TM-score of the core after the same superposition [N, N].
        lddt: Of every sample to the best, 0 to 1, superposition-free [N].
        interface_lddt: The same of pairs between chains [N]; None where no chains are near each other in the best.
        clusters: Best-ranked first.
        spread: Root mean square distance of every token from its mean place, superposed on the best [N_token].
        cutoff: Of the clusters, Angstrom.
    """

    order: np.ndarray
    core: np.ndarray
    rmsd: np.ndarray
    tm: np.ndarray
    lddt: np.ndarray
    interface_lddt: np.ndarray | None
    clusters: tuple[Cluster, ...]
    spread: np.ndarray
    cutoff: float

    @property
    def cluster_of(self) -> dict[int, int]:
        """The number of each sample's cluster, from 1, by its place in the ranking."""
        return {place: number for number, one in enumerate(self.clusters, start=1) for place in one.members}


def agreement(
    coordinates: np.ndarray, plddt: np.ndarray, chains: Sequence[str], components: Sequence[str], cutoff: float
) -> Agreement:
    """Compare the samples of one job.

    Args:
        coordinates: A central atom of every token [N_sample, N_token, 3], Angstrom, in the order of the ranking.
        plddt: [N_sample, N_token], 0 to 100.
        chains, components: Each token's chain and residue or ligand [N_token].
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
    lddt, interface_lddt = _to_best(coordinates, chains)
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
    """Tokens whose median pLDDT over the samples is not very low; all of them where these are few."""
    ordered: np.ndarray = np.median(plddt, axis=0) >= DISORDERED
    return ordered if ordered.sum() >= max(4, _FEW * len(ordered)) else np.ones(len(ordered), dtype=bool)


def superpose_pairs(coordinates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """RMSD and TM-score of every pair after the superposition of least RMSD, each [N, N].

    The TM-score (Zhang and Skolnick 2004) is that of this superposition, not the best over all.
    """
    n, length = coordinates.shape[:2]
    d0 = max(0.5, 1.24 * np.cbrt(length - 15) - 1.8)
    rmsd, tm = np.zeros((n, n)), np.ones((n, n))
    for index in range(n - 1):
        fitted, _ = struc.superimpose(coordinates[index], coordinates[index + 1 :])
        squared = ((fitted - coordinates[index]) ** 2).sum(axis=-1)
        rmsd[index, index + 1 :] = rmsd[index + 1 :, index] = np.sqrt(squared.mean(axis=-1))
        tm[index, index + 1 :] = tm[index + 1 :, index] = (1 / (1 + squared / d0**2)).mean(axis=-1)
    return rmsd, tm


def cluster(rmsd: np.ndarray, cutoff: float) -> tuple[Cluster, ...]:
    """Average-linkage clusters of samples in the order of the ranking."""
    n = len(rmsd)
    if n == 1:
        return (Cluster(members=(0,)),)
    tree = linkage(rmsd[np.triu_indices(n, k=1)], method="average")
    labels = fcluster(tree, cutoff, criterion="distance")
    groups: dict[int, list[int]] = {}
    for place, label in enumerate(labels.tolist()):
        groups.setdefault(label, []).append(place)
    return tuple(Cluster(members=tuple(members)) for members in groups.values())


def _to_best(coordinates: np.ndarray, chains: Sequence[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """LDDT of every sample to the first, of all pairs of tokens and of those between chains."""
    best = struc.AtomArray(coordinates.shape[1])
    best.chain_id, best.res_id, best.coord = np.asarray(chains), np.arange(len(best)), coordinates[0]
    lddt = np.nan_to_num(_lddt(best, coordinates), nan=1.0)
    if len(set(chains)) < 2:
        return lddt, None
    between = _lddt(best, coordinates, exclude_same_chain=True)
    return lddt, between if np.isfinite(between).all() else None  # chains that touch nowhere have no interface


def _lddt(best: struc.AtomArray, coordinates: np.ndarray, **options: bool) -> np.ndarray:
    """LDDT of some samples at a time: biotite holds every pair of each; NaN where nothing is near anything."""
    parts = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        warnings.filterwarnings("ignore", "invalid value encountered", RuntimeWarning)
        for start in range(0, len(coordinates), _AT_ONCE):
            some = struc.from_template(best, coordinates[start : start + _AT_ONCE])
            parts.append(np.atleast_1d(struc.lddt(best, some, **options)))
    return np.concatenate(parts)
