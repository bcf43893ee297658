"""Ligands outside the chemical dictionary: SMILES strings and molecule files."""

import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from protenix_multiseed.errors import InputError
from protenix_multiseed.process import interrupt_kept

SUFFIXES = (".mol", ".sdf", ".pdb", ".mol2")  # upstream's lig_file_to_atom_info
MAX_BYTES = 2**24
MAX_SMILES = 10_000
MAX_MOLECULES = 99  # of one job; upstream names them l01 to l99
CONFORMER_SECONDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Molecule:
    """The atoms of a ligand, without hydrogens.

    Attributes:
        names: Names that upstream gives the atoms: the element and a running number.
        numbers: The atom that each number means in a bond. SMILES: atom map numbers, or without any of them positions
            in the string from 0. File: positions in the file from 0 (Protenix's ``docs/infer_json_format.md``).
        upstream_numbers: The atom that upstream takes for each number.
        repeated: Atom map numbers that several atoms have.
    """

    names: frozenset[str]
    numbers: Mapping[int, str]
    upstream_numbers: Mapping[int, str]
    repeated: frozenset[int] = frozenset()


@lru_cache(maxsize=4096)
def of_smiles(smiles: str, other: str = "") -> Molecule:
    """Read a SMILES string.

    Args:
        smiles: The string.
        other: How the input writes other ligands.

    Raises:
        InputError: if RDKit cannot read the string, or if it holds an atom that is no element, or only hydrogens.
    """
    from rdkit import Chem, rdBase

    if len(smiles) > MAX_SMILES:
        raise InputError(f"a SMILES string of {len(smiles)} characters: at most {MAX_SMILES}; write {other}")
    reason = "syntax error"
    molecule: Any
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles, sanitize=False)
        try:
            if molecule is not None:
                Chem.SanitizeMol(molecule)
                molecule = Chem.MolFromSmiles(smiles)
        except ValueError as error:
            molecule, reason = None, str(error).splitlines()[0]
    if molecule is None or molecule.GetNumAtoms() == 0:
        raise InputError(f"{_shown(smiles)} is not a SMILES string RDKit can read ({reason}); write {other}")
    return _molecule(molecule, _shown(smiles))


def of_file(path: Path) -> Molecule:
    """Read a ligand file. A file that many jobs share is read once.

    Raises:
        InputError: if the file is not exactly one molecule with 3D coordinates, or if it holds an atom that is no
            element, or only hydrogens.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    return _of_file(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _of_file(path: Path, size: int, changed: int) -> Molecule:
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path.name}: expected a file ending in {', '.join(SUFFIXES)}")
    molecules = _read(path, remove_hydrogens=True)
    whole = _read(path, remove_hydrogens=False)
    if len(molecules) > 1:
        raise InputError(f"{path.name} holds {len(molecules)} molecules: give each its own file and its own entity")
    if not molecules or molecules[0] is None or whole[0] is None:
        raise InputError(f"{path.name} cannot be read as a molecule: open it in a chemistry program and save it again")
    molecule = molecules[0]
    if molecule.GetNumConformers() == 0 or not molecule.GetConformer().Is3D():
        raise InputError(f"{path.name} has no 3D coordinates: a ligand file must hold the reference conformer")
    if molecule.GetNumConformers() > 1:
        raise InputError(f"{path.name} holds {molecule.GetNumConformers()} models: keep one of them")
    read = _molecule(molecule, path.name)
    heavy = [atom.GetIdx() for atom in whole[0].GetAtoms() if atom.GetAtomicNum() > 1]
    return Molecule(
        names=read.names,
        numbers=dict(zip(heavy, _heavy_names(molecule).values(), strict=True)),
        upstream_numbers=read.upstream_numbers,
    )


def _read(path: Path, *, remove_hydrogens: bool) -> list[Any]:
    """Return the molecules of a file, None for one that RDKit cannot read."""
    from rdkit import Chem, rdBase

    readers: dict[str, Any] = {
        ".mol": Chem.MolFromMolFile,
        ".pdb": Chem.MolFromPDBFile,
        ".mol2": Chem.MolFromMol2File,
    }
    with rdBase.BlockLogs():
        try:
            if path.suffix == ".sdf":
                return list(Chem.SDMolSupplier(str(path), removeHs=remove_hydrogens))
            found = [readers[path.suffix](str(path), removeHs=remove_hydrogens)]
        except (OSError, RuntimeError, ValueError):
            return [None]
    return found * max(1, path.read_bytes().count(b"@<TRIPOS>MOLECULE")) if path.suffix == ".mol2" else found


def _molecule(molecule: Any, shown: str) -> Molecule:
    """Read the atoms of an RDKit molecule as upstream does (``json_parser.rdkit_mol_to_atom_info``)."""
    foreign = next((atom for atom in molecule.GetAtoms() if atom.GetAtomicNum() == 0 or atom.HasQuery()), None)
    if foreign is not None:
        raise InputError(
            f"{shown}: atom {foreign.GetIdx()} ({foreign.GetSymbol()!r}) is not an element: replace it, or "
            "end the bond there with hydrogen"
        )
    names = _heavy_names(molecule)
    if not names:
        raise InputError(f"{shown} has no atom but hydrogen, and Protenix leaves hydrogens out")
    maps = Counter(number for atom in molecule.GetAtoms() if (number := atom.GetAtomMapNum()))
    number_of = {atom.GetIdx(): atom.GetAtomMapNum() if maps else atom.GetIdx() for atom in molecule.GetAtoms()}
    numbers = {number_of[index]: name for index, name in names.items() if not maps or number_of[index]}
    return Molecule(
        names=frozenset(names.values()),
        numbers=numbers,
        upstream_numbers=numbers,
        repeated=frozenset(number for number, count in maps.items() if count > 1),
    )


def _heavy_names(molecule: Any) -> dict[int, str]:
    """Names of the heavy atoms by their index: the element and its running number."""
    count: Counter[str] = Counter()
    names = {}
    for atom in molecule.GetAtoms():
        element = atom.GetSymbol().upper()
        count[element] += 1
        if element != "H":
            names[atom.GetIdx()] = f"{element}{count[element]}"
    return names


def without_conformer(smiles: Iterable[str]) -> list[str]:
    """Return the SMILES strings for which RDKit finds no 3D conformer. They are tried in threads, each once.

    A search that takes longer than some seconds is given up, and the string counts as possible: featurization searches
    longer.
    """
    distinct = list(dict.fromkeys(smiles))
    with interrupt_kept(), ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as threads:
        return [one for one, found in zip(distinct, threads.map(_has_conformer, distinct), strict=True) if not found]


@lru_cache(maxsize=65536)
def _has_conformer(smiles: str) -> bool:
    """Try as upstream's ``smiles_to_atom_info``: first from distances, then from random coordinates."""
    from rdkit import Chem, rdBase
    from rdkit.Chem import rdDistGeom

    molecule: Any = Chem.AddHs(Chem.MolFromSmiles(smiles))
    with rdBase.BlockLogs():
        for from_random in (False, True):
            options: Any = rdDistGeom.ETKDGv2()
            options.randomSeed, options.useRandomCoords, options.timeout = 1, from_random, CONFORMER_SECONDS
            start = time.monotonic()
            try:
                if rdDistGeom.EmbedMolecule(molecule, options) == 0:
                    return True
            except (RuntimeError, ValueError):
                return False
            if time.monotonic() - start >= CONFORMER_SECONDS:
                return True  # given up
    return False


def _shown(smiles: str) -> str:
    return repr(smiles if len(smiles) <= 50 else smiles[:47] + "...")
