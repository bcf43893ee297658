"""The compact layout of features, and its expansion to the dictionary that Protenix's model reads.

For a complex of 1,200 tokens upstream gives the model 1.7 GB. It includes one-hot tensors of 64-bit integers, a bond
mask that only a training loss reads, and the distogram of empty templates. The compact layout keeps only the features
that the model reads, as indices and small integers. :func:`expand` restores every tensor bit for bit.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional

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
PAIR_TEMPLATE_FEATURES = (
    "template_distogram",
    "template_unit_vector",
    "template_pseudo_beta_mask",
    "template_backbone_frame_mask",
)
_PER_SEED = frozenset({"ref_pos", "has_frame"})
# No module reads these at inference. They serve training losses and metrics, or expand() restores them.
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
_CPU = torch.device("cpu")


def compact(full: Mapping[str, Any]) -> dict[str, Any]:
    """Convert upstream's feature dictionary to the compact layout, without the features that depend on the seed.

    Args:
        full: Upstream's dictionary of tensors. Keys that this layout does not know (guidance features) are kept as they
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
        *PAIR_TEMPLATE_FEATURES,
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
    """Convert one-hot features to indices."""
    return {
        "restype": restype.argmax(-1).numpy().astype(np.uint8),
        "ref_element": element.argmax(-1).numpy().astype(np.uint8),
        "ref_atom_name_chars": name_chars.argmax(-1).numpy().astype(np.uint8),
    }


def compact_templates(aatype: np.ndarray, positions: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Return templates as atoms. Empty templates keep only their residue types, which upstream's embedder reads."""
    arrays = {"template_aatype": aatype.astype(np.int8)}
    if mask.any():
        arrays |= {"template_atom_positions": positions.astype(np.float32), "template_atom_mask": mask.astype(bool)}
    return arrays


def compact_constraint(constraint: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Return the constraint features that are not zero everywhere."""
    return {f"constraint:{key}": value.numpy() for key, value in constraint.items() if torch.any(value != 0)}


def shrink(array: np.ndarray) -> np.ndarray:
    """Convert an array to the smallest integer type that holds its values."""
    if array.size == 0:
        return array.astype(np.int8)
    return array.astype(np.promote_types(np.min_scalar_type(array.min()), np.min_scalar_type(array.max())))


def expand(
    features: Features,
    seed: SeedFeatures,
    *,
    device: torch.device = _CPU,
    templates: torch.device | None = None,
    constraint: bool = False,
) -> dict[str, Any]:
    """Return the dictionary of tensors that upstream's model reads for one seed, made on ``device``.

    Args:
        features: Compact features, as numpy arrays or, after the upload, as tensors on the device.
        seed: The seed's own features.
        device: Device of the tensors.
        templates: Device of the pair features of real templates, which are large; None: ``device``.
        constraint: Whether the model has a constraint embedder. The embedder also reads features that are all zero.
    """
    n = features.n_token
    arrays = {
        key: place(value, (templates or device) if key in PAIR_TEMPLATE_FEATURES else device)
        for key, value in expand_templates(features.arrays).items()
    }
    full: dict[str, Any] = {key: arrays[key].long() for key in INDEX_FEATURES}
    full |= {key: arrays[key] for key in FLOAT_FEATURES if key in arrays}
    full["token_index"] = torch.arange(n, device=device)
    full["restype"] = functional.one_hot(arrays["restype"].long(), N_RESTYPE).float()
    full["ref_element"] = functional.one_hot(arrays["ref_element"].long(), N_ELEMENT)
    full["ref_atom_name_chars"] = functional.one_hot(arrays["ref_atom_name_chars"].long(), N_NAME_CHARACTER)
    full["token_bonds"] = arrays["token_bonds"].float()
    full["ref_pos"], full["has_frame"] = place(seed.ref_pos, device), place(seed.has_frame, device).long()
    full["msa"] = arrays["msa"].long()
    deletions = arrays["deletion_matrix"].int() + 128  # index into the tables
    full["deletion_value"], full["has_deletion"] = (table[deletions] for table in _deletion_tables(device))
    full["template_aatype"] = arrays["template_aatype"].long()
    full |= (
        {key: arrays[key] for key in PAIR_TEMPLATE_FEATURES}
        if "template_distogram" in arrays
        else _empty_templates(arrays["template_aatype"], n)
    )
    if constraint:
        full["constraint_feature"] = {
            key: arrays.get(f"constraint:{key}", torch.zeros(n, n, channels, device=device))
            for key, channels in N_CONSTRAINT_CHANNEL.items()
        }
    prefix = "extra:"
    return full | {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def place(value: Any, device: torch.device) -> Any:
    """Move an array or tensor to the device, as a tensor. Other values are returned as they are."""
    if isinstance(value, dict):  # guidance features
        return {key: place(item, device) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return torch.tensor(value, device=device)
    return value.to(device) if isinstance(value, torch.Tensor) else value


def expand_templates(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the atoms of real templates by their pair features, made on the CPU."""
    if "template_atom_mask" not in arrays:
        return dict(arrays)
    from protenix.data.template.template_featurizer import Templates

    made = Templates(
        aatype=arrays["template_aatype"].astype(np.int32),
        atom_positions=np.array(arrays["template_atom_positions"]),
        atom_mask=np.array(arrays["template_atom_mask"]),
    ).as_protenix_dict()
    kept = {key: value for key, value in arrays.items() if not key.startswith("template_atom_")}
    return kept | {key: made[key] for key in PAIR_TEMPLATE_FEATURES}


def _empty_templates(aatype: torch.Tensor, n_token: int) -> dict[str, torch.Tensor]:
    """Zeros of the shape of the pair features. All elements share one place in memory."""
    shape = (len(aatype), n_token, n_token)
    channels = {"template_distogram": (N_TEMPLATE_BIN,), "template_unit_vector": (3,)}
    zero = aatype.new_zeros((), dtype=torch.float32)
    return {key: zero.expand(*shape, *channels.get(key, ())) for key in PAIR_TEMPLATE_FEATURES}


def _deletion_tables(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return tables of upstream's ``deletion_value`` and ``has_deletion`` for deletions of -128 to 127 residues."""
    values = (np.arctan(_DELETIONS / 3.0) * (2.0 / np.pi)).astype(np.float32)
    present = np.clip(_DELETIONS, 0.0, 1.0).astype(np.float32)
    return torch.from_numpy(values).to(device), torch.from_numpy(present).to(device)
