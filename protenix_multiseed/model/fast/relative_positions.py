"""Alg. 3: relative positions of token pairs as indices into a table, in place of a one-hot vector for each pair."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional


def one_hots(encoding: Any, device: torch.device) -> torch.Tensor:
    """All vectors that upstream's ``generate_relp`` can make, one in each row -> [n_row, 4 * r_max + 2 * s_max + 7].

    Row ``place * (2 * s_max + 2) + chain`` has the indices ``place`` and ``chain`` of :func:`places`.

    Args:
        encoding: Upstream's ``RelativePositionEncoding``.
    """
    n_bin, n_chain_bin = 2 * encoding.r_max + 2, 2 * encoding.s_max + 2
    none, zero = n_bin - 1, encoding.r_max  # bin of another chain or residue; bin of the distance 0
    place = torch.arange(2 * none + 1, device=device)
    is_residue, is_distance = place < none, (place >= none) & (place < 2 * none)
    residue = torch.where(is_distance, place - none, torch.where(is_residue, zero, none))
    token = torch.where(is_residue, place, none)
    chain = torch.arange(n_chain_bin, device=device).repeat(len(place))
    parts = [functional.one_hot(x, n_bin).repeat_interleave(n_chain_bin, dim=0) for x in (residue, token)]
    is_same_entity = (chain < n_chain_bin - 1)[:, None]
    return torch.cat([*parts, is_same_entity, functional.one_hot(chain, n_chain_bin)], dim=-1).float()


def places(encoding: Any, features: Mapping[str, torch.Tensor], rows: slice = slice(None)) -> torch.Tensor:
    """Row of the table for each pair of a token in ``rows`` and any token -> [n_row, N_token].

    Pairs in one residue differ in the distance of their tokens, other pairs in one chain in the distance of their
    residues. Pairs in one entity also differ in the distance of their chains.
    """
    r_max, s_max = int(encoding.r_max), int(encoding.s_max)
    none = 2 * r_max + 1

    def same(name: str) -> torch.Tensor:
        return features[name][rows, None] == features[name]

    def distance(name: str, most: int) -> torch.Tensor:
        return (features[name][rows, None] - features[name]).clamp_(-most, most).add_(most)

    in_chain = torch.where(
        same("residue_index"), distance("token_index", r_max), distance("residue_index", r_max) + none
    )
    place = torch.where(same("asym_id"), in_chain, 2 * none)
    chain = torch.where(same("entity_id"), distance("sym_id", s_max), 2 * s_max + 1)
    return place * (2 * s_max + 2) + chain
