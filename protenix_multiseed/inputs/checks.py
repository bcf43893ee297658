"""Check the content of a job: sequence letters, components, atoms, files.

Mistakes that would fail later in the run are found here, before work starts.
"""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from protenix_multiseed.errors import InputError
from protenix_multiseed.inputs import alignments, molecules
from protenix_multiseed.inputs.content import alignments_read
from protenix_multiseed.inputs.residues import COMPONENTS, component_at
from protenix_multiseed.job_spec import AtomRef, Bond, Entity, Ion, JobSpec, Ligand, Polymer, SourceFile
from protenix_multiseed.settings import InputRules
from protenix_multiseed.upstream.dictionary import Dictionary

TEMPLATE_SUFFIXES = (".a3m", ".hhr")
_Result = TypeVar("_Result")


def check_job(spec: JobSpec, rules: InputRules, dictionary: Dictionary) -> tuple[int, list[str]]:
    """Check one job.

    Returns:
        The number of tokens, as far as it is known before featurization, and the problems found. Each problem starts
        with its field.
    """
    checker = _Checker(spec, rules, dictionary)
    checker.run()
    return checker.n_token, checker.problems


class _Checker:
    """Checks one job. All problems are collected, so that the user can fix all of them at once."""

    def __init__(self, spec: JobSpec, rules: InputRules, dictionary: Dictionary) -> None:
        self.spec, self.rules, self.dictionary = spec, rules, dictionary
        self.problems: list[str] = []
        self.n_token = 0
        self._ligand_atoms: dict[int, frozenset[str] | None] = {}  # SMILES and file ligands only, by entity number

    def run(self) -> None:
        seen: dict[str, str] = {}
        for number, entity in enumerate(self.spec.entities, start=1):
            for chain_id in entity.chain_ids:
                if chain_id in seen:
                    text = f"{chain_id!r} is also an id of {seen[chain_id]}: chain IDs must be unique"
                    self._problem(f"{entity.place}.id", text)
                seen[chain_id] = entity.place
            self._entity(number, entity)
        for bond in self.spec.bonds:
            self._bond(bond)
        self._constraints()
        limit = self.rules.max_tokens
        if limit is not None and self.n_token > limit and not self.problems:
            self._problem(
                "sequences",
                f"about {self.n_token} tokens: {self.rules.model} takes at most {limit}; "
                "choose another --model, or a smaller complex",
            )

    def _problem(self, field: str, message: str) -> None:
        self.problems.append(f"{field}: {message}")

    # Entities

    def _entity(self, number: int, entity: Entity) -> None:
        if isinstance(entity, Polymer):
            self._polymer(entity)
        elif isinstance(entity, Ion):
            hint = "an ion is written as its component code, such as MG or NA"
            self._component(f"{entity.place}.ion", entity.component, hint)
            self.n_token += entity.copies
        else:
            self._ligand(number, entity)

    def _polymer(self, polymer: Polymer) -> None:
        allowed, sequence = COMPONENTS[polymer.kind], polymer.sequence
        if not set(sequence) <= allowed.keys():
            position, letter = next((i, one) for i, one in enumerate(sequence, start=1) if one not in allowed)
            hint = "write it in upper case" if letter.upper() in allowed else f"allowed: {''.join(sorted(allowed))}"
            self._problem(
                f"{polymer.place}.sequence",
                f"{letter!r} at position {position} is not a letter of a {polymer.kind} sequence; {hint}",
            )
        position_key, code_key = (
            ("ptmPosition", "ptmType") if polymer.kind == "protein" else ("basePosition", "modificationType")
        )
        for one in polymer.modifications:
            if one.position > len(sequence):
                text = f"{one.position} is past the end of the sequence, which has {len(sequence)}"
                self._problem(f"{one.place}.{position_key}", text)
            else:
                self._component(f"{one.place}.{code_key}", one.component, "see the component's page in the PDB")
        self.n_token += polymer.copies * len(sequence)
        for alignment in alignments_read(polymer, self.rules.reads).values():
            if alignment.file is None or self._file(alignment.place, alignment.file, alignments.MAX_BYTES):
                problem = alignments.problem_of(alignment, polymer.kind, sequence)
                if problem:
                    self._problem(alignment.place, problem)
        hits = polymer.templates
        if hits and self.rules.reads.template:
            path = self._file(hits.place, hits.file, alignments.MAX_BYTES)
            if path and path.suffix not in TEMPLATE_SUFFIXES:
                self._problem(hits.place, f"{path.name}: expected a file of hits ending in .a3m or .hhr")

    def _ligand(self, number: int, ligand: Ligand) -> None:
        place, names = f"{ligand.place}.ligand", None
        if ligand.components:
            hint = "the PDB's ligand page lists the codes; or give a SMILES string"
            known = [code for code in ligand.components if self._component(place, code, hint)]
            self.n_token += ligand.copies * sum(len(self._names(code) or ()) for code in known)
            return
        if ligand.smiles is not None:
            smiles = ligand.smiles
            names = self._or_problem(place, lambda: molecules.smiles_atoms(smiles))
        elif ligand.file and (path := self._file(place, ligand.file, molecules.MAX_BYTES)):
            names = self._or_problem(place, lambda: molecules.file_atoms(path))
        self._ligand_atoms[number] = names
        self.n_token += ligand.copies * len(names or ())

    def _or_problem(self, place: str, read: Callable[[], _Result]) -> _Result | None:
        """Call ``read`` and return its result. An InputError is recorded as a problem, and None is returned."""
        try:
            return read()
        except InputError as error:
            self._problem(place, str(error))
            return None

    def _component(self, field: str, code: str, hint: str) -> bool:
        if code in self.dictionary:
            if self.dictionary.atom_names(code) == ():
                self._problem(field, f"component {code!r} has no atoms in the dictionary; {hint}")
                return False
            return True
        others = (code.upper(), code.removeprefix("CCD_").upper())
        near = next((other for other in others if other != code and other in self.dictionary), None)
        suggestion = f"did you mean {near!r}?" if near else hint
        self._problem(field, f"component {code!r} is not in the chemical dictionary; {suggestion}")
        return False

    def _names(self, code: str) -> frozenset[str] | None:
        """Names of the heavy atoms of a component; None if the dictionary does not give them."""
        names = self.dictionary.atom_names(code) if code in self.dictionary else None
        return None if names is None else frozenset(names)

    def _file(self, field: str, file: SourceFile, most: int) -> Path | None:
        written = file.written[:100]
        if not file.path.is_file():
            self._problem(field, f"{written}: no such file, neither beside the input file nor in the working folder")
            return None
        if (size := file.path.stat().st_size) > most:
            self._problem(field, f"{written}: {size} bytes, at most {most} are allowed")
            return None
        return file.path

    # Bonds and constraints

    def _bond(self, bond: Bond) -> None:
        counts = []
        for end, atom in (("1", bond.first), ("2", bond.second)):
            if self._exists(bond.place, end, atom):
                counts.append(1 if atom.copy is not None else self.spec.entities[atom.entity - 1].copies)
        if len(counts) == 2 and counts[0] != counts[1]:
            self._problem(
                bond.place,
                f"entity1 has {counts[0]} chains and entity2 {counts[1]}: without copy1 and copy2, copy n of "
                "one is bonded to copy n of the other, so the two counts must be equal",
            )

    def _constraints(self) -> None:
        for contact in self.spec.contacts:
            self._exists(contact.place, "1", contact.first)
            self._exists(contact.place, "2", contact.second)
        if pocket := self.spec.pocket:
            self._exists(f"{pocket.place}.binder_chain", "", pocket.binder)
            for index, residue in enumerate(pocket.residues):
                where = f"{pocket.place}.contact_residues[{index}]"
                self._exists(where, "", residue)
                if (residue.entity, residue.copy) == (pocket.binder.entity, pocket.binder.copy):
                    self._problem(where, "lies on the binder chain itself: name residues of other chains")

    def _exists(self, where: str, end: str, atom: AtomRef) -> bool:
        """Whether entity, copy, position and atom exist. The first missing one is recorded as a problem."""
        n_entity = len(self.spec.entities)
        if not 1 <= atom.entity <= n_entity:
            self._problem(f"{where}.entity{end}", f"{atom.entity}: the job has entities 1 to {n_entity}")
            return False
        entity = self.spec.entities[atom.entity - 1]
        if atom.copy is not None and not 1 <= atom.copy <= entity.copies:
            text = f"{atom.copy}: entity {atom.entity} has copies 1 to {entity.copies}"
            self._problem(f"{where}.copy{end}", text)
            return False
        n_position = _positions(entity)
        if atom.position is not None and not 1 <= atom.position <= n_position:
            text = f"{atom.position}: entity {atom.entity} has positions 1 to {n_position}"
            self._problem(f"{where}.position{end}", text)
            return False
        return atom.position is None or atom.atom is None or self._atom_exists(f"{where}.atom{end}", atom, entity)

    def _atom_exists(self, field: str, atom: AtomRef, entity: Entity) -> bool:
        known = self._atoms_at(atom.entity, entity, atom.position or 1)
        if known is None:
            return True
        if isinstance(atom.atom, int):
            if not isinstance(entity, Ligand) or entity.components:
                text = f"{atom.atom}: atoms are numbered only in a SMILES or FILE_ ligand; here use a name"
                self._problem(field, text)
                return False
            # Atoms of a file ligand are numbered by their position in the file. Featurization checks the number.
            if entity.smiles is not None and atom.atom not in molecules.smiles_numbers(entity.smiles):
                text = f"no atom {atom.atom} in the SMILES string; label it there, as in [C:{atom.atom}]"
                self._problem(field, text)
                return False
            return True
        if atom.atom in known:
            return True
        near = difflib.get_close_matches(str(atom.atom), sorted(known), n=3, cutoff=0.3) or sorted(known)[:6]
        more = ", ..." if len(known) > len(near) else ""
        self._problem(
            field,
            f"atom {atom.atom!r} does not exist at position {atom.position} of entity {atom.entity}; "
            f"it has {', '.join(near)}{more}",
        )
        return False

    def _atoms_at(self, number: int, entity: Entity, position: int) -> frozenset[str] | None:
        """Names of the heavy atoms at a position of an entity; None if they are not known."""
        if isinstance(entity, Polymer):
            return self._names(component_at(entity, position))
        if isinstance(entity, Ion):
            return self._names(entity.component)
        return self._names(entity.components[position - 1]) if entity.components else self._ligand_atoms[number]


def _positions(entity: Entity) -> int:
    if isinstance(entity, Polymer):
        return len(entity.sequence)
    return max(1, len(entity.components)) if isinstance(entity, Ligand) else 1
