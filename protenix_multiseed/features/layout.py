"""The compact layout in which features travel, and its way back to the dictionary that Protenix's model reads.

Upstream hands the model 1.7 GB for a complex of 1,200 tokens: one-hot tensors of 64-bit integers, a bond mask that
only a training loss reads, the distogram of empty templates. The compact layout keeps what the model reads, as
indices and small integers; :func:`expand` restores every tensor bit for bit.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from protenix_multiseed.types import Features, SeedFeatures

N_ELEMENT = 128  # Table 5 of the AlphaFold 3 supplement
N_NAME_CHARACTER = 64
N_RESTYPE = 32
N_TEMPLATE_BIN = 39
N_CONSTRAINT_CHANNEL = {"contact_atom": 2, "contact": 2, "pocket": 1, "substructure": 4}

INDEX_FEATURES = (
    "residue_index",
    "asym_id",
    "entity_id",
    "sym_id",
    "ref_space_uid",
    "atom_to_token_idx",
    "atom_to_tokatom_idx",
    "ref_mask",
    "ref_charge",
    "is_ligand",
    "distogram_rep_atom_mask",
)
FLOAT_FEATURES = ("profile", "deletion_mean", "esm_token_embedding")
_PAIR_TEMPLATE_FEATURES = (
    "template_distogram",
    "template_unit_vector",
    "template_pseudo_beta_mask",
    "template_backbone_frame_mask",
)
_PER_SEED = frozenset({"ref_pos", "has_frame"})
# Read by no module at inference: training losses and metrics, or restored from others by expand().
UNREAD_FEATURES = frozenset(
    {
        "bond_mask",
        "msa_mask",
        "token_index",
        "frame_atom_index",
        "resolution",
        "mol_id",
        "mol_atom_index",
        "entity_mol_id",
        "pae_rep_atom_mask",
        "plddt_m_rep_atom_mask",
        "modified_res_mask",
        "is_protein",
        "is_dna",
        "is_rna",
        "prot_unpaired_num_alignments",
        "prot_paired_num_alignments",
        "rna_unpaired_num_alignments",
        "rna_pair_num_alignments",
        "prot_pair_num_alignments",
        "prot_unpair_num_alignments",
        "rna_unpair_num_alignments",
    }
)
_DELETIONS = np.arange(-128, 128, dtype=np.int8)


def compact(full: Mapping[str, Any]) -> dict[str, Any]:
    """Upstream's feature dictionary in the compact layout, without what depends on the seed.

    Args:
        full: Upstream's dictionary, as tensors. Keys this layout does not know (guidance features) are kept as they
            are.
    """
    arrays: dict[str, Any] = {key: shrink(full[key].numpy()) for key in INDEX_FEATURES}
    arrays |= {key: full[key].numpy() for key in FLOAT_FEATURES if key in full}
    arrays |= compact_one_hots(full["restype"], full["ref_element"], full["ref_atom_name_chars"])
    arrays["token_bonds"] = full["token_bonds"].numpy().astype(bool)
    arrays["msa"] = full["msa"].numpy().astype(np.int8)
    arrays["deletion_matrix"] = (
        full["deletion_matrix"].numpy().astype(np.int8)
        if "deletion_matrix" in full
        else np.zeros(arrays["msa"].shape, dtype=np.int8)
    )
    arrays |= compact_templates(
        full["template_aatype"].numpy(), full["template_atom_positions"].numpy(), full["template_atom_mask"].numpy()
    )
    if "constraint_feature" in full:
        arrays |= compact_constraint(full["constraint_feature"])
    known = {
        *arrays,
        *UNREAD_FEATURES,
        *_PER_SEED,
        *_PAIR_TEMPLATE_FEATURES,
        "has_deletion",
        "deletion_value",
        "constraint_feature",
        "template_atom_positions",
        "template_atom_mask",
    }
    arrays |= {
        f"extra:{key}": value.numpy() if torch.is_tensor(value) else value
        for key, value in full.items()
        if key not in known
    }
    return arrays


def compact_one_hots(restype: torch.Tensor, element: torch.Tensor, name_chars: torch.Tensor) -> dict[str, np.ndarray]:
    """One-hot features as indices."""
    return {
        "restype": restype.argmax(-1).numpy().astype(np.uint8),
        "ref_element": element.argmax(-1).numpy().astype(np.uint8),
        "ref_atom_name_chars": name_chars.argmax(-1).numpy().astype(np.uint8),
    }


def compact_templates(aatype: np.ndarray, positions: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Templates as atoms; of empty ones only the residue types, which upstream's embedder reads all the same."""
    arrays = {"template_aatype": aatype.astype(np.int8)}
    if mask.any():
        arrays |= {"template_atom_positions": positions.astype(np.float32), "template_atom_mask": mask.astype(bool)}
    return arrays


def compact_constraint(constraint: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Constraint features that say something; those that are zero throughout are left out."""
    return {f"constraint:{key}": value.numpy() for key, value in constraint.items() if torch.any(value != 0)}


def shrink(array: np.ndarray) -> np.ndarray:
    """The array in the smallest integer type that holds its values."""
    if array.size == 0:
        return array.astype(np.int8)
    return array.astype(np.promote_types(np.min_scalar_type(array.min()), np.min_scalar_type(array.max())))


def expand(features: Features, seed: SeedFeatures, *, constraint: bool = False) -> dict[str, Any]:
    """The dictionary of CPU tensors that upstream's model reads for one seed.

    Args:
        constraint: Whether the model has a constraint embedder, which reads its features even where they are zero.
    """
    arrays = features.arrays
    full: dict[str, Any] = {key: torch.from_numpy(arrays[key].astype(np.int64)) for key in INDEX_FEATURES}
    full |= {key: torch.from_numpy(np.array(arrays[key])) for key in FLOAT_FEATURES if key in arrays}
    full["token_index"] = torch.arange(features.n_token)
    full["restype"] = _one_hot(arrays["restype"], N_RESTYPE).float()
    full["ref_element"] = _one_hot(arrays["ref_element"], N_ELEMENT)
    full["ref_atom_name_chars"] = _one_hot(arrays["ref_atom_name_chars"], N_NAME_CHARACTER)
    full["token_bonds"] = torch.from_numpy(arrays["token_bonds"].astype(np.float32))
    full["ref_pos"] = torch.from_numpy(np.array(seed.ref_pos))
    full["has_frame"] = torch.from_numpy(seed.has_frame.astype(np.int64))
    full["msa"] = torch.from_numpy(arrays["msa"].astype(np.int64))
    deletions = arrays["deletion_matrix"].view(np.uint8) ^ 128  # row of the tables below
    full["deletion_value"] = torch.from_numpy(
        (np.arctan(_DELETIONS / 3.0) * (2.0 / np.pi)).astype(np.float32)[deletions]
    )
    full["has_deletion"] = torch.from_numpy(np.clip(_DELETIONS, 0.0, 1.0).astype(np.float32)[deletions])
    full |= _expand_templates(arrays, features.n_token)
    if constraint:
        n = features.n_token
        full["constraint_feature"] = {
            key: torch.from_numpy(np.array(arrays[f"constraint:{key}"]))
            if f"constraint:{key}" in arrays
            else torch.zeros(n, n, channels)
            for key, channels in N_CONSTRAINT_CHANNEL.items()
        }
    for key, value in arrays.items():
        if key.startswith("extra:"):
            full[key.removeprefix("extra:")] = (
                torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value
            )
    return full


def _expand_templates(arrays: Mapping[str, Any], n_token: int) -> dict[str, torch.Tensor]:
    aatype = arrays["template_aatype"]
    full = {"template_aatype": torch.from_numpy(aatype.astype(np.int64))}
    if "template_atom_mask" not in arrays:
        shape = (len(aatype), n_token, n_token)
        return full | {
            "template_distogram": torch.zeros(*shape, N_TEMPLATE_BIN),
            "template_unit_vector": torch.zeros(*shape, 3),
            "template_pseudo_beta_mask": torch.zeros(shape),
            "template_backbone_frame_mask": torch.zeros(shape),
        }
    from protenix.data.template.template_featurizer import Templates

    made = Templates(
        aatype=aatype.astype(np.int32),
        atom_positions=np.array(arrays["template_atom_positions"]),
        atom_mask=np.array(arrays["template_atom_mask"]),
    ).as_protenix_dict()
    return full | {key: torch.from_numpy(made[key]) for key in _PAIR_TEMPLATE_FEATURES}


def _one_hot(indices: np.ndarray, classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.from_numpy(indices.astype(np.int64)), classes)
