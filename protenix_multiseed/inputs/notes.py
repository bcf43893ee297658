"""Notes on Protenix behaviour that the author of a job may not expect. Every command that reads inputs shows them."""

from collections.abc import Iterator

from protenix_multiseed.job_spec import Ion, JobSpec
from protenix_multiseed.settings import InputRules


def notes_of(spec: JobSpec, rules: InputRules) -> Iterator[str]:
    """Yield the notes on one job, as sentences."""
    if spec.has_constraint and not rules.constraint:
        yield f"its constraint has no effect on {rules.model}; use protenix_base_constraint_v0.5.0"
    is_ion = [isinstance(entity, Ion) for entity in spec.entities]
    if True in is_ion and False in is_ion[is_ion.index(True) :]:
        # Upstream's MSA and template featurizers do not count an ion as a chain, so later chains get shifted numbers.
        yield "Protenix loses the MSA and templates of every chain after an ion; put ions last in 'sequences'"
    if rules.reads.msa:
        for number, protein in spec.polymers("protein"):
            given = [one for one in (protein.paired, protein.unpaired) if one is not None]
            if not any(one.file or one.text for one in given):
                yield f"protein {number} has no MSA; accuracy suffers. Make one with 'protenix msa'"
