"""What a job means: letters, components, atoms, files. Everything that would fail later, found before work starts."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protenix_multiseed.dictionary import Dictionary
from protenix_multiseed.inputs import schema

LIGAND_SUFFIXES = (".mol", ".sdf", ".pdb", ".mol2")  # upstream's lig_file_to_atom_info
MAX_FILE_BYTES = 2**31  # of an alignment; the largest databases give some hundred megabytes
MAX_LIGAND_BYTES = 2**24
TEMPLATE_SUFFIXES = (".a3m", ".hhr")
PROTEIN_CODES = {
    "A": "ALA",
    "R": "ARG",
    "N": "ASN",
    "D": "ASP",
    "C": "CYS",
    "Q": "GLN",
    "E": "GLU",
    "G": "GLY",
    "H": "HIS",
    "I": "ILE",
    "L": "LEU",
    "K": "LYS",
    "M": "MET",
    "F": "PHE",
    "P": "PRO",
    "S": "SER",
    "T": "THR",
    "W": "TRP",
    "Y": "TYR",
    "V": "VAL",
    "X": "UNK",
}
_INSERTIONS = {ord(letter): None for letter in "abcdefghijklmnopqrstuvwxyz."}
_LETTERS = {
    "proteinChain": schema.PROTEIN_LETTERS,
    "dnaSequence": schema.DNA_LETTERS,
    "rnaSequence": schema.RNA_LETTERS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRules:
    """What the run's model and switches accept.

    Attributes:
        msa, rna_msa, template: Whether those files will be read, and so must be there.
        max_tokens: The model's limit, or None.
        model: Its name, for messages.
    """

    model: str
    msa: bool = True
    rna_msa: bool = False
    template: bool = False
    max_tokens: int | None = None


def check_job(
    spec: schema.JobSpec, folder: Path, rules: InputRules, dictionary: Dictionary
) -> tuple[dict[str, Any], int, list[str]]:
    """Check one job and resolve its paths.

    Args:
        spec: The job in the input format.
        folder: The folder of its file, where relative paths begin; the working folder is tried next.

    Returns:
        Upstream's job dictionary with absolute paths, its tokens as far as counted, and the problems found.
    """
    checker = _Checker(spec, folder, rules, dictionary)
    resolved = checker.run()
    return resolved, checker.n_token, checker.problems


class _Checker:
    """One job's check. Problems are collected, so that one look at the messages mends them all."""

    def __init__(self, spec: schema.JobSpec, folder: Path, rules: InputRules, dictionary: Dictionary) -> None:
        self.spec, self.folder, self.rules, self.dictionary = spec, folder, rules, dictionary
        self.problems: list[str] = []
        self.atom_names: list[dict[int, frozenset[str] | None]] = []  # per entity: position -> atom names, None unknown
        self.n_token = 0

    def run(self) -> dict[str, Any]:
        sequences = []
        seen_ids: dict[str, str] = {}
        for number, box in enumerate(self.spec.sequences):
            where = f"sequences[{number}].{box.kind}"
            for chain_id in box.entity.id or ():
                if chain_id in seen_ids:
                    self._problem(
                        f"{where}.id", f"{chain_id!r} is also an id of {seen_ids[chain_id]}: chain IDs are unique"
                    )
                seen_ids[chain_id] = where
            sequences.append({box.kind: self._entity(where, box.kind or "", box.entity)})
        resolved: dict[str, Any] = {"name": self.spec.name, "sequences": sequences}
        if self.spec.covalent_bonds:
            for index, bond in enumerate(self.spec.covalent_bonds):
                self._bond(f"covalent_bonds[{index}]", bond)
            resolved["covalent_bonds"] = [bond.model_dump(exclude_none=True) for bond in self.spec.covalent_bonds]
        if self.spec.constraint:
            self._constraint(self.spec.constraint)
            resolved["constraint"] = self.spec.constraint.model_dump(exclude_none=True, by_alias=False)
            for contact in resolved["constraint"].get("contact", ()):
                for end in ("atom1", "atom2"):  # upstream numbers a contact's atoms only where they are no strings
                    if isinstance(contact.get(end), str) and contact[end].isdigit():
                        contact[end] = int(contact[end])
            if self.spec.constraint.pocket:
                resolved["constraint"]["pocket"] = _pocket(self.spec.constraint.pocket)
        limit = self.rules.max_tokens
        if limit is not None and self.n_token > limit and not self.problems:
            self._problem(
                "sequences",
                f"about {self.n_token} tokens: {self.rules.model} takes at most {limit}; "
                "choose another --model, or a smaller complex",
            )
        return resolved

    def _problem(self, field: str, message: str) -> None:
        self.problems.append(f"{field}: {message}")

    # Entities

    def _entity(self, where: str, kind: str, entity: schema.Entity) -> dict[str, Any]:
        resolved = entity.model_dump(exclude_none=True, exclude={"label_entity_id", "label_asym_id"})
        resolved["count"] = entity.copies
        if isinstance(entity, schema.ProteinChain | schema.DnaSequence):
            components = self._polymer(where, kind, entity)
            names = {position: self._names(code) for position, code in enumerate(components, start=1)}
            resolved |= self._msa(where, kind, entity, resolved)
        elif isinstance(entity, schema.Ion):
            self._component(f"{where}.ion", entity.ion, "an ion is written as its component code, such as MG or NA")
            names = {1: self._names(entity.ion)}
            self.n_token += entity.copies
        elif isinstance(entity, schema.Ligand):
            names, ligand = self._ligand(f"{where}.ligand", entity.ligand)
            resolved["ligand"] = ligand
            self.n_token += entity.copies * sum(len(atoms or ()) for atoms in names.values())
        self.atom_names.append(names)
        return resolved

    def _polymer(self, where: str, kind: str, entity: schema.ProteinChain | schema.DnaSequence) -> list[str]:
        allowed = _LETTERS[kind]
        for position, letter in enumerate(entity.sequence, start=1):
            if letter not in allowed:
                hint = "letters are upper case" if letter.upper() in allowed else f"allowed: {''.join(sorted(allowed))}"
                self._problem(
                    f"{where}.sequence", f"{letter!r} at position {position} is not a letter of this kind; {hint}"
                )
                break
        components = [_component_code(kind, letter) for letter in entity.sequence]
        for index, modification in enumerate(entity.modifications or ()):
            code_key, position_key = (key for key in type(modification).model_fields)
            code, position = getattr(modification, code_key).removeprefix("CCD_"), getattr(modification, position_key)
            field = f"{where}.modifications[{index}]"
            if position > len(components):
                self._problem(
                    f"{field}.{position_key}",
                    f"{position} is past the end of the sequence, which has {len(components)}",
                )
            elif self._component(f"{field}.{code_key}", code, "see the component's page in the PDB"):
                components[position - 1] = code
        self.n_token += entity.copies * len(components)
        return components

    def _ligand(self, field: str, text: str) -> tuple[dict[int, frozenset[str] | None], str]:
        if text.startswith("CCD_"):
            codes = text.removeprefix("CCD_").split("_")
            for code in codes:
                self._component(field, code, "the PDB's ligand page lists the codes; or give a SMILES string")
            return {position: self._names(code) for position, code in enumerate(codes, start=1)}, text
        if text.startswith("FILE_"):
            path = self._file(field, text.removeprefix("FILE_"), MAX_LIGAND_BYTES)
            if path is None:
                return {1: None}, text
            if path.suffix not in LIGAND_SUFFIXES:
                self._problem(field, f"{path.name}: expected a file ending in {', '.join(LIGAND_SUFFIXES)}")
                return {1: None}, text
            return {1: self._file_atoms(field, path)}, f"FILE_{path}"
        return {1: self._smiles_atoms(field, text)}, text

    def _smiles_atoms(self, field: str, smiles: str) -> frozenset[str] | None:
        from rdkit import Chem, rdBase

        if len(smiles) > 10_000:
            self._problem(
                field, f"a SMILES string of {len(smiles)} characters: at most 10000; give the ligand as FILE_ or CCD_"
            )
            return None
        reason = "syntax error"
        molecule: Any
        with rdBase.BlockLogs():
            molecule = Chem.MolFromSmiles(smiles, sanitize=False)
            try:
                if molecule is not None:
                    Chem.SanitizeMol(molecule)
            except ValueError as error:
                molecule, reason = None, str(error).splitlines()[0]
        if molecule is None or molecule.GetNumAtoms() == 0:
            self._problem(
                field,
                f"{_shorten(smiles)} is not a SMILES string RDKit can read ({reason}); "
                "a component is written CCD_ATP, a file FILE_path",
            )
            return None
        return _molecule_atom_names(molecule)

    def _file_atoms(self, field: str, path: Path) -> frozenset[str] | None:
        from rdkit import Chem, rdBase

        readers: dict[str, Any] = {
            ".mol": Chem.MolFromMolFile,
            ".pdb": Chem.MolFromPDBFile,
            ".mol2": Chem.MolFromMol2File,
            ".sdf": lambda file: next(iter(Chem.SDMolSupplier(file)), None),
        }
        with rdBase.BlockLogs():
            try:
                molecule = readers[path.suffix](str(path))
            except (OSError, RuntimeError, ValueError):
                molecule = None
        if molecule is None:
            self._problem(
                field, f"{path.name} cannot be read as a molecule: open it in a chemistry program and save it again"
            )
            return None
        if molecule.GetNumConformers() == 0 or not molecule.GetConformer().Is3D():
            self._problem(field, f"{path.name} has no 3D coordinates: a ligand file gives the reference conformer")
            return None
        return _molecule_atom_names(molecule)

    def _component(self, field: str, code: str, hint: str) -> bool:
        if code in self.dictionary:
            if self.dictionary.atom_names(code) == ():
                self._problem(field, f"component {code!r} has no atoms in the dictionary; {hint}")
                return False
            return True
        suggestion = next(
            (
                f"did you mean {other!r}?"
                for other in (code.upper(), code.removeprefix("CCD_").upper())
                if other != code and other in self.dictionary
            ),
            hint,
        )
        self._problem(field, f"component {code!r} is not in the chemical dictionary; {suggestion}")
        return False

    def _names(self, code: str) -> frozenset[str] | None:
        names = self.dictionary.atom_names(code) if code in self.dictionary else None
        return None if names is None else frozenset(names)

    # MSA and templates

    def _msa(self, where: str, kind: str, entity: schema.Entity, resolved: dict[str, Any]) -> dict[str, Any]:
        paths: dict[str, Any] = {}
        is_read = self.rules.msa and (kind == "proteinChain" or self.rules.rna_msa)
        if isinstance(entity, schema.ProteinChain) and entity.msa is not None:
            resolved.pop("msa")
            given = (entity.pairedMsa, entity.unpairedMsa, entity.pairedMsaPath, entity.unpairedMsaPath)
            if self.rules.msa and all(value is None for value in given):
                paths |= self._old_msa(f"{where}.msa.precomputed_msa_dir", entity.msa)
        unfound = set()
        for key in ("pairedMsaPath", "unpairedMsaPath"):
            if text := getattr(entity, key, None):
                path = self._file(f"{where}.{key}", text) if is_read else self._resolve(text)
                paths[key] = str(path or text)
                if path is None:
                    unfound.add(text)
        template = getattr(entity, "templatesPath", None)
        if template and self.rules.template:
            if (path := self._file(f"{where}.templatesPath", template)) and path.suffix not in TEMPLATE_SUFFIXES:
                self._problem(f"{where}.templatesPath", f"{path.name}: expected a file of hits ending in .a3m or .hhr")
            paths["templatesPath"] = str(path or template)
        if is_read and isinstance(entity, schema.ProteinChain | schema.DnaSequence):
            for key in ("pairedMsa", "unpairedMsa"):
                inline = getattr(entity, key, None)
                if inline:
                    self._a3m(f"{where}.{key}", inline, entity.sequence, kind)
                elif inline is None and (path_text := paths.get(f"{key}Path")) and path_text not in unfound:
                    try:
                        self._a3m(
                            f"{where}.{key}Path", Path(path_text).read_text(encoding="ascii"), entity.sequence, kind
                        )
                    except UnicodeDecodeError as error:
                        self._problem(
                            f"{where}.{key}Path", f"{path_text}: not an a3m file: byte {error.start} is not ASCII"
                        )
                    except OSError as error:
                        self._problem(f"{where}.{key}Path", f"{path_text}: cannot be read: {error.strerror}")
        return paths

    def _old_msa(self, field: str, msa: schema.OldMsa) -> dict[str, str]:
        if not msa.precomputed_msa_dir:
            return {}
        folder = self._resolve(msa.precomputed_msa_dir)
        names = {"pairedMsaPath": "pairing.a3m", "unpairedMsaPath": "non_pairing.a3m"}
        found = {key: str(folder / name) for key, name in names.items() if (folder / name).is_file()}
        if not found:
            self._problem(field, f"{msa.precomputed_msa_dir}: no pairing.a3m or non_pairing.a3m there")
        return found

    def _a3m(self, field: str, text: str, sequence: str, kind: str) -> None:
        """The first row must be the sequence, and every row as long: upstream fills a short row with residues."""
        if not text.isascii():
            self._problem(field, "not an a3m alignment: it has characters that are not ASCII")
            return
        rows = _aligned_rows(text)
        if not rows:
            self._problem(field, "not an a3m alignment: no line starts with '>'")
            return
        query = rows[0]
        if kind == "rnaSequence":
            query, sequence = query.replace("T", "U"), sequence.replace("T", "U")
        if query != sequence:
            pairs = enumerate(zip(query, sequence, strict=False), start=1)
            position = next((i for i, (a, b) in pairs if a != b), min(len(query), len(sequence)) + 1)
            self._problem(
                field,
                f"the first row of the alignment is not the sequence: they differ at position {position} "
                f"({len(query)} and {len(sequence)} residues); use the alignment made for this sequence",
            )
            return
        for number, row in enumerate(rows[1:], start=2):
            if len(row) != len(query):
                found = f"row {number} has {len(row)} aligned columns, the first {len(query)}"
                self._problem(field, f"{found}: the file is cut short or damaged")
                return

    # Files

    def _resolve(self, text: str) -> Path:
        try:
            path = Path(text).expanduser()
            beside = self.folder / path
            return (path if not beside.exists() and path.exists() else beside).resolve()
        except (
            OSError,
            RuntimeError,
            ValueError,
        ):  # too long for a path, no such user, a NUL: a file that is not there
            return self.folder / "?"

    def _file(self, field: str, text: str, most: int = MAX_FILE_BYTES) -> Path | None:
        path = self._resolve(text)
        if path.is_file():
            if (size := path.stat().st_size) <= most:
                return path
            self._problem(field, f"{text[:100]}: {size} bytes, at most {most} are read")
            return None
        self._problem(field, f"{text[:100]}: no such file, neither from {self.folder} nor from the working folder")
        return None

    # Bonds and constraints

    def _bond(self, where: str, bond: schema.CovalentBond) -> None:
        counts = []
        for end in ("1", "2"):
            entity, copy = int(getattr(bond, f"entity{end}")), getattr(bond, f"copy{end}")
            position, atom = int(getattr(bond, f"position{end}")), getattr(bond, f"atom{end}")
            if self._place(where, end, entity, None if copy is None else int(copy), position, atom):
                counts.append(1 if copy is not None else self.spec.sequences[entity - 1].entity.copies)
        if len(counts) == 2 and counts[0] != counts[1]:
            self._problem(
                where,
                f"entity1 has {counts[0]} chains and entity2 {counts[1]}: without copy1 and copy2 the bond is "
                "made between every pair, and the two counts must be equal",
            )

    def _constraint(self, constraint: schema.Constraint) -> None:
        for index, contact in enumerate(constraint.contact or ()):
            where = f"constraint.contact[{index}]"
            self._place(where, "1", contact.entity1, contact.copy1, contact.position1, contact.atom1)
            self._place(where, "2", contact.entity2, contact.copy2, contact.position2, contact.atom2)
        if pocket := constraint.pocket:
            binder = pocket.binder_chain
            self._place("constraint.pocket.binder_chain", "", binder.entity, binder.copy_, None, None)
            for index, residue in enumerate(pocket.contact_residues):
                where = f"constraint.pocket.contact_residues[{index}]"
                self._place(where, "", residue.entity, residue.copy_, residue.position, None)
                if (residue.entity, residue.copy_) == (binder.entity, binder.copy_):
                    self._problem(where, "lies on the binder chain itself: the pocket is made of other chains")

    def _place(
        self, where: str, end: str, entity: int, copy: int | None, position: int | None, atom: int | str | None
    ) -> bool:
        """Whether entity, copy, position and atom exist; what does not is a problem."""
        if not 1 <= entity <= len(self.spec.sequences):
            self._problem(f"{where}.entity{end}", f"{entity}: the job has entities 1 to {len(self.spec.sequences)}")
            return False
        box, names = self.spec.sequences[entity - 1], self.atom_names[entity - 1]
        if copy is not None and not 1 <= copy <= box.entity.copies:
            self._problem(f"{where}.copy{end}", f"{copy}: entity {entity} has copies 1 to {box.entity.copies}")
            return False
        if position is None:
            return True
        if position not in names:
            self._problem(f"{where}.position{end}", f"{position}: entity {entity} has positions 1 to {len(names)}")
            return False
        if atom is None or (known := names[position]) is None:
            return True
        if isinstance(atom, int) or atom.isdigit():
            if isinstance(box.entity, schema.Ligand) and not box.entity.ligand.startswith("CCD_"):
                return self._atom_number(f"{where}.atom{end}", box.entity.ligand, int(atom))
            self._problem(
                f"{where}.atom{end}", f"{atom}: atoms are numbered only in a SMILES or FILE_ ligand; here use a name"
            )
            return False
        if atom not in known:
            near = difflib.get_close_matches(atom, sorted(known), n=3, cutoff=0.3) or sorted(known)[:6]
            self._problem(
                f"{where}.atom{end}",
                f"atom {atom!r} does not exist at position {position} of entity {entity}; "
                f"it has {', '.join(near)}" + (", ..." if len(known) > len(near) else ""),
            )
            return False
        return True

    def _atom_number(self, field: str, ligand: str, number: int) -> bool:
        from rdkit import Chem

        if ligand.startswith("FILE_"):  # numbered by position in the file; featurization knows the molecule
            return True
        molecule: Any = Chem.MolFromSmiles(ligand)
        maps = {atom.GetAtomMapNum() for atom in molecule.GetAtoms()} - {0} if molecule is not None else set()
        valid = maps or set(range(molecule.GetNumAtoms() if molecule is not None else 0))
        if number not in valid:
            self._problem(field, f"no atom {number} in the SMILES string; label it there, as in [C:{number}]")
            return False
        return True


def _pocket(pocket: schema.Pocket) -> dict[str, Any]:
    """The pocket in upstream's keys (``copy`` is a method of pydantic's models, so ours is spelt ``copy_``)."""
    residues = [{"entity": r.entity, "copy": r.copy_, "position": r.position} for r in pocket.contact_residues]
    binder = {"entity": pocket.binder_chain.entity, "copy": pocket.binder_chain.copy_}
    return {"binder_chain": binder, "contact_residues": residues, "max_distance": pocket.max_distance}


def _component_code(kind: str, letter: str) -> str:
    """The component of a one-letter code, as upstream's ``json_parser`` maps it."""
    if kind == "proteinChain":
        return PROTEIN_CODES.get(letter, "UNK")
    unknown = {"X": "N"}
    return ("D" if kind == "dnaSequence" else "") + unknown.get(letter, letter)


def _molecule_atom_names(molecule: Any) -> frozenset[str]:
    """Names that upstream gives a ligand's heavy atoms: element and running number."""
    count: dict[str, int] = {}
    names = []
    for atom in molecule.GetAtoms():
        element = atom.GetSymbol().upper()
        count[element] = count.get(element, 0) + 1
        if element != "H":
            names.append(f"{element}{count[element]}")
    return frozenset(names)


def _aligned_rows(text: str) -> list[str]:
    """Rows of an a3m alignment without insertions, read as upstream's ``parse_fasta`` reads them."""
    rows: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith(">"):
            rows.append([])
        elif rows and not line.startswith("#"):
            rows[-1].append(line.strip())
    return ["".join(row).translate(_INSERTIONS) for row in rows]


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 50 else text[:47] + "...")
