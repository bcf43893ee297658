"""Check the content of a job: sequence letters, components, atoms, files.

Mistakes that would fail later in the run are found here, before work starts.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from protenix_multiseed.errors import InputError
from protenix_multiseed.inputs import alignments, modifications, molecules, structures, templates
from protenix_multiseed.inputs.atom_refs import AtomRefs
from protenix_multiseed.inputs.bonds import bond_problems
from protenix_multiseed.inputs.components import SMILES_CODE, component_problems
from protenix_multiseed.inputs.content import alignments_read, structures_read
from protenix_multiseed.inputs.molecules import Molecule
from protenix_multiseed.inputs.names import chain_id_problem
from protenix_multiseed.inputs.residues import COMPONENTS
from protenix_multiseed.inputs.words import PROTENIX, Words, field_of
from protenix_multiseed.job_spec import UNKNOWN_CHAIN, AtomRef, Bond, Entity, Ion, JobSpec, Ligand, Polymer, SourceFile
from protenix_multiseed.settings import InputRules
from protenix_multiseed.upstream.component import ComponentFacts
from protenix_multiseed.upstream.dictionary import Dictionary
from protenix_multiseed.upstream.job_dictionary import JobDictionary

MAX_LETTERS = 3  # of a sequence that are wrong; more are usually of one kind
_Result = TypeVar("_Result")


def check_job(
    spec: JobSpec, rules: InputRules, dictionary: Dictionary, words: Words = PROTENIX
) -> tuple[int, list[str]]:
    """Check one job.

    Args:
        spec: The job.
        rules: What the run's model and switches accept.
        dictionary: Components that inputs may name.
        words: What messages call the parts of the job.

    Returns:
        The number of tokens, as far as it is known before featurization, and the problems found. Each problem starts
        with its field.
    """
    checker = _Checker(spec, rules, dictionary, words)
    checker.run()
    return checker.n_token, checker.problems


class _Checker:
    """Checks one job. All problems are collected, so that the user can fix all of them at once."""

    def __init__(self, spec: JobSpec, rules: InputRules, dictionary: Dictionary, words: Words) -> None:
        self.spec, self.rules, self._words = spec, rules, words
        self._broken = dict(component_problems(spec))
        self.dictionary = JobDictionary([one for one in spec.components if one not in self._broken], dictionary)
        self.problems: list[str] = []
        self.n_token = 0
        self._molecules: dict[int, Molecule | None] = {}  # SMILES and file ligands only, by entity number
        self._atoms = AtomRefs(spec, self._names, self._molecules, exact=rules.reads.exact)

    def run(self) -> None:
        for component, text in self._broken.items():
            self._problem(component.place, f"component {component.code!r}: {text}")
        seen: dict[str, str] = {}
        for number, entity in enumerate(self.spec.entities, start=1):
            for chain_id in entity.chain_ids:
                if problem := chain_id_problem(chain_id):
                    self._problem(f"{entity.place}.id", problem)
                if chain_id in seen:
                    text = f"{chain_id!r} is also an id of {seen[chain_id]}: chain IDs must be unique"
                    self._problem(f"{entity.place}.id", text)
                seen[chain_id] = entity.place
            self._entity(number, entity)
        self._count_molecules()
        self._single_atoms()
        bonds = tuple(bond for bond in self.spec.bonds if self._bond(bond))
        self.problems.extend(bond_problems(replace(self.spec, bonds=bonds), self._facts, self._atoms.name_of))
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
            self.n_token += entity.copies * (len(self._names(entity.component) or ()) or 1)
        else:
            self._ligand(number, entity)

    def _polymer(self, polymer: Polymer) -> None:
        allowed, sequence = COMPONENTS[polymer.kind], polymer.sequence
        if not sequence:
            self._problem(f"{polymer.place}.sequence", "empty")
        wrong = dict.fromkeys(letter for letter in sequence if letter not in allowed)
        for letter in list(wrong)[:MAX_LETTERS]:
            hint = "write it in upper case" if letter.upper() in allowed else f"allowed: {''.join(sorted(allowed))}"
            if letter == "-":
                hint = "is it an alignment? Name that as the chain's unpairedMsaPath in a job file"
            where = f"{letter!r} at position {sequence.index(letter) + 1}"
            self._problem(f"{polymer.place}.sequence", f"{where} is not a letter of a {polymer.kind} sequence; {hint}")
        is_protein = polymer.kind == "protein"
        if is_protein and (most := self.rules.max_residues) is not None and len(sequence) > most:
            text = f"{len(sequence)} residues: {self.rules.model} reads at most {most} of a protein"
            self._problem(f"{polymer.place}.sequence", f"{text}; choose another --model")
        position_key, code_key = self._words.protein_change if is_protein else self._words.base_change
        seen: dict[int, str] = {}
        n_token = len(sequence)
        changed = {one.position for one in polymer.modifications}
        for letter in set(sequence) & {one for one, code in allowed.items() if code not in modifications.ONE_TOKEN}:
            if (facts := self._facts(allowed[letter])) is not None:
                places = {place for place, one in enumerate(sequence, start=1) if one == letter} - changed
                n_token += sum(modifications.n_token(polymer, at, allowed[letter], facts) - 1 for at in places)
        for one in polymer.modifications:
            is_placed = 1 <= one.position <= len(sequence)
            if not is_placed:
                text = f"{one.position} is past the end of the sequence, which has {len(sequence)}"
                if one.position < 1:
                    text = f"{one.position}: positions count from 1"
                self._problem(field_of(one.place, position_key), text)
            elif one.position in seen:
                text = f"residue {one.position} is modified already, to {seen[one.position]!r}: keep one of the two"
                self._problem(field_of(one.place, position_key), text)
            seen[one.position] = one.component
            field = field_of(one.place, code_key)
            if self._component(field, one.component, "see the component's page in the PDB") and is_placed:
                facts = self._facts(one.component)
                n_token += modifications.n_token(polymer, one.position, one.component, facts) - 1 if facts else 0
                is_own = self.dictionary.is_own(one.component)
                problem = facts and modifications.problem_of(polymer, one, facts, self._words.bonds, is_own=is_own)
                if problem:
                    self._problem(field, problem)
        self.n_token += polymer.copies * n_token
        for alignment in alignments_read(polymer, self.rules.reads).values():
            if alignment.file is None or self._file(alignment.place, alignment.file, alignments.MAX_BYTES):
                problem = alignments.problem_of(alignment, polymer.kind, sequence, exact=self.rules.reads.exact)
                if problem:
                    self._problem(alignment.place, problem)
        hits = polymer.templates
        if hits and self.rules.reads.template and (path := self._file(hits.place, hits.file, templates.MAX_BYTES)):
            self._or_problem(hits.place, lambda: templates.count_hits(path))
        for template in structures_read(polymer, self.rules.reads) if set(sequence) <= allowed.keys() else ():
            if template.file is None or self._file(template.place, template.file, structures.MAX_BYTES):
                self._or_problem(template.place, partial(structures.place, template, sequence))

    def _ligand(self, number: int, ligand: Ligand) -> None:
        molecule = None
        if ligand.components:
            hint = "the PDB's ligand page lists the codes; or give a SMILES string"
            place = field_of(ligand.place, self._words.component)
            known = [code for code in ligand.components if self._component(place, code, hint)]
            self.n_token += ligand.copies * sum(len(self._names(code) or ()) for code in known)
            return
        if ligand.smiles is not None:
            smiles, forms = ligand.smiles, self._words.ligand_forms
            place = field_of(ligand.place, self._words.smiles)
            molecule = self._or_problem(place, lambda: molecules.of_smiles(smiles, forms))
        elif ligand.file:
            place = f"{ligand.place}.ligand"
            if path := self._file(place, ligand.file, molecules.MAX_BYTES):
                molecule = self._or_problem(place, lambda: molecules.of_file(path))
        self._molecules[number] = molecule
        self.n_token += ligand.copies * (len(molecule.names) if molecule else 0)

    def _count_molecules(self) -> None:
        if (count := len(self._molecules)) > molecules.MAX_MOLECULES:
            self._problem(
                "sequences",
                f"{count} ligands given as SMILES or files: Protenix takes at most {molecules.MAX_MOLECULES}; write "
                f"equal ones as one entity, and {self._words.ligand_forms}",
            )

    def _single_atoms(self) -> None:
        """Refuse a job without any bond: upstream's parser fails on it. Its featurizers fail on ions alone."""
        entities = self.spec.entities
        if self.rules.reads.exact and all(isinstance(entity, Ion) for entity in entities):
            self._problem("sequences", "only ions, which Protenix cannot predict; leave --protenix-exact out")
            return
        codes: list[str] = []
        for entity in entities:
            if isinstance(entity, Polymer) or (isinstance(entity, Ligand) and not entity.components):
                return
            codes += [entity.component] if isinstance(entity, Ion) else entity.components
        if all((facts := self._facts(code)) is not None and not facts.has_bonds for code in codes):
            text = f"only single atoms ({', '.join(dict.fromkeys(codes))}), which Protenix cannot predict alone"
            self._problem("sequences", f"{text}; add a molecule or a chain")

    def _or_problem(self, place: str, read: Callable[[], _Result]) -> _Result | None:
        """Call ``read`` and return its result. An InputError is recorded as a problem, and None is returned."""
        try:
            return read()
        except InputError as error:
            self._problem(place, str(error))
            return None

    def _component(self, field: str, code: str, hint: str) -> bool:
        if any(code == broken.code for broken in self._broken):
            return False
        if code in self.dictionary:
            facts = self._facts(code)
            if facts and not facts.atoms:
                self._problem(field, f"component {code!r} has no atoms but hydrogens in the dictionary; {hint}")
            elif facts and facts.foreign:
                text = f"component {code!r} has an atom {facts.foreign[0]!r}, which is not an element; {hint}"
                self._problem(field, text)
            else:
                return True
            return False
        others = (code.upper(), code.removeprefix("CCD_").upper())
        near = next((other for other in others if other != code and other in self.dictionary), None)
        suggestion = f"did you mean {near!r}?" if near else hint
        if SMILES_CODE.fullmatch(code):
            suggestion = "Protenix writes this name for a ligand from SMILES: give its SMILES in a job file instead"
        self._problem(field, f"component {code!r} is not in the chemical dictionary; {suggestion}")
        return False

    def _facts(self, code: str) -> ComponentFacts | None:
        return self.dictionary.facts(code) if code in self.dictionary else None

    def _names(self, code: str) -> frozenset[str] | None:
        """Names of the heavy atoms of a component; None if the dictionary does not give them."""
        facts = self._facts(code)
        return None if facts is None else frozenset(facts.atoms)

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

    def _bond(self, bond: Bond) -> bool:
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
        return len(counts) == 2

    def _constraints(self) -> None:
        for contact in self.spec.contacts:
            self._exists(contact.place, "1", contact.first)
            self._exists(contact.place, "2", contact.second)
            if _is_one_chain(contact.first, contact.second):
                text = "a contact joins two different chains, but both ends are on one chain"
                self._problem(contact.place, text)
            if contact.max_distance < contact.min_distance:
                text = f"max_distance {contact.max_distance} is less than min_distance {contact.min_distance}"
                self._problem(contact.place, text)
        if pocket := self.spec.pocket:
            self._exists(f"{pocket.place}.binder_chain", "", pocket.binder)
            for index, residue in enumerate(pocket.residues):
                where = f"{pocket.place}.contact_residues[{index}]"
                self._exists(where, "", residue)
                if _is_one_chain(residue, pocket.binder):
                    self._problem(
                        residue.place or where, "lies on the binder chain itself: name residues of other chains"
                    )

    def _exists(self, where: str, end: str, atom: AtomRef) -> bool:
        """Whether entity, copy, position and atom exist. The first missing one is recorded as a problem."""
        problem = self._atoms.problem_of(where, end, atom)
        if problem:
            self.problems.append(problem)
        return problem is None


def _is_one_chain(first: AtomRef, second: AtomRef) -> bool:
    return first is not UNKNOWN_CHAIN and (first.entity, first.copy) == (second.entity, second.copy)
