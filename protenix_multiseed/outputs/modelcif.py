"""What is added to and changed in the mmCIF files that upstream writes.

Added are ModelCIF categories: the confidence of the model, and the software that made it. ChimeraX and Mol* colour by
``ma_qa_metric_local``. Definitions: https://mmcif.wwpdb.org/dictionaries/mmcif_ma.dic. The bonds inside components are
added if programs cannot know them.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import gemmi
import numpy as np

if TYPE_CHECKING:
    from biotite.structure import AtomArray
    from biotite.structure.io.pdbx import CIFCategory

_DICTIONARY = "https://raw.githubusercontent.com/ihmwg/ModelCIF/master/dist/mmcif_ma.dic"
_STYLE = gemmi.cif.WriteOptions()  # as upstream's: columns in line, "#" after each category
_STYLE.misuse_hash, _STYLE.align_loops, _STYLE.align_pairs = True, 30, 30


def model_categories(
    atoms: "AtomArray", polymers: Mapping[str, str], plddt: np.ndarray, software: Mapping[str, str]
) -> str:
    """Return the categories as mmCIF text.

    Args:
        atoms: The atoms of the structure that was written.
        polymers: Type of each polymer entity, by entity number.
        plddt: pLDDT of every atom, 0 to 100 [N_atom]. The pLDDT of a residue is the mean over its atoms.
        software: Version of each program, by its name.
    """
    from biotite.structure import get_residue_starts
    from biotite.structure.io.pdbx import CIFCategory

    starts = get_residue_starts(atoms)
    sizes = np.diff([*starts, len(atoms)])
    of_residue = np.add.reduceat(plddt, starts) / sizes
    n = len(starts)
    is_polymer = np.isin(atoms.label_entity_id[starts], list(polymers))
    categories: dict[str, dict[str, Any]] = {
        "audit_conform": {"dict_name": "mmcif_ma.dic", "dict_version": "1.4.6", "dict_location": _DICTIONARY},
        "software": {
            "pdbx_ordinal": [str(number) for number in range(1, len(software) + 1)],
            "name": list(software),
            "classification": ["model building", *["other"] * (len(software) - 1)],
            "version": list(software.values()),
        },
        "ma_qa_metric": {
            "id": ["1", "2"],
            "mode": ["global", "local"],
            "name": ["pLDDT", "pLDDT"],
            "type": ["pLDDT", "pLDDT"],
        },
        "ma_qa_metric_global": {
            "ordinal_id": "1",
            "model_id": "1",
            "metric_id": "1",
            "metric_value": f"{plddt.mean():.2f}",
        },
        "ma_qa_metric_local": {
            "ordinal_id": [str(number) for number in range(1, n + 1)],
            "model_id": ["1"] * n,
            "label_asym_id": atoms.label_asym_id[starts].astype(str).tolist(),
            "label_seq_id": np.where(is_polymer, atoms.res_id[starts].astype(str), ".").tolist(),
            "label_comp_id": atoms.res_name[starts].astype(str).tolist(),
            "metric_id": ["2"] * n,
            "metric_value": [f"{value:.2f}" for value in of_residue],
        },
    }
    return _text({name: CIFCategory(columns) for name, columns in categories.items()})


def bond_category(atoms: "AtomArray") -> str:
    """Return the bonds inside all components of a structure as mmCIF text.

    The components of the dictionary are among them: from a file with this category biotite reads no other bonds.

    Args:
        atoms: The atoms of the structure that was written, with their bonds.
    """
    from biotite.structure import get_residue_starts
    from biotite.structure.io.pdbx import CIFFile, set_structure

    different: dict[tuple[str, ...], range] = {}  # one residue of each kind: biotite takes long for all atoms
    for start, stop in pairwise(get_residue_starts(atoms, add_exclusive_stop=True).tolist()):
        different.setdefault((atoms.res_name[start], *atoms.atom_name[start:stop]), range(start, stop))
    file = CIFFile()
    set_structure(file, atoms[np.concatenate(list(different.values()))], data_block="model")
    bonds = file.block.get("chem_comp_bond")  # None: all components are single atoms
    return "" if bonds is None else _text({"chem_comp_bond": bonds})


def _text(categories: Mapping[str, "CIFCategory"]) -> str:
    """Return categories without the data block's header, which the file already has."""
    from biotite.structure.io.pdbx import CIFBlock

    text: str = CIFBlock(categories, name="model").serialize().partition("\n#\n")[2]
    return text


def without_ligand_numbers(text: str) -> str:
    """Return an mmCIF file in which ligands have no ``label_seq_id``, since it numbers the residues of polymers only.

    Bonds name their atoms by ``auth_seq_id`` too, which tells the residues of a glycan from each other.

    Raises:
        ValueError: if the text is not mmCIF. RuntimeError: likewise.
    """
    block = gemmi.cif.read_string(text).sole_block()
    polymers = set(block.find_values("_entity_poly.entity_id"))
    ligands = set()
    for row in block.find("_atom_site.", ["label_entity_id", "label_asym_id", "label_seq_id"]):
        if row[0] not in polymers:
            ligands.add(row[1])
            row[2] = "."
    bonds = block.find_mmcif_category("_struct_conn.")
    if bonds and "_struct_conn.ptnr1_auth_seq_id" not in bonds.tags:
        bonds.ensure_loop()
        for end in ("_struct_conn.ptnr1", "_struct_conn.ptnr2"):
            bonds.loop.add_columns([f"{end}_auth_asym_id", f"{end}_auth_seq_id"], ".")
            for row in block.find(f"{end}_", ["label_asym_id", "label_seq_id", "auth_asym_id", "auth_seq_id"]):
                row[2], row[3] = row[0], row[1]
                row[1] = "." if row[0] in ligands else row[1]
    made: str = block.as_string(_STYLE)
    return made
