"""Input dialects. Each dialect is one module that turns a document into jobs in neutral form.

To add a dialect, write a module with the members of :class:`Dialect` and add the module to :data:`DIALECTS`.
"""

from collections.abc import Iterator
from typing import Protocol

from protenix_multiseed.inputs.dialects import alphafold3, boltz, fasta, protenix, structure
from protenix_multiseed.inputs.document import Document, ParsedJob


class Dialect(Protocol):
    """Members that a dialect's module must have.

    Attributes:
        NAME: Name of the dialect, for messages.
        SUFFIXES: File name endings to look for in an input folder.
    """

    NAME: str
    SUFFIXES: tuple[str, ...]

    def recognizes(self, document: Document) -> bool:
        """Whether a document is written in this dialect, judged by its content. Never raises."""

    def parse(self, document: Document) -> Iterator[ParsedJob]:
        """Yield the jobs of a document.

        Raises:
            InputError: if no job can be read from the document; the message names the file and the place.
        """


# The first dialect that recognizes a document reads it. The last one recognizes every document, so that the user gets
# its messages for a document that no dialect knows.
DIALECTS: list[Dialect] = [fasta, structure, alphafold3, boltz, protenix]


def dialect_of(document: Document) -> Dialect:
    """Return the dialect in which a document is written."""
    return next(dialect for dialect in DIALECTS if dialect.recognizes(document))
