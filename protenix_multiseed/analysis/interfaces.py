"""Scores of every pair of chains from one sample's predicted aligned error, by their published definitions.

- ipSAE: Dunbrack 2025, https://doi.org/10.1101/2025.02.10.637595, ``ipSAE_d0res`` with a PAE cutoff of 10 A.
- pDockQ2: Zhu et al. 2023, https://doi.org/10.1093/bioinformatics/btad424, contacts within 8 A.
- LIS: Kim et al. 2024, https://doi.org/10.1101/2024.02.19.580970, PAE up to 12 A.

All three count residues: a polymer's standard residue is one token; of a modified one, whose atoms are tokens, the
token of its CA or C1' atom counts; ligands do not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

IPSAE_CUTOFF, CONTACT, LIS_CUTOFF = 10.0, 8.0, 12.0  # Angstrom
_SHORTEST = 27  # residues below which d0 stays


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """Scores of an ordered pair of chains: frames of the first, errors at the second.

    Attributes:
        n_contact: Residue pairs whose CB (glycine CA, nucleotides C3') are within 8 A.
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
    """Scores of all ordered pairs of chains of one sample.

    Args:
        pae: Error at residue j in the frame of residue i [N, N], Angstrom.
        plddt: Of the same atoms as the coordinates [N], 0 to 100.
        coordinates: CB, of glycine CA, of nucleotides C3' [N, 3], Angstrom.
        chains: Each residue's chain [N].
        is_nucleic: Whether each residue is a nucleotide [N].
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
    """The largest, over frames, of the mean TM-like term of the residues with an error below the cutoff.

    Args:
        error: [N_1, N_2], Angstrom.
        least: The smallest d0: 1 A, 2 A where one chain is a nucleic acid.
    """
    good = error < IPSAE_CUTOFF
    count = good.sum(axis=1)
    d0 = np.maximum(least, 1.24 * np.cbrt(np.maximum(count, _SHORTEST) - 15.0) - 1.8)
    term = np.where(good, 1.0 / (1.0 + (error / d0[:, None]) ** 2), 0.0)
    return float((term.sum(axis=1) / np.maximum(count, 1)).max(initial=0.0))


def pdockq2(error: np.ndarray, distance: np.ndarray, plddt_1: np.ndarray, plddt_2: np.ndarray) -> float:
    """A logistic function of the contacts' mean pLDDT times their mean TM-like term (d0 = 10 A); 0 without contacts."""
    contact = distance <= CONTACT
    if not contact.any():
        return 0.0
    plddt = np.concatenate([plddt_1[contact.any(axis=1)], plddt_2[contact.any(axis=0)]]).mean()
    term = (1.0 / (1.0 + (error[contact] / 10.0) ** 2)).mean()
    return float(1.31 / (1.0 + np.exp(-0.075 * (plddt * term - 84.733))) + 0.005)


def lis(error: np.ndarray) -> float:
    """The mean of ``1 - PAE / 12`` over pairs with a PAE up to 12 A; 0 where there are none."""
    good = error[error <= LIS_CUTOFF]
    return float((1.0 - good / LIS_CUTOFF).mean()) if good.size else 0.0


def strongest(found: Sequence[Interface]) -> Iterator[tuple[str, float]]:
    """The largest value of each score over all pairs, by its name; nothing for a single chain."""
    for name in ("ipsae", "pdockq2", "lis"):
        if found:
            yield name, max(getattr(one, name) for one in found)
