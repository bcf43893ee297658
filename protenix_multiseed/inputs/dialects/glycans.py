"""Chai's notation of glycans (Chai's ``examples/covalent_bonds``).

``NAG(4-1 NAG)(6-1 FUC)`` are three sugars. O4 of the first is bonded to C1 of the second, O6 of the first to C1 of the
third. Each pair of parentheses belongs to the sugar before it.
"""

import re
from dataclasses import dataclass

from protenix_multiseed.errors import InputError
from protenix_multiseed.job_spec import AtomRef, Bond

MAX_SUGARS = 200
_TOKEN = re.compile(r"(?P<sugar>[A-Za-z0-9]{1,5})|\(\s*(?P<oxygen>\d)-(?P<carbon>\d)\s+|(?P<end>\))")


@dataclass(frozen=True, slots=True)
class Glycan:
    """The sugars of a glycan, and their bonds: sugar and atom of both ends. Sugars count from 1."""

    sugars: tuple[str, ...]
    links: tuple[tuple[int, str, int, str], ...]

    def bonds(self, entity: int, place: str) -> tuple[Bond, ...]:
        """The bonds inside each copy of an entity."""
        return tuple(
            Bond(
                first=AtomRef(entity=entity, position=first, atom=oxygen),
                second=AtomRef(entity=entity, position=second, atom=carbon),
                place=place,
            )
            for first, oxygen, second, carbon in self.links
        )


def parse_glycan(text: str) -> Glycan:
    """Read a glycan.

    Raises:
        InputError: if the text is not Chai's notation. The message names the position.
    """
    sugars: list[str] = []
    links: list[tuple[int, str, int, str]] = []
    open_ends: list[tuple[int, str, str]] = []  # sugar, oxygen and carbon of each open parenthesis
    before, place = 0, 0  # the sugar that the next parenthesis belongs to, 0 if a sugar must follow
    text = text.strip()
    while place < len(text) and len(sugars) <= MAX_SUGARS:
        token = _TOKEN.match(text, place)
        if token is None or (token["sugar"] is None) == (before == 0) or (token["end"] and not open_ends):
            break
        if token["sugar"]:
            sugars.append(token["sugar"].upper())
            before = len(sugars)
            if open_ends:
                first, oxygen, carbon = open_ends[-1]
                links.append((first, oxygen, before, carbon))
        elif token["end"]:
            before = open_ends.pop()[0]
        else:
            open_ends.append((before, f"O{token['oxygen']}", f"C{token['carbon']}"))
            before = 0
        place = token.end()
    if place < len(text) or open_ends or not before:
        raise InputError(f"{text[:50]!r} is not a glycan at position {place + 1}: write it as NAG(4-1 NAG)(6-1 FUC)")
    return Glycan(tuple(sugars), tuple(links))
