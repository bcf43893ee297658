"""A toy dialect with one line per job: its name and the sequences of its protein chains, separated by spaces."""

from protenix_multiseed.inputs.document import ParsedJob
from protenix_multiseed.job_spec import JobSpec, Polymer

NAME = "lines"
SUFFIXES = (".lines",)


def recognizes(document):
    return document.path.suffix == ".lines"


def parse(document):
    for index, line in enumerate(document.text.splitlines()):
        name, *sequences = line.split()
        if not sequences:
            yield ParsedJob(index=index, name=name, problems=("sequences: none given: write one after the name",))
            continue
        entities = tuple(
            Polymer(kind="protein", sequence=sequence, place=f"sequence {number}")
            for number, sequence in enumerate(sequences, start=1)
        )
        yield ParsedJob(index=index, name=name, spec=JobSpec(name=name, entities=entities))
