"""Two structures of a made-up complex: a protein helix, a shorter one beside it, and a strand of DNA."""

import numpy as np
from biotite.structure import Atom, AtomArray, array, concatenate
from biotite.structure.io.pdbx import CIFFile, set_structure

_RESIDUE = {  # positions of atoms around a point on the helix axis: radius (A), angle (radians), rise (A)
    "ALA": [
        ("N", 1.6, -0.9, -0.9), ("CA", 2.3, 0.0, 0.0), ("C", 1.7, 0.7, 1.0), ("O", 2.0, 0.9, 2.2),
        ("CB", 3.3, -0.2, -0.4),
    ],
    "DA": [
        ("P", 8.9, 0.0, 0.0), ("O5'", 8.0, 0.1, 1.0), ("C5'", 7.6, 0.2, 1.9), ("C1'", 5.9, 0.3, 2.0),
        ("N9", 4.6, 0.3, 2.2),
    ],
}  # fmt: skip


def strand(chain: str, kind: str, n: int, turn: float, rise: float, at: tuple[float, float, float]) -> AtomArray:
    atoms = []
    for place in range(n):
        for name, radius, angle, up in _RESIDUE[kind]:
            phi = turn * place + angle
            where = np.array([radius * np.cos(phi), radius * np.sin(phi), rise * place + up]) + at
            atoms.append(Atom(where, chain_id=chain, res_id=place + 1, res_name=kind, atom_name=name, element=name[0]))
    return array(atoms)


def pair() -> tuple[AtomArray, AtomArray]:
    """The best sample, and another in which chain B is moved and rotated and every atom is displaced at random."""
    random = np.random.default_rng(7)
    best = concatenate([
        strand("A", "ALA", 24, 1.745, 1.5, (0, 0, 0)),
        strand("B", "ALA", 18, 1.745, 1.5, (8.5, 1.0, 4.0)),
        strand("C", "DA", 10, 0.628, 3.4, (-12.0, 4.0, 0)),
    ])  # fmt: skip
    other = best.copy()
    moved = best.chain_id == "B"
    turn = np.array([[np.cos(0.3), 0, np.sin(0.3)], [0, 1, 0], [-np.sin(0.3), 0, np.cos(0.3)]])
    center = best.coord[moved].mean(axis=0)
    other.coord[moved] = (best.coord[moved] - center) @ turn.T + center + [1.0, -1.5, 2.0]
    other.coord += random.normal(size=other.coord.shape) * 0.5
    return best, other


def write(path, atoms: AtomArray) -> None:
    file = CIFFile()
    set_structure(file, atoms)
    file.write(path)
