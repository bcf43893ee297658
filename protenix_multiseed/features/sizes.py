"""Count the tokens, atoms and MSA rows of a job without featurizing it. ``--dry-run`` plans with these counts.

The counts follow upstream's rules: AlphaFold 3 supplement 2.6 for tokens, ``json_parser`` for the atoms that are
removed when residues are joined, ``msa_featurizer`` for MSA rows. Call ``upstream.environment.prepare`` first.
"""

from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from protenix_multiseed.inputs import molecules
from protenix_multiseed.inputs.alignments import aligned_rows, read_text
from protenix_multiseed.inputs.content import alignments_read
from protenix_multiseed.inputs.residues import components_of
from protenix_multiseed.job_spec import Alignment, AtomRef, Entity, Ion, JobSpec, Ligand, Polymer, PolymerKind
from protenix_multiseed.settings import FeatureSettings
from protenix_multiseed.types import Sizes

MAX_ROWS, MAX_PAIRED_ROWS = 16_384, 8_192  # upstream's FeatureAssemblyLine
SHORTEST_ALIGNED = 5  # residues; upstream gives shorter chains no alignment
_NEIGHBOUR: dict[PolymerKind, str] = {"protein": "ALA", "dna": "DA", "rna": "A"}
_RESIDUE_TOKENS = {"MSE"}  # one token per residue, because upstream turns MSE into MET


def count_sizes(spec: JobSpec, settings: FeatureSettings) -> Sizes:
    """Count the tokens, atoms and MSA rows of a job.

    The counts are exact, except where a bond can remove one of several leaving groups. There the smallest leaving group
    is assumed.
    """
    n_token = n_atom = 0
    for entity in spec.entities:
        tokens, atoms = _count_entity(entity)
        n_token += entity.copies * tokens
        n_atom += entity.copies * atoms
    for bond in spec.bonds:
        for end in (bond.first, bond.second):
            tokens, atoms = _count_leaving(spec, end)
            n_token -= tokens
            n_atom -= atoms
    return Sizes(n_token=n_token, n_atom=n_atom, n_msa=count_rows(spec, settings))


def count_rows(spec: JobSpec, settings: FeatureSettings) -> int:
    """Count the rows of a job's MSA."""
    reads = settings.reads
    if not reads.msa:
        return 1
    aligned = [
        (polymer, alignments_read(polymer, reads) if len(polymer.sequence) >= SHORTEST_ALIGNED else {})
        for _, polymer in spec.polymers()
    ]
    distinct = {polymer.sequence for polymer, _ in aligned if polymer.kind == "protein"}
    is_paired = len(distinct) > 1 and any("paired" in found for _, found in aligned)
    if is_paired:
        return _count_paired_rows(spec, settings)
    rows = [_n_distinct(_sources(found, pair_as_unpair=settings.msa_pair_as_unpair)) for _, found in aligned if found]
    return 1 + min(max(rows, default=1), MAX_ROWS - 1)


def _count_entity(entity: Entity) -> tuple[int, int]:
    """Return the number of tokens and atoms of one copy."""
    if isinstance(entity, Polymer):
        return _count_polymer(entity.kind, components_of(entity))
    if isinstance(entity, Ion):
        n = _n_component_atoms(entity.component)
    elif entity.components:
        n = sum(map(_n_component_atoms, entity.components))
    else:
        n = len(_molecule_atoms(entity))
    return n, n


def _count_polymer(kind: PolymerKind, components: tuple[str, ...]) -> tuple[int, int]:
    last = len(components) - 1
    places = Counter((code, place > 0, place < last) for place, code in enumerate(components))
    n_token = n_atom = 0
    for (code, has_previous, has_next), count in places.items():
        atoms = _n_residue_atoms(kind, code, has_previous, has_next)
        n_atom += count * atoms
        n_token += count * (1 if _is_one_token(code) else atoms)
    return n_token, n_atom


@cache
def _is_one_token(code: str) -> bool:
    from protenix.data.constants import STD_RESIDUES

    return code in STD_RESIDUES or code in _RESIDUE_TOKENS


@cache
def _n_residue_atoms(kind: PolymerKind, code: str, has_previous: bool, has_next: bool) -> int:
    """Return the heavy atoms of a residue with or without neighbours, from a short chain that upstream builds."""
    from protenix.data.inference.json_parser import _build_polymer_atom_array

    neighbour = _NEIGHBOUR[kind]
    chain = _build_polymer_atom_array([neighbour] * has_previous + [code] + [neighbour] * has_next)
    return int((chain.res_id == 1 + has_previous).sum())


@cache
def _n_component_atoms(code: str) -> int:
    from protenix.data.core import ccd

    component = ccd.get_component_atom_array(code, keep_leaving_atoms=True, keep_hydrogens=False)
    return 0 if component is None else len(component)


def _molecule_atoms(ligand: Ligand) -> frozenset[str]:
    if ligand.smiles is not None:
        return molecules.smiles_atoms(ligand.smiles)
    return molecules.file_atoms(ligand.file.path) if ligand.file else frozenset()


def _count_leaving(spec: JobSpec, end: AtomRef) -> tuple[int, int]:
    """Return the number of tokens and atoms that are removed at one end of a bond, over all copies with this bond."""
    entity = spec.entities[end.entity - 1]
    position = end.position or 1
    if isinstance(entity, Polymer):
        code = components_of(entity)[position - 1]
    elif isinstance(entity, Ion):
        code = entity.component
    elif entity.components:
        code = entity.components[position - 1]
    else:
        return 0, 0
    copies = 1 if end.copy is not None else entity.copies
    atoms = copies * _n_leaving(code, str(end.atom))
    return (0 if isinstance(entity, Polymer) and _is_one_token(code) else atoms), atoms


@cache
def _n_leaving(code: str, atom: str) -> int:
    from protenix.data.core import ccd

    component: Any = ccd.get_component_atom_array(code, keep_leaving_atoms=True, keep_hydrogens=False)
    groups = component.central_to_leaving_groups.get(atom) if component is not None else None
    heavy = set(component.atom_name.tolist()) if groups else set()
    return min((len(heavy & set(group)) for group in groups), default=0) if groups else 0


def _sources(found: dict[str, Alignment], *, pair_as_unpair: bool) -> tuple[Alignment, ...]:
    roles = ("paired", "unpaired") if pair_as_unpair else ("unpaired",)
    return tuple(found[role] for role in roles if role in found)


def _n_distinct(sources: tuple[Alignment, ...]) -> int:
    """Count the distinct rows of several alignments, without insertions. At least 1, for the query."""
    if all(one.file is not None for one in sources):
        stats = tuple((one.file.path, one.file.path.stat().st_mtime_ns) for one in sources if one.file)
        return _n_distinct_in_files(stats)
    return _n_distinct_in_texts(read_text(one) for one in sources)


@cache
def _n_distinct_in_files(files: tuple[tuple[Path, int], ...]) -> int:
    return _n_distinct_in_texts(path.read_text(encoding="ascii") for path, _ in files)


def _n_distinct_in_texts(texts: Iterable[str]) -> int:
    return max(1, len({row for text in texts for row in aligned_rows(text)}))


def _count_paired_rows(spec: JobSpec, settings: FeatureSettings) -> int:
    """Count the MSA rows after pairing chains by species. Upstream's own MSA featurizer does the pairing."""
    from protenix.data.msa.msa_featurizer import InferenceMSAFeaturizer

    from protenix_multiseed.upstream.job_dict import sequences_of

    polymers = [polymer for _, polymer in spec.polymers()]
    chains = [(polymer, copy) for polymer in polymers for copy in range(polymer.copies)]
    lengths = [len(polymer.sequence) for polymer, _ in chains]
    asym = np.repeat(np.arange(len(chains)), lengths)
    atoms: Any = _ResidueTable(
        asym_id_int=asym,
        chain_id=asym.astype(str),
        res_id=np.concatenate([np.arange(1, length + 1) for length in lengths]),
    )
    polymers_only = JobSpec(name=spec.name, entities=tuple(polymers))
    made = InferenceMSAFeaturizer.make_msa_feature(
        bioassembly=sequences_of(polymers_only),
        atom_array=atoms,
        msa_pair_as_unpair=settings.msa_pair_as_unpair,
        use_rna_msa=settings.reads.rna_msa,
    )
    return len(made["msa"])


class _ResidueTable:
    """Stand-in for an atom array, with only the annotations that upstream's MSA featurizer reads, one per residue."""

    def __init__(self, *, asym_id_int: np.ndarray, chain_id: np.ndarray, res_id: np.ndarray) -> None:
        self.asym_id_int, self.chain_id, self.res_id = asym_id_int, chain_id, res_id
        self.centre_atom_mask = np.ones(len(res_id), dtype=np.int64)

    def __getitem__(self, chosen: Any) -> "_ResidueTable":
        return _ResidueTable(
            asym_id_int=self.asym_id_int[chosen], chain_id=self.chain_id[chosen], res_id=self.res_id[chosen]
        )
