"""The random numbers that upstream draws during featurization: recorded once for a job, replayed for each seed.

Upstream's draws for one (input, seed), by generator, in upstream's order:

- Python's ``random``: one ``sample`` per bond between residues, which chooses the leaving groups to remove.
- RDKit: the conformer of a SMILES ligand. Upstream does not seed RDKit. Here the SMILES string and the seed give
  RDKit's seed, so that a prediction can be repeated.
- numpy: for a component with more than 1,000 automorphisms, one ``choice`` among them when the component first occurs.
  Then one shift and one rotation for every reference conformer.
- torch: one number when the data loader's iteration starts (``_BaseDataLoaderIter``), before all other draws. Then, for
  a job with constraints, the token that represents each residue of several tokens.
"""

import random
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from protenix_multiseed.errors import ConformerError
from protenix_multiseed.process import interrupt_kept
from protenix_multiseed.upstream.environment import replaced
from protenix_multiseed.upstream.job_dictionary import clear_with_components

MAX_PERMUTATIONS = 1000  # as in upstream's ccd.get_ccd_ref_info
MAX_SHIFT = 1.0  # Angstrom; as in upstream's geometry.random_transform


@dataclass(slots=True)
class DrawLog:
    """The draws of a job's parsing, without the shifts and rotations of the reference conformers.

    Attributes:
        leaving: (number of groups, number taken) of each ``random.sample``.
        chosen: Positions that the recorded seed took in each ``random.sample``.
        permutations: Number of automorphisms of each component with more than the limit, in the order of the draws.
    """

    leaving: list[tuple[int, int]] = field(default_factory=list)
    chosen: list[tuple[int, ...]] = field(default_factory=list)
    permutations: list[int] = field(default_factory=list)


class LeavingGroups:
    """Replaces the module ``random`` where upstream picks leaving groups, and records each pick."""

    def __init__(self, seed: int, log: DrawLog) -> None:
        self._random, self._log = random.Random(seed), log

    def sample(self, groups: Sequence[Any], count: int) -> list[Any]:
        """Pick as ``random.sample`` does, and record the pick."""
        positions = self._random.sample(range(len(groups)), count)
        self._log.leaving.append((len(groups), count))
        self._log.chosen.append(tuple(sorted(positions)))
        return [groups[position] for position in positions]


class SeededConformers:
    """Replaces ``rdkit.Chem.AllChem`` where upstream embeds a SMILES ligand, and gives RDKit a seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def EmbedMolecule(self, molecule: Any, **options: Any) -> int:  # noqa: N802  RDKit's name
        """Call RDKit's ``EmbedMolecule`` with :func:`conformer_seed` as its seed."""
        from rdkit import Chem
        from rdkit.Chem import rdDistGeom

        with interrupt_kept():
            seed = conformer_seed(Chem.MolToSmiles(molecule), self._seed)
            return int(rdDistGeom.EmbedMolecule(molecule, randomSeed=seed, **options))


def conformer_seed(smiles: str, seed: int) -> int:
    """Return RDKit's seed for the conformer of one molecule."""
    return zlib.crc32(f"{smiles}:{seed}".encode()) & 0x7FFFFFFF


class _ComponentPermutations:
    """Returns the number of automorphisms that upstream draws from for a component; 0 if it draws nothing.

    Upstream draws when the component first occurs in a process.
    """

    def __init__(self) -> None:
        self._count: dict[str, int] = {}

    def __call__(self, code: str, make: Any) -> int:
        if code not in self._count:
            drawn: list[int] = []

            def choice(population: Sequence[int], size: int, replace: bool) -> np.ndarray:
                drawn.append(len(population))
                return np.arange(size)

            with replaced(np.random, "choice", choice):
                make(code)
            self._count[code] = drawn[0] if drawn else 0
        return self._count[code]

    def clear(self) -> None:
        """Forget all components."""
        self._count.clear()


_permutations = _ComponentPermutations()
clear_with_components(_permutations.clear)


@contextmanager
def recorded(seed: int) -> Iterator[DrawLog]:
    """Give upstream's parser the random numbers of one seed, and record its draws, inside the ``with`` block."""
    from protenix.data.core import ccd
    from protenix.data.inference import json_parser

    log = DrawLog()
    met: set[str] = set()
    reference_info = ccd.get_ccd_ref_info

    def met_component(code: str) -> Any:
        if code not in met:
            met.add(code)
            if count := _permutations(code, reference_info.__wrapped__):
                log.permutations.append(count)
        return reference_info(code, return_perm=False)  # inference does not use the permutations themselves

    with ExitStack() as stack:
        stack.enter_context(replaced(json_parser, "random", LeavingGroups(seed, log)))
        stack.enter_context(replaced(json_parser, "AllChem", SeededConformers(seed)))
        stack.enter_context(replaced(ccd, "get_ccd_ref_info", met_component))
        yield log


def initial_torch_state(seed: int) -> torch.Tensor:
    """Return the state of torch's CPU generator when featurization begins.

    The generator is seeded, and the data loader has drawn one number.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.empty((), dtype=torch.int64).random_(generator=generator)
    return generator.get_state()


def replay_leaving(log: DrawLog, seed: int) -> tuple[list[tuple[int, ...]], tuple[Any, ...]]:
    """Return the positions that ``seed`` takes in each pick of the log, and then the state of Python's generator."""
    generator = random.Random(seed)
    chosen = [tuple(sorted(generator.sample(range(total), count))) for total, count in log.leaving]
    return chosen, generator.getstate()


def replay_reference(
    log: DrawLog, seed: int, reference: np.ndarray, conformers: Sequence[np.ndarray]
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Place the reference conformers at random, as one seed does in upstream.

    Upstream: ``Featurizer.get_reference_features`` and ``geometry.random_transform``.

    Args:
        log: The draws of the job.
        seed: The seed.
        reference: Conformers before placement [N_atom, 3], Angstrom.
        conformers: Atom indices of each conformer, in the order of ``ref_space_uid``.

    Returns:
        The conformers [N_atom, 3], float32, Angstrom, each centred, shifted by up to 1 A along each axis and rotated;
        the state of numpy's generator after the draws.
    """
    generator = np.random.RandomState(seed)
    for count in log.permutations:
        generator.choice(range(count), MAX_PERMUTATIONS, replace=False)
    placed = np.empty_like(reference)
    for atoms in conformers:
        points = reference[atoms]
        points = points - points.mean(axis=0)
        shift = generator.uniform(-MAX_SHIFT, MAX_SHIFT, size=3)
        rotation = Rotation.random(random_state=generator).as_matrix()
        placed[atoms] = np.dot(points + shift, rotation.T)
    return placed, tuple(generator.get_state(legacy=True))


def smiles_coordinates(smiles: str, seed: int) -> np.ndarray:
    """Return the conformer of a SMILES ligand for one seed, without hydrogens [N_atom, 3], Angstrom.

    Raises:
        ConformerError: if RDKit cannot embed the ligand.
    """
    from protenix.data.inference import json_parser

    with replaced(json_parser, "AllChem", SeededConformers(seed)):
        try:
            return np.array(json_parser.smiles_to_atom_info(smiles)["atom_array"].coord)
        except Exception as error:
            if (known := no_conformer(error)) is None:
                raise
            raise known from error


def no_conformer(error: Exception) -> ConformerError | None:
    """Return the error for the user if upstream's parser found no conformer of a ligand with a seed, else None.

    If it ran out of time, other seeds would too.
    """
    if not isinstance(error, AssertionError) or "onformer generation" not in str(error):
        return None
    return ConformerError(
        " ".join(str(error).split()),
        "leave this seed out, or give the ligand as CCD_ or as FILE_ with 3D coordinates",
    )
