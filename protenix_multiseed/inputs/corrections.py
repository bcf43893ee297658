"""Say the same job in the words that Protenix understands rightly.

Protenix 2.0.0 misreads some inputs in silence. :func:`corrected` writes such a job in another form that Protenix reads
as the input means it. ``--protenix-exact`` leaves the job as it is written. ``docs/differences.md`` describes every
difference.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from protenix_multiseed.inputs import alignments, molecules
from protenix_multiseed.inputs.content import alignments_read
from protenix_multiseed.inputs.modifications import CAP_BONDS, FIRST_CAPS, LAST_CAPS
from protenix_multiseed.inputs.molecules import Molecule
from protenix_multiseed.job_spec import Alignment, AtomRef, Bond, Entity, Ion, JobSpec, Ligand, Polymer, PolymerKind
from protenix_multiseed.settings import ReadSettings


@dataclass(frozen=True, slots=True)
class Difference:
    """A kind of input that Protenix misreads.

    Attributes:
        name: Its name in the record of a prediction.
        here: What protenix-ms does, as a sentence; empty if it takes the input as it is written, so that only the
            record says it.
        upstream: What Protenix does, as a sentence.
    """

    name: str
    here: str
    upstream: str


ION_CHAINS = Difference(
    "ions are chains in alignments and templates",
    "",
    "Protenix does not count ions as chains: an ion gets the last column of the MSA, and each chain after an ion gets "
    "the alignment and templates of another chain, or a single letter in all columns",
)
RNA_THYMINE = Difference(
    "T is U in RNA alignments",
    "T in its RNA alignment is read as U; Protenix reads it as an unknown nucleotide",
    "Protenix reads T in the RNA alignment as an unknown nucleotide",
)
ALIGNMENT_SIGNS = Difference(
    "padding signs of alignments are left out",
    "dots, NUL bytes and final asterisks of its alignment are left out; Protenix counts them as insertions",
    "Protenix counts dots, NUL bytes and final asterisks of the alignment as insertions",
)
ALIGNMENT_FORMAT = Difference(
    "alignments are converted to a3m",
    "its alignment is converted to a3m text, the only format that Protenix reads",
    "Protenix cannot read this format of the alignment",
)
ALIGNMENT_QUERY = Difference(
    "the sequence is the first row of alignments",
    "the first row of its alignment is not the sequence, which is put or added there; Protenix takes any first row for "
    "the sequence",
    "Protenix takes the first row of the alignment for the sequence",
)
CAP_BOND = Difference(
    "caps are bonded",
    "caps at the ends of its chains are bonded as in the peptide; Protenix leaves NH2 and FOR without a bond, and an "
    "oxygen too much before NME",
    "Protenix leaves the caps NH2 and FOR without a bond, and an oxygen too much before NME",
)
FILE_POSITIONS = Difference(
    "atom numbers are positions in the ligand file",
    "atom numbers of a ligand file are positions in the file, from 0; Protenix leaves hydrogens out before it counts",
    "Protenix leaves hydrogens out before it counts the atoms of a ligand file",
)


def corrected(spec: JobSpec, reads: ReadSettings) -> JobSpec:
    """Return the job as Protenix must be told it. With ``reads.exact`` this is the job itself.

    Raises:
        OSError, InputError: if a file of the job cannot be read any more.
    """
    if reads.exact:
        return spec
    return replace(
        spec,
        entities=tuple(_entity(entity, reads) for entity in spec.entities),
        bonds=(*(_bond(spec, bond) for bond in spec.bonds), *_cap_bonds(spec)),
        contacts=tuple(
            replace(one, first=_atom(spec, one.first), second=_atom(spec, one.second)) for one in spec.contacts
        ),
    )


def differences_of(spec: JobSpec, reads: ReadSettings) -> tuple[Difference, ...]:
    """Return where Protenix misreads this job."""
    aligned = [(polymer.kind, alignments.facts_of(one, *_chain(polymer))) for polymer, one in _alignments(spec, reads)]
    found = {
        ION_CHAINS: (reads.msa or reads.template) and any(isinstance(entity, Ion) for entity in spec.entities),
        RNA_THYMINE: any(kind == "rna" and facts.has_thymine for kind, facts in aligned),
        ALIGNMENT_SIGNS: any(facts.has_signs for _, facts in aligned),
        ALIGNMENT_FORMAT: any(not facts.is_plain for _, facts in aligned),
        ALIGNMENT_QUERY: any(not facts.is_in_order for _, facts in aligned),
        CAP_BOND: any(True for _ in _cap_bonds(spec)),
        FILE_POSITIONS: any(_is_moved(spec, one) for one in _atoms(spec)),
    }
    return tuple(difference for difference, is_met in found.items() if is_met)


def _entity(entity: Entity, reads: ReadSettings) -> Entity:
    if isinstance(entity, Ion):
        more = {"copies": entity.copies, "chain_ids": entity.chain_ids, "place": entity.place}
        return Ligand(components=(entity.component,), **more)  # type: ignore[arg-type]
    if not isinstance(entity, Polymer):
        return entity
    changed = {
        role: Alignment(text=alignments.rewritten(one, *_chain(entity)), place=one.place)
        for role, one in alignments_read(entity, reads).items()
        if _is_misread(one, entity)
    }
    return replace(entity, **changed)  # type: ignore[arg-type]


def _alignments(spec: JobSpec, reads: ReadSettings) -> Iterator[tuple[Polymer, Alignment]]:
    for _, polymer in spec.polymers():
        for one in alignments_read(polymer, reads).values():
            if one.text != "":
                yield polymer, one


def _chain(polymer: Polymer) -> tuple[PolymerKind, str]:
    return polymer.kind, polymer.sequence


def _is_misread(alignment: Alignment, polymer: Polymer) -> bool:
    if alignment.text == "":
        return False
    facts = alignments.facts_of(alignment, *_chain(polymer))
    is_said = facts.is_plain and facts.is_in_order and not facts.has_signs
    return not is_said or (polymer.kind == "rna" and facts.has_thymine)


def _cap_bonds(spec: JobSpec) -> Iterator[Bond]:
    """Yield the bonds of caps that Protenix does not make, or makes without taking the leaving atoms away."""
    for number, polymer in spec.polymers("protein"):
        for one in polymer.modifications:
            if one.component not in CAP_BONDS:
                continue
            if one.position == 1:
                atoms = (1, FIRST_CAPS[one.component]), (2, "N")
            else:
                atoms = (one.position - 1, "C"), (one.position, LAST_CAPS[one.component])
            first, second = (AtomRef(entity=number, position=position, atom=atom) for position, atom in atoms)
            yield Bond(first=first, second=second, place=one.place)


def _bond(spec: JobSpec, bond: Bond) -> Bond:
    return replace(bond, first=_atom(spec, bond.first), second=_atom(spec, bond.second))


def _atoms(spec: JobSpec) -> Iterator[AtomRef]:
    for bond in spec.bonds:
        yield from (bond.first, bond.second)
    for contact in spec.contacts:
        yield from (contact.first, contact.second)


def _atom(spec: JobSpec, atom: AtomRef) -> AtomRef:
    """Name an atom that is given by its position in a ligand file."""
    if (found := _numbered(spec, atom)) is None:
        return atom
    number, molecule = found
    return replace(atom, atom=molecule.numbers[number])


def _is_moved(spec: JobSpec, atom: AtomRef) -> bool:
    """Whether Protenix takes an atom number of a ligand file for another atom."""
    if (found := _numbered(spec, atom)) is None:
        return False
    number, molecule = found
    return molecule.numbers.get(number) != molecule.upstream_numbers.get(number)


def _numbered(spec: JobSpec, atom: AtomRef) -> tuple[int, Molecule] | None:
    """The number of an atom in a ligand file, and the file's molecule; None for all other atoms."""
    entity = spec.entities[atom.entity - 1]
    if not isinstance(atom.atom, int) or not isinstance(entity, Ligand) or entity.file is None:
        return None
    return atom.atom, molecules.of_file(entity.file.path)
