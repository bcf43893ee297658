"""What messages call the parts of a job: each format of inputs has its own names for them."""

from dataclasses import dataclass

from protenix_multiseed.job_spec import AtomRef, JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The names of a format. The defaults are those of Protenix's JSON.

    Attributes:
        component, smiles: Keys of a ligand; empty if the format has no keys.
        protein_change: Keys of the position and of the component of a modified residue in a protein.
        base_change: The same in DNA and RNA.
        ligand_forms: How the format writes ligands that are no SMILES string.
        bonds: Where bonds are written.
    """

    component: str = "ligand"
    smiles: str = "ligand"
    protein_change: tuple[str, str] = ("ptmPosition", "ptmType")
    base_change: tuple[str, str] = ("basePosition", "modificationType")
    ligand_forms: str = "a component as CCD_ATP and a file with 3D coordinates as FILE_path"
    bonds: str = "covalent_bonds"


PROTENIX = Words()


def field_of(place: str, key: str) -> str:
    """Return the name of a field. Without a key it is the place itself."""
    return f"{place}.{key}" if key else place


def end_of(place: str, key: str, end: AtomRef) -> str:
    """Return the field of one end of a bond or a constraint."""
    return end.place or f"{place}.{key}"


def owner_of(spec: JobSpec, end: AtomRef) -> str:
    """Return what has the atom: a chain if the input names chains in bonds and constraints, else an entity."""
    if end.place and end.copy is not None and (chains := spec.entities[end.entity - 1].chain_ids):
        return f"chain {chains[end.copy - 1]}"
    return f"entity {end.entity}"
