"""Confidence scores of a seed's samples, from one pass over the PAE bin probabilities of all token pairs.

Upstream loops over samples, chains and pairs of chains, and waits for the GPU in each iteration. This module needs no
loop over pairs of chains. Up to their final maximum over tokens, pTM and ipTM (AlphaFold 3 supplement section 5.9.1)
are linear in the bin probabilities: each is a weighted sum over bins, averaged over the columns of a chain. The bin
weights depend only on a number of tokens, so sum and average can be exchanged.

The probabilities are therefore summed once over the columns of each chain [N_sample, N_token, N_chain, N_bin]. The
scores of all chains and pairs of chains are computed from these sums.
"""

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch.nn import functional

_EPSILON = 1e-8  # added to denominators, as in upstream
_MAX_ATOM_PAIRS = 2**24  # distances of more atom pairs are computed in chunks


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """Tokens or atoms grouped by chain.

    Attributes:
        order: Indices of the tokens or atoms, sorted by chain. None if they are already sorted by chain.
        counts: Number of tokens or atoms in each chain.
    """

    order: torch.Tensor | None
    counts: tuple[int, ...]

    @classmethod
    def of(cls, chain: torch.Tensor, n_chain: int) -> Self:
        """Make groups from the chain index of each token or atom."""
        order = None if bool((chain.diff() >= 0).all()) else torch.argsort(chain, stable=True)
        return cls(order=order, counts=tuple(torch.bincount(chain, minlength=n_chain).tolist()))

    def split(self, x: torch.Tensor, dim: int) -> tuple[torch.Tensor, ...]:
        """Split ``x`` along ``dim`` into one part for each chain."""
        sorted_by_chain = x if self.order is None else x.index_select(dim, self.order)
        return sorted_by_chain.split_with_sizes(self.counts, dim)

    def sums(self, x: torch.Tensor, dim: int) -> torch.Tensor:
        """Sum ``x`` over each chain along ``dim``. The order of summation is always the same."""
        return torch.stack([part.sum(dim) for part in self.split(x, dim)], dim=dim)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chains:
    """The chains of a complex.

    Attributes:
        tokens, atoms: Tokens and atoms grouped by chain.
        n_token, n_atom: Numbers of tokens and atoms in each chain [N_chain].
        of_token, of_atom: Chain index of each token [N_token] and each atom [N_atom].
        is_ligand: Whether at least ``n_token // 2`` tokens of a chain have a ligand atom, as in upstream [N_chain].
        is_polymer: Whether no atom of a chain is a ligand atom [N_chain].
    """

    tokens: Groups
    atoms: Groups
    n_token: torch.Tensor
    n_atom: torch.Tensor
    of_token: torch.Tensor
    of_atom: torch.Tensor
    is_ligand: torch.Tensor
    is_polymer: torch.Tensor

    @classmethod
    def of(cls, asym_id: torch.Tensor, atom_to_token: torch.Tensor, atom_is_polymer: torch.Tensor) -> Self:
        """Make the chains from the features of tokens and atoms.

        Args:
            asym_id: Chain identifier of each token [N_token]. Numbers may be missing.
            atom_to_token: Token index of each atom [N_atom].
            atom_is_polymer: 1 for polymer atoms, 0 for ligand atoms [N_atom].
        """
        names, of_token = torch.unique(asym_id.long(), return_inverse=True)
        of_atom = of_token[atom_to_token]
        n_token, n_atom = (torch.bincount(group, minlength=len(names)) for group in (of_token, of_atom))
        ligand_atom = (1 - atom_is_polymer).long()
        ligand_token = (torch.zeros_like(of_token).scatter_add_(0, atom_to_token, ligand_atom) > 0).long()
        zeros = torch.zeros_like(n_token)
        return cls(
            tokens=Groups.of(of_token, len(names)),
            atoms=Groups.of(of_atom, len(names)),
            n_token=n_token,
            n_atom=n_atom,
            of_token=of_token,
            of_atom=of_atom,
            is_ligand=zeros.scatter_add(0, of_token, ligand_token) >= n_token // 2,
            is_polymer=zeros.scatter_add(0, of_atom, ligand_atom) == 0,
        )


def summarise(
    *,
    configs: Any,
    pae_logits: torch.Tensor,
    plddt_logits: torch.Tensor,
    pde_logits: torch.Tensor,
    contact_probs: torch.Tensor,
    token_asym_id: torch.Tensor,
    token_has_frame: torch.Tensor,
    atom_coordinate: torch.Tensor,
    atom_to_token_idx: torch.Tensor,
    atom_is_polymer: torch.Tensor,
    N_recycle: int,  # noqa: N803  # the arguments have upstream's names
    return_full_data: bool,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Same as upstream's ``sample_confidence._compute_full_data_and_summary``, with the same arguments and result."""
    from protenix.model.sample_confidence import break_down_to_per_sample_dict, get_bin_params, logits_to_score

    chains = Chains.of(token_asym_id, atom_to_token_idx, atom_is_polymer)
    bins = {name: get_bin_params(configs.loss[name]) for name in ("plddt", "pde", "pae")}
    plddt = logits_to_score(plddt_logits, **bins["plddt"])
    pde = logits_to_score(pde_logits, **bins["pde"])
    pae, probability = logits_to_score(pae_logits, **bins["pae"], return_prob=True)
    made = _pae_scores(chains, probability, token_has_frame.bool(), bins["pae"])
    del probability
    clash = has_clash(chains, atom_coordinate, configs.metrics.clash.af3_clash_threshold)
    summary = {
        "plddt": plddt.mean(dim=-1) * 100,
        "gpde": (pde * contact_probs).sum(dim=(-1, -2)) / contact_probs.sum(),
        **made,
        **_pde_scores(chains, pde, contact_probs),
        **_plddt_scores(chains, plddt),
        "has_clash": clash,
        "num_recycles": torch.tensor(N_recycle, device=pae.device),
        "disorder": torch.zeros_like(made["ptm"]),
        "ranking_score": 0.8 * made["iptm"] + 0.2 * made["ptm"] - 100 * clash,
    }
    summaries = break_down_to_per_sample_dict(summary, shared_keys=["num_recycles"])
    if not return_full_data:
        return summaries, [{}]
    shared = {
        "contact_probs": contact_probs,
        "token_has_frame": token_has_frame,
        "token_asym_id": token_asym_id,
        "atom_to_token_idx": atom_to_token_idx,
        "atom_is_polymer": atom_is_polymer,
    }
    full = {"atom_plddt": plddt, "token_pair_pde": pde, "token_pair_pae": pae, "atom_coordinate": atom_coordinate}
    return summaries, break_down_to_per_sample_dict(full | shared, shared_keys=list(shared))


def _off_diagonal(x: torch.Tensor) -> torch.Tensor:
    """Set the diagonal of ``x`` [..., N_chain, N_chain] to zero."""
    is_diagonal = torch.eye(x.shape[-1], device=x.device, dtype=torch.bool)
    return x.masked_fill(is_diagonal, 0.0)


def _pae_scores(
    chains: Chains, probability: torch.Tensor, has_frame: torch.Tensor, bins: dict[str, Any]
) -> dict[str, torch.Tensor]:
    """Compute pTM and ipTM of the complex, of each chain and of each pair of chains.

    Args:
        probability: Probability of each PAE bin [N_sample, N_token, N_token, N_bin].
        has_frame: Whether a token has a frame [N_token]. The final maximum is over tokens with a frame.
        bins: Upstream's parameters of the PAE bins.
    """
    from protenix.model.sample_confidence import get_bin_centers

    n_token, n_chain = len(has_frame), len(chains.n_token)
    centers = get_bin_centers(**bins).to(probability.device)

    def weights(count: torch.Tensor) -> torch.Tensor:
        """Weight of each PAE bin for ``count`` tokens [...] -> [..., N_bin]."""
        scale = 1.24 * torch.pow(count.clamp(min=19).double() - 15, 1 / 3) - 1.8
        return torch.reciprocal(1 + torch.square(centers / scale.float()[..., None]))

    by_chain = chains.tokens.sums(probability, dim=2)  # [N_sample, N_token, N_chain, N_bin]
    sizes, is_own = chains.n_token, functional.one_hot(chains.of_token, n_chain).bool()
    together = sizes[:, None] + sizes - torch.diag(sizes)
    of_pair = (by_chain * weights(together)[chains.of_token]).sum(-1)
    mean = of_pair / torch.where(is_own, sizes.float(), sizes + _EPSILON)
    framed = chains.tokens.split(mean.masked_fill(~has_frame[:, None], -torch.inf), dim=1)
    highest = torch.stack([part.amax(1) for part in framed], dim=1)  # best token of each chain, against each chain
    pair_iptm = _off_diagonal(_zero_without_frames(torch.maximum(highest, highest.mT)))

    of_all = (by_chain * weights(sizes.sum())).sum(-1)
    others = (of_all * ~is_own).sum(-1) / ((n_token - sizes[chains.of_token]) + _EPSILON)
    ptm, iptm = (
        _zero_without_frames(score.masked_fill(~has_frame, -torch.inf).amax(-1))
        for score in (of_all.sum(-1) / n_token, others)
    )

    counts = (chains.tokens.sums(has_frame.float(), dim=0) > 0).float()  # a pair counts if its first chain has a frame
    counted = counts * (n_chain - 1) + counts.sum() - counts
    chain_iptm = (pair_iptm * (counts[:, None] + counts)).sum(-1) / counted.clamp(min=1)
    mean = (chain_iptm[..., :, None] + chain_iptm[..., None, :]) / 2
    of_second = torch.where(chains.is_ligand, chain_iptm[..., None, :].expand_as(mean), mean)
    of_first = chain_iptm[..., :, None].expand_as(mean)
    return {
        "ptm": ptm,
        "iptm": iptm,
        "chain_ptm": _zero_without_frames(highest.diagonal(dim1=-2, dim2=-1)),
        "chain_iptm": chain_iptm,
        "chain_pair_iptm": pair_iptm,
        "chain_pair_iptm_global": _off_diagonal(torch.where(chains.is_ligand[:, None], of_first, of_second)),
    }


def _zero_without_frames(x: torch.Tensor) -> torch.Tensor:
    """Replace -inf by 0, upstream's score if no token has a frame."""
    return x.masked_fill(x == -torch.inf, 0.0)


def _pde_scores(chains: Chains, pde: torch.Tensor, contact: torch.Tensor) -> dict[str, torch.Tensor]:
    """Predicted distance error, weighted by contact probability, within each chain and between chains."""
    of_tokens = chains.tokens
    weighted, weight = (of_tokens.sums(of_tokens.sums(x, dim=-2), dim=-1) for x in (pde * contact, contact))
    ratio = weighted / (weight + _EPSILON)
    between = torch.triu(ratio, diagonal=1)
    return {"chain_gpde": ratio.diagonal(dim1=-2, dim2=-1), "chain_pair_gpde": between + between.mT}


def _plddt_scores(chains: Chains, plddt: torch.Tensor) -> dict[str, torch.Tensor]:
    """Mean pLDDT over the atoms of each chain and of each pair of chains."""
    sums, count = chains.atoms.sums(plddt, dim=1), chains.n_atom
    pairs = (sums[:, :, None] + sums[:, None, :]) / (count[:, None] + count)
    return {"chain_plddt": sums / count, "chain_pair_plddt": _off_diagonal(pairs)}


def has_clash(chains: Chains, coordinates: torch.Tensor, threshold: float) -> torch.Tensor:
    """Whether any two polymer chains of a sample clash -> [N_sample].

    Two chains clash if the number of atom pairs closer than ``threshold`` is more than 100, or more than half the
    number of atoms of the smaller chain (AlphaFold 3 supplement section 5.9.2; upstream's ``metrics.clash``).

    Args:
        coordinates: [N_sample, N_atom, 3], Angstrom.
        threshold: Angstrom.
    """
    n_sample, n_atom, _ = coordinates.shape
    n_chain = len(chains.n_atom)
    member = functional.one_hot(chains.of_atom, n_chain).float()
    close = coordinates.new_zeros(n_sample, n_chain, n_chain)
    step = max(1, _MAX_ATOM_PAIRS // (n_sample * n_atom))
    for start in range(0, n_atom, step):
        rows = slice(start, start + step)
        near = (torch.cdist(coordinates[:, rows], coordinates) < threshold).float()
        close += member[rows].mT @ (near @ member)
    smaller = torch.minimum(chains.n_atom[:, None], chains.n_atom)
    counted = torch.triu(chains.is_polymer[:, None] & chains.is_polymer, diagonal=1)
    return ((close > 100) | (close > 0.5 * smaller)).logical_and(counted).any(dim=(-1, -2))
