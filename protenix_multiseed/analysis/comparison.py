"""The comparison of a job's samples: its result, which needs neither biotite nor SciPy."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A group of samples that are similar: average linkage with a cutoff on the RMSD.

    Attributes:
        members: Places in the ranking from 0, best first. The first member represents the cluster.
    """

    members: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Comparison of the N samples of a job, in the order of the ranking.

    Attributes:
        order: For each sample, its token indices in an order in which copies of a chain match those of the best sample
            [N, N_token].
        core: Whether a token is compared [N_token].
        rmsd: RMSD of every pair after superposition of the core [N, N], Angstrom.
        tm: TM-score of every pair, over the core and with the same superposition [N, N].
        lddt: lDDT of every sample to the best, 0 to 1, without superposition [N].
        interface_lddt: lDDT over pairs of tokens in different chains [N]; None if no chains are near each other in the
            best sample.
        clusters: Clusters, best-ranked first.
        spread: Root mean square distance of every token from its mean position over the samples, superposed on the
            best sample [N_token], Angstrom.
        cutoff: Average distance within a cluster, Angstrom.
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
        """Number of each sample's cluster, from 1. The key is the sample's place in the ranking."""
        return {place: number for number, one in enumerate(self.clusters, start=1) for place in one.members}
