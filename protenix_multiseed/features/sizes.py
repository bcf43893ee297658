"""Count the tokens, atoms and MSA rows of a job without featurizing it. ``--dry-run`` plans with these counts.

The counts follow upstream's rules: AlphaFold 3 supplement 2.6 for tokens, ``json_parser`` for the atoms that are
removed when residues are joined, ``msa_featurizer`` for MSA rows. Call ``upstream.environment.prepare`` first.
"""

import warnings
from collections import Counter
from functools import cache
from typing import Any

import numpy as np

from protenix_multiseed.inputs import molecules
from protenix_multiseed.inputs.alignments import rows_of
from protenix_multiseed.inputs.content import alignments_read
from protenix_multiseed.inputs.corrections import corrected
from protenix_multiseed.inputs.modifications import FIRST_CAPS, LAST_CAPS
from protenix_multiseed.inputs.residues import SHORTEST_ALIGNED, component_at, components_of
from protenix_multiseed.job_spec import Alignment, Entity, Ion, JobSpec, Ligand, Polymer, PolymerKind
from protenix_multiseed.limits import EMPTY_TEMPLATES, TEMPLATE_SLOTS
from protenix_multiseed.settings import FeatureSettings
from protenix_multiseed.types import Sizes
from protenix_multiseed.upstream.job_dictionary import cached_of_components, with_components

MAX_ROWS, MAX_PAIRED_ROWS = 16_384, 8_192  # upstream's FeatureAssemblyLine
_NEIGHBOUR = {"protein": "ALA", "dna": "DA", "rna": "A"}
_RESIDUE_TOKENS = {"MSE"}  # one token per residue, because upstream turns MSE into MET


def count_sizes(spec: JobSpec, settings: FeatureSettings) -> Sizes:
    """Count the tokens, atoms and MSA rows of a job.

    The counts are exact, except where a bond can remove one of several leaving groups. There the smallest leaving group
    is assumed.
    """
    spec = corrected(spec, settings.reads)
    n_token = n_atom = 0
    with with_components(spec.components):
        for entity in spec.entities:
            tokens, atoms = _count_entity(entity)
            n_token += entity.copies * tokens
            n_atom += entity.copies * atoms
        tokens, atoms = _count_leaving(spec)
    n_token -= tokens
    n_atom -= atoms
    has_templates = settings.reads.template and any(one.templates or one.structures for _, one in spec.polymers())
    n_template = TEMPLATE_SLOTS if has_templates else EMPTY_TEMPLATES
    return Sizes(n_token=n_token, n_atom=n_atom, n_msa=count_rows(spec, settings), n_template=n_template)


def count_rows(spec: JobSpec, settings: FeatureSettings) -> int:
    """Count the rows of a job's MSA."""
    reads = settings.reads
    if not reads.msa:
        return 1
    aligned = [
        (polymer, alignments_read(polymer, reads) if len(polymer.sequence) >= SHORTEST_ALIGNED else {})
        for _, polymer in spec.polymers()
    ]
    pairs = len({polymer.sequence for polymer, _ in aligned if polymer.kind == "protein"}) > 1
    if pairs and any("paired" in found for _, found in aligned):
        return _count_paired_rows(spec, settings)
    rows = [
        _n_rows(_sources(found, pair_as_unpair=settings.msa_pair_as_unpair), polymer, reads.exact, pairs)
        for polymer, found in aligned
        if found
    ]
    return min(1 + max(rows, default=int(not pairs)), MAX_ROWS)


def _count_entity(entity: Entity) -> tuple[int, int]:
    """Return the number of tokens and atoms of one copy."""
    if isinstance(entity, Polymer):
        return _count_polymer(components_of(entity))
    if isinstance(entity, Ion):
        n = _n_component_atoms(entity.component)
    elif entity.components:
        n = sum(map(_n_component_atoms, entity.components))
    else:
        n = len(_molecule_atoms(entity))
    return n, n


def _count_polymer(components: tuple[str, ...]) -> tuple[int, int]:
    places = Counter(_place(components, position) for position in range(1, len(components) + 1))
    n_token = n_atom = 0
    for (code, before, after), count in places.items():
        atoms = len(_residue_atoms(code, before, after))
        n_atom += count * atoms
        n_token += count * (1 if _is_one_token(code) else atoms)
    return n_token, n_atom


def _place(components: tuple[str, ...], position: int) -> tuple[str, str | None, str | None]:
    """Return a residue's component and the components beside it, None at the ends of the chain.

    Neighbours that are no caps are exchanged for a common one of their kind, because all of them bond alike.
    """
    before = _neighbour(components[position - 2]) if position > 1 else None
    after = _neighbour(components[position]) if position < len(components) else None
    return components[position - 1], before, after


@cache
def _is_one_token(code: str) -> bool:
    from protenix.data.constants import STD_RESIDUES

    return code in STD_RESIDUES or code in _RESIDUE_TOKENS


@cached_of_components
def _neighbour(code: str) -> str:
    from protenix.data.core import ccd

    return code if code in (*FIRST_CAPS, *LAST_CAPS) else _NEIGHBOUR.get(ccd.get_mol_type(code), code)


@cached_of_components
def _residue_atoms(code: str, before: str | None, after: str | None) -> frozenset[str]:
    """Return the heavy atoms of a residue between these neighbours, from a short chain that upstream builds."""
    from protenix.data.inference.json_parser import _build_polymer_atom_array

    with warnings.catch_warnings(action="ignore"):  # featurization passes them on
        chain = _build_polymer_atom_array([one for one in (before, code, after) if one])
    return frozenset(chain.atom_name[chain.res_id == 1 + (before is not None)].tolist())


@cached_of_components
def _n_component_atoms(code: str) -> int:
    from protenix.data.core import ccd

    component = ccd.get_component_atom_array(code, keep_leaving_atoms=True, keep_hydrogens=False)
    return 0 if component is None else len(component)


def _molecule_atoms(ligand: Ligand) -> frozenset[str]:
    if ligand.smiles is not None:
        return molecules.of_smiles(ligand.smiles).names
    return molecules.of_file(ligand.file.path).names if ligand.file else frozenset()


def _count_leaving(spec: JobSpec) -> tuple[int, int]:
    """Return the number of tokens and atoms that leave because of the job's bonds."""
    bonded: dict[tuple[int, int, int], Counter[str]] = {}  # bonds of each atom, by entity, position and copy
    for end in (end for bond in spec.bonds for end in (bond.first, bond.second)):
        copies = range(1, spec.entities[end.entity - 1].copies + 1) if end.copy is None else (end.copy,)
        for copy in copies:
            bonded.setdefault((end.entity, end.position or 1, copy), Counter())[str(end.atom)] += 1
    n_token = n_atom = 0
    for (number, position, _), counts in bonded.items():
        entity = spec.entities[number - 1]
        if (code := component_at(entity, position)) is None:
            continue
        present = _residue_atoms(*_place(components_of(entity), position)) if isinstance(entity, Polymer) else None
        atoms = _n_leaving(code, frozenset(counts.items()), present)
        n_atom += atoms
        n_token += 0 if isinstance(entity, Polymer) and _is_one_token(code) else atoms
    return n_token, n_atom


@cached_of_components
def _n_leaving(code: str, bonds: frozenset[tuple[str, int]], present: frozenset[str] | None) -> int:
    """Return how many atoms leave a residue for these numbers of bonds of its atoms.

    One group leaves for each bond. If there are more groups than bonds, the smallest are assumed to leave.

    Args:
        present: Atoms of the residue; None for all atoms of the component.
    """
    from protenix.data.core import ccd

    component: Any = ccd.get_component_atom_array(code, keep_leaving_atoms=True, keep_hydrogens=False)
    if component is None or not component.central_to_leaving_groups:
        return 0
    there = frozenset(component.atom_name.tolist()) if present is None else present
    gone: set[str] = set()
    for atom, count in bonds:
        groups = [there & set(group) for group in component.central_to_leaving_groups.get(atom, ())]
        gone.update(*sorted(groups, key=len)[:count])
    return len(gone)


def _sources(found: dict[str, Alignment], *, pair_as_unpair: bool) -> tuple[Alignment, ...]:
    roles = ("paired", "unpaired") if pair_as_unpair else ("unpaired",)
    return tuple(found[role] for role in roles if role in found)


def _n_rows(sources: tuple[Alignment, ...], polymer: Polymer, exact: bool, pairs: bool) -> int:
    """Count the distinct rows of several alignments of a chain.

    Args:
        pairs: Whether the job has several distinct proteins. Then upstream takes out the rows that are the query,
            which is a paired row.
    """
    if all(one.file is not None for one in sources):
        stats = tuple(one.file.path.stat().st_mtime_ns for one in sources if one.file)
        return _n_rows_in_files(sources, stats, polymer.kind, polymer.sequence, exact, pairs)
    return _count_distinct(sources, polymer.kind, polymer.sequence, exact, pairs)


@cache
def _n_rows_in_files(
    files: tuple[Alignment, ...],
    changed: tuple[int, ...],
    kind: PolymerKind,
    sequence: str,
    exact: bool,
    pairs: bool,
) -> int:
    return _count_distinct(files, kind, sequence, exact, pairs)


def _count_distinct(sources: tuple[Alignment, ...], kind: PolymerKind, sequence: str, exact: bool, pairs: bool) -> int:
    rows = {row: is_query for one in sources for row, is_query in rows_of(one, kind, sequence, exact=exact)}
    return sum(not is_query for is_query in rows.values()) if pairs else max(1, len(rows))


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
    polymers_only = corrected(JobSpec(name=spec.name, entities=tuple(polymers)), settings.reads)
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
