"""Chains that several dialects handle alike: chains by name, and equal chains, which become copies of one entity."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from protenix_multiseed.job_spec import UNKNOWN_CHAIN, AtomRef, Entity, Ligand


class Chains:
    """The chains of one job, in the order of its entities.

    Attributes:
        problems: References to chains that do not exist. Each starts with its field.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._places: dict[str, tuple[int, int]] = {}
        self._n_entity, self._is_whole = 0, True

    def add(self, ids: Sequence[str], place: str) -> dict[str, Any]:
        """Add the chains of the next entity. Returns the arguments that its entity takes from them."""
        self._n_entity += 1
        self._places.update({chain: (self._n_entity, copy) for copy, chain in enumerate(ids, start=1)})
        return {"copies": len(ids), "chain_ids": tuple(ids), "place": place}

    def add_unread(self, place: str) -> Entity:
        """Add and return an entity that cannot be read. Chains without an entity may be its chains."""
        self._n_entity += 1
        self._is_whole = False
        return Ligand(place=place)

    def atom(self, chain: str, position: int | None = None, atom: str | int | None = None, *, place: str) -> AtomRef:
        """Return the reference to a chain, to a residue of it, or to an atom."""
        if chain in self._places:
            entity, copy = self._places[chain]
            return AtomRef(entity=entity, copy=copy, position=position, atom=atom, place=place)
        if self._is_whole:
            self.problems.append(f"{place}: no chain is called {chain!r}; chains: {', '.join(self._places)}")
        return UNKNOWN_CHAIN


def is_copy(first: Entity, second: Entity) -> bool:
    """Whether two chains differ in nothing but their names. Chains with names join only chains with names."""
    same = replace(first, copies=1, chain_ids=()) == replace(second, copies=1, chain_ids=())
    return same and bool(first.chain_ids) == bool(second.chain_ids)


def with_copy(entity: Entity, chain: Entity) -> Entity:
    """Return the entity with one more copy, which has the chain's name."""
    return replace(entity, copies=entity.copies + 1, chain_ids=(*entity.chain_ids, *chain.chain_ids))
