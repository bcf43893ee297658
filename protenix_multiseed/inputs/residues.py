"""Map one-letter residue codes to components of the dictionary, as upstream's ``json_parser`` does."""

from protenix_multiseed.job_spec import Entity, Ion, JobSpec, Ligand, Polymer, PolymerKind

SHORTEST_ALIGNED = 5  # residues; upstream gives shorter chains no alignment and no template
_PROTEIN = {
    "A": "ALA", "R": "ARG", "N": "ASN", "D": "ASP", "C": "CYS", "Q": "GLN", "E": "GLU", "G": "GLY", "H": "HIS",
    "I": "ILE", "L": "LEU", "K": "LYS", "M": "MET", "F": "PHE", "P": "PRO", "S": "SER", "T": "THR", "W": "TRP",
    "Y": "TYR", "V": "VAL", "X": "UNK",
}  # fmt: skip
COMPONENTS: dict[PolymerKind, dict[str, str]] = {
    "protein": _PROTEIN,
    "dna": {letter: f"D{'N' if letter == 'X' else letter}" for letter in "ACGTUXIN"},
    "rna": {letter: "N" if letter == "X" else letter for letter in "ACGUXIN"},
}


def letter_of(component: str, kind: PolymerKind) -> str:
    """Return the letter of a component, or of the residue from which it is made; X if there is none."""
    import gemmi  # imported late: few inputs need it

    letters = {code: letter for letter, code in COMPONENTS[kind].items()}
    parent = gemmi.find_tabulated_residue(component).one_letter_code.strip().upper()
    return letters.get(component) or (parent if parent in COMPONENTS[kind] else "X")


def component_at(entity: Entity, position: int) -> str | None:
    """Return the component at a position of an entity, counted from 1; None in a SMILES or file ligand."""
    if isinstance(entity, Polymer):
        modified = {one.position: one.component for one in entity.modifications}
        return modified.get(position) or COMPONENTS[entity.kind].get(entity.sequence[position - 1], "UNK")
    if isinstance(entity, Ion):
        return entity.component
    return entity.components[position - 1] if entity.components else None


def components_of(polymer: Polymer) -> tuple[str, ...]:
    """Return the components of all residues, with modifications applied."""
    letters = COMPONENTS[polymer.kind]
    made = [letters.get(letter, "UNK") for letter in polymer.sequence]
    for one in polymer.modifications:
        made[one.position - 1] = one.component
    return tuple(made)


def codes_of(spec: JobSpec) -> frozenset[str]:
    """Return the codes of all components of a job, but those of unmodified residues."""
    codes: set[str] = set()
    for entity in spec.entities:
        if isinstance(entity, Polymer):
            codes.update(one.component for one in entity.modifications)
        elif isinstance(entity, Ion):
            codes.add(entity.component)
        elif isinstance(entity, Ligand):
            codes.update(entity.components)
    return frozenset(codes)
