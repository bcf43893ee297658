"""Ligands outside the chemical dictionary: SMILES strings and molecule files."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from protenix_multiseed.errors import InputError

SUFFIXES = (".mol", ".sdf", ".pdb", ".mol2")  # upstream's lig_file_to_atom_info
MAX_BYTES = 2**24
MAX_SMILES = 10_000


@lru_cache(maxsize=4096)
def smiles_atoms(smiles: str) -> frozenset[str]:
    """Return the names that upstream gives the heavy atoms of a SMILES ligand.

    Raises:
        InputError: if RDKit cannot read the string.
    """
    from rdkit import Chem, rdBase

    if len(smiles) > MAX_SMILES:
        raise InputError(
            f"a SMILES string of {len(smiles)} characters: at most {MAX_SMILES}; give the ligand as FILE_ or CCD_"
        )
    reason = "syntax error"
    molecule: Any
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles, sanitize=False)
        try:
            if molecule is not None:
                Chem.SanitizeMol(molecule)
        except ValueError as error:
            molecule, reason = None, str(error).splitlines()[0]
    if molecule is None or molecule.GetNumAtoms() == 0:
        shown = repr(smiles if len(smiles) <= 50 else smiles[:47] + "...")
        raise InputError(
            f"{shown} is not a SMILES string RDKit can read ({reason}); "
            "write a component as CCD_ATP and a file as FILE_path"
        )
    return _atom_names(molecule)


@lru_cache(maxsize=4096)
def smiles_numbers(smiles: str) -> frozenset[int]:
    """Return the numbers that bonds may use for the atoms of a SMILES ligand.

    They are the atom map numbers if the string has any, else all atom positions from 0.
    """
    from rdkit import Chem

    molecule: Any = Chem.MolFromSmiles(smiles)
    if molecule is None:
        return frozenset()
    maps = {atom.GetAtomMapNum() for atom in molecule.GetAtoms()} - {0}
    return frozenset(maps or range(molecule.GetNumAtoms()))


def file_atoms(path: Path) -> frozenset[str]:
    """Return the names that upstream gives the heavy atoms of a ligand file.

    Raises:
        InputError: if the file is not a molecule with 3D coordinates.
    """
    from rdkit import Chem, rdBase

    if path.suffix not in SUFFIXES:
        raise InputError(f"{path.name}: expected a file ending in {', '.join(SUFFIXES)}")
    readers: dict[str, Any] = {
        ".mol": Chem.MolFromMolFile,
        ".pdb": Chem.MolFromPDBFile,
        ".mol2": Chem.MolFromMol2File,
        ".sdf": lambda file: next(iter(Chem.SDMolSupplier(file)), None),
    }
    with rdBase.BlockLogs():
        try:
            molecule = readers[path.suffix](str(path))
        except (OSError, RuntimeError, ValueError):
            molecule = None
    if molecule is None:
        raise InputError(f"{path.name} cannot be read as a molecule: open it in a chemistry program and save it again")
    if molecule.GetNumConformers() == 0 or not molecule.GetConformer().Is3D():
        raise InputError(f"{path.name} has no 3D coordinates: a ligand file must hold the reference conformer")
    return _atom_names(molecule)


def _atom_names(molecule: Any) -> frozenset[str]:
    """Names made of element and running number, heavy atoms only (upstream's ``rdkit_mol_to_atom_array``)."""
    count: dict[str, int] = {}
    names = []
    for atom in molecule.GetAtoms():
        element = atom.GetSymbol().upper()
        count[element] = count.get(element, 0) + 1
        if element != "H":
            names.append(f"{element}{count[element]}")
    return frozenset(names)
