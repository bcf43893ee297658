"""Boltz's YAML, version 1: one job (Boltz's ``docs/prediction.md``)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from protenix_multiseed.errors import InputError
from protenix_multiseed.inputs.dialects import boltz_csv, schema
from protenix_multiseed.inputs.dialects.chains import Chains
from protenix_multiseed.inputs.document import Document, ParsedJob
from protenix_multiseed.inputs.words import Words
from protenix_multiseed.job_spec import (
    Alignment,
    AtomRef,
    Bond,
    Contact,
    Entity,
    JobSpec,
    Ligand,
    Modification,
    Pocket,
    Polymer,
    SourceFile,
    TemplateStructure,
)

NAME = "Boltz YAML"
SUFFIXES: tuple[str, ...] = (".yaml", ".yml")
Token = Annotated[tuple[str, schema.Position | str], Field(strict=False)]
Distance = float | int
_NO_MSA = "empty"
_WORDS = Words(
    component="ccd",
    smiles="smiles",
    protein_change=("position", "ccd"),
    base_change=("position", "ccd"),
    ligand_forms="a component as 'ccd: ATP'",
    bonds="a bond under constraints",
)


class _Modification(schema.Strict):
    position: schema.Position
    ccd: str


class _Polymer(schema.NamedChains):
    sequence: schema.Sequence
    modifications: list[schema.Item[_Modification]] | None = None
    cyclic: bool = False


class _Protein(_Polymer):
    msa: str | None = None


class _Ligand(schema.NamedChains):
    smiles: str | None = None
    ccd: str | None = None

    @model_validator(mode="after")
    def _one(self) -> "_Ligand":
        schema.one_of(self.smiles, self.ccd, "smiles or ccd")
        return self


class _Entity(schema.Choice):
    """One item of ``sequences``."""

    protein: _Protein | None = None
    dna: _Polymer | None = None
    rna: _Polymer | None = None
    ligand: _Ligand | None = None


class _Bond(schema.Strict):
    atom1: schema.Atom
    atom2: schema.Atom


class _Pocket(schema.Strict):
    binder: str
    contacts: Annotated[list[schema.Item[Token]], Field(min_length=1)]
    max_distance: Distance = 6
    force: bool = False


class _Contact(schema.Strict):
    token1: Token
    token2: Token
    max_distance: Distance = 6
    force: bool = False


class _Constraint(schema.Choice):
    """One item of ``constraints``."""

    bond: _Bond | None = None
    pocket: _Pocket | None = None
    contact: _Contact | None = None


class _Template(schema.Strict):
    cif: str | None = None
    pdb: str | None = None
    chain_id: str | list[str] | None = None
    template_id: str | list[str] | None = None
    force: bool = False
    threshold: Distance | None = None

    @model_validator(mode="after")
    def _one(self) -> "_Template":
        schema.one_of(self.cif, self.pdb, "cif or pdb")
        if self.force or self.threshold is not None:
            raise ValueError("force and threshold need a potential that Protenix does not have: leave them out")
        if self.template_id is not None and len(_listed(self.template_id)) != len(_listed(self.chain_id)):
            raise ValueError("template_id needs chain_id with as many chains")
        return self


class _Job(schema.Strict):
    version: Literal[1] = 1
    sequences: Annotated[list[schema.Item[_Entity]], Field(min_length=1)]
    constraints: list[schema.Item[_Constraint]] | None = None
    templates: list[schema.Item[_Template]] | None = None
    properties: list[Any] | None = None


def recognizes(document: Document) -> bool:
    """Whether the document is YAML: a key of Boltz's format is on one of its first lines."""
    lines = (line for line in document.text.splitlines() if line.strip() and not line.startswith(("#", "---", "%")))
    return any(line.startswith(("sequences:", "version:")) for line in (next(lines, ""), next(lines, "")))


def parse(document: Document) -> Iterator[ParsedJob]:
    """Yield the job of a document. It has the file's name.

    Raises:
        InputError: if the document is not YAML.
    """
    name = document.path.stem
    job, problems = schema.read(_Job, document.yaml, {})
    if job is None:
        yield ParsedJob(index=0, name=name, problems=tuple(problems))
        return
    problems += _unsupported(job)
    chains = Chains()
    entities = tuple(
        _entity(document, f"sequences[{number}]", one, chains, problems) for number, one in enumerate(job.sequences)
    )
    if None not in job.sequences:  # else the templates may belong to the chains that cannot be read
        entities = _with_templates(document, job, entities, problems)
    constraints = schema.readable(job.constraints, "constraints")
    places = [(f"{place}.{one.kind}", one.chosen) for place, one in constraints]
    contacts = tuple(_contact(place, one, chains, entities) for place, one in places if isinstance(one, _Contact))
    pockets = [_pocket(place, one, chains, problems) for place, one in places if isinstance(one, _Pocket)]
    spec = JobSpec(
        name=name,
        entities=entities,
        bonds=tuple(_bond(place, one, chains) for place, one in places if isinstance(one, _Bond)),
        contacts=contacts,
        pocket=pockets[0] if pockets else None,
        has_constraint=bool(contacts or pockets),
    )
    problems += _names_in_smiles(spec)
    if len(pockets) > 1:
        problems.append(f"{pockets[1].place}: Protenix takes one pocket only: keep one")
    problems += chains.problems
    yield ParsedJob(
        index=0,
        name=name,
        spec=spec,
        problems=tuple(problems),
        notes=tuple(_notes(job, [one for _, one in places])),
        words=_WORDS,
    )


def _unsupported(job: _Job) -> Iterator[str]:
    for place, one in schema.readable(job.sequences, "sequences"):
        if isinstance(one.chosen, _Polymer) and one.chosen.cyclic:
            yield (
                f"{place}.{one.kind}.cyclic: Protenix's models know no cyclic chains: leave it out, and "
                "bond the first residue's N to the last one's C under constraints"
            )


def _notes(job: _Job, constraints: Sequence[_Bond | _Pocket | _Contact]) -> Iterator[str]:
    if job.properties:
        yield "properties have no effect: Protenix predicts no affinity"
    if any(not isinstance(one, _Bond) and one.force for one in constraints):
        yield "force of a constraint has no effect: Protenix has no potential for it"


def _listed(names: str | list[str] | None) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())


def _with_templates(
    document: Document, job: _Job, entities: tuple[Entity, ...], problems: list[str]
) -> tuple[Entity, ...]:
    """Give the proteins their templates. All copies of a protein have the same templates in Protenix."""
    proteins = {
        number: one for number, one in enumerate(entities) if isinstance(one, Polymer) and one.kind == "protein"
    }
    made = list(entities)
    for place, template in schema.readable(job.templates, "templates"):
        chains = _listed(template.chain_id)
        if not chains:
            chains = [name for one in proteins.values() for name in one.chain_ids] if len(proteins) == 1 else []
            if not chains:
                problems.append(f"{place}: the job has {len(proteins)} proteins: name the chains of one in chain_id")
        named: list[str | None] = [*_listed(template.template_id)]
        of_chain = dict(zip(chains, named or [None] * len(chains), strict=True))
        for number, protein in proteins.items():
            wanted = {of_chain[name] for name in protein.chain_ids if name in of_chain}
            if not wanted:
                continue
            if len(wanted) > 1 or not set(protein.chain_ids) <= set(of_chain):
                problems.append(
                    f"{place}.chain_id: Protenix gives all copies of a protein the same templates: name all of "
                    f"{', '.join(protein.chain_ids)} with one chain of the template, or write them as separate proteins"
                )
            file = document.find(str(template.cif or template.pdb))
            one = TemplateStructure(file=file, chain=wanted.pop(), has_label=True, place=place)
            before = made[number]
            assert isinstance(before, Polymer)
            made[number] = replace(before, structures=(*before.structures, one))
        unknown = set(of_chain) - {name for one in proteins.values() for name in one.chain_ids}
        problems.extend(f"{place}.chain_id: no protein chain is called {name!r}" for name in sorted(unknown))
    return tuple(made)


def _entity(document: Document, place: str, box: _Entity | None, chains: Chains, problems: list[str]) -> Entity:
    if box is None:
        return chains.add_unread(place)
    chain, place = box.chosen, f"{place}.{box.kind}"
    more = chains.add(chain.ids, place)
    if isinstance(chain, _Ligand):
        return Ligand(components=() if chain.ccd is None else (chain.ccd,), smiles=chain.smiles, **more)
    if isinstance(chain, _Protein) and chain.msa:
        more |= _alignments(document.find(chain.msa), chain.msa, f"{place}.msa", problems)
    return Polymer(
        kind=box.kind,  # type: ignore[arg-type]
        sequence=chain.sequence,
        modifications=tuple(
            Modification(component=one.ccd, position=one.position, place=where)
            for where, one in schema.readable(chain.modifications, f"{place}.modifications")
        ),
        **more,
    )


def _alignments(file: SourceFile, written: str, place: str, problems: list[str]) -> dict[str, Alignment]:
    if written == _NO_MSA:
        return {"unpaired": Alignment(text="", place=place)}
    if file.path.suffix.lower() == ".csv" and file.path.is_file():
        try:
            return boltz_csv.alignments_of(file, place)
        except InputError as error:
            problems.append(f"{place}: {error}")
            return {}
    return {"unpaired": Alignment(file=file, place=place)}


def _bond(place: str, bond: _Bond, chains: Chains) -> Bond:
    first, second = chains.atom(*bond.atom1, place=f"{place}.atom1"), chains.atom(*bond.atom2, place=f"{place}.atom2")
    return Bond(first=first, second=second, place=place)


def _contact(place: str, contact: _Contact, chains: Chains, entities: Sequence[Entity]) -> Contact:
    first, second = (
        _token(f"{place}.{key}", token, chains)
        for key, token in (("token1", contact.token1), ("token2", contact.token2))
    )
    return Contact(first=first, second=second, max_distance=contact.max_distance, place=place)


def _token(place: str, token: tuple[str, int | str], chains: Chains) -> AtomRef:
    """A residue by its position, or an atom of a ligand by its name."""
    chain, which = token
    if isinstance(which, int):
        return chains.atom(chain, which, place=place)
    return chains.atom(chain, 1, which, place=place)


def _names_in_smiles(spec: JobSpec) -> Iterator[str]:
    """Refuse names of atoms of SMILES strings: Protenix numbers them in another way, so one may be another atom's."""
    pairs = [(one.first, one.second) for one in spec.bonds] + [(one.first, one.second) for one in spec.contacts]
    for atom in (one for pair in pairs for one in pair):
        entity = spec.entities[atom.entity - 1] if 0 < atom.entity <= len(spec.entities) else None
        if isinstance(entity, Ligand) and entity.smiles and atom.position == 1 and isinstance(atom.atom, str):
            yield (
                f"{atom.place}: Boltz and Protenix name the atoms of a SMILES string differently, so {atom.atom!r} "
                "cannot be found: give the ligand as ccd, or write Protenix JSON, whose SMILES can label it: [CH2:1]"
            )


def _pocket(place: str, pocket: _Pocket, chains: Chains, problems: list[str]) -> Pocket:
    residues = []
    for where, token in schema.readable(pocket.contacts, f"{place}.contacts"):
        residues.append(_token(where, token, chains))
        if residues[-1].atom is not None:
            problems.append(f"{where}: Protenix takes residues, no atoms, as the contacts of a pocket: give a position")
    binder = chains.atom(pocket.binder, place=f"{place}.binder")
    return Pocket(binder=binder, residues=tuple(residues), max_distance=pocket.max_distance, place=place)
