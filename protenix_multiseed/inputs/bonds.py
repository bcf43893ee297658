"""Check covalent bonds against each other and against the atoms that leave when residues are bonded."""

from collections.abc import Callable, Iterator

from protenix_multiseed.inputs.modifications import links_of
from protenix_multiseed.inputs.residues import component_at
from protenix_multiseed.inputs.words import end_of, owner_of
from protenix_multiseed.job_spec import AtomRef, Bond, JobSpec, Polymer
from protenix_multiseed.upstream.component import ComponentFacts

Facts = Callable[[str], ComponentFacts | None]
NameOf = Callable[[AtomRef], str]


def bond_problems(spec: JobSpec, facts: Facts, name_of: NameOf) -> Iterator[str]:
    """Yield what is wrong with the bonds of a job whose atoms all exist. Each problem starts with its field.

    Args:
        facts: Returns the facts about a component; None if they are unknown.
        name_of: Returns the name of an atom, also if the job gives its number.
    """
    seen: dict[frozenset[tuple[object, ...]], str] = {}
    for bond in spec.bonds:
        ends = [_key(spec, end, name_of) for end in (bond.first, bond.second)]
        if ends[0] == ends[1]:
            yield f"{bond.place}: both ends are the same atom"
            continue
        if (other := seen.setdefault(frozenset(ends), bond.place)) != bond.place:
            yield f"{bond.place}: the same bond as {other}: keep one of the two"
    for bond in spec.bonds:
        for end, atom in (("1", bond.first), ("2", bond.second)):
            code, known = _component(spec, atom, facts)
            if known is not None and known.is_ambiguous:
                yield (
                    f"{end_of(bond.place, f'atom{end}', atom)}: Protenix cannot tell which atoms of {code!r} leave "
                    "when it is bonded: give it as SMILES or FILE_, or as a component of your own without atoms that "
                    "leave (userCCD)"
                )
                continue
            if (centre := _leaves_with(spec, atom, facts)) is not None:
                yield (
                    f"{end_of(bond.place, f'atom{end}', atom)}: {atom.atom!r} leaves position {atom.position} of "
                    f"{owner_of(spec, atom)} when {centre!r} there is bonded to another residue: choose an "
                    "atom that stays"
                )


def _key(spec: JobSpec, end: AtomRef, name_of: NameOf) -> tuple[object, ...]:
    copies = spec.entities[end.entity - 1].copies
    return end.entity, 1 if copies == 1 else end.copy, end.position, name_of(end)


def _component(spec: JobSpec, atom: AtomRef, facts: Facts) -> tuple[str | None, ComponentFacts | None]:
    """Return the code of the component of an atom, and the facts about it, as far as they are known."""
    code = component_at(spec.entities[atom.entity - 1], atom.position or 1)
    return code, None if code is None else facts(code)


def _leaves_with(spec: JobSpec, atom: AtomRef, facts: Facts) -> str | None:
    """Name the atom whose bond to another residue makes ``atom`` leave; None if ``atom`` stays.

    If several groups can leave, upstream picks at random, so an atom of any of them counts as leaving.
    """
    entity, position = spec.entities[atom.entity - 1], atom.position or 1
    _, known = _component(spec, atom, facts)
    if known is None:
        return None
    bonded = set(links_of(entity, position)) if isinstance(entity, Polymer) else set()
    bonded |= {str(end.atom) for end in _ends(spec.bonds) if _is_beside(end, atom)}
    groups = ((centre, group) for centre in sorted(bonded) for group in known.leaving.get(centre, ()))
    return next((centre for centre, group in groups if atom.atom in group), None)


def _ends(bonds: tuple[Bond, ...]) -> Iterator[AtomRef]:
    for bond in bonds:
        yield from (bond.first, bond.second)


def _is_beside(end: AtomRef, atom: AtomRef) -> bool:
    """Whether two atoms can be in the same residue of the same copy."""
    same_copy = end.copy == atom.copy or None in (end.copy, atom.copy)
    return (end.entity, end.position) == (atom.entity, atom.position) and same_copy
