"""What Protenix does with a job that its author may not expect. Each command that reads inputs shows these notes."""

from collections.abc import Iterator

from protenix_multiseed.job_spec import Ion, JobSpec
from protenix_multiseed.settings import InputRules


def notes_of(spec: JobSpec, rules: InputRules) -> Iterator[str]:
    """Notes on one job, in words."""
    if spec.has_constraint and not rules.constraint:
        yield f"its constraint has no effect on {rules.model}; use protenix_base_constraint_v0.5.0"
    is_ion = [isinstance(entity, Ion) for entity in spec.entities]
    if True in is_ion and False in is_ion[is_ion.index(True) :]:
        # Upstream's MSA and template featurizers count no chains for an ion, so that what follows takes its place.
        yield "Protenix loses the MSA and templates of every chain after an ion; put ions last in 'sequences'"
    if rules.reads.msa:
        for number, protein in spec.polymers("protein"):
            given = [one for one in (protein.paired, protein.unpaired) if one is not None]
            if not any(one.file or one.text for one in given):
                yield f"protein {number} has no MSA; accuracy suffers. Make one with 'protenix msa'"
