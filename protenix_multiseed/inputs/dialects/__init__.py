"""Input dialects. Each is one module that turns a document into jobs in neutral form.

To add a dialect, write a module with what :class:`Dialect` names and put it into :data:`DIALECTS`.
"""

from collections.abc import Iterator
from typing import Protocol

from protenix_multiseed.inputs.dialects import protenix
from protenix_multiseed.inputs.document import Document, ParsedJob


class Dialect(Protocol):
    """What a dialect's module offers.

    Attributes:
        NAME: For messages.
        SUFFIXES: Endings of the files that are looked for in a folder.
    """

    NAME: str
    SUFFIXES: tuple[str, ...]

    def recognizes(self, document: Document) -> bool:
        """Whether a document is written in this dialect, told by its content. Raises nothing."""

    def parse(self, document: Document) -> Iterator[ParsedJob]:
        """The jobs of a document.

        Raises:
            InputError: if no job can be read from it, naming the file and the place.
        """


# The first that recognizes a document reads it; the last recognizes everything, so that its messages are shown.
DIALECTS: list[Dialect] = [protenix]


def dialect_of(document: Document) -> Dialect:
    """The dialect in which a document is written."""
    return next(dialect for dialect in DIALECTS if dialect.recognizes(document))
