"""Tokens of a job's atoms, and which of them have a frame."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from biotite.structure import AtomArray, get_residue_starts
from protenix.data.constants import STD_RESIDUES
from protenix.data.core import featurizer
from protenix.data.tokenizer import ELEMS, AtomArrayTokenizer, Token, TokenArray
from protenix.data.utils import get_atom_level_token_mask


def tokenize(atom_array: AtomArray) -> TokenArray:
    """Tokenize as upstream's ``AtomArrayTokenizer``, but residue by residue, which takes a third of the time.

    AlphaFold 3 supplement, 2.6: a standard residue is one token; in all other residues each atom is one token.
    """
    names = atom_array.atom_name.tolist()
    starts = get_residue_starts(atom_array, add_exclusive_stop=True).tolist()
    tokens = []
    for start, stop in pairwise(starts):
        kind = STD_RESIDUES.get(atom_array.res_name[start])
        if kind is not None and atom_array.mol_type[start] != "ligand":
            tokens.append(_token(kind, range(start, stop), names))
        else:
            tokens.extend(
                _token(ELEMS[atom_array.element[atom]], range(atom, atom + 1), names) for atom in range(start, stop)
            )
    return AtomArrayTokenizer(atom_array)._set_token_annotations(TokenArray(tokens))


def _token(kind: int, atoms: range, names: Sequence[str]) -> Token:
    token = Token(kind)
    token.atom_indices, token.atom_names = list(atoms), [names[atom] for atom in atoms]
    return token


class Frames:
    """Decides which tokens have a frame (AlphaFold 3 supplement, 4.3.2).

    The frame of a standard residue follows from its atom names. The frame of an atom in a ligand or modified residue
    uses the two nearest atoms of the placed reference conformer. Rounding can change which atoms are nearest, so this
    frame depends on the seed.
    """

    def __init__(self, tokens: TokenArray, atom_array: AtomArray) -> None:
        self._ref_mask = atom_array.ref_mask
        self._fixed = np.zeros(len(tokens), dtype=bool)
        self._drawn: list[tuple[int, Any, Any]] = []
        split = get_atom_level_token_mask(tokens, atom_array)
        is_free = (atom_array.mol_type == "ligand") | ~np.isin(atom_array.res_name, list(STD_RESIDUES)) | split
        self._conformers = {
            uid: np.flatnonzero(atom_array.ref_space_uid == uid) for uid in np.unique(atom_array.ref_space_uid[is_free])
        }
        centres = np.array(tokens.get_annotation("centre_atom_index"))
        is_standard = (atom_array.mol_type[centres] != "ligand") & np.isin(
            atom_array.res_name[centres], list(STD_RESIDUES)
        )
        for index, token in enumerate(tokens):
            if is_standard[index] and len(token.atom_indices) > 1:
                first = "N" if atom_array.mol_type[centres[index]] == "protein" else "C1'"
                self._fixed[index] = first in token.atom_names
            else:
                self._drawn.append((index, token, atom_array[centres[index]]))

    def has_frame(self, ref_pos: np.ndarray) -> np.ndarray:
        """Return whether each token has a frame, for one seed's ``ref_pos`` [N_atom, 3] -> [N_token]."""
        positions = torch.from_numpy(ref_pos)
        trees = {
            uid: (featurizer.KDTree(positions[atoms], metric="euclidean") if len(atoms) >= 3 else None, atoms)
            for uid, atoms in self._conformers.items()
        }
        has_frame = self._fixed.copy()
        for index, token, centre in self._drawn:
            has_frame[index] = bool(
                featurizer.Featurizer.get_lig_frame(token, centre, trees, positions, self._ref_mask)[0]
            )
        return has_frame
