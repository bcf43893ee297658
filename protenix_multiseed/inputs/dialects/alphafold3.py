"""AlphaFold 3's JSON, versions 1 to 4: one job (AlphaFold 3's ``docs/input.md``)."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from protenix_multiseed.errors import ConfigError, InputError
from protenix_multiseed.inputs.components import components_of
from protenix_multiseed.inputs.dialects import schema
from protenix_multiseed.inputs.dialects.chains import Chains
from protenix_multiseed.inputs.document import Document, ParsedJob
from protenix_multiseed.inputs.seeds import check_seeds
from protenix_multiseed.inputs.words import Words
from protenix_multiseed.job_spec import (
    Alignment,
    Bond,
    Entity,
    JobSpec,
    Ligand,
    Modification,
    Polymer,
    PolymerKind,
    TemplateStructure,
)

NAME = "AlphaFold 3 JSON"
SUFFIXES: tuple[str, ...] = (".json",)
_WORDS = Words(
    component="ccdCodes", smiles="smiles", ligand_forms='a component as "ccdCodes": ["ATP"]', bonds="bondedAtomPairs"
)
BondedAtoms = Annotated[tuple[schema.Atom, schema.Atom], Field(strict=False)]


class _ProteinModification(schema.Strict):
    ptmType: str
    ptmPosition: schema.Position


class _NucleotideModification(schema.Strict):
    modificationType: str
    basePosition: schema.Position


class _Chain(schema.NamedChains):
    description: str | None = None


class _Polymer(_Chain):
    sequence: schema.Sequence

    @model_validator(mode="after")
    def _text_or_path(self) -> "_Polymer":
        for key in ("pairedMsa", "unpairedMsa"):
            if getattr(self, key, None) is not None and getattr(self, f"{key}Path", None):
                raise ValueError(f"{key} and {key}Path are both given: keep one of the two")
        return self


class _Template(schema.TemplateIndices):
    mmcif: str | None = None
    mmcifPath: str | None = None

    @model_validator(mode="after")
    def _one(self) -> "_Template":
        schema.one_of(self.mmcif, self.mmcifPath, "mmcif or mmcifPath")
        if self.mapping is None:
            raise ValueError("queryIndices and templateIndices are missing")
        return self


class _Protein(_Polymer):
    modifications: list[schema.Item[_ProteinModification]] | None = None
    unpairedMsa: str | None = None
    unpairedMsaPath: str | None = None
    pairedMsa: str | None = None
    pairedMsaPath: str | None = None
    templates: list[schema.Item[_Template]] | None = None


class _Dna(_Polymer):
    modifications: list[schema.Item[_NucleotideModification]] | None = None


class _Rna(_Dna):
    unpairedMsa: str | None = None
    unpairedMsaPath: str | None = None


class _Ligand(_Chain):
    ccdCodes: Annotated[list[str], Field(min_length=1)] | None = None
    smiles: str | None = None

    @model_validator(mode="after")
    def _one(self) -> "_Ligand":
        schema.one_of(self.ccdCodes, self.smiles, "ccdCodes or smiles")
        return self


class _Entity(schema.Choice):
    """One item of ``sequences``."""

    protein: _Protein | None = None
    rna: _Rna | None = None
    dna: _Dna | None = None
    ligand: _Ligand | None = None


class _Job(schema.Strict):
    dialect: Literal["alphafold3"]
    version: Annotated[int, Field(ge=1, le=4)]
    name: Annotated[str, Field(min_length=1)]
    modelSeeds: Annotated[list[int], Field(min_length=1)]
    sequences: Annotated[list[schema.Item[_Entity]], Field(min_length=1)]
    bondedAtomPairs: list[schema.Item[BondedAtoms]] | None = None
    userCCD: str | None = None
    userCCDPath: str | None = None


def recognizes(document: Document) -> bool:
    """Whether the document is a JSON object with ``"dialect": "alphafold3"``."""
    content = document.json_or_none
    return isinstance(content, dict) and content.get("dialect") == "alphafold3"


def parse(document: Document) -> Iterator[ParsedJob]:
    """Yield the job of a document."""
    content = document.json
    name = content.get("name")
    name = name if isinstance(name, str) else None
    job, problems = schema.read(_Job, content, {"version": 1, "name": "job", "modelSeeds": [1]})
    if job is None:
        yield ParsedJob(index=0, name=name, problems=tuple(problems))
        return
    seeds, seed_problem = None, None
    try:
        seeds = check_seeds(job.modelSeeds, "modelSeeds")
    except ConfigError as error:
        seed_problem = str(error)
    chains = Chains()
    notes: list[str] = []
    entities = tuple(
        _entity(document, f"sequences[{number}]", box, chains, notes) for number, box in enumerate(job.sequences)
    )
    bonds = tuple(
        Bond(
            first=chains.atom(*first, place=f"{place}[0]"),
            second=chains.atom(*second, place=f"{place}[1]"),
            place=place,
        )
        for place, (first, second) in schema.readable(job.bondedAtomPairs, "bondedAtomPairs")
    )
    problems += chains.problems
    spec: JobSpec | None = None
    try:
        components = components_of(document, job.userCCD, job.userCCDPath, entities, notes)
        spec = JobSpec(name=job.name, entities=entities, bonds=bonds, components=components)
    except InputError as error:
        problems.append(str(error))
    yield ParsedJob(
        index=0,
        name=name,
        spec=spec,
        seeds=seeds,
        seed_problem=seed_problem,
        problems=tuple(problems),
        notes=tuple(notes),
        words=_WORDS,
    )


def _entity(document: Document, place: str, box: _Entity | None, chains: Chains, notes: list[str]) -> Entity:
    if box is None:
        return chains.add_unread(place)
    chain, place = box.chosen, f"{place}.{box.kind}"
    more = chains.add(chain.ids, place)
    if chain.description is not None:
        notes.append(f"{place}.description has no effect")
    if isinstance(chain, _Ligand):
        return Ligand(components=tuple(chain.ccdCodes or ()), smiles=chain.smiles, **more)
    kind: PolymerKind = "protein" if box.protein else "rna" if box.rna else "dna"
    return Polymer(
        kind=kind,
        sequence=chain.sequence,
        modifications=tuple(
            _modification(where, one) for where, one in schema.readable(chain.modifications, f"{place}.modifications")
        ),
        paired=_alignment(document, place, chain, "pairedMsa"),
        unpaired=_alignment(document, place, chain, "unpairedMsa"),
        structures=tuple(_structures(document, place, chain)) if isinstance(chain, _Protein) else (),
        **more,
    )


def _structures(document: Document, place: str, chain: _Protein) -> Iterator[TemplateStructure]:
    for where, one in schema.readable(chain.templates, f"{place}.templates"):
        file = None if one.mmcifPath is None else document.find(one.mmcifPath)
        yield TemplateStructure(file=file, text=one.mmcif, mapping=one.mapping, place=where)


def _modification(place: str, one: _ProteinModification | _NucleotideModification) -> Modification:
    if isinstance(one, _ProteinModification):
        return Modification(component=one.ptmType, position=one.ptmPosition, place=place)
    return Modification(component=one.modificationType, position=one.basePosition, place=place)


def _alignment(document: Document, place: str, chain: _Polymer, key: str) -> Alignment | None:
    text, path = getattr(chain, key, None), getattr(chain, f"{key}Path", None)
    if text is not None:
        return Alignment(text=text, place=f"{place}.{key}")
    return Alignment(file=document.find(path), place=f"{place}.{key}Path") if path else None
