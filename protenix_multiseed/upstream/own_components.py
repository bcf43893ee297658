"""Components that a job defines itself, in the mmCIF format of the Chemical Component Dictionary: read and checked."""

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from protenix_multiseed.errors import InputError
from protenix_multiseed.job_spec import OwnComponent
from protenix_multiseed.upstream.component import ComponentFacts, component_facts
from protenix_multiseed.upstream.dictionary_index import (
    ATOM_TEXT,
    BOND_TEXT,
    COMPONENT_COLUMNS,
    COORDINATES,
    MISSING,
    cif_block,
    records,
)
from protenix_multiseed.upstream.molecules import make_molecule, serialize

if TYPE_CHECKING:
    from biotite.structure.io.pdbx import CIFBlock

MAX_ATOMS = 1000  # the largest component of the dictionary has some 400
MAX_COORDINATE = 10_000  # Angstrom
_ORDERS = ("SING", "DOUB", "TRIP")  # that the PDBe's reader knows
_MISSING = ("?", ".", "")
_NAME = re.compile(r"[!-_]{1,4}")  # upstream's Featurizer.ref_atom_name_chars_encoded: ASCII 32 to 95


@dataclass(frozen=True)
class ReadComponent:
    """A component that was read and checked.

    Attributes:
        code: Its code.
        summary: Columns of ``chem_comp``.
        atoms, bonds: Records with the columns of the embedded dictionary.
        has_coordinates: Whether all atoms have coordinates.
    """

    code: str
    summary: Mapping[str, str]
    atoms: np.ndarray
    bonds: np.ndarray
    has_coordinates: bool

    @cached_property
    def facts(self) -> ComponentFacts:
        """What the input checks need to know."""
        atoms, bonds = self.atoms, self.bonds
        leaves = (atoms["leaving"] == b"Y").tolist()
        return component_facts(
            self.summary["type"],
            zip(_texts(atoms["atom_id"]), _texts(atoms["type_symbol"]), leaves, strict=True),
            zip(_texts(bonds["atom_id_1"]), _texts(bonds["atom_id_2"]), strict=True),
        )

    @cached_property
    def molecule(self) -> Any:
        """The component as RDKit molecule with its reference conformer, as the dictionary makes it.

        RDKit's seed follows from the component without its code, so the conformer does not depend on the code. If RDKit
        finds no conformer, the given coordinates are the conformer.

        Raises:
            InputError: if the component has no coordinates, and RDKit finds no conformer, or does not know the
                configuration of a stereocentre or double bond, which it reads from coordinates.
        """
        content = "".join(f"{part.tobytes().hex()}" for part in (self.atoms, self.bonds))
        block = cif_block(self.code, self.summary, self.atoms, self.bonds)
        molecule = make_molecule(self.code, block, seed=zlib.crc32(content.encode()) & 0x7FFFFFFF)
        has_conformer = molecule.ref_conf_type == "rdkit" and molecule.ref_conf_id >= 0
        if not self.has_coordinates:
            way_out = "add coordinates of all atoms as _chem_comp_atom.pdbx_model_Cartn_x_ideal, _y_ideal and _z_ideal"
            if not has_conformer:
                raise InputError(f"RDKit finds no conformer, and the component gives none: {way_out}")
            if unknown := _without_configuration(molecule):
                raise InputError(f"the configuration at {', '.join(unknown[:10])} is not known: {way_out}")
        if not has_conformer:
            molecule.ref_conf_id, molecule.ref_conf_type = 0, "idea"
            molecule.ref_mask[:] = True
        return molecule

    @cached_property
    def block(self) -> "CIFBlock":
        """The component as mmCIF block. All atoms have coordinates, because Protenix cannot read other components."""
        atoms = self.atoms
        if not self.has_coordinates:
            atoms = atoms.copy()
            positions = self.molecule.GetConformer(self.molecule.ref_conf_id).GetPositions()
            order = [self.molecule.atom_map[name] for name in _texts(atoms["atom_id"])]
            for column, axis in enumerate("xyz"):
                atoms[f"ideal_{axis}"] = np.rint(positions[order, column] * 1000)
        return cif_block(self.code, self.summary, atoms, self.bonds)


@lru_cache(maxsize=1024)
def read_component(component: OwnComponent) -> ReadComponent:
    """Read and check a component.

    Raises:
        InputError: if the component lacks something, or holds something that is no chemistry.
    """
    import gemmi

    block = gemmi.cif.read_string(component.text).sole_block()
    read = _Columns(block, component.code)
    summary = {name: read.single(name) for name in COMPONENT_COLUMNS}
    if summary["type"] in _MISSING:
        raise InputError("_chem_comp.type is missing: write non-polymer for a ligand, L-PEPTIDE LINKING for a residue")
    summary["one_letter_code"] = _letter(summary)
    atoms, has_coordinates = _atoms(read)
    bonds = _bonds(read, _texts(atoms["atom_id"]))
    made = ReadComponent(
        code=component.code, summary=summary, atoms=atoms, bonds=bonds, has_coordinates=has_coordinates
    )
    _check_writing(made)
    return made


def _check_writing(component: ReadComponent) -> None:
    """Refuse values that biotite writes in a way that cannot be read back. They are also written with each result."""
    import gemmi

    written = serialize(component.code, cif_block(component.code, component.summary, component.atoms, component.bonds))
    try:
        block = gemmi.cif.read_string(written).sole_block()
        found = [gemmi.cif.as_string(row[0]) for row in block.find("_chem_comp_atom.", ["atom_id"])]
    except (ValueError, RuntimeError):
        found = []
    if found != _texts(component.atoms["atom_id"]):
        raise InputError("a value begins with a sign or word that mmCIF reserves, such as # or data_: change it")


@dataclass(frozen=True, slots=True)
class _Columns:
    """Columns of the categories of one data block."""

    block: Any
    code: str

    def single(self, name: str) -> str:
        import gemmi

        value = " ".join(gemmi.cif.as_string(self.block.find_value(f"_chem_comp.{name}") or "?").split())
        if not value.isascii() or not value.isprintable():
            raise InputError(f"_chem_comp.{name} is not ASCII text")
        return value if value not in _MISSING else "?"

    def table(self, category: str, needed: Sequence[str], others: Sequence[str]) -> dict[str, list[str]]:
        """Return columns by name. Missing values, and columns of ``others`` that are missing, are ``?``.

        Raises:
            InputError: if a column of ``needed`` is missing or has missing values, or rows are of another component.
        """
        import gemmi

        found = self.block.find(f"_{category}.", [*needed, *(f"?{name}" for name in ("comp_id", *others))])
        names = [*needed, "comp_id", *others]
        if not found:
            columns = ", ".join(f"_{category}.{name}" for name in needed)
            raise InputError(f"the category {category} is missing, or a column of it; needed are {columns}")
        rows = [
            [gemmi.cif.as_string(row[place]) if row.has(place) else "?" for place in range(len(names))] for row in found
        ]
        made = {name: [row[place] or "?" for row in rows] for place, name in enumerate(names)}
        for name in needed:
            if any(value in _MISSING for value in made[name]):
                raise InputError(f"_{category}.{name} has a missing value")
        other = next((one for one in made["comp_id"] if one not in (self.code, *_MISSING)), None)
        if other is not None:
            raise InputError(f"_{category}.comp_id is {other!r} in the data block of {self.code!r}")
        return made


def _atoms(read: _Columns) -> tuple[np.ndarray, bool]:
    import gemmi

    cartesian = [pattern.format(axis) for pattern in COORDINATES.values() for axis in "xyz"]
    columns = read.table("chem_comp_atom", ("atom_id", "type_symbol"), (*ATOM_TEXT, "charge", *cartesian))
    names = columns["atom_id"]
    if twice := next((name for place, name in enumerate(names) if name in names[:place]), None):
        raise InputError(f"_chem_comp_atom.atom_id: {twice!r} is given twice")
    if len(names) > MAX_ATOMS:
        raise InputError(f"{len(names)} atoms: at most {MAX_ATOMS} are allowed in one component")
    columns["type_symbol"] = [symbol.upper() for symbol in columns["type_symbol"]]
    for name, symbol in zip(names, columns["type_symbol"], strict=True):
        if gemmi.Element(symbol).atomic_number == 0:
            raise InputError(f"_chem_comp_atom.type_symbol: {symbol!r} of atom {name!r} is not an element")
        if not gemmi.Element(symbol).is_hydrogen and not _NAME.fullmatch(name):
            raise InputError(
                f"_chem_comp_atom.atom_id: {name[:30]!r}: the model reads names of at most 4 capital letters, digits "
                "and signs such as ' and *"
            )
    for column in ("alt_atom_id", "pdbx_component_atom_id"):
        columns[column] = [own if own != "?" else name for own, name in zip(columns[column], names, strict=True)]
    flags = columns["pdbx_leaving_atom_flag"]
    columns["pdbx_leaving_atom_flag"] = ["Y" if flag.upper() == "Y" else "N" for flag in flags]
    made = {ours: _bytes(columns[theirs]) for theirs, ours in ATOM_TEXT.items()}
    made["charge"] = np.array([_number(one, "charge", 0, limit=20) for one in columns["charge"]], dtype=np.int32)
    given = {
        kind: [_coordinates(columns, pattern.format(axis)) for axis in "xyz"] for kind, pattern in COORDINATES.items()
    }
    complete = [kind for kind, axes in given.items() if all(MISSING not in one for one in axes)]
    if complete and "ideal" not in complete:
        given["ideal"] = given[complete[0]]
    made |= {f"{kind}_{axis}": given[kind][place] for kind in given for place, axis in enumerate("xyz")}
    return records(made), bool(complete)


def _coordinates(columns: Mapping[str, list[str]], name: str) -> np.ndarray:
    """One column of coordinates as whole milliangstroms, as in the embedded dictionary."""
    values = [_number(one, name, MISSING, scale=1000, limit=MAX_COORDINATE) for one in columns[name]]
    return np.array(values, dtype=np.int32)


def _bonds(read: _Columns, atoms: Sequence[str]) -> np.ndarray:
    if len(atoms) == 1:
        return records({ours: _bytes([]) for ours in BOND_TEXT.values()})
    columns = read.table("chem_comp_bond", ("atom_id_1", "atom_id_2", "value_order"), tuple(BOND_TEXT))
    columns["value_order"] = [order.upper()[:4] for order in columns["value_order"]]
    seen = set()
    for first, second, order in zip(columns["atom_id_1"], columns["atom_id_2"], columns["value_order"], strict=True):
        if missing := next((name for name in (first, second) if name not in atoms), None):
            raise InputError(f"_chem_comp_bond: {missing!r} is not in _chem_comp_atom.atom_id")
        if first == second:
            raise InputError(f"_chem_comp_bond: {first!r} is bonded to itself")
        if (pair := frozenset((first, second))) in seen:
            raise InputError(f"_chem_comp_bond: the bond of {first!r} and {second!r} is given twice")
        seen.add(pair)
        if order not in _ORDERS:
            raise InputError(
                f"_chem_comp_bond.value_order: {order!r} is not one of {', '.join(_ORDERS)}; "
                "an aromatic ring has SING and DOUB in turn"
            )
    flags = columns["pdbx_aromatic_flag"]
    columns["pdbx_aromatic_flag"] = ["Y" if flag.upper() == "Y" else "N" for flag in flags]
    return records({ours: _bytes(columns[theirs]) for theirs, ours in BOND_TEXT.items()})


def _number(text: str, column: str, missing: int, *, scale: int = 1, limit: int) -> int:
    if text in _MISSING:
        return missing
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not abs(number) <= limit or (scale == 1 and number != int(number)):
        raise InputError(f"_chem_comp_atom.{column}: {text[:30]!r} is not a number that it can have")
    return round(number * scale)


def _without_configuration(molecule: Any) -> list[str]:
    """Names of the stereocentres, and of the first atoms of double bonds, whose configuration is not known."""
    from rdkit import Chem

    unknown = (one for one in Chem.FindPotentialStereo(molecule) if one.specified != Chem.StereoSpecified.Specified)
    is_bond = Chem.StereoType.Bond_Double
    atoms = (
        molecule.GetBondWithIdx(one.centeredOn).GetBeginAtom()
        if one.type == is_bond
        else molecule.GetAtomWithIdx(one.centeredOn)
        for one in unknown
    )
    return [atom.GetProp("name") for atom in atoms]


def _letter(summary: Mapping[str, str]) -> str:
    """The letter of the residue that a component stands for: its own, else its parent's."""
    import gemmi

    if (own := summary["one_letter_code"]) != "?":
        return own
    parent = gemmi.find_tabulated_residue(summary["mon_nstd_parent_comp_id"].split(",")[0])
    letter = parent.one_letter_code.strip()
    return letter if letter.isupper() else "?"


def _bytes(values: Sequence[str]) -> np.ndarray:
    return np.array([value.encode() for value in values], dtype="S" if values else "S1")


def _texts(values: np.ndarray) -> list[str]:
    return [value.decode() for value in values.tolist()]
