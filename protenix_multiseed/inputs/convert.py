"""Write checked jobs in another format."""

import re
from collections.abc import Iterator
from typing import Any

from protenix_multiseed.errors import InputError
from protenix_multiseed.inputs import structures
from protenix_multiseed.inputs.components import TEXT, text_of
from protenix_multiseed.job_spec import AtomRef, Entity, Ion, JobSpec, Ligand, Polymer, TemplateStructure
from protenix_multiseed.types import Job
from protenix_multiseed.upstream.job_dict import alignments_of, to_upstream

_PDB = (".pdb", ".ent")
_STOCKHOLM = (".sto", ".stk", ".stockholm")


def to_protenix(job: Job) -> dict[str, Any]:
    """Return a job in Protenix's JSON. Files are named by their absolute paths.

    Raises:
        InputError: if the chain of a template is named by its label, and the template's file cannot be read.
    """
    made = {**to_upstream(job.spec), **_components(job.spec), "modelSeeds": list(job.seeds)}
    for number, polymer in job.spec.polymers("protein"):
        if polymer.structures:
            templates = [_own_template(job, one, polymer.sequence) for one in polymer.structures]
            made["sequences"][number - 1]["proteinChain"]["templates"] = templates
    return made


def _own_template(job: Job, one: TemplateStructure, sequence: str) -> dict[str, Any]:
    chain = one.chain
    if chain is not None and one.has_label:
        try:
            chain = structures.place(one, sequence).chain.name
        except InputError as error:
            raise InputError(f"{job.where}: {one.place}: {error}") from None
    return {**_structure(one, "structure", "structurePath"), **({"chain": chain} if chain else {})}


def to_alphafold3(job: Job) -> dict[str, Any]:
    """Return a job in AlphaFold 3's JSON, version 4. Files are named by their absolute paths.

    Raises:
        InputError: if AlphaFold 3's format cannot hold the job; the message names the field.
    """
    spec = job.spec
    names = list(_chain_names(spec))
    for name in (name for of_entity in names for name in of_entity):
        if not re.fullmatch("[A-Z]+", name):
            raise InputError(f"{job.where}: chain {name!r}: AlphaFold 3's format needs names of letters from A to Z")
    if spec.has_constraint:
        raise InputError(f"{job.where}: constraint: AlphaFold 3's format has no contacts and pockets")
    made: dict[str, Any] = {
        "dialect": "alphafold3",
        "version": 4,
        "name": spec.name,
        "modelSeeds": list(job.seeds),
        "sequences": [_entity(job, entity, ids) for entity, ids in zip(spec.entities, names, strict=True)],
    }
    if spec.bonds:
        ends = [(bond, copy) for bond in spec.bonds for copy in _copies(spec, bond.first, bond.second)]
        made["bondedAtomPairs"] = [
            [_atom(job, bond.place, one, copy, names) for one in (bond.first, bond.second)] for bond, copy in ends
        ]
    return made | _components(spec)


def _components(spec: JobSpec) -> dict[str, str]:
    return {TEXT: text_of(spec.components)} if spec.components else {}


def _chain_names(spec: JobSpec) -> Iterator[list[str]]:
    """Names of the chains of each entity, as Protenix gives them: A to Z, then AA and so on, without those in use."""
    used = {name for entity in spec.entities for name in entity.chain_ids}
    number = 0
    for entity in spec.entities:
        names = list(entity.chain_ids)
        while len(names) < entity.copies:
            number += 1
            if (name := _letters(number)) not in used:
                names.append(name)
        yield names


def _letters(number: int) -> str:
    """1 is A, 26 is Z, 27 is AA."""
    text = ""
    while number:
        number, place = divmod(number - 1, 26)
        text = chr(ord("A") + place) + text
    return text


def _entity(job: Job, entity: Entity, ids: list[str]) -> dict[str, Any]:
    if isinstance(entity, Ion):
        return {"ligand": {"id": ids, "ccdCodes": [entity.component]}}
    if isinstance(entity, Ligand):
        if entity.file:
            raise InputError(f"{job.where}: {entity.place}: AlphaFold 3's format has no ligand files: use SMILES")
        return {
            "ligand": {
                "id": ids,
                **({"smiles": entity.smiles} if entity.smiles else {"ccdCodes": [*entity.components]}),
            }
        }
    if entity.templates:
        raise InputError(f"{job.where}: {entity.templates.place}: AlphaFold 3's format has no files of template hits")
    made = {"id": ids, "sequence": entity.sequence, **_modifications(entity), **_alignments(job, entity)}
    for one in entity.structures:
        if one.mapping is None or one.chain is not None or (one.file and one.file.path.suffix in _PDB):
            raise InputError(
                f"{job.where}: {one.place}: AlphaFold 3's format needs an mmCIF file of one chain, and the indices of "
                "the residues that belong together"
            )
        made.setdefault("templates", []).append(_structure(one, "mmcif", "mmcifPath"))
    return {entity.kind: _completed(made) if entity.kind == "protein" else made}


def _completed(protein: dict[str, Any]) -> dict[str, Any]:
    """Return a protein with both alignments and templates, if it has any: AlphaFold 3 takes all three or none."""
    lacking = {key: "" for key in ("pairedMsa", "unpairedMsa") if not protein.keys() & {key, f"{key}Path"}}
    has_templates = "templates" in protein
    if len(lacking) == 2 and not has_templates:
        return protein
    return protein | lacking | ({} if has_templates else {"templates": []})


def _alignments(job: Job, polymer: Polymer) -> dict[str, str]:
    for one in (polymer.paired, polymer.unpaired):
        if one is not None and one.file is not None and one.file.path.suffix.lower() in _STOCKHOLM:
            raise InputError(f"{job.where}: {one.place}: AlphaFold 3's format needs an alignment in A3M, not Stockholm")
    return alignments_of(polymer)


def _structure(one: TemplateStructure, text: str, path: str) -> dict[str, Any]:
    made: dict[str, Any] = {path: str(one.file.path)} if one.file else {text: one.text}
    if one.mapping is not None:
        made |= {
            "queryIndices": [pair[0] for pair in one.mapping],
            "templateIndices": [pair[1] for pair in one.mapping],
        }
    return made


def _modifications(polymer: Polymer) -> dict[str, Any]:
    code, place = ("ptmType", "ptmPosition") if polymer.kind == "protein" else ("modificationType", "basePosition")
    made = [{code: one.component, place: one.position} for one in polymer.modifications]
    return {"modifications": made} if made else {}


def _copies(spec: JobSpec, first: AtomRef, second: AtomRef) -> range:
    """The copies that a bond joins: all, if the bond names none."""
    if first.copy is None and second.copy is None:
        return range(1, spec.entities[first.entity - 1].copies + 1)
    return range(1, 2)


def _atom(job: Job, place: str, atom: AtomRef, copy: int, names: list[list[str]]) -> list[Any]:
    if isinstance(atom.atom, int):
        raise InputError(f"{job.where}: {place}: AlphaFold 3's format names atoms and does not number them")
    entity = job.spec.entities[atom.entity - 1]
    if isinstance(entity, Ligand) and entity.smiles:
        raise InputError(f"{job.where}: {place}: AlphaFold 3's format has no bonds to ligands given as SMILES")
    return [names[atom.entity - 1][(atom.copy or copy) - 1], atom.position or 1, atom.atom]
