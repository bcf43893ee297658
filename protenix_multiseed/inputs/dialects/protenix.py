"""Protenix's own JSON in its current and older forms: a list of jobs (Protenix's ``docs/infer_json_format.md``)."""

from collections.abc import Iterator, Sequence
from typing import Any

from protenix_multiseed.errors import ConfigError, InputError
from protenix_multiseed.inputs.components import components_of
from protenix_multiseed.inputs.dialects import protenix_schema as schema
from protenix_multiseed.inputs.dialects.schema import read, readable
from protenix_multiseed.inputs.document import Document, ParsedJob
from protenix_multiseed.inputs.explain import json_type
from protenix_multiseed.inputs.seeds import check_seeds
from protenix_multiseed.job_spec import (
    Alignment,
    AtomRef,
    Bond,
    Contact,
    Entity,
    Ion,
    JobSpec,
    Ligand,
    Modification,
    Pocket,
    Polymer,
    PolymerKind,
    SourceFile,
    TemplateHits,
    TemplateStructure,
)

NAME = "Protenix JSON"
SUFFIXES: tuple[str, ...] = (".json",)
_KINDS: dict[str, PolymerKind] = {"proteinChain": "protein", "dnaSequence": "dna", "rnaSequence": "rna"}
_MSA_KEYS = ("pairedMsa", "unpairedMsa", "pairedMsaPath", "unpairedMsaPath")
_OLD_FILES = {"paired": "pairing.a3m", "unpaired": "non_pairing.a3m"}


def recognizes(document: Document) -> bool:
    """Accept every document. If no other dialect takes a document, the user gets this dialect's error messages."""
    return True


def parse(document: Document) -> Iterator[ParsedJob]:
    """Yield the jobs of a document.

    Raises:
        InputError: if the document is not a list of jobs.
    """
    content = document.json
    if not isinstance(content, list) or not content:
        job = content if isinstance(content, dict) and "sequences" in content else {}
        if job.get("dialect") == "alphafoldserver":
            raise InputError(f"{document.path.name}: one job of the AlphaFold Server: put it into a list, [ ... ]")
        if "modelSeeds" in job or "version" in job:
            raise InputError(
                f"{document.path.name}: it looks like AlphaFold 3's JSON, which says so: add "
                '"dialect": "alphafold3", "version": 2'
            )
        found = "an empty list" if content == [] else f"one {json_type(content)}"
        raise InputError(
            f"{document.path.name}: the top level is {found}: "
            'expected a list of jobs, [{"name": ..., "sequences": ...}]'
        )
    if any(isinstance(raw, dict) and raw.get("dialect") == "alphafold3" for raw in content):
        raise InputError(f"{document.path.name}: AlphaFold 3's JSON is one job, not a list: give each job its own file")
    for index, raw in enumerate(content):
        yield _parse_job(document, index, raw)


def _parse_job(document: Document, index: int, raw: Any) -> ParsedJob:
    name = raw.get("name") if isinstance(raw, dict) else None
    name = name if isinstance(name, str) else None
    job, problems = read(schema.ProtenixJob, raw, {"name": "job"})
    if job is None:
        return ParsedJob(index=index, name=name, problems=tuple(problems))
    seeds, seed_problem = None, None
    if job.modelSeeds:
        try:
            seeds = check_seeds([_seed(value) for value in job.modelSeeds], "modelSeeds")
        except ConfigError as error:
            seed_problem = str(error)
    notes = list(_notes(job))
    spec: JobSpec | None = None
    try:
        spec = _spec(document, job, notes)
    except InputError as error:
        problems.append(str(error))
    return ParsedJob(
        index=index,
        name=name,
        spec=spec,
        seeds=seeds,
        seed_problem=seed_problem,
        problems=tuple(problems),
        notes=tuple(notes),
    )


def _notes(job: schema.ProtenixJob) -> Iterator[str]:
    """Keys without effect: those of the AlphaFold Server that ask for a search, and MSAs that another key replaces."""
    for place, box in readable(job.sequences, "sequences"):
        chain = box.proteinChain
        if chain is not None and (chain.useStructureTemplate or chain.maxTemplateDate):
            yield (
                f"{place}.proteinChain: useStructureTemplate and maxTemplateDate have no effect: no "
                "templates are searched; templatesPath names a file of hits"
            )
        given = [key for key in _MSA_KEYS if getattr(box.chosen, key, None) is not None]
        for key in ("pairedMsa", "unpairedMsa"):
            if {key, f"{key}Path"} <= {*given}:
                yield f"{place}.{box.kind}: {key}Path has no effect, because {key} is given"
        if chain is not None and chain.msa and chain.msa.precomputed_msa_dir and given:
            yield f"{place}.proteinChain: msa has no effect, because {given[0]} is given"


def _spec(document: Document, job: schema.ProtenixJob, notes: list[str]) -> JobSpec:
    constraint = job.constraint or schema.Constraint()
    entities = tuple(_entity(document, f"sequences[{number}]", box) for number, box in enumerate(job.sequences))
    return JobSpec(
        name=job.name,
        entities=entities,
        bonds=tuple(_bond(place, bond) for place, bond in readable(job.covalent_bonds, "covalent_bonds")),
        contacts=tuple(_contact(place, one) for place, one in readable(constraint.contact, "constraint.contact")),
        pocket=_pocket(constraint.pocket) if constraint.pocket else None,
        has_constraint=job.constraint is not None,
        components=components_of(document, job.userCCD, job.userCCDPath, entities, notes),
    )


def _entity(document: Document, place: str, box: schema.EntityBox | None) -> Entity:
    if box is None:  # it cannot be read
        return Ligand(place=place)
    entity, kind, place = box.chosen, str(box.kind), f"{place}.{box.kind}"
    more: dict[str, Any] = {"copies": entity.copies, "chain_ids": tuple(entity.id or ()), "place": place}
    if isinstance(entity, schema.Ion):
        return Ion(component=entity.ion, **more)
    if isinstance(entity, schema.Ligand):
        return Ligand(**_ligand(document, entity.ligand), **more)
    assert isinstance(entity, schema.ProteinChain | schema.DnaSequence)
    if isinstance(entity, schema.ProteinChain) and entity.templatesPath:
        file = document.find(entity.templatesPath)
        more["templates"] = TemplateHits(file=file, place=f"{place}.templatesPath")
    if isinstance(entity, schema.ProteinChain):
        more["structures"] = tuple(_structures(document, place, entity))
    alignments = _alignments(document, place, entity)
    modifications: Sequence[schema.ProteinModification | schema.NucleotideModification] = entity.modifications or ()
    return Polymer(
        kind=_KINDS[kind],
        sequence=entity.sequence,
        modifications=tuple(
            _modification(where, one) for where, one in readable(modifications, f"{place}.modifications")
        ),
        paired=alignments.get("paired"),
        unpaired=alignments.get("unpaired"),
        **more,
    )


def _structures(document: Document, place: str, chain: schema.ProteinChain) -> Iterator[TemplateStructure]:
    for where, one in readable(chain.templates, f"{place}.templates"):
        file = None if one.structurePath is None else document.find(one.structurePath)
        yield TemplateStructure(file=file, text=one.structure, chain=one.chain, mapping=one.mapping, place=where)


def _ligand(document: Document, text: str) -> dict[str, Any]:
    if text.startswith("CCD_"):
        return {"components": tuple(text.removeprefix("CCD_").split("_"))}
    if text.startswith("FILE_"):
        return {"file": document.find(text.removeprefix("FILE_"))}
    return {"smiles": text}


def _modification(place: str, one: schema.ProteinModification | schema.NucleotideModification) -> Modification:
    if isinstance(one, schema.ProteinModification):
        code, position = one.ptmType, one.ptmPosition
    else:
        code, position = one.modificationType, one.basePosition
    return Modification(component=code.removeprefix("CCD_"), position=position, place=place)


def _alignments(
    document: Document, place: str, entity: schema.ProteinChain | schema.DnaSequence
) -> dict[str, Alignment]:
    """Alignments of a chain, chosen as upstream does.

    Text wins over a path. The older ``msa`` field is used only if no newer MSA field is given.
    """
    made = {}
    for role in ("paired", "unpaired"):
        text, path = getattr(entity, f"{role}Msa", None), getattr(entity, f"{role}MsaPath", None)
        if text is not None:
            made[role] = Alignment(text=text, place=f"{place}.{role}Msa")
        elif path:
            made[role] = Alignment(file=document.find(path), place=f"{place}.{role}MsaPath")
    old = entity.msa.precomputed_msa_dir if isinstance(entity, schema.ProteinChain) and entity.msa else None
    if old and all(getattr(entity, key) is None for key in _MSA_KEYS):
        made |= _old_alignments(document, f"{place}.msa.precomputed_msa_dir", old)
    return made


def _old_alignments(document: Document, place: str, written: str) -> dict[str, Alignment]:
    folder = document.find(written).path
    found = {
        role: Alignment(file=SourceFile(path=folder / name, written=f"{written}/{name}"), place=place)
        for role, name in _OLD_FILES.items()
        if (folder / name).is_file()
    }
    if found:
        return found
    missing = SourceFile(path=folder / "non_pairing.a3m", written=f"pairing.a3m or non_pairing.a3m in {written}")
    return {"unpaired": Alignment(file=missing, place=place)}


def _bond(place: str, bond: schema.CovalentBond) -> Bond:
    first, second = (
        AtomRef(
            entity=int(getattr(bond, f"entity{end}")),
            copy=None if (copy := getattr(bond, f"copy{end}")) is None else int(copy),
            position=int(getattr(bond, f"position{end}")),
            atom=_atom(getattr(bond, f"atom{end}")),
        )
        for end in (1, 2)
    )
    return Bond(first=first, second=second, place=place)


def _contact(place: str, contact: schema.Contact) -> Contact:
    first, second = (
        AtomRef(
            entity=getattr(contact, f"entity{end}"),
            copy=getattr(contact, f"copy{end}"),
            position=getattr(contact, f"position{end}"),
            atom=_atom(getattr(contact, f"atom{end}")),
        )
        for end in (1, 2)
    )
    return Contact(
        first=first,
        second=second,
        max_distance=contact.max_distance,
        min_distance=contact.min_distance,
        place=place,
    )


def _pocket(pocket: schema.Pocket) -> Pocket:
    binder = pocket.binder_chain
    return Pocket(
        binder=AtomRef(entity=binder.entity, copy=binder.copy_),
        residues=tuple(
            AtomRef(entity=one.entity, copy=one.copy_, position=one.position)
            for _, one in readable(pocket.contact_residues, "")
        ),
        max_distance=pocket.max_distance,
        place="constraint.pocket",
    )


def _atom(atom: int | str | None) -> int | str | None:
    """An atom's name or number. Upstream reads a string of digits as a number."""
    return int(atom) if isinstance(atom, str) and atom.isascii() and atom.isdigit() else atom


def _seed(value: int | str) -> int:
    if isinstance(value, str) and not (value.isascii() and value.isdigit() and len(value) <= 12):
        raise ConfigError(f"modelSeeds: {value!r} is not a whole number")
    return int(value)
