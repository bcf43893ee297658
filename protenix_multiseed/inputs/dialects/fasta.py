"""FASTA, in the forms of ColabFold, Boltz and Chai.

- Plain records: the file is one complex, and each record is a chain.
- ``:`` in a sequence, as in ColabFold: each record is a complex of its own, with ``:`` between its chains.
- Typed headers, as in Boltz (``>A|protein|a.a3m``) and Chai (``>protein|a``): one complex; a chain may be DNA, RNA, a
  ligand as SMILES, a component of the dictionary (Boltz's ``ccd``), or a glycan (Chai). In Chai's chains, ``AS(SEP)K``
  is a chain of four residues of which the third is SEP.

Equal chains of a complex become one entity with several copies, as homomers are written in all other formats.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from protenix_multiseed.errors import InputError
from protenix_multiseed.inputs.dialects.chains import is_copy, with_copy
from protenix_multiseed.inputs.dialects.glycans import Glycan, parse_glycan
from protenix_multiseed.inputs.document import Document, ParsedJob
from protenix_multiseed.inputs.residues import letter_of
from protenix_multiseed.inputs.words import Words
from protenix_multiseed.job_spec import Alignment, Entity, JobSpec, Ligand, Modification, Polymer, PolymerKind

NAME = "FASTA"
SUFFIXES: tuple[str, ...] = (".fasta", ".fa", ".faa", ".fas", ".fna")
_POLYMERS: tuple[PolymerKind, ...] = ("protein", "dna", "rna")
_TYPES = (*_POLYMERS, "smiles", "ccd", "ligand", "glycan")
_NO_MSA = "empty"
_ALIGNMENTS = (".a3m", ".aln", ".sto")
_WORDS = Words(
    component="",
    smiles="",
    protein_change=("", ""),
    base_change=("", ""),
    ligand_forms="a component as a record >name|ccd",
    bonds="bonds, which need a job file",
)


@dataclass(frozen=True, slots=True)
class _Record:
    number: int  # from 1
    header: str
    text: str
    is_part: bool = False  # of a record whose chains are joined with ':'

    @property
    def place(self) -> str:
        return f"record {self.number}"

    @property
    def words(self) -> list[str]:
        return [word.strip() for word in self.header.split("|")]


def recognizes(document: Document) -> bool:
    """Whether the first line that is neither empty nor a comment starts with ``>``."""
    lines = (line.strip() for line in document.text.splitlines())
    first = next((line for line in lines if line and not line.startswith((";", "#"))), "")
    return first.startswith(">")


def parse(document: Document) -> Iterator[ParsedJob]:
    """Yield the jobs of a document.

    Raises:
        InputError: if it is an alignment, or if two forms are mixed.
    """
    if document.path.suffix.lower() in _ALIGNMENTS or re.match(r"\s*#\d+(,\d+)*\t", document.text):
        raise InputError(
            f"{document.path.name}: an alignment, and not an input: write a job file that names it, for example as "
            "'unpairedMsaPath' of a protein in JSON"
        )
    records = list(_records(document.text))
    if any(":" in one.text for one in records if _type_of(one) is None):
        if typed := next((one for one in records if _type_of(one) is not None), None):
            raise InputError(
                f"{document.path.name}: {typed.place} has a type, as in a file that is one complex, and another "
                "record has ':', as in a file of a complex for each record: write two files"
            )
        for index, record in enumerate(records):
            yield _complex(document, index, _job_name(record.header), _split(record))
    else:
        made = _complex(document, 0, document.path.stem, records)
        is_plain = len(records) > 1 and not any(map(_type_of, records))
        yield replace(made, notes=(_one_complex(len(records)), *made.notes)) if is_plain else made


def _one_complex(count: int) -> str:
    return (
        f"its {count} records are read as {count} chains of one complex; for a job of each record, write a file for "
        "each, and name the folder as the input"
    )


def _records(content: str) -> Iterator[_Record]:
    header, parts, number = "", list[str](), 0
    for line in (*content.splitlines(), ">"):
        text = line.strip()
        if text.startswith(">"):
            if number:
                yield _Record(number, header, "".join(parts))
            header, parts, number = text[1:].strip(), [], number + 1
        elif text and not text.startswith((";", "#")):
            parts.append(text)


def _split(record: _Record) -> list[_Record]:
    return [replace(record, text=text, is_part=True) for text in record.text.split(":")]


def _complex(document: Document, index: int, name: str, records: Sequence[_Record]) -> ParsedJob:
    entities, problems, notes = list[Entity](), list[str](), list[str]()
    glycans: dict[int, Glycan] = {}  # by the number of their entity
    for record in records:
        if not record.text:
            beside = " beside a colon" if record.is_part else ""
            problems.append(f"{record.place} ({record.header[:40]!r}) has no sequence{beside}")
            continue
        try:
            glycan = _glycan(record, notes)
            entity = _entity(document, record, notes, glycan)
        except InputError as error:
            problems.append(str(error))
            continue
        copies = (place for place, other in enumerate(entities) if is_copy(other, entity))
        place = next((place for place in copies if glycans.get(place + 1) == glycan), None)
        if place is None:
            entities.append(entity)
            if glycan is not None:
                glycans[len(entities)] = glycan
        else:
            entities[place] = with_copy(entities[place], entity)
    bonds = tuple(bond for number, one in glycans.items() for bond in one.bonds(number, entities[number - 1].place))
    spec = JobSpec(name=name, entities=tuple(entities), bonds=bonds) if entities else None
    return ParsedJob(index=index, name=name, spec=spec, problems=tuple(problems), notes=tuple(notes), words=_WORDS)


def _glycan(record: _Record, notes: list[str]) -> Glycan | None:
    if _type_of(record) != "glycan":
        return None
    notes.append(
        f"{record.place}: the glycan is bonded to no protein, because FASTA cannot say so; 'protenix-ms convert' "
        "writes the job as JSON, to which you can add the bond"
    )
    try:
        return parse_glycan(record.text)
    except InputError as error:
        raise InputError(f"{record.place}: {error}") from None


def _entity(document: Document, record: _Record, notes: list[str], glycan: Glycan | None) -> Entity:
    kind, words = _type_of(record), record.words
    is_boltz = kind is not None and len(words) > 1 and words[1].lower() == kind
    ids = (words[0],) if is_boltz else ()
    if glycan is not None:
        return Ligand(components=glycan.sugars, chain_ids=ids, place=record.place)
    if kind in ("smiles", "ligand"):
        return Ligand(smiles=record.text, chain_ids=ids, place=record.place)
    if kind == "ccd":
        return Ligand(components=(record.text,), chain_ids=ids, place=record.place)
    if kind is not None and ":" in record.text:
        raise InputError(
            f"{record.place}: its header is read as the type of one chain ({kind}), and ':' separates chains: give the "
            "record another name"
        )
    unpaired = None
    if is_boltz and len(words) > 2 and words[2] == _NO_MSA:
        unpaired = Alignment(text="", place=record.place)
    elif is_boltz and len(words) > 2 and words[2]:
        unpaired = Alignment(file=document.find(words[2]), place=record.place)
    polymer = next((one for one in _POLYMERS if one == kind), None) or _guess(record, notes)
    made = Polymer(kind=polymer, sequence=record.text.upper(), chain_ids=ids, place=record.place, unpaired=unpaired)
    return made if kind is None or is_boltz else _with_modifications(made)


def _with_modifications(chain: Polymer) -> Polymer:
    """Read the modified residues of Chai's form: each is a component in parentheses."""
    sequence, changes = "", []
    for component, letters in re.findall(r"\(([A-Z0-9]+)\)|([^(]+|\()", chain.sequence):
        if component:
            letter = letter_of(component, chain.kind)
            changes.append(Modification(component=component, position=len(sequence) + 1, place=chain.place))
        sequence += letter if component else letters
    return replace(chain, sequence=sequence, modifications=tuple(changes))


def _type_of(record: _Record) -> str | None:
    """The type of a chain if the header names it: Boltz names it in the second place, Chai in the first."""
    words = [word.lower() for word in record.words]
    if len(words) > 1 and words[1] in _TYPES:
        return words[1]
    return words[0] if words[0] in _TYPES else None


def _guess(record: _Record, notes: list[str]) -> PolymerKind:
    """Guess the kind of a chain without a type: a nucleic acid has only the letters A, C, G, N, and T or U."""
    letters = set(record.text.upper())
    if not letters <= set("ACGTUN") or not letters & set("TU"):
        return "protein"
    kind: PolymerKind = "rna" if "U" in letters else "dna"
    notes.append(
        f"{record.place} has only letters of nucleotides and is read as {kind.upper()}; '>protein|name' forbids it"
    )
    return kind


def _job_name(header: str) -> str:
    """The first word of a header, with the signs replaced that a job's name cannot have."""
    words = header.split()
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", words[0]).strip("_.-") if words else ""
