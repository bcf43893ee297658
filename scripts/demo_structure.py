"""The deposited structure that the demo is fitted to, and the comparison of samples with it. For ``fit_demo.py``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import biotite.structure as struc
import numpy as np
import torch
from biotite.structure.io import pdb

from protenix_multiseed.types import Features


def read_truth(path: Path, chains: list[str], features: Features) -> np.ndarray:
    """Deposited coordinates in the order of the job's atoms [N_atom, 3], Angstrom.

    Atoms that a residue lacks are taken from the same residue of another copy of the chain in the entry, or from the
    reference conformer if they are in no copy. Both are superposed on the atoms of the residue that are there.
    """
    entry = pdb.PDBFile.read(path).get_structure(model=1)
    entry = entry[struc.filter_amino_acids(entry)]
    atoms, conformers = features.atom_array.value, np.asarray(features.seeds[0].ref_pos)
    made = np.full((len(atoms), 3), np.nan)
    for own, name in zip(dict.fromkeys(atoms.chain_id), chains, strict=True):
        shift = numbering(atoms[atoms.chain_id == own], entry[entry.chain_id == name])
        if shift is None:
            raise SystemExit(f"{path}: chain {name} has not the sequence of chain {own} of the job")
        copies = sorted(set(entry.chain_id), key=lambda other: (other != name, other))
        for number in np.unique(atoms.res_id[atoms.chain_id == own]):
            places = np.flatnonzero((atoms.chain_id == own) & (atoms.res_id == number))
            for copy in copies:
                of_copy = entry[(entry.chain_id == copy) & (entry.res_id == number + shift)]
                there = dict(zip(of_copy.atom_name, of_copy.coord, strict=True))
                if copy != name:
                    there.pop("O", None)  # at the end of a chain O and OXT may have each other's place
                found = np.array([place for place in places if atoms.atom_name[place] in there], dtype=int)
                if len(found) and of_copy.res_name[0] == atoms.res_name[places[0]]:
                    complete(made, found, np.array([there[atoms.atom_name[place]] for place in found]))
            complete(made, places, conformers[places])
    return made


def numbering(atoms: struc.AtomArray, chain: struc.AtomArray) -> int | None:
    """What to add to the job's residue numbers to get those of the entry's chain; None if the sequences differ."""
    own, theirs = (dict(zip(one.res_id.tolist(), one.res_name.tolist(), strict=True)) for one in (atoms, chain))
    for shift in range(-20, 21):
        common = [number for number in own if number + shift in theirs]
        if len(common) > 0.9 * len(own) and all(own[number] == theirs[number + shift] for number in common):
            return shift
    return None


def complete(made: np.ndarray, places: np.ndarray, positions: np.ndarray) -> None:
    """Give atoms ``places`` that have no position yet ``positions``, superposed on the three nearest that have one."""
    known = ~np.isnan(made[places, 0])
    if known.all():
        return
    if known.any():
        away = np.linalg.norm(positions - positions[~known].mean(0), axis=-1)
        nearest = np.argsort(np.where(known, away, np.inf))[:3]
        _, move = struc.superimpose(made[places[nearest]], positions[nearest])
        positions = move.apply(positions)
    made[places[~known]] = positions[~known]


def placed(target: torch.Tensor, n: int) -> torch.Tensor:
    """Centred copies of the target, each rotated and moved at random [n, N_atom, 3]."""
    quaternions = torch.nn.functional.normalize(torch.randn(n, 4, device=target.device), dim=-1)
    return (target - target.mean(0)) @ rotations(quaternions).mT + torch.randn(n, 1, 3, device=target.device)


def rotations(quaternions: torch.Tensor) -> torch.Tensor:
    """Rotation matrices [..., 3, 3] of unit quaternions [..., 4], real part first."""
    w, x, y, z = quaternions.unbind(-1)
    rows = (
        w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z,
    )  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def aligned(moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
    """``moving`` superposed on ``fixed``, both [..., N_atom, 3].

    Horn (1987): the best rotation is the eigenvector of the largest eigenvalue of a symmetric 4 x 4 matrix. Squaring the
    matrix again and again finds it without waiting for the CPU, as a CUDA graph needs.
    """
    centre = fixed.mean(-2, keepdim=True)
    p, q = moving - moving.mean(-2, keepdim=True), fixed - centre
    m = p.mT.double() @ q.double()
    xx, xy, xz, yx, yy, yz, zx, zy, zz = m.flatten(-2).unbind(-1)
    rows = (
        xx + yy + zz, yz - zy, zx - xz, xy - yx,
        yz - zy, xx - yy - zz, xy + yx, zx + xz,
        zx - xz, xy + yx, yy - xx - zz, yz + zy,
        xy - yx, zx + xz, yz + zy, zz - xx - yy,
    )  # fmt: skip
    power = torch.stack(rows, -1).unflatten(-1, (4, 4))
    power = power / power.norm(dim=(-2, -1), keepdim=True) + torch.eye(4, dtype=power.dtype, device=power.device)
    for _ in range(16):
        power = power @ power
        power = power / power.norm(dim=(-2, -1), keepdim=True)
    column = power.norm(dim=-2).argmax(-1)[..., None, None].expand(*power.shape[:-1], 1)
    quaternion = torch.nn.functional.normalize(power.gather(-1, column)[..., 0], dim=-1)
    return (p @ rotations(quaternion).to(p.dtype).mT) + centre


def lddt(x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the lDDT of each atom to all atoms within 15 Angstrom [N_atom]."""
    own, theirs = torch.cdist(x, x), torch.cdist(target, target)
    near = (theirs < 15) & ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    off = (own - theirs).abs()
    kept = sum((off < limit).float() for limit in (0.5, 1.0, 2.0, 4.0)) / 4
    return (kept * near).sum(-1) / near.sum(-1)


def aligned_errors(x: torch.Tensor, target: torch.Tensor, features: Mapping[str, Any]) -> torch.Tensor:
    """Error of each residue's CA in the frame of each residue's backbone [N_token, N_token], Angstrom (Alg. 30).

    The first three atoms of a residue are N, CA and C.
    """
    tokens = features["atom_to_token_idx"]
    first = torch.searchsorted(tokens, torch.arange(int(tokens.max()) + 1, device=x.device))

    def local(positions: torch.Tensor) -> torch.Tensor:
        n, ca, c = (positions[first + place] for place in range(3))
        e1 = torch.nn.functional.normalize(c - ca, dim=-1)
        e2 = n - ca
        e2 = torch.nn.functional.normalize(e2 - (e1 * e2).sum(-1, keepdim=True) * e1, dim=-1)
        axes = torch.stack([e1, e2, torch.linalg.cross(e1, e2)], -2)
        return torch.einsum("iab,ijb->ija", axes, ca[None] - ca[:, None])

    return (local(x) - local(target)).norm(dim=-1)
