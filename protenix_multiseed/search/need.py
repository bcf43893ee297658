"""Which alignments jobs lack, and the same jobs with them. Pure functions."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from protenix_multiseed.inputs.residues import SHORTEST_ALIGNED
from protenix_multiseed.job_spec import Alignment, Entity, JobSpec, Polymer, PolymerKind, SourceFile

Complex = tuple[str, ...]
"""The distinct proteins of a job that lack an alignment, sorted, if there are at least two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """The alignments that jobs lack, each once, in the order of the jobs."""

    proteins: tuple[str, ...]
    complexes: tuple[Complex, ...]
    rnas: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignments:
    """Files of alignments that were found.

    Attributes:
        unpaired: File of each sequence, by kind of polymer and sequence.
        paired: File of each chain of a complex, by the complex and the sequence.
    """

    unpaired: Mapping[tuple[PolymerKind, str], Path]
    paired: Mapping[tuple[Complex, str], Path]


def need_of(specs: Iterable[JobSpec], kinds: Iterable[PolymerKind]) -> Need:
    """Return the alignments that jobs lack.

    A chain lacks an alignment if its input names none; an empty alignment was given on purpose. Chains with fewer than
    :data:`SHORTEST_ALIGNED` residues lack none.

    Args:
        kinds: Kinds of polymers to search for.
    """
    without = [list(lacking(spec)) for spec in specs]
    sequences = {kind: [one.sequence for jobs in without for one in jobs if one.kind == kind] for kind in kinds}
    complexes = [complex_of(jobs) for jobs in without] if "protein" in sequences else []
    return Need(
        proteins=tuple(dict.fromkeys(sequences.get("protein", ()))),
        complexes=tuple(dict.fromkeys(one for one in complexes if one)),
        rnas=tuple(dict.fromkeys(sequences.get("rna", ()))),
    )


def complex_of(polymers: Iterable[Polymer]) -> Complex:
    """Return the distinct proteins that are paired; empty if there are fewer than two."""
    distinct = sorted({one.sequence for one in polymers if one.kind == "protein"})
    return tuple(distinct) if len(distinct) > 1 else ()


def with_alignments(spec: JobSpec, found: Alignments) -> JobSpec:
    """Return a job in which each chain that lacks an alignment has those that were found."""
    together = complex_of(lacking(spec))

    def filled(entity: Entity) -> Entity:
        if not isinstance(entity, Polymer) or not _lacks(entity):
            return entity
        return replace(
            entity,
            unpaired=_alignment(found.unpaired.get((entity.kind, entity.sequence)), entity.place),
            paired=_alignment(found.paired.get((together, entity.sequence)), entity.place),
        )

    return replace(spec, entities=tuple(filled(entity) for entity in spec.entities))


def lacking(spec: JobSpec) -> Iterable[Polymer]:
    """Yield the chains of a job that lack an alignment."""
    return (polymer for _, polymer in spec.polymers() if _lacks(polymer))


def _lacks(polymer: Polymer) -> bool:
    return polymer.unpaired is None and polymer.paired is None and len(polymer.sequence) >= SHORTEST_ALIGNED


def _alignment(path: Path | None, place: str) -> Alignment | None:
    return None if path is None else Alignment(file=SourceFile(path=path, written=str(path)), place=f"{place}.msa")
