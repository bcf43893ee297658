"""Find the atoms that bonds and constraints name: entity, copy, position and atom."""

from collections.abc import Callable, Mapping

from protenix_multiseed.inputs.molecules import Molecule
from protenix_multiseed.inputs.residues import component_at
from protenix_multiseed.inputs.words import end_of, owner_of
from protenix_multiseed.job_spec import UNKNOWN_CHAIN, AtomRef, Entity, JobSpec, Ligand, Polymer

MAX_ATOMS = 12  # of a component in a message
Names = Callable[[str], frozenset[str] | None]


class AtomRefs:
    """The atoms of a job.

    Args:
        spec: The job.
        names: Returns the names of the heavy atoms of a component; None if the dictionary does not give them.
        molecules: SMILES and file ligands by entity number; None for one that is refused.
        exact: Whether numbers mean atoms as in Protenix.
    """

    def __init__(self, spec: JobSpec, names: Names, molecules: Mapping[int, Molecule | None], *, exact: bool) -> None:
        self._spec, self._names, self._molecules, self._exact = spec, names, molecules, exact

    def problem_of(self, where: str, end: str, atom: AtomRef) -> str | None:
        """Return what does not exist: the first of entity, copy, position and atom. None if all exist.

        The text is empty if the chain or the ligand is refused already.

        Args:
            where: The place of the bond or the constraint.
            end: The ending of the fields' names: ``1``, ``2`` or nothing.
        """
        if atom is UNKNOWN_CHAIN:
            return ""
        n_entity = len(self._spec.entities)
        if not 1 <= atom.entity <= n_entity:
            return f"{where}.entity{end}: {atom.entity}: the job has entities 1 to {n_entity}"
        entity = self._spec.entities[atom.entity - 1]
        if isinstance(entity, Ligand) and not entity.is_read:
            return ""
        if atom.copy is not None and not 1 <= atom.copy <= entity.copies:
            return f"{where}.copy{end}: {atom.copy}: entity {atom.entity} has copies 1 to {entity.copies}"
        n_position = _positions(entity)
        if atom.position is not None and not 1 <= atom.position <= n_position:
            field = end_of(where, f"position{end}", atom)
            return f"{field}: {atom.position}: {owner_of(self._spec, atom)} has positions 1 to {n_position}"
        if atom.position is None or atom.atom is None:
            return None
        problem = (
            self._problem_of_number(atom.atom, atom.entity, entity)
            if isinstance(atom.atom, int)
            else self._problem_of_name(atom.atom, atom.position, atom, entity)
        )
        return f"{end_of(where, f'atom{end}', atom)}: {problem}" if problem else problem

    def name_of(self, atom: AtomRef) -> str:
        """Return the name of an atom that exists."""
        molecule = self._molecules.get(atom.entity)
        return self._numbers(molecule)[atom.atom] if molecule and isinstance(atom.atom, int) else str(atom.atom)

    def _problem_of_name(self, name: str, position: int, atom: AtomRef, entity: Entity) -> str | None:
        known = self._atoms_at(atom.entity, entity, position)
        if known is None or name in known:
            return None
        alike = [one for one in known if one[0] == name[:1].upper()] or known  # usually of one element
        shown = sorted(alike, key=lambda one: (len(one), one))[:MAX_ATOMS]
        more = ", ..." if len(known) > len(shown) else ""
        owner = owner_of(self._spec, atom)
        return f"atom {name!r} does not exist at position {position} of {owner}; it has {', '.join(shown)}{more}"

    def _problem_of_number(self, atom: int, number: int, entity: Entity) -> str | None:
        if number not in self._molecules:
            return f"{atom}: atoms are numbered only in a SMILES or FILE_ ligand; here use a name"
        molecule = self._molecules[number]
        if molecule is None:
            return ""
        if atom in molecule.repeated:
            return f"several atoms of the SMILES string have the number {atom}: label only one of them"
        if atom in self._numbers(molecule):
            return None
        if isinstance(entity, Ligand) and entity.file:
            last = max(self._numbers(molecule))
            return f"no atom {atom} in {entity.file.path.name}, or a hydrogen: atoms are counted from 0 to {last}"
        return f"no atom {atom} in the SMILES string; label it there, as in [C:{atom}]"

    def _numbers(self, molecule: Molecule) -> Mapping[int, str]:
        """The atom that each number means in this run."""
        return molecule.upstream_numbers if self._exact else molecule.numbers

    def _atoms_at(self, number: int, entity: Entity, position: int) -> frozenset[str] | None:
        """Names of the heavy atoms at a position of an entity; None if they are not known."""
        if (code := component_at(entity, position)) is not None:
            return self._names(code)
        molecule = self._molecules[number]
        return molecule.names if molecule else None


def _positions(entity: Entity) -> int:
    if isinstance(entity, Polymer):
        return len(entity.sequence)
    return max(1, len(entity.components)) if isinstance(entity, Ligand) else 1
