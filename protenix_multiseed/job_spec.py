"""The typed form of one complex, independent of the input format. Dialects make it; all later parts read it.

Entities, copies and residues are numbered from 1. Bonds and constraints use these numbers. A ``place`` attribute names
the field of the input file, for messages; comparisons ignore it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from protenix_multiseed.units import counted

PolymerKind: TypeAlias = Literal["protein", "dna", "rna"]


def _place() -> Any:
    return field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file that the input names.

    Attributes:
        path: Absolute path. The file may be missing; the input checks decide whether it must exist.
        written: The path as it is written in the input file.
    """

    path: Path
    written: str = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """A multiple sequence alignment in a3m format. Exactly one of ``file`` and ``text`` is given."""

    file: SourceFile | None = None
    text: str | None = None
    place: str = _place()


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateHits:
    """The hits of a template search for one protein, as a ``.a3m`` or ``.hhr`` file."""

    file: SourceFile
    place: str = _place()


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateStructure:
    """A structure in mmCIF or PDB format that is a template of one protein. One of ``file`` and ``text`` is given.

    Attributes:
        chain: Name of the chain in the structure; None for its only chain, or for the one that aligns best.
        has_label: Whether ``chain`` is a ``label_asym_id``, not the author's name. If there is no such chain, it is the
            other one.
        mapping: Positions of the protein and of the chain that belong together, both from 0; None to align them.
    """

    file: SourceFile | None = None
    text: str | None = None
    chain: str | None = None
    has_label: bool = False
    mapping: tuple[tuple[int, int], ...] | None = None
    place: str = _place()


@dataclass(frozen=True, slots=True, kw_only=True)
class Modification:
    """A component of the chemical dictionary that replaces a residue.

    Attributes:
        component: Code of the component, such as ``SEP``.
        position: Position of the residue, from 1.
    """

    component: str
    position: int
    place: str = _place()


@dataclass(frozen=True, slots=True, kw_only=True)
class Polymer:
    """A protein, DNA or RNA chain with its copies.

    Attributes:
        sequence: One-letter codes.
        copies: Number of chains.
        chain_ids: One name per copy; empty if the chains are named automatically.
        paired, unpaired: Alignments; None if the input gives none. An alignment with empty text was given, but is
            empty.
        templates: Template hits, for proteins only; None if the input gives none.
        structures: Structures that are templates, for proteins only. They come before the hits.
    """

    kind: PolymerKind
    sequence: str
    copies: int = 1
    chain_ids: tuple[str, ...] = ()
    modifications: tuple[Modification, ...] = ()
    paired: Alignment | None = None
    unpaired: Alignment | None = None
    templates: TemplateHits | None = None
    structures: tuple[TemplateStructure, ...] = ()
    place: str = _place()

    @property
    def has_msa(self) -> bool:
        """Whether the input gives an alignment that is not empty."""
        return any(one is not None and (one.file or one.text) for one in (self.paired, self.unpaired))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ligand:
    """A small molecule with its copies. Exactly one of ``components``, ``smiles`` and ``file`` is given.

    A ligand without any of them stands for an entity that cannot be read, in a job that is refused.

    Attributes:
        components: Codes of the chemical dictionary. Several codes are the residues of one molecule.
        file: A ``.mol``, ``.sdf``, ``.pdb`` or ``.mol2`` file with 3D coordinates.
    """

    components: tuple[str, ...] = ()
    smiles: str | None = None
    file: SourceFile | None = None
    copies: int = 1
    chain_ids: tuple[str, ...] = ()
    place: str = _place()

    @property
    def is_read(self) -> bool:
        """Whether it is a ligand."""
        return bool(self.components or self.smiles is not None or self.file)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ion:
    """An ion with its copies.

    Attributes:
        component: Code of the chemical dictionary, such as ``MG``.
    """

    component: str
    copies: int = 1
    chain_ids: tuple[str, ...] = ()
    place: str = _place()


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnComponent:
    """A component that the job defines itself. It comes before a component of the dictionary with the same code.

    Attributes:
        text: One mmCIF data block, in the format of the chemical dictionary.
    """

    code: str
    text: str
    place: str = _place()


Entity: TypeAlias = Polymer | Ligand | Ion


@dataclass(frozen=True, slots=True, kw_only=True)
class AtomRef:
    """An atom, residue or chain that a bond or constraint refers to.

    Attributes:
        entity: Number of the entity, from 1.
        copy: Number of the copy, from 1; None for every copy.
        position: Position of the residue or component, from 1; None for the whole chain.
        atom: Name of the atom, or its number in a SMILES or file ligand; None for the whole residue.
        place: The field that names the chain; empty if the input numbers entities.
    """

    entity: int
    copy: int | None = None
    position: int | None = None
    atom: str | int | None = None
    place: str = _place()


UNKNOWN_CHAIN = AtomRef(entity=0)
"""Refers to a chain that the input does not have, or that cannot be read. The checks pass over it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bond:
    """A covalent bond between two atoms."""

    first: AtomRef
    second: AtomRef
    place: str = _place()


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """A limit on the distance between two residues or atoms of different chains. Distances are in Angstrom."""

    first: AtomRef
    second: AtomRef
    max_distance: float
    min_distance: float = 0
    place: str = _place()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pocket:
    """The residues that line the pocket of one binder chain.

    Attributes:
        max_distance: Largest distance between the residues and the binder, Angstrom.
    """

    binder: AtomRef
    residues: tuple[AtomRef, ...]
    max_distance: float
    place: str = _place()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """One complex to predict.

    Attributes:
        entities: Entities in the order of the input. Bonds and constraints number them from 1.
        has_constraint: Whether the input has a constraint field. The field may be empty.
        components: Components of the job's own that its entities name.
    """

    name: str
    entities: tuple[Entity, ...]
    bonds: tuple[Bond, ...] = ()
    contacts: tuple[Contact, ...] = ()
    pocket: Pocket | None = None
    has_constraint: bool = False
    components: tuple[OwnComponent, ...] = ()

    @property
    def has_msa(self) -> bool:
        """Whether the input gives an alignment for at least one chain."""
        return any(polymer.has_msa for _, polymer in self.polymers())

    @property
    def has_own_molecules(self) -> bool:
        """Whether a molecule may be in no dictionary: a component of the job's own, or a ligand without components."""
        ligands = (entity for entity in self.entities if isinstance(entity, Ligand))
        return bool(self.components) or any(not ligand.components for ligand in ligands)

    @property
    def summary(self) -> str:
        """What the job holds, for people, such as ``2 x protein 120 (A, B; SEP 4), ligand GTP (C), 1 bond``."""
        parts = [
            *map(_described, self.entities),
            counted(len(self.bonds), "bond") if self.bonds else "",
            counted(len(self.contacts), "contact") if self.contacts else "",
            f"a pocket of {counted(len(self.pocket.residues), 'residue')}" if self.pocket else "",
        ]
        return ", ".join(part for part in parts if part)

    def polymers(self, kind: PolymerKind | None = None) -> Iterator[tuple[int, Polymer]]:
        """Yield the entity number and the entity of every polymer, or of every polymer of one kind."""
        for number, entity in enumerate(self.entities, start=1):
            if isinstance(entity, Polymer) and kind in (None, entity.kind):
                yield number, entity


_KINDS: Mapping[PolymerKind, str] = {"protein": "protein", "dna": "DNA", "rna": "RNA"}


def _named(entity: Entity) -> str:
    match entity:
        case Polymer():
            return f"{_KINDS[entity.kind]} {len(entity.sequence)}"
        case Ion():
            return f"ion {entity.component}"
        case Ligand(smiles=str(smiles)):
            return f"ligand {smiles if len(smiles) <= 30 else smiles[:27] + '...'}"
        case Ligand(file=SourceFile() as file):
            return f"ligand {file.path.name}"
    return f"ligand {'-'.join(entity.components)}"


def _described(entity: Entity) -> str:
    """The entity with the names of its chains, its modified residues, and what is known about it."""
    parts = [", ".join(entity.chain_ids)]
    if isinstance(entity, Polymer):
        parts.append(", ".join(f"{one.component} {one.position}" for one in entity.modifications))
        parts += ["MSA"] * entity.has_msa + ["template hits"] * (entity.templates is not None)
        parts.append(counted(len(entity.structures), "template") if entity.structures else "")
    text = (f"{entity.copies} x " if entity.copies > 1 else "") + _named(entity)
    more = "; ".join(part for part in parts if part)
    return f"{text} ({more})" if more else text
