"""Convert a job to the dictionary that upstream's featurizers read (``docs/infer_json_format.md`` of Protenix)."""

from typing import Any

from protenix_multiseed.job_spec import (
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
)

_KEYS: dict[PolymerKind, str] = {"protein": "proteinChain", "dna": "dnaSequence", "rna": "rnaSequence"}


def to_upstream(spec: JobSpec) -> dict[str, Any]:
    """Return a job as new dictionaries and lists, in the format of upstream's featurizers. Upstream may change them."""
    made: dict[str, Any] = {"name": spec.name, "sequences": sequences_of(spec)}
    if spec.bonds:
        made["covalent_bonds"] = [_bond(bond) for bond in spec.bonds]
    if spec.has_constraint:
        made["constraint"] = _constraint(spec)
    return made


def sequences_of(spec: JobSpec) -> list[dict[str, Any]]:
    """Return the part of :func:`to_upstream` that lists the entities."""
    return [_entity(entity) for entity in spec.entities]


def _entity(entity: Entity) -> dict[str, Any]:
    more: dict[str, Any] = {"count": entity.copies}
    if entity.chain_ids:
        more["id"] = list(entity.chain_ids)
    if isinstance(entity, Polymer):
        return {_KEYS[entity.kind]: {"sequence": entity.sequence, **more, **_polymer(entity)}}
    if isinstance(entity, Ion):
        return {"ion": {"ion": entity.component, **more}}
    return {"ligand": {"ligand": _ligand(entity), **more}}


def _polymer(polymer: Polymer) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if polymer.modifications:
        made["modifications"] = [_modification(polymer.kind, one) for one in polymer.modifications]
    made |= alignments_of(polymer)
    if polymer.templates is not None:
        made["templatesPath"] = str(polymer.templates.file.path)
    return made


def _modification(kind: PolymerKind, one: Modification) -> dict[str, Any]:
    code, position = ("ptmType", "ptmPosition") if kind == "protein" else ("modificationType", "basePosition")
    return {code: f"CCD_{one.component}", position: one.position}


def alignments_of(polymer: Polymer) -> dict[str, str]:
    """Return the alignments of a polymer by key, as text or as a path. AlphaFold 3's format has the same keys."""
    made: dict[str, str] = {}
    for key, one in (("pairedMsa", polymer.paired), ("unpairedMsa", polymer.unpaired)):
        if one is not None:
            made |= {f"{key}Path": str(one.file.path)} if one.file else {key: one.text or ""}
    return made


def _ligand(ligand: Ligand) -> str:
    if ligand.components:
        return f"CCD_{'_'.join(ligand.components)}"
    return f"FILE_{ligand.file.path}" if ligand.file else ligand.smiles or ""


def _bond(bond: Bond) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for end, atom in (("1", bond.first), ("2", bond.second)):
        made |= _end(end, atom)
    return made


def _end(end: str, atom: AtomRef) -> dict[str, Any]:
    found = {"entity": atom.entity, "copy": atom.copy, "position": atom.position, "atom": atom.atom}
    return {f"{key}{end}": value for key, value in found.items() if value is not None}


def _constraint(spec: JobSpec) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if spec.contacts:
        made["contact"] = [_contact(contact) for contact in spec.contacts]
    if spec.pocket is not None:
        made["pocket"] = _pocket(spec.pocket)
    return made


def _contact(contact: Contact) -> dict[str, Any]:
    ends = _end("1", contact.first) | _end("2", contact.second)
    return {**ends, "max_distance": contact.max_distance, "min_distance": contact.min_distance}


def _pocket(pocket: Pocket) -> dict[str, Any]:
    residues = [{"entity": one.entity, "copy": one.copy, "position": one.position} for one in pocket.residues]
    binder = {"entity": pocket.binder.entity, "copy": pocket.binder.copy}
    return {"binder_chain": binder, "contact_residues": residues, "max_distance": pocket.max_distance}
