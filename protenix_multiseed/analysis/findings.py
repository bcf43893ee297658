"""Results over all seeds of a job: ranking, agreement and convergence, as numbers and as sentences."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from protenix_multiseed.analysis.compact import NAME, Compact, Tokens, read_compact
from protenix_multiseed.analysis.comparison import Agreement
from protenix_multiseed.analysis.convergence import Convergence, convergence
from protenix_multiseed.analysis.interfaces import strongest
from protenix_multiseed.errors import DamagedError
from protenix_multiseed.files import is_file, read_text
from protenix_multiseed.types import Sample
from protenix_multiseed.units import counted

if TYPE_CHECKING:  # import biotite and SciPy only if there are samples to compare
    from protenix_multiseed.analysis.dockq import Scores

# What gather() imports. With biotite and SciPy this takes a second.
NEEDED = ("protenix_multiseed.analysis.agreement", "protenix_multiseed.analysis.dockq")
CLUSTER_RMSD = 2.0  # Angstrom; cutoff of the average linkage
_MIN_SPREAD = 2.0  # Angstrom; tokens that spread less are never reported as a loose region
_MIN_REGION_TOKENS = 5  # shorter loose regions are not reported
_MIN_GAIN = 0.00005  # of the best score; a smaller one would be shown as 0.0000


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """The samples of a job, ranked and compared.

    Attributes:
        samples: Samples, best first.
        compacts: Comparison data (``ensemble.npz``) of each seed that has it.
        agreement: Comparison of the best-ranked samples, at most 1,000; None if comparison data is missing or the
            tokens of the seeds differ.
        convergence: Best score as a function of the number of seeds.
        tokens: Tokens of the job; None if the seed of the best sample has no comparison data.
        plddt: Mean pLDDT over the compared samples [N_token], 0 to 100, with matched copies of chains.
        sentences: The results as sentences.
        notice: A sentence that every file of these results must carry, such as that the model is a demo.
        chains: Each chain with its place in the input, in the model's order.
        docked: DockQ to the best sample by pair of chains, for the best-ranked samples. Empty for a sample whose
            structure was not kept.
        n_bytes: Total bytes of the files of all seeds.
        best_sha256: SHA-256 of the structure of the best sample, from its seed's record; None if it is not recorded.
    """

    samples: tuple[Sample, ...]
    compacts: dict[int, Compact]
    agreement: Agreement | None
    convergence: Convergence
    tokens: Tokens | None
    plddt: np.ndarray | None
    sentences: tuple[str, ...]
    notice: str | None = None
    chains: tuple[Mapping[str, Any], ...] = ()
    docked: "tuple[Scores, ...]" = ()
    n_bytes: int = 0
    best_sha256: str | None = None

    @property
    def without_msa(self) -> tuple[str, ...]:
        """Names of the protein chains for which the input gives no MSA, although the model reads MSAs."""
        return _without_msa(self.chains)

    @property
    def concerns(self) -> tuple[str, ...]:
        """Those of the sentences that say why the results are worse than they could be."""
        return tuple(_on_chains(self.chains))

    @property
    def best(self) -> Sample:
        """The best-ranked sample."""
        return self.samples[0]

    def interface_scores(self, sample: Sample) -> dict[str, float]:
        """The largest ``ipsae``, ``pdockq2`` and ``lis`` over all pairs of chains; empty for a single chain."""
        compact = self.compacts.get(sample.seed)
        return dict(strongest(compact.interfaces[sample.sample])) if compact else {}

    def matched_plddt(self, most: int | None = None) -> np.ndarray:
        """Return the pLDDT of the compared samples, at most ``most``, with matched copies of chains [N, N_token]."""
        assert self.agreement is not None
        order = self.agreement.order[:most]
        samples = self.samples[: len(order)]
        return np.take_along_axis(
            np.stack([self.compacts[one.seed].plddt[one.sample] for one in samples]), order, axis=1
        )

    def dockq(self, place: int) -> "Scores":
        """DockQ to the best sample by pair of chains, for the sample at ``place`` in the ranking; empty if unknown."""
        return self.docked[place] if place < len(self.docked) else {}


def has_structure(sample: Sample) -> bool:
    """Whether the structure of a sample was kept, and not deleted since."""
    return sample.structure is not None and is_file(sample.structure, sample.folder)


def ranked(samples: Sequence[Sample]) -> list[Sample]:
    """Sort samples, best first.

    Equal scores are sorted by seed and sample, so that the order never depends on the course of the run.
    """
    return sorted(samples, key=lambda sample: (-sample.ranking_score, sample.seed, sample.sample))


def gather(
    samples: Sequence[Sample], records: Mapping[int, Mapping[str, Any]], cluster_rmsd: float = CLUSTER_RMSD
) -> Findings:
    """Rank and compare the samples of one job. They may come from several runs and folders.

    Args:
        samples: Samples of the job, in any order.
        records: Record of each seed; empty if it cannot be read.
        cluster_rmsd: Average distance within a cluster, Angstrom.

    Raises:
        DamagedError: if a file of a seed cannot be read.
    """
    from protenix_multiseed.analysis.agreement import MOST_COMPARED, agreement

    order = ranked(samples)
    compacts: dict[int, Compact] = {}
    for sample in order:
        path = sample.folder / NAME
        if sample.seed not in compacts and os.path.lexists(path):
            compacts[sample.seed] = read_compact(path)
        if sample.seed in compacts and sample.sample >= len(compacts[sample.seed].coordinates):
            raise DamagedError(sample.folder, f"{NAME} lacks sample {sample.sample}")
    tokens = compacts[order[0].seed].tokens if order[0].seed in compacts else None
    compared = order[:MOST_COMPARED]
    found, plddt = None, None
    if tokens is not None and all(_has_tokens(compacts.get(sample.seed), tokens) for sample in compared):
        coordinates = np.stack([compacts[sample.seed].coordinates[sample.sample] for sample in compared])
        scores = np.stack([compacts[sample.seed].plddt[sample.sample] for sample in compared])
        found = agreement(coordinates, scores, tokens.chain.tolist(), tokens.component.tolist(), cluster_rmsd)
        plddt = np.take_along_axis(scores, found.order, axis=1).mean(axis=0)
    by_seed: dict[int, float] = {}
    for sample in order:  # best first
        by_seed.setdefault(sample.seed, sample.ranking_score)
    curve = convergence(sorted(by_seed.items()))
    of_best = records.get(order[0].seed, {})
    chains = tuple(of_best.get("chains", ()))
    best_file = f"predictions/{order[0].structure.name}" if order[0].structure else ""
    return Findings(
        samples=tuple(order),
        compacts=compacts,
        agreement=found,
        convergence=curve,
        tokens=tokens,
        plddt=plddt,
        sentences=(*_sentences(order, found, curve, tokens, plddt), *_on_chains(chains)),
        notice=of_best.get("notice"),
        chains=chains,
        docked=tuple(_docked(order, tokens, found)),
        n_bytes=sum(file["bytes"] for record in records.values() for file in record.get("files", {}).values()),
        best_sha256=of_best.get("files", {}).get(best_file, {}).get("sha256"),
    )


def _docked(order: Sequence[Sample], tokens: Tokens | None, found: Agreement | None) -> "Iterator[Scores]":
    """DockQ of each sample to the best, with copies of a chain matched as in the agreement."""
    from protenix_multiseed.analysis.dockq import MOST_DOCKED, Atoms, dock, read_coordinates

    first = order[0]
    if found is None or tokens is None or first.structure is None or not is_file(first.structure, first.folder):
        return
    firsts = [int(np.flatnonzero(tokens.chain == chain)[0]) for chain in tokens.chains]
    polymers = [chain for chain, first in zip(tokens.chains, firsts, strict=True) if tokens.kind[first] != "ligand"]
    if len(polymers) < 2:
        return
    with _named(first):
        best = Atoms.read(read_text(first.structure, first.folder))
        if not set(tokens.chains) <= set(best.chain.tolist()):
            raise ValueError(f"a chain is missing that its {NAME} has")

    def matched_coordinates(place: int, sample: Sample) -> np.ndarray | None:
        if sample.structure is None or not is_file(sample.structure, sample.folder):  # not kept, or deleted since
            return None
        others = tokens.chain[found.order[place][firsts]].tolist()
        atoms = best.reorder(dict(zip(tokens.chains, others, strict=True)))
        with _named(sample):
            coordinates = read_coordinates(read_text(sample.structure, sample.folder))
            if coordinates.shape != best.coordinates.shape:
                raise ValueError(f"its atoms differ from those of {first.structure}")
        return None if atoms is None else coordinates[atoms]

    compared = enumerate(order[: min(MOST_DOCKED, len(found.rmsd))])
    yield from dock(best, (matched_coordinates(place, sample) for place, sample in compared), polymers)


@contextmanager
def _named(sample: Sample) -> Iterator[None]:
    """Turn an error while the structure of a sample is read into one that names the seed and the file."""
    try:
        yield
    except Exception as error:  # the file may hold anything
        name = sample.structure.name if sample.structure else ""
        raise DamagedError(sample.folder, f"{name}: {' '.join(str(error).split())}") from error


def _sentences(
    order: Sequence[Sample],
    found: Agreement | None,
    curve: Convergence,
    tokens: Tokens | None,
    plddt: np.ndarray | None,
) -> Iterator[str]:
    n, n_seed = len(order), len(curve.seeds)
    if n == 1:
        yield "one sample: nothing to compare it with"
        return
    if found is None:
        yield "not compared: not every seed has its ensemble.npz, or their tokens differ"
    else:
        n = len(found.rmsd)
        compared = int(found.core.sum())
        part = "" if found.core.all() else f" in the {compared} of {len(found.core)} tokens with pLDDT of 50 or more"
        if len(found.clusters) == 1:
            yield f"all {n} samples agree{part}: no two are more than {found.rmsd.max():.1f} A apart"
        else:
            first = found.clusters[0].members
            seeds = len({order[place].seed for place in first})
            if len(found.clusters) == n:
                yield f"no two of the {n} samples agree within {found.cutoff:g} A{part}"
            else:
                yield (
                    f"{len(found.clusters)} clusters; the best-ranked one has {len(first)} of {n} samples, "
                    f"from {seeds} of {counted(n_seed, 'seed')}{', compared' + part if part else ''}"
                )
        if tokens is not None and plddt is not None and found.core.any():
            regions = loose_regions(found.spread, tokens)
            if regions:
                yield "samples differ most at " + "; ".join(
                    f"{where} (spread {spread:.1f} A, pLDDT {plddt[place].mean():.0f})"
                    for where, spread, place in regions
                )
    if n_seed > 1:
        half = n_seed // 2
        gain = curve.expected[-1] - curve.expected[half - 1]
        higher = f"higher by {gain:.4f}" if gain >= _MIN_GAIN else "no higher"
        yield f"with {n_seed} seeds instead of {half}, the best score is {higher} on average"


def _without_msa(chains: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(str(chain["chain"]) for chain in chains if chain.get("msa") == "no")


def _on_chains(chains: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if names := _without_msa(chains):
        plural, verb = ("s", "have") if len(names) > 1 else ("", "has")
        yield f"protein chain{plural} {', '.join(names)} {verb} no MSA, so accuracy suffers"


def loose_regions(spread: np.ndarray, tokens: Tokens, most: int = 3) -> list[tuple[str, float, slice]]:
    """Return the regions of a chain whose tokens differ most between samples, largest spread first.

    Args:
        spread: Spread of each token [N_token], Angstrom.
        tokens: Tokens of the job.
        most: Largest number of regions to return.

    Returns:
        For each region: chain and residue range as text, mean spread in Angstrom, slice of tokens.
    """
    loose = spread > max(_MIN_SPREAD, 1.5 * float(np.median(spread)))
    edges = np.flatnonzero(np.diff(loose.astype(int), prepend=0, append=0) != 0)
    found = []
    for start, stop in edges.reshape(-1, 2).tolist():
        for chain in dict.fromkeys(tokens.chain[start:stop].tolist()):
            inside = np.flatnonzero(tokens.chain[start:stop] == chain) + start
            if len(inside) >= _MIN_REGION_TOKENS:
                part = slice(int(inside[0]), int(inside[-1]) + 1)
                where = f"{chain} {tokens.residue[part.start]}-{tokens.residue[part.stop - 1]}"
                found.append((where, float(spread[part].mean()), part))
    return sorted(found, key=lambda one: -one[1])[:most]


def _has_tokens(compact: Compact | None, tokens: Tokens) -> bool:
    if compact is None:
        return False
    names = ("chain", "residue", "component")
    return all(np.array_equal(getattr(compact.tokens, name), getattr(tokens, name)) for name in names)
