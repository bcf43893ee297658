"""Which files a job reads under given settings, and the contents of these files.

The checks, the identity of a prediction and the feature cache all use this module, so they always agree on which files
matter.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from protenix_multiseed.hashes import sha256_once
from protenix_multiseed.job_spec import Alignment, Entity, JobSpec, Ligand, Polymer, SourceFile, TemplateStructure
from protenix_multiseed.settings import ReadSettings


def alignments_read(polymer: Polymer, reads: ReadSettings) -> dict[str, Alignment]:
    """Return the alignments of a polymer that a run reads, by role: ``paired`` or ``unpaired``."""
    is_read = reads.msa and (polymer.kind == "protein" or (polymer.kind == "rna" and reads.rna_msa))
    given = {"paired": polymer.paired, "unpaired": polymer.unpaired}
    return {role: one for role, one in given.items() if one is not None and is_read}


def structures_read(entity: Entity, reads: ReadSettings) -> tuple[TemplateStructure, ...]:
    """Return the template structures of an entity that a run reads."""
    return entity.structures if isinstance(entity, Polymer) and reads.template else ()


def files_read(spec: JobSpec, reads: ReadSettings) -> Iterator[SourceFile]:
    """Yield every file of a job that a run reads."""
    for entity in spec.entities:
        yield from _files_of(entity, reads).values()
        yield from (one.file for one in structures_read(entity, reads) if one.file)


def content_of(spec: JobSpec, reads: ReadSettings) -> dict[str, Any]:
    """Return everything that the prediction of a job depends on, except the job's name, as JSON.

    A file is represented by the SHA-256 of its contents.

    Raises:
        OSError: if a file cannot be read.
    """
    content: dict[str, Any] = _without(asdict(spec), ("name", "place"))
    if not spec.components:
        del content["components"]
    return content | {"entities": entities_content(spec, reads)}


def content_hash(spec: JobSpec, reads: ReadSettings) -> str:
    """Return a hash of everything that the prediction of a job depends on, except the job's name.

    Raises:
        OSError: if a file cannot be read.
    """
    return hashlib.sha256(json.dumps(content_of(spec, reads), sort_keys=True).encode()).hexdigest()


def entities_content(spec: JobSpec, reads: ReadSettings) -> list[dict[str, Any]]:
    """Return the part of :func:`content_of` that describes the entities, without bonds and constraints."""
    return [_content_of(entity, reads) for entity in spec.entities]


def _content_of(entity: Entity, reads: ReadSettings) -> dict[str, Any]:
    content = {"type": type(entity).__name__, **asdict(entity)}
    if isinstance(entity, Polymer):
        read = alignments_read(entity, reads)
        content["paired"], content["unpaired"] = (
            None if one is None else one.text for one in (read.get("paired"), read.get("unpaired"))
        )
        content["templates"] = None
        del content["structures"]
        if found := structures_read(entity, reads):
            content["structures"] = [_structure(one) for one in found]
    for role, file in _files_of(entity, reads).items():
        content[role] = f"sha256:{sha256_once(file.path)}"
    made: dict[str, Any] = _without(content, ("place",))
    return made


def _structure(one: TemplateStructure) -> dict[str, Any]:
    content = sha256_once(one.file.path) if one.file else hashlib.sha256((one.text or "").encode()).hexdigest()
    return {
        "content": f"sha256:{content}",
        "chain": one.chain,
        "has_label": one.has_label and one.chain is not None,
        "mapping": one.mapping,
    }


def _files_of(entity: Entity, reads: ReadSettings) -> dict[str, SourceFile]:
    """Files of one entity that a run reads, by the field that names them."""
    if isinstance(entity, Ligand):
        return {"file": entity.file} if entity.file else {}
    if not isinstance(entity, Polymer):
        return {}
    found = {role: one.file for role, one in alignments_read(entity, reads).items() if one.file}
    if entity.templates and reads.template:
        found["templates"] = entity.templates.file
    return found


def _without(content: Any, keys: tuple[str, ...]) -> Any:
    """Copy ``content`` without these keys, at any depth."""
    if isinstance(content, dict):
        return {key: _without(value, keys) for key, value in content.items() if key not in keys}
    if isinstance(content, list | tuple):
        return [_without(value, keys) for value in content]
    return content
