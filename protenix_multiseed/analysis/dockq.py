"""DockQ of each sample against the best-ranked sample: the similarity of an interface as one number from 0 to 1.

The definition is that of Basu and Wallner 2016 (doi 10.1371/journal.pone.0161879). Nucleic acids are scored as in
DockQ 2 (Mirabello and Wallner 2024, doi 10.1093/bioinformatics/btae586). All samples of a job have the same atoms, so
no sequence alignment is needed. biotite computes superpositions, SciPy finds neighbours.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Self

import biotite.structure as struc
import numpy as np
from scipy.spatial import KDTree

MOST_DOCKED = 100  # only this many best-ranked samples get a DockQ, because each structure file must be read
_CONTACT, _INTERFACE = 5.0, 10.0  # Angstrom; closest distance between atoms of two residues
_BACKBONE = (
    "N", "CA", "C", "O", "P", "OP1", "OP2", "O2'", "O3'", "O4'", "O5'", "C1'", "C2'", "C3'", "C4'", "C5'",
)  # fmt: skip

_PAIR_BASE = 2**31  # residues i and j are stored as the integer i * _PAIR_BASE + j, which sorts faster than a pair

_XYZ = ("Cartn_x", "Cartn_y", "Cartn_z")

Scores = Mapping[tuple[str, str], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Atoms:
    """The atoms of a structure, in the order of its mmCIF file.

    Attributes:
        chain, residue, name: Chain, residue number and atom name of each atom [N_atom]. Residue numbers start at 0 and
            run on through all chains.
        coordinates: Coordinates [N_atom, 3], Angstrom.
    """

    chain: np.ndarray
    residue: np.ndarray
    name: np.ndarray
    coordinates: np.ndarray

    @classmethod
    def read(cls, text: str) -> Self:
        """Read the text of an mmCIF file that a prediction wrote.

        Raises:
            ValueError: if the text is not that of a structure.
        """
        import gemmi

        columns = _columns(text, ("label_asym_id", "auth_seq_id", "label_atom_id", *_XYZ))
        chain, number, name = (np.array([gemmi.cif.as_string(one) for one in column]) for column in columns[:3])
        starts = np.ones(len(chain), dtype=bool)
        starts[1:] = (chain[1:] != chain[:-1]) | (number[1:] != number[:-1])
        return cls(chain=chain, residue=np.cumsum(starts) - 1, name=name, coordinates=_numbers(columns[3:]))

    def reorder(self, chain_of: Mapping[str, str]) -> np.ndarray | None:
        """Return atom indices in which each chain is replaced by its counterpart.

        Args:
            chain_of: Counterpart of each chain.

        Returns:
            Atom indices [N_atom]; None if a chain and its counterpart have different atoms.
        """
        places = {chain: np.flatnonzero(self.chain == chain) for chain in dict.fromkeys(self.chain.tolist())}
        order = np.arange(len(self.chain))
        for chain, other in chain_of.items():
            if not np.array_equal(self.name[places[chain]], self.name[places[other]]):
                return None
            order[places[chain]] = places[other]
        return order


def read_coordinates(text: str) -> np.ndarray:
    """Return the coordinates of the atoms in the text of an mmCIF file [N_atom, 3], Angstrom.

    Raises:
        ValueError: if the text is not that of a structure.
    """
    return _numbers(_columns(text, _XYZ))


def _numbers(columns: Sequence[Any]) -> np.ndarray:
    numbers = np.stack([np.array(column, dtype=np.float64) for column in columns], axis=-1)
    if not np.isfinite(numbers).all():
        raise ValueError("a coordinate is not finite")
    return numbers


def _columns(text: str, names: Sequence[str]) -> list[Any]:
    import gemmi

    try:
        block = gemmi.cif.read_string(text).sole_block()
    except (ValueError, RuntimeError, IndexError) as error:
        raise ValueError(f"not a structure: {error}") from error
    columns = [block.find_values(f"_atom_site.{name}") for name in names]
    if not all(columns):
        raise ValueError("the structure has no atoms")
    return columns


@dataclass(frozen=True, slots=True, kw_only=True)
class _Interface:
    """Reference data for two chains that touch in the best sample. Atoms are given as indices.

    Attributes:
        chains: Names of the two chains.
        places: All atoms of each chain.
        receptor, ligand: Backbone atoms of the longer chain, and of the other chain.
        near: Backbone atoms of residues within 10 A of the other chain.
        contacts: Pairs of residues within 5 A, each pair as one integer.
    """

    chains: tuple[str, str]
    places: tuple[np.ndarray, np.ndarray]
    receptor: np.ndarray
    ligand: np.ndarray
    near: np.ndarray
    contacts: np.ndarray


def dock(best: Atoms, samples: Iterable[np.ndarray | None], polymers: Sequence[str]) -> Iterator[Scores]:
    """Yield the DockQ of every sample, for each pair of chains that touch in the best sample.

    Args:
        best: The best-ranked sample.
        samples: Coordinates of each sample [N_atom, 3], Angstrom, in the atom order of the best sample. None yields an
            empty result.
        polymers: Names of the chains to compare.
    """
    interfaces = [one for pair in combinations(polymers, 2) if (one := _interface(best, pair)) is not None]
    for coordinates in samples:
        if coordinates is None:
            yield {}
            continue
        trees = {
            chain: KDTree(coordinates[of_chain])
            for one in interfaces
            for chain, of_chain in zip(one.chains, one.places, strict=True)
        }
        yield {one.chains: _dockq(best, coordinates, one, trees) for one in interfaces}


def _interface(best: Atoms, chains: tuple[str, str]) -> _Interface | None:
    one, other = (np.flatnonzero(best.chain == chain) for chain in chains)
    near, trees = {}, [KDTree(best.coordinates[of_chain]) for of_chain in (one, other)]
    for cutoff in (_INTERFACE, _CONTACT):
        near[cutoff] = _pairs(trees[0], trees[1], best.residue[one], best.residue[other], cutoff)
    is_backbone = np.isin(best.name, _BACKBONE)
    first, second = (of_chain[is_backbone[of_chain]] for of_chain in (one, other))
    is_first = len(np.unique(best.residue[one])) > len(np.unique(best.residue[other]))
    receptor, ligand = (first, second) if is_first else (second, first)
    if not len(near[_CONTACT]) or len(receptor) < 3 or not len(ligand):  # too few atoms to superpose
        return None
    residues = np.unique(np.divmod(near[_INTERFACE], _PAIR_BASE))
    return _Interface(
        chains=chains,
        places=(one, other),
        receptor=receptor,
        ligand=ligand,
        near=np.flatnonzero(is_backbone & np.isin(best.residue, residues)),
        contacts=near[_CONTACT],
    )


def _pairs(one: KDTree, other: KDTree, residue: np.ndarray, other_residue: np.ndarray, cutoff: float) -> np.ndarray:
    """Pairs of residues of two chains with atoms closer than the cutoff, each as one integer, sorted."""
    found = one.sparse_distance_matrix(other, cutoff, output_type="ndarray")
    within = found["v"] < cutoff
    return np.unique(residue[found["i"][within]] * _PAIR_BASE + other_residue[found["j"][within]])


def _dockq(best: Atoms, coordinates: np.ndarray, interface: _Interface, trees: Mapping[str, KDTree]) -> float:
    (one, other), (first, second) = interface.chains, interface.places
    contacts = _pairs(trees[one], trees[other], best.residue[first], best.residue[second], _CONTACT)
    kept = len(np.intersect1d(contacts, interface.contacts, assume_unique=True)) / len(interface.contacts)
    near, receptor, ligand = interface.near, interface.receptor, interface.ligand
    fitted, _ = struc.superimpose(best.coordinates[near], coordinates[near])
    of_interface = float(struc.rmsd(best.coordinates[near], fitted))
    _, transformation = struc.superimpose(best.coordinates[receptor], coordinates[receptor])
    of_ligand = float(struc.rmsd(best.coordinates[ligand], transformation.apply(coordinates[ligand])))
    return (kept + 1 / (1 + (of_interface / 1.5) ** 2) + 1 / (1 + (of_ligand / 8.5) ** 2)) / 3
