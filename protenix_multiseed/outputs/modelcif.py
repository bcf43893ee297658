"""ModelCIF categories of an mmCIF file: the confidence of the model, and the software that made it.

ChimeraX and Mol* colour by ``ma_qa_metric_local``. The categories are appended to the file that upstream writes.
Definitions: https://mmcif.wwpdb.org/dictionaries/mmcif_ma.dic.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from biotite.structure import AtomArray

_DICTIONARY = "https://raw.githubusercontent.com/ihmwg/ModelCIF/master/dist/mmcif_ma.dic"


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
    from biotite.structure.io.pdbx import CIFBlock, CIFCategory

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
    block = CIFBlock({name: CIFCategory(columns) for name, columns in categories.items()}, name="model")
    text: str = block.serialize().partition("\n#\n")[2]  # without the data block's header, which the file already has
    return text
