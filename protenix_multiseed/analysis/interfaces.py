"""Interface scores of every pair of chains, from the predicted aligned error (PAE) of one sample.

The definitions are the published ones:

- ipSAE: Dunbrack 2025, https://doi.org/10.1101/2025.02.10.637595, ``ipSAE_d0res`` with a PAE cutoff of 10 A, as in
  version 4 of the published script, in which d0 is 1 A for up to 26 residues.
- pDockQ2: Zhu et al. 2023, https://doi.org/10.1093/bioinformatics/btad424, contacts within 8 A.
- LIS: Kim et al. 2024, https://doi.org/10.1101/2024.02.19.580970, PAE below 12 A.

All three scores count residues. A standard residue of a polymer is one token. A modified residue has one token per
atom, of which the CA or C1' token is counted. Ligands are not counted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

IPSAE_CUTOFF, CONTACT, LIS_CUTOFF = 10.0, 8.0, 12.0  # Angstrom
_MIN_D0_RESIDUES = 26  # d0 is constant up to this number of residues


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """Scores of an ordered pair of chains: PAE frames in the first chain, errors at the second chain.

    Attributes:
        chain_1, chain_2: Names of the chains.
        ipsae, pdockq2, lis: Scores, 0 to 1.
        n_contact: Number of residue pairs whose CB atoms (glycine CA, nucleotide C3') are within 8 A.
    """

    chain_1: str
    chain_2: str
    ipsae: float
    pdockq2: float
    lis: float
    n_contact: int


def interfaces(
    pae: np.ndarray,
    plddt: np.ndarray,
    coordinates: np.ndarray,
    chains: Sequence[str],
    is_nucleic: np.ndarray,
) -> list[Interface]:
    """Compute the scores of all ordered pairs of chains of one sample with N residues.

    Args:
        pae: Error at residue j in the frame of residue i [N, N], Angstrom.
        plddt: pLDDT of the atoms in ``coordinates`` [N], 0 to 100.
        coordinates: CB atoms; CA for glycine, C3' for nucleotides [N, 3], Angstrom.
        chains: Chain of each residue [N].
        is_nucleic: Whether a residue is a nucleotide [N].
    """
    chain_of = np.asarray(chains)
    where = {chain: np.flatnonzero(chain_of == chain) for chain in dict.fromkeys(chains)}
    made = []
    for one, rows in where.items():
        for other, columns in where.items():
            if one == other:
                continue
            error = pae[np.ix_(rows, columns)]
            distance = np.linalg.norm(coordinates[rows][:, None] - coordinates[columns][None], axis=-1)
            least = 2.0 if is_nucleic[rows].any() or is_nucleic[columns].any() else 1.0
            made.append(
                Interface(
                    chain_1=one,
                    chain_2=other,
                    ipsae=ipsae(error, least),
                    pdockq2=pdockq2(error, distance, plddt[rows], plddt[columns]),
                    lis=lis(error),
                    n_contact=int((distance <= CONTACT).sum()),
                )
            )
    return made


def ipsae(error: np.ndarray, least: float = 1.0) -> float:
    """Compute ipSAE: the maximum over frames of the mean TM-like term over residues with PAE below 10 A.

    Args:
        error: PAE of residues of chain 2 in frames of chain 1 [N_1, N_2], Angstrom.
        least: Smallest d0 in Angstrom: 1, or 2 if one chain is a nucleic acid.
    """
    good = error < IPSAE_CUTOFF
    count = good.sum(axis=1)
    d0 = np.maximum(least, 1.24 * np.cbrt(np.maximum(count, _MIN_D0_RESIDUES) - 15.0) - 1.8)
    term = np.where(good, 1.0 / (1.0 + (error / d0[:, None]) ** 2), 0.0)
    return float((term.sum(axis=1) / np.maximum(count, 1)).max(initial=0.0))


def pdockq2(error: np.ndarray, distance: np.ndarray, plddt_1: np.ndarray, plddt_2: np.ndarray) -> float:
    """Compute pDockQ2: a logistic function of the contacts' mean pLDDT times their mean TM-like term (d0 = 10 A).

    Args:
        error: PAE of residues of chain 2 in frames of chain 1 [N_1, N_2], Angstrom.
        distance: Distances between the residues [N_1, N_2], Angstrom.
        plddt_1, plddt_2: pLDDT of the residues [N_1] and [N_2], 0 to 100.

    Returns:
        The score; 0 if the chains have no contacts.
    """
    contact = distance <= CONTACT
    if not contact.any():
        return 0.0
    plddt = np.concatenate([plddt_1[contact.any(axis=1)], plddt_2[contact.any(axis=0)]]).mean()
    term = (1.0 / (1.0 + (error[contact] / 10.0) ** 2)).mean()
    return float(1.31 / (1.0 + np.exp(-0.075 * (plddt * term - 84.733))) + 0.005)


def lis(error: np.ndarray) -> float:
    """Compute LIS: the mean of ``1 - PAE / 12`` over pairs with PAE below 12 A; 0 if there are no such pairs."""
    good = error[error < LIS_CUTOFF]
    return float((1.0 - good / LIS_CUTOFF).mean()) if good.size else 0.0


def strongest(found: Sequence[Interface]) -> Iterator[tuple[str, float]]:
    """Yield the name and the largest value of each score over all pairs of chains; nothing for a single chain."""
    for name in ("ipsae", "pdockq2", "lis"):
        if found:
            yield name, max(getattr(one, name) for one in found)
