"""What all searches have in common: the protocol of a searcher, its results and its errors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from protenix_multiseed.errors import ProtenixMsError

Tell = Callable[[str], None]
"""Receives sentences on the progress of a search."""


class SearchError(ProtenixMsError):
    """No further search is possible, for example because the server cannot be reached. What was found is kept."""

    exit_code = 1


class QueryError(Exception):
    """The search of these sequences failed. Searches of other sequences are not affected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The alignments of one sequence as a3m text, with the sequence as their first row.

    Attributes:
        paired: Rows of which Protenix pairs those of one species; None if the source pairs the chains of a complex
            itself (:meth:`Searcher.pair`), or not at all.
    """

    unpaired: str
    paired: str | None = None


class Searcher(Protocol):
    """Searches one source.

    Attributes:
        name: Name of the source. Alignments are stored under it, so sources with other contents have other names.
        batch: The most sequences that one search takes.
    """

    name: str
    batch: int

    def search(self, sequences: Sequence[str]) -> list[Found]:
        """Search distinct sequences. Return the alignments of each.

        Raises:
            QueryError: if the search of these sequences failed.
            SearchError: if no search is possible.
        """

    def pair(self, sequences: Sequence[str]) -> list[str] | None:
        """Search the distinct chains of one complex together. Return each chain's paired rows; None if it cannot.

        Raises:
            QueryError: if the search of these sequences failed.
            SearchError: if no search is possible.
        """


def first_row(sequence: str) -> str:
    """Return the first record of an alignment: the sequence itself."""
    return f">query\n{sequence}\n"
