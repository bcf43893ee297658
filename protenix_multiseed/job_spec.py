"""One complex in neutral form. Input dialects make it; checks, featurization and records read it.

Entities, copies and residues are numbered from 1, as bonds and constraints refer to them. ``place`` fields name the
field of the input file, for messages; they take no part in comparisons.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

PolymerKind: TypeAlias = Literal["protein", "dna", "rna"]


def _place() -> Any:
    return field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file that the input names.

    Attributes:
        path: Absolute. The file need not exist: whether it must is for the checks to say.
        written: The name as the input file has it.
    """

    path: Path
    written: str = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """A multiple sequence alignment in a3m format: exactly one of a file and its text."""

    file: SourceFile | None = None
    text: str | None = None
    place: str = _place()


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateHits:
    """Hits of a template search for one protein: a ``.a3m`` or ``.hhr`` file."""

    file: SourceFile
    place: str = _place()


@dataclass(frozen=True, slots=True, kw_only=True)
class Modification:
    """A residue that is replaced by a component of the chemical dictionary.

    Attributes:
        component: Its code, such as ``SEP``.
        position: Of the residue, from 1.
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
        paired, unpaired: Alignments; None if the input gives none. An alignment with empty text is given and empty.
        templates: Of a protein.
    """

    kind: PolymerKind
    sequence: str
    copies: int = 1
    chain_ids: tuple[str, ...] = ()
    modifications: tuple[Modification, ...] = ()
    paired: Alignment | None = None
    unpaired: Alignment | None = None
    templates: TemplateHits | None = None
    place: str = _place()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ligand:
    """A small molecule with its copies: exactly one of components, a SMILES string and a file.

    Attributes:
        components: Codes of the dictionary; several are the residues of one molecule.
        file: A ``.mol``, ``.sdf``, ``.pdb`` or ``.mol2`` file with 3D coordinates.
    """

    components: tuple[str, ...] = ()
    smiles: str | None = None
    file: SourceFile | None = None
    copies: int = 1
    chain_ids: tuple[str, ...] = ()
    place: str = _place()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ion:
    """An ion with its copies, by its component code."""

    component: str
    copies: int = 1
    chain_ids: tuple[str, ...] = ()
    place: str = _place()


Entity: TypeAlias = Polymer | Ligand | Ion


@dataclass(frozen=True, slots=True, kw_only=True)
class AtomRef:
    """An atom, residue or chain, as bonds and constraints name it.

    Attributes:
        copy: None for the same atom of every copy.
        position: Residue or component; None for the whole chain.
        atom: Name, or the number of an atom in a SMILES or file ligand; None for the whole residue.
    """

    entity: int
    copy: int | None = None
    position: int | None = None
    atom: str | int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bond:
    """A covalent bond between two atoms."""

    first: AtomRef
    second: AtomRef
    place: str = _place()


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """A distance between two residues or atoms of different chains, Angstrom."""

    first: AtomRef
    second: AtomRef
    max_distance: float
    min_distance: float = 0
    place: str = _place()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pocket:
    """Residues that line the pocket of one binder chain, with their distance in Angstrom."""

    binder: AtomRef
    residues: tuple[AtomRef, ...]
    max_distance: float
    place: str = _place()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """One complex to predict.

    Attributes:
        entities: In the order of the input; bonds and constraints count them from 1.
        has_constraint: Whether the input has a constraint at all, which may say nothing.
    """

    name: str
    entities: tuple[Entity, ...]
    bonds: tuple[Bond, ...] = ()
    contacts: tuple[Contact, ...] = ()
    pocket: Pocket | None = None
    has_constraint: bool = False

    def polymers(self, kind: PolymerKind | None = None) -> Iterator[tuple[int, Polymer]]:
        """Number and content of every polymer, or of those of one kind."""
        for number, entity in enumerate(self.entities, start=1):
            if isinstance(entity, Polymer) and kind in (None, entity.kind):
                yield number, entity
