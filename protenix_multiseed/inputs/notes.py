"""Notes on Protenix behaviour that the author of a job may not expect. Every command that reads inputs shows them."""

from collections.abc import Iterator, Sequence

from protenix_multiseed.inputs import structures, templates
from protenix_multiseed.inputs.corrections import differences_of
from protenix_multiseed.inputs.residues import SHORTEST_ALIGNED
from protenix_multiseed.job_spec import JobSpec, Polymer
from protenix_multiseed.settings import InputRules, ReadSettings

LESS_ACCURATE = "no MSA, so the structure will be less accurate"  # read again from records of runs
_MAKE_MSA = "add --msa-server or --msa-database, or make one with 'protenix-ms msa'"


def notes_of(spec: JobSpec, rules: InputRules) -> Iterator[str]:
    """Yield the notes on one job, as sentences."""
    if spec.has_constraint and not rules.constraint:
        yield f"the job's constraint has no effect with {rules.model}; use --model protenix_base_constraint_v0.5.0"
    for difference in differences_of(spec, rules.reads):
        if text := difference.upstream if rules.reads.exact else difference.here:
            yield text
    if rules.reads.template:
        for number, protein in spec.polymers("protein"):
            if protein.templates and (note := _on_hits(*templates.count_hits(protein.templates.file.path))):
                yield f"protein {number}: {note}"
    for number, protein in spec.polymers("protein"):
        if protein.structures and not rules.reads.template:
            yield f"protein {number}: its template structures have no effect without --template"
        elif protein.structures:
            yield from (f"protein {number}: {note}" for note in _on_structures(protein))
    yield from _unused_files(spec, rules.reads)
    proteins = list(spec.polymers("protein"))
    if rules.reads.template and proteins and not any(one.templates or one.structures for _, one in proteins):
        yield "--template has no effect on it: it names no template, and protenix-ms does not search for templates"
    if rules.reads.msa:
        lacking = [(number, protein) for number, protein in proteins if not protein.has_msa]
        empty = {number: _empty(protein) for number, protein in lacking}
        without = [number for number, places in empty.items() if not places]
        if without and rules.searches_msa:
            yield f"{_proteins(without)} no MSA yet; the run will search for one, so MSA rows are unknown"
        elif without:
            yield f"{_proteins(without)} {LESS_ACCURATE}; {_MAKE_MSA}"
        if said := [number for number in empty if number not in without]:
            places = ", ".join(place for number in said for place in empty[number])
            why = f"because the input says that there is none ({places}: empty); take that out to search"
            yield f"{_proteins(said)} {LESS_ACCURATE}; none is searched, {why}"


def _unused_files(spec: JobSpec, reads: ReadSettings) -> Iterator[str]:
    """Name what the input gives and the run does not read, as Protenix does not by default."""
    for number, polymer in spec.polymers():
        if polymer.kind == "rna" and polymer.has_msa and reads.msa and not reads.rna_msa:
            yield f"rna {number}: its MSA has no effect without --rna-msa"
        if polymer.templates and not reads.template:
            yield f"protein {number}: its template hits have no effect without --template"
        if polymer.kind == "dna" and "U" in polymer.sequence:
            yield f"dna {number}: its U are read as deoxyuridine; write an RNA as RNA"


def _empty(protein: Polymer) -> list[str]:
    """Return the fields that say that a protein has no MSA."""
    return [one.place for one in (protein.unpaired, protein.paired) if one is not None]


def _proteins(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"protein {numbers[0]} has"
    return f"proteins {', '.join(map(str, numbers[:-1]))} and {numbers[-1]} have"


def _on_structures(protein: Polymer) -> Iterator[str]:
    """Say how the structures are placed, because nothing filters them."""
    if len(protein.sequence) < SHORTEST_ALIGNED:
        yield f"its template structures have no effect, because it has fewer than {SHORTEST_ALIGNED} residues"
        return
    for one in protein.structures[: structures.MAX_TEMPLATES]:
        placed = structures.place(one, protein.sequence)
        named = one.file.written if one.file else "the structure in the input"
        how, same = "aligned" if one.mapping is None else "mapped", placed.identity(protein.sequence)
        yield (
            f"template {named}, chain {placed.chain.name}: {len(placed.pairs)} of {len(protein.sequence)} residues "
            f"{how}, {same:.0%} of them identical"
        )
    if (left := len(protein.structures) - structures.MAX_TEMPLATES) > 0:
        yield f"only its first {structures.MAX_TEMPLATES} template structures are used, {left} are left out"


def _on_hits(hits: int, others: int) -> str | None:
    if not hits:
        return "its file of template hits holds no hit, so it has no template"
    return f"{others} records without 'mol:protein' in its file of template hits are left out" if others else None
