"""Which atoms belong to which tokens, as index tables."""

import torch
from torch.nn import functional

from protenix_multiseed.model.inputs import Inputs


def atoms_and_tokens(inputs: Inputs, most: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token of each atom, and atoms of each token with their number (:func:`token_atoms`), of each entry.

    A batch of one job has them once, with a leading dimension of 1. The atoms of several jobs are padded: the table
    always has ``most`` atoms for each token, so that batches of the same padded sizes have equal shapes. The token of a
    padding atom is the first one.
    """
    first = inputs.parts[0]
    if len(inputs.parts) == 1:
        atom_to_token = first.shared["atom_to_token_idx"]
        atoms, count = token_atoms(atom_to_token, first.n_token)
        return atom_to_token[None], atoms[None], count[None]
    tables = []
    for part in inputs.parts:
        atom_to_token = part.shared["atom_to_token_idx"]
        of_tokens = token_atoms(atom_to_token, inputs.n_token, inputs.n_atom, most)
        tables += [(functional.pad(atom_to_token, (0, inputs.n_atom - part.n_atom)), *of_tokens)] * part.n_seed
    atom_to_token, atoms, count = (torch.stack(made) for made in zip(*tables, strict=True))
    return atom_to_token, atoms, count


def token_atoms(
    atom_to_token: torch.Tensor, n_token: int, n_atom: int | None = None, most: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Atom indices of each token.

    Args:
        n_token: Number of tokens. Padding tokens have no atoms.
        n_atom: Number of atoms with padding; None: without padding.
        most: Number of places for the atoms of a token; None: the largest number of atoms in a token.

    Returns:
        Indices, padded with N_atom [N_token, most], and the number of atoms of each token [N_token].
    """
    counts = torch.bincount(atom_to_token, minlength=n_token)
    order = torch.argsort(atom_to_token, stable=True)
    first = torch.cumsum(counts, 0) - counts
    nth = torch.arange(most or int(counts.max()), device=atom_to_token.device)
    places = (first[:, None] + nth).clamp(max=len(atom_to_token) - 1)
    return torch.where(nth < counts[:, None], order[places], n_atom or len(atom_to_token)), counts
