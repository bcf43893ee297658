"""What the input checks need to know about a component of the chemical dictionary."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_HYDROGENS = ("H", "D")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentFacts:
    """Facts about a component, without its hydrogens.

    Attributes:
        type: The dictionary's ``_chem_comp.type`` in upper case, such as ``L-PEPTIDE LINKING``.
        atoms: Names of the atoms, in the dictionary's order.
        leaving: Groups of atoms that may leave when an atom is bonded to another residue, by the name of this atom.
            One group leaves for each bond. Upstream: ``ccd._map_central_to_leaving_groups``.
        is_ambiguous: Whether a group of atoms that leave hangs on more than one atom. Upstream then knows no groups at
            all, and fails if an atom of the component is bonded.
        foreign: Element symbols that are no elements, such as ``X``.
        has_bonds: Whether the dictionary lists bonds, also those of hydrogens.
    """

    type: str
    atoms: tuple[str, ...]
    leaving: Mapping[str, tuple[frozenset[str], ...]]
    is_ambiguous: bool = False
    foreign: tuple[str, ...] = ()
    has_bonds: bool = True


def component_facts(
    component_type: str, atoms: Iterable[tuple[str, str, bool]], bonds: Iterable[tuple[str, str]]
) -> ComponentFacts:
    """Gather the facts about a component.

    Args:
        component_type: The dictionary's ``_chem_comp.type``.
        atoms: Name, element symbol and leaving flag of each atom.
        bonds: Names of the two atoms of each bond.
    """
    bonds = tuple(bonds)
    heavy = [(name, symbol, leaves) for name, symbol, leaves in atoms if symbol.upper() not in _HYDROGENS]
    leaves_of = {name: leaves for name, _, leaves in heavy}
    neighbours: dict[str, list[str]] = {name: [] for name in leaves_of}
    for first, second in bonds:
        if first in leaves_of and second in leaves_of:
            neighbours[first].append(second)
            neighbours[second].append(first)
    groups = _leaving_groups(leaves_of, neighbours)
    return ComponentFacts(
        type=component_type.upper(),
        atoms=tuple(leaves_of),
        leaving=groups or {},
        is_ambiguous=groups is None,
        foreign=tuple(sorted({symbol for _, symbol, _ in heavy if symbol.upper() == "X"})),
        has_bonds=bool(bonds),
    )


def _leaving_groups(
    leaves_of: Mapping[str, bool], neighbours: Mapping[str, list[str]]
) -> dict[str, tuple[frozenset[str], ...]] | None:
    """Leaving groups by the atom that they hang on; None if a group hangs on more than one atom."""
    found: dict[str, tuple[frozenset[str], ...]] = {}
    for centre in (name for name, leaves in leaves_of.items() if not leaves):
        groups = tuple(_group(start, centre, neighbours) for start in neighbours[centre] if leaves_of[start])
        if not all(leaves_of[atom] for group in groups for atom in group):
            return None
        if groups:
            found[centre] = groups
    return found


def _group(start: str, centre: str, neighbours: Mapping[str, list[str]]) -> frozenset[str]:
    """Atoms that hang on ``centre`` by the atom ``start``."""
    found, waiting = {start}, [start]
    while waiting:
        fresh = [atom for atom in neighbours[waiting.pop()] if atom != centre and atom not in found]
        found.update(fresh)
        waiting.extend(fresh)
    return frozenset(found)
