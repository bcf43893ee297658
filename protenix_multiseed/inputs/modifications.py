"""Decide whether a component of the dictionary can take the place of a residue in a polymer."""

from protenix_multiseed.inputs.residues import COMPONENTS
from protenix_multiseed.job_spec import Modification, Polymer, PolymerKind
from protenix_multiseed.upstream.component import ComponentFacts

# Caps of proteins, with the atom that is bonded to the chain. The dictionary does not list them as peptides.
FIRST_CAPS = {"ACE": "C", "FOR": "C"}
LAST_CAPS = {"NME": "N", "NH2": "N"}
CAP_BONDS = ("FOR", "NME", "NH2")  # Protenix bonds ACE rightly
# Components with one token each: those of Protenix's alphabets, and MSE, which it turns into MET.
ONE_TOKEN = {code for letters in COMPONENTS.values() for code in letters.values()} - {"I", "DI", "DU"} | {"MSE"}
_LINKS: dict[PolymerKind, tuple[str, str]] = {"protein": ("N", "C"), "dna": ("P", "O3'"), "rna": ("P", "O3'")}
_REPLACED = {"C": "OXT", "P": "OP3"}  # atoms of a free residue, by the atom whose bond to a neighbour replaces them


def polymer_class(component_type: str) -> str:
    """Return ``protein``, ``dna``, ``rna`` or ``ligand``, as upstream's ``ccd.get_mol_type`` does.

    Args:
        component_type: The dictionary's ``_chem_comp.type``.
    """
    kind = component_type.upper()
    if "PEPTIDE" in kind and kind != "PEPTIDE-LIKE":
        return "protein"
    return next((name for name in ("dna", "rna") if name.upper() in kind), "ligand")


def links_of(polymer: Polymer, position: int) -> tuple[str, ...]:
    """Return the atoms of a residue that Protenix bonds to the residues beside it."""
    before, after = _LINKS[polymer.kind]
    return (before,) * (position > 1) + (after,) * (position < len(polymer.sequence))


def n_token(polymer: Polymer, position: int, component: str, facts: ComponentFacts) -> int:
    """Return the number of tokens of a residue: 1, or its atoms without those that leave for its neighbours."""
    if component in ONE_TOKEN:
        return 1
    groups = (facts.leaving.get(link, ()) for link in links_of(polymer, position))
    return len(facts.atoms) - sum(min(map(len, found)) for found in groups if found)


def problem_of(
    polymer: Polymer, one: Modification, facts: ComponentFacts, bonds: str, *, is_own: bool = False
) -> str | None:
    """Return why a component cannot take the place of this residue; None if it can.

    A residue in a chain is bonded to its neighbours: in proteins C to N, in nucleic acids O3' to P. Protenix makes no
    other bond between residues, and makes none if an atom is missing.

    Args:
        bonds: Where the input writes bonds.
        is_own: Whether the component is the job's own. Then it must mark the atoms that leave as the dictionary does.
    """
    code, is_first, is_last = one.component, one.position == 1, one.position == len(polymer.sequence)
    if polymer.kind == "protein" and (code in FIRST_CAPS or code in LAST_CAPS):
        fits = (is_first and code in FIRST_CAPS) or (is_last and code in LAST_CAPS)
        if fits and len(polymer.sequence) > 1:
            return None
        end = "first" if code in FIRST_CAPS else "last"
        return f"{code!r} caps a chain: it can only be the {end} residue, with a residue beside it"
    belongs = polymer_class(facts.type)
    is_nucleic = polymer.kind != "protein"
    if belongs == "ligand" or is_nucleic != (belongs != "protein"):
        return (
            f"{code!r} ({facts.type.lower()}) cannot take the place of a residue in a {polymer.kind} chain; "
            f"write it as a ligand of its own, and bond it with {bonds}"
        )
    if "GAMMA" in facts.type or "DELTA" in facts.type:
        return (
            f"{code!r} ({facts.type.lower()}) joins a chain through its side chain, but Protenix bonds its C; "
            "there is no way to predict it as a residue"
        )
    if facts.is_ambiguous and links_of(polymer, one.position):
        return (
            f"Protenix cannot tell which atoms of {code!r} leave when it is bonded to the residues beside it: give a "
            "component of your own without atoms that leave (userCCD)"
        )
    missing = next((atom for atom in links_of(polymer, one.position) if atom not in facts.atoms), None)
    if missing:
        end = "first" if missing == _LINKS[polymer.kind][0] else "last"
        return f"{code!r} has no atom {missing} for the bond to its neighbour: it can only be the {end} residue"
    for link in links_of(polymer, one.position) if is_own else ():
        atom = _REPLACED.get(link)
        if atom in facts.atoms and not any(atom in group for group in facts.leaving.get(link, ())):
            return (
                f"{code!r} keeps its atom {atom} although a neighbour is bonded in its place: leave the atom out, or "
                "give it _chem_comp_atom.pdbx_leaving_atom_flag Y"
            )
    return None
