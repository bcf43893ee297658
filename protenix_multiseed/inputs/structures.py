"""Structures in mmCIF or PDB format: read them, and place them on a protein as its template.

Protenix takes templates from a search only. Here a structure of the user's own serves as well: with a mapping of
residues as in AlphaFold 3's input, or aligned. Nothing is filtered: neither by date, nor by identity, nor by length.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from protenix_multiseed.errors import InputError
from protenix_multiseed.inputs.document import read_text
from protenix_multiseed.inputs.residues import COMPONENTS
from protenix_multiseed.job_spec import TemplateStructure

MAX_BYTES = 2**28
MAX_CELLS = 30_000_000  # of an alignment's table; biotite takes some 13 bytes for each
MAX_TEMPLATES = 4  # of one chain; upstream's TemplateFeatureAssemblyLine
MIN_ATOMS = 5  # upstream drops a template with fewer atoms
_LETTERS = {component: letter for letter, component in COMPONENTS["protein"].items()}
_GAP_PENALTY = (-11, -1)

Position = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class ProteinChain:
    """A protein chain of a structure.

    Attributes:
        name: The author's name of the chain.
        label: Its ``label_asym_id``, or gemmi's name of its polymer in a PDB file.
        components: Components of all residues, also of those without coordinates.
        atoms: Positions of each residue's atoms by name, Angstrom. Empty for a residue without coordinates.
    """

    name: str
    label: str
    components: tuple[str, ...]
    atoms: tuple[Mapping[str, Position], ...]

    @property
    def sequence(self) -> str:
        """One-letter codes, X for all but the 20 amino acids, as upstream's template parser reads them."""
        return "".join(_LETTERS.get(component, "X") for component in self.components)


@dataclass(frozen=True, slots=True)
class PlacedTemplate:
    """A chain that is placed on a protein.

    Attributes:
        pairs: Positions of the protein and of the chain that belong together, both from 0.
    """

    chain: ProteinChain
    pairs: tuple[tuple[int, int], ...]

    def identity(self, sequence: str) -> float:
        """Share of the pairs that are the same residue."""
        template = self.chain.sequence
        return sum(sequence[query] == template[place] for query, place in self.pairs) / len(self.pairs)


def read_structure(text: str) -> Any:
    """Read a structure with gemmi.

    Raises:
        InputError: if the text is not a structure.
    """
    import gemmi  # imported late: few inputs are structures

    text = text.encode("ascii", errors="replace").decode()  # gemmi divides fixed columns between bytes
    try:
        if text.lstrip("# \r\n")[:5].lower() == "data_":
            blocks = list(gemmi.cif.read_string(text))
            with_atoms = [block for block in blocks if block.find_mmcif_category("_atom_site.")]
            if len(with_atoms) > 1:
                names = ", ".join(block.name for block in with_atoms[:3])
                raise InputError(f"{len(with_atoms)} structures in one file ({names}): give each its own file")
            structure = gemmi.make_structure_from_block((with_atoms or blocks)[0])
        else:
            structure = gemmi.read_pdb_string(text)
        structure.setup_entities()
        structure.assign_label_seq_id()
    except (ValueError, RuntimeError, IndexError) as error:
        raise InputError(f"not a structure: {str(error).splitlines()[0]}") from None
    if not len(structure) or not structure[0].count_atom_sites():
        raise InputError("the structure has no atoms")
    return structure


def place(template: TemplateStructure, sequence: str) -> PlacedTemplate:
    """Place a template on a protein. Results are kept, because the checks, the notes and featurization ask for them.

    Raises:
        InputError: if the file is not a structure with such a chain, or if the mapping does not fit.
    """
    path = template.file.path if template.file else None
    try:
        stat = path.stat() if path else None
        return _place(template, sequence, (stat.st_size, stat.st_mtime_ns) if stat else None)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


@lru_cache(maxsize=64)
def _place(template: TemplateStructure, sequence: str, changed: tuple[int, int] | None) -> PlacedTemplate:
    chains = _chains_of(template.file.path if template.file else None, template.text, changed)
    if template.mapping is not None:
        placed = PlacedTemplate(_only(template, chains), tuple(_checked(template, sequence, chains)))
    else:
        wanted = [_named(template, chains)] if template.chain is not None else chains
        placed = max((_aligned(sequence, chain) for chain in wanted), key=lambda found: found[0])[1]
    n_atom = sum(len(placed.chain.atoms[place]) for _, place in placed.pairs)
    if n_atom < MIN_ATOMS:
        raise InputError(
            f"the residues that belong to the protein have {n_atom} atoms: at least {MIN_ATOMS} are needed"
        )
    return placed


@lru_cache(maxsize=16)
def _chains_of(path: Path | None, text: str | None, changed: tuple[int, int] | None) -> tuple[ProteinChain, ...]:
    structure = read_structure(read_text(path, MAX_BYTES) if path else text or "")
    chains = tuple(_proteins(structure))
    if not chains:
        raise InputError("the structure has no protein chain")
    return chains


def _proteins(structure: Any) -> Iterator[ProteinChain]:
    for chain in structure[0]:
        polymer = chain.get_polymer()
        if not len(polymer) or not polymer.check_polymer_type().name.startswith("Peptide"):
            continue
        entity = structure.get_entity_of(polymer)
        whole = [one.split(",")[0] for one in entity.full_sequence] if entity is not None else []
        residues = list(polymer.first_conformer())
        components = whole or [residue.name for residue in residues]
        atoms: list[dict[str, Position]] = [{} for _ in components]
        for number, residue in enumerate(residues):
            position = (residue.label_seq or 0) - 1 if whole else number
            if not 0 <= position < len(components):
                raise InputError(f"chain {chain.name}: residue {residue.seqid} is not in the chain's sequence")
            atoms[position] = _positions(residue)
        yield ProteinChain(chain.name, polymer.subchain_id(), tuple(components), tuple(atoms))


def _positions(residue: Any) -> dict[str, Position]:
    """Positions of a residue's atoms. Of alternative positions the first with the highest occupancy counts."""
    best: dict[str, Any] = {}
    for atom in residue:
        if atom.name not in best or atom.occ > best[atom.name].occ:
            best[atom.name] = atom
    return {name: (atom.pos.x, atom.pos.y, atom.pos.z) for name, atom in best.items()}


def _named(template: TemplateStructure, chains: Sequence[ProteinChain]) -> ProteinChain:
    kinds: list[Callable[[ProteinChain], str]] = [lambda chain: chain.name, lambda chain: chain.label]
    if template.has_label:  # Boltz numbers the parts of each chain of a PDB file; the first is the polymer
        kinds = [kinds[1], lambda chain: f"{chain.name}1", kinds[0]]
    for name_of in kinds:
        if found := next((chain for chain in chains if name_of(chain) == template.chain), None):
            return found
    names = ", ".join(chain.name for chain in chains)
    raise InputError(f"the structure has no protein chain {template.chain!r}; protein chains: {names}")


def _only(template: TemplateStructure, chains: Sequence[ProteinChain]) -> ProteinChain:
    if template.chain is not None:
        return _named(template, chains)
    if len(chains) > 1:
        names = ", ".join(chain.name for chain in chains)
        raise InputError(f"the structure has the protein chains {names}: indices belong to one chain; keep one of them")
    return chains[0]


def _checked(template: TemplateStructure, sequence: str, chains: Sequence[ProteinChain]) -> Iterator[tuple[int, int]]:
    chain = _only(template, chains)
    if not template.mapping:
        raise InputError("queryIndices and templateIndices are empty: leave both out to have the structure aligned")
    seen = set()
    for query, place in template.mapping:
        if not 0 <= query < len(sequence):
            raise InputError(f"queryIndices: {query}: the protein has the indices 0 to {len(sequence) - 1}")
        if query in seen:
            raise InputError(f"queryIndices: {query} is given twice")
        if not 0 <= place < len(chain.components):
            raise InputError(
                f"templateIndices: {place}: chain {chain.name} has the indices 0 to {len(chain.components) - 1}"
            )
        seen.add(query)
        yield query, place


def _aligned(sequence: str, chain: ProteinChain) -> tuple[int, PlacedTemplate]:
    """Align a chain to a protein, with free gaps at the ends. Returns the score too."""
    from biotite.sequence import ProteinSequence
    from biotite.sequence.align import SubstitutionMatrix, align_optimal

    if len(sequence) * len(chain.components) > MAX_CELLS:
        raise InputError("too long to be aligned: give queryIndices and templateIndices")
    sequences = ProteinSequence(sequence), ProteinSequence(chain.sequence)
    matrix = SubstitutionMatrix.std_protein_matrix()
    options: dict[str, Any] = {"gap_penalty": _GAP_PENALTY, "terminal_penalty": False, "max_number": 1}
    (alignment,) = align_optimal(*sequences, matrix, **options)
    pairs = tuple((query, place) for query, place in alignment.trace.tolist() if query >= 0 and place >= 0)
    return int(alignment.score), PlacedTemplate(chain, pairs)
