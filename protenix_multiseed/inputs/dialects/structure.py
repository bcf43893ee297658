"""Structures in mmCIF or PDB format: their sequences, ligands, ions and covalent bonds become a job.

Coordinates are used only on request, as templates. A sequence is the whole one that the file states
(``_entity_poly_seq``, ``SEQRES``), else that of the residues with coordinates. Water is left out.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from protenix_multiseed.errors import InputError
from protenix_multiseed.inputs.dialects.chains import is_copy, with_copy
from protenix_multiseed.inputs.document import Document, ParsedJob
from protenix_multiseed.inputs.residues import COMPONENTS, letter_of
from protenix_multiseed.inputs.structures import read_structure
from protenix_multiseed.inputs.words import Words
from protenix_multiseed.job_spec import (
    AtomRef,
    Bond,
    Entity,
    JobSpec,
    Ligand,
    Modification,
    Polymer,
    PolymerKind,
    SourceFile,
    TemplateStructure,
)

NAME = "mmCIF or PDB"
SUFFIXES: tuple[str, ...] = ()  # never searched for in folders, where structures are results, templates or ligands
_PDB_LINES = (  # any may be the first
    "ANISOU", "ATOM  ", "AUTHOR", "CAVEAT", "CISPEP", "COMPND", "CONECT", "CRYST1", "DBREF", "EXPDTA", "FORMUL",
    "HEADER", "HELIX ", "HET   ", "HETATM", "HETNAM", "HETSYN", "JRNL  ", "KEYWDS", "LINK  ", "MDLTYP", "MODEL ",
    "MODRES", "MTRIX", "NUMMDL", "OBSLTE", "ORIGX", "PARENT", "REMARK", "REVDAT", "SCALE", "SEQADV", "SEQRES",
    "SHEET ", "SITE  ", "SOURCE", "SPLIT ", "SPRSDE", "SSBOND", "TITLE ", "USER  ",
)  # fmt: skip
_WORDS = Words(component="", protein_change=("", ""), base_change=("", ""))
_WATER = ("HOH", "DOD", "WAT")
_WRITTEN_BY_PROTENIX = "_predicted_by_protenix"  # end of the data block's name
_KINDS: dict[str, PolymerKind] = {"PeptideL": "protein", "Dna": "dna", "Rna": "rna"}  # gemmi's names
# Residues as Amber and CHARMM name them. The PDB's dictionary has no residues of the first names, and other ones of the
# second names, such as homoserine for HSE.
_OF_SIMULATIONS = {"HID": "HIS", "HIE": "HIS", "HSD": "HIS", "HSP": "HIS", "CYX": "CYS", "ASH": "ASP"}
_OF_BOTH = {"HIP": "HIS", "HSE": "HIS", "CYM": "CYS", "GLH": "GLU", "LYN": "LYS"}
_BONDS = {
    "Covale": "to atoms that are not in the job",
    "Disulf": "disulfide",
    "MetalC": "to metals",
    "Hydrog": "hydrogen",
}


def recognizes(document: Document) -> bool:
    """Whether the first line is that of an mmCIF or PDB file."""
    lines = (line for line in document.text.splitlines() if line.strip() and not line.startswith("#"))
    first = next(lines, "")
    return first.lower().startswith("data_") or first.startswith(_PDB_LINES)


def parse(document: Document) -> Iterator[ParsedJob]:
    """Yield the job of a document. It has the file's name.

    Raises:
        InputError: if the document is not a structure.
    """
    name = document.path.stem
    made = _Reader(_read(document))
    spec = JobSpec(name=name, entities=tuple(made.entities), bonds=tuple(made.bonds)) if made.entities else None
    problems = made.problems or ([] if spec else ["the structure has no chain and no ligand"])
    yield ParsedJob(
        index=0,
        name=name,
        spec=spec,
        problems=tuple(problems),
        notes=tuple(made.notes),
        words=_WORDS,
        coordinates=dict(_coordinates(document, made.entities)),
    )


def _coordinates(document: Document, entities: list[Entity]) -> Iterator[tuple[int, TemplateStructure]]:
    """Yield the template of each protein: its own first chain, residue by residue."""
    file = SourceFile(path=document.path, written=document.path.name)
    for number, entity in enumerate(entities, start=1):
        if isinstance(entity, Polymer) and entity.kind == "protein":
            mapping = tuple((place, place) for place in range(len(entity.sequence)))
            yield number, TemplateStructure(file=file, chain=entity.chain_ids[0], mapping=mapping, place=entity.place)


def _read(document: Document) -> Any:
    try:
        return read_structure(document.text)
    except InputError as error:
        raise InputError(f"{document.path.name}: {error}") from None


@dataclass(slots=True)
class _Reader:
    """Reads the first model of a gemmi structure.

    Attributes:
        places: Each residue of the job, by its chain, number and component in the file.
    """

    structure: Any
    entities: list[Entity] = field(default_factory=list)
    bonds: list[Bond] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    places: dict[tuple[str, str, str], AtomRef] = field(default_factory=dict)

    def __post_init__(self) -> None:
        model = self.structure[0]
        for chain in model:
            self._polymer(chain)
        waters = 0
        for chain in model:
            for residues in self._ligands(chain):
                if residues[0].name in _WATER:
                    waters += len(residues)
                else:
                    ligand = Ligand(components=tuple(one.name for one in residues), place=f"chain {chain.name}")
                    self._add(ligand, chain.name, enumerate(residues, start=1))
        if waters:
            self.notes.append(f"{waters} water molecules of the structure are left out")
        self.notes.extend(_without_coordinates(self.structure))
        if len(self.structure) > 1:
            self.notes.append(f"only the first of {len(self.structure)} models is read")
        self._connections()

    def _polymer(self, chain: Any) -> None:
        polymer = chain.get_polymer()
        if not len(polymer):
            return
        kind = _KINDS.get(polymer.check_polymer_type().name)
        if kind is None:
            what = polymer.check_polymer_type().name
            self.problems.append(f"chain {chain.name}: a polymer of type {what}, which Protenix cannot predict")
            return
        entity = self.structure.get_entity_of(polymer)
        whole = [one.split(",")[0] for one in entity.full_sequence] if entity is not None else []
        names = whole or [residue.name for residue in polymer.first_conformer()]
        if not whole:
            self.notes.extend(_gaps(chain.name, polymer))
        if kind == "protein" and self._has_other_names(chain.name, names):
            return
        sequence, changes = "".join(letter_of(component, kind) for component in names), []
        for position, component in enumerate(names, start=1):
            if component not in COMPONENTS[kind].values():
                changes.append(Modification(component=component, position=position, place=f"chain {chain.name}"))
        made = Polymer(
            kind=kind,
            sequence=sequence,
            modifications=tuple(changes),
            chain_ids=(chain.name,),
            place=f"chain {chain.name}",
        )
        numbered = enumerate(polymer.first_conformer(), start=1)
        residues = [(residue.label_seq if whole else number, residue) for number, residue in numbered]
        inside = [(position, residue) for position, residue in residues if position is not None]
        self._add(made, chain.name, inside)
        if left := len(residues) - len(inside):
            text = f"{left} residues with coordinates are not in the sequence that the file states, and are left out"
            self.notes.append(f"chain {chain.name}: {text}")

    def _has_other_names(self, chain: str, names: Iterable[str]) -> bool:
        """Whether residues have names of simulation programs. Say so, also of those that have two meanings."""
        found = dict.fromkeys(names)
        for name in found:
            if name in _OF_BOTH:
                text = f"{name} is read as the component of that name; Amber and CHARMM call {_OF_BOTH[name]} so"
                self.notes.append(f"chain {chain}: {text}")
            elif name in _OF_SIMULATIONS:
                usual = _OF_SIMULATIONS[name]
                self.problems.append(f"chain {chain}: {name} is {usual} of a simulation program: rename it in the file")
        return not _OF_SIMULATIONS.keys().isdisjoint(found)

    def _ligands(self, chain: Any) -> Iterator[list[Any]]:
        """Yield molecules: residues of one subchain that bonds connect, or that are branched by their entity.

        In a file that Protenix has written each molecule has a subchain of its own, so it needs no bonds. Of
        alternatives with one number, such as both anomers of a sugar, the first is read.
        """
        by_subchain: dict[tuple[str, str], list[Any]] = {}
        by_number: dict[str, Any] = {}
        for residue in (*chain.get_ligands(), *chain.get_waters()):
            other = by_number.setdefault(str(residue.seqid), residue)
            if residue.name != other.name and residue[0].has_altloc():
                text = f"{residue.name} {residue.seqid} is an alternative of {other.name}, and is left out"
                self.notes.append(f"chain {chain.name}: {text}")
                continue
            by_subchain.setdefault((residue.subchain, residue.entity_id), []).append(residue)
        is_ours = self.structure.name.endswith(_WRITTEN_BY_PROTENIX)
        for (_, name), residues in by_subchain.items():
            entity = self.structure.get_entity(name) if name else None
            is_branched = entity is not None and entity.entity_type.name == "Branched"
            is_molecule = is_ours or is_branched or residues[0].name in _WATER
            yield from [residues] if is_molecule else self._bonded(chain.name, residues)

    def _bonded(self, chain: str, residues: list[Any]) -> list[list[Any]]:
        """Divide residues into those that covalent bonds of the file connect. Their order is kept."""
        numbers = {_key(chain, one): number for number, one in enumerate(residues)}
        molecules = list(range(len(residues)))  # of each residue
        for connection in filter(_is_covalent, self.structure.connections):
            ends = (connection.partner1, connection.partner2)
            found = [numbers.get(_key(end.chain_name, end.res_id)) for end in ends]
            first, second = (None if number is None else molecules[number] for number in found)
            if first is not None and second is not None:
                molecules = [first if molecule == second else molecule for molecule in molecules]
        made: dict[int, list[Any]] = {}
        for residue, molecule in zip(residues, molecules, strict=True):
            made.setdefault(molecule, []).append(residue)
        return list(made.values())

    def _add(self, entity: Entity, chain: str, residues: Iterable[tuple[int, Any]]) -> None:
        """Add a chain, as another copy if an equal one is there. Each residue comes with its position in the job."""
        copies = (number for number, other in enumerate(self.entities, start=1) if is_copy(other, entity))
        if (number := next(copies, None)) is None:
            self.entities.append(entity)
            number = len(self.entities)
        else:
            self.entities[number - 1] = with_copy(self.entities[number - 1], entity)
        copy = self.entities[number - 1].copies
        for position, residue in residues:
            self.places[_key(chain, residue)] = AtomRef(entity=number, copy=copy, position=position)

    def _connections(self) -> None:
        left_out: Counter[str] = Counter()
        bonds: dict[frozenset[AtomRef], Bond] = {}  # alternative positions of atoms repeat their bonds
        for number, connection in enumerate(self.structure.connections, start=1):
            first, second = self._atom(connection.partner1), self._atom(connection.partner2)
            if first is None or second is None or not _is_covalent(connection):
                left_out[connection.type.name] += 1
                continue
            bond = Bond(first=first, second=second, place=f"bond {number} of the structure")
            bonds.setdefault(frozenset((first, second)), bond)
        self.bonds += bonds.values()
        if left_out:
            text = ", ".join(f"{count} {_BONDS.get(name, name)}" for name, count in sorted(left_out.items()))
            self.notes.append(f"bonds of the structure are left out: {text}")

    def _atom(self, partner: Any) -> AtomRef | None:
        residue = self.places.get(_key(partner.chain_name, partner.res_id))
        return None if residue is None else replace(residue, atom=partner.atom_name)


def _key(chain: str, residue: Any) -> tuple[str, str, str]:
    """Return what identifies a residue of the file: its chain, its number and its component."""
    return chain, str(residue.seqid), residue.name


def _is_covalent(connection: Any) -> bool:
    """Whether this is a covalent bond between atoms of the file. The atom of a symmetry mate has the same name."""
    return bool(connection.type.name == "Covale" and connection.asu.name != "Different")


def _without_coordinates(structure: Any) -> Iterator[str]:
    """Yield a sentence for each polymer chain that the file states and that has no coordinates."""
    there = {residue.subchain for chain in structure[0] for residue in chain}
    for entity in structure.entities:
        if entity.entity_type.name != "Polymer" or not entity.full_sequence:
            continue
        # A PDB file has an entity of its own, with the chain's name, for a chain without coordinates.
        for name in entity.subchains or [entity.name]:
            if name not in there:
                count = len(entity.full_sequence)
                yield f"chain {name}: its {count} residues have no coordinates, so it is left out: add it by hand"


def _gaps(chain: str, polymer: Any) -> Iterator[str]:
    """Name the places where residues are missing in a chain without a stated sequence: its ends there are joined."""
    numbers = [residue.seqid.num for residue in polymer.first_conformer()]
    for before, after in pairwise(numbers):
        if after > before + 1:
            yield (
                f"chain {chain}: the file states no sequence, and no residue between {before} and {after}: the two are "
                "joined; for the whole chain, write its sequence in a job file"
            )
