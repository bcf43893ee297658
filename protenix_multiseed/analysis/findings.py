"""What all seeds of a job say together: ranking, agreement, convergence, in figures and in words."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from protenix_multiseed.analysis.compact import NAME, Compact, Tokens, read_compact
from protenix_multiseed.analysis.convergence import Convergence, convergence
from protenix_multiseed.analysis.interfaces import strongest
from protenix_multiseed.types import Sample

if TYPE_CHECKING:  # biotite and SciPy are loaded only if there is something to compare
    from protenix_multiseed.analysis.agreement import Agreement
    from protenix_multiseed.analysis.dockq import Scores

CLUSTER_RMSD = 2.0  # Angstrom; average linkage
_LOOSE, _STRETCH = 2.0, 5  # Angstrom of spread, and how many tokens make a region worth naming


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """A job's samples, ranked and compared.

    Attributes:
        samples: Best first.
        compacts: Of each seed that has one.
        agreement: Of the first samples of the ranking; None if there is nothing to compare.
        tokens: Of the job; None if no seed has them.
        plddt: Mean over the compared samples [N_token].
        sentences: What was found, in words.
        notice: What every file of these results must carry, such as that the model is a demo.
        chains: Each chain with its place in the input, in the model's order.
        docked: DockQ to the best by pair of chains, of the first samples; empty for one whose structure was not kept.
        n_bytes: Of all seeds' files.
    """

    samples: tuple[Sample, ...]
    compacts: dict[int, Compact]
    agreement: "Agreement | None"
    convergence: Convergence
    tokens: Tokens | None
    plddt: np.ndarray | None
    sentences: tuple[str, ...]
    notice: str | None = None
    chains: tuple[Mapping[str, Any], ...] = ()
    docked: "tuple[Scores, ...]" = ()
    n_bytes: int = 0

    @property
    def best(self) -> Sample:
        """The first of the ranking."""
        return self.samples[0]

    def interface_scores(self, sample: Sample) -> dict[str, float]:
        """The strongest interface's ``ipsae``, ``pdockq2`` and ``lis``; empty for a single chain."""
        compact = self.compacts.get(sample.seed)
        return dict(strongest(compact.interfaces[sample.sample])) if compact else {}

    def dockq(self, place: int) -> "Scores":
        """DockQ of a sample to the best by pair of chains, by its place in the ranking; empty if there is none."""
        return self.docked[place] if place < len(self.docked) else {}


def ranked(samples: Sequence[Sample]) -> list[Sample]:
    """Best first; equal scores in the order of seed and sample, so that the order never depends on how the run went."""
    return sorted(samples, key=lambda sample: (-sample.ranking_score, sample.seed, sample.sample))


def gather(
    samples: Sequence[Sample], records: Mapping[int, Mapping[str, Any]], cluster_rmsd: float = CLUSTER_RMSD
) -> Findings:
    """Rank and compare the samples of one job, of whatever runs and folders.

    Args:
        records: The record of each seed, by its number; empty if it cannot be read.
        cluster_rmsd: Average distance within a cluster, Angstrom.

    Raises:
        OSError, ValueError, KeyError: if a file cannot be read.
    """
    from protenix_multiseed.analysis.agreement import MOST_COMPARED, agreement

    order = ranked(samples)
    compacts: dict[int, Compact] = {}
    for sample in order:
        path = sample.folder / NAME
        if sample.seed not in compacts and path.exists():
            compacts[sample.seed] = read_compact(path)
    tokens = compacts[order[0].seed].tokens if order[0].seed in compacts else None
    compared = order[:MOST_COMPARED]
    found, plddt = None, None
    if tokens is not None and all(_is_like(compacts.get(sample.seed), tokens) for sample in compared):
        coordinates = np.stack([compacts[sample.seed].coordinates[sample.sample] for sample in compared])
        scores = np.stack([compacts[sample.seed].plddt[sample.sample] for sample in compared])
        plddt = scores.mean(axis=0)
        found = agreement(coordinates, scores, tokens.chain.tolist(), tokens.component.tolist(), cluster_rmsd)
    by_seed: dict[int, float] = {}
    for sample in order:  # best first
        by_seed.setdefault(sample.seed, sample.ranking_score)
    curve = convergence(sorted(by_seed.items()))
    of_best = records.get(order[0].seed, {})
    return Findings(
        samples=tuple(order),
        compacts=compacts,
        agreement=found,
        convergence=curve,
        tokens=tokens,
        plddt=plddt,
        sentences=tuple(_sentences(order, found, curve, tokens, plddt)),
        notice=of_best.get("notice"),
        chains=tuple(of_best.get("chains", ())),
        docked=tuple(_docked(order, tokens, found)),
        n_bytes=sum(file["bytes"] for record in records.values() for file in record.get("files", {}).values()),
    )


def _docked(order: Sequence[Sample], tokens: Tokens | None, found: "Agreement | None") -> "Iterator[Scores]":
    """DockQ of each sample to the best, copies of a chain compared as they lie."""
    from protenix_multiseed.analysis.dockq import MOST_DOCKED, Atoms, dock, read_coordinates

    if found is None or tokens is None or order[0].structure is None or not order[0].structure.exists():
        return
    firsts = [int(np.flatnonzero(tokens.chain == chain)[0]) for chain in tokens.chains]
    polymers = [chain for chain, first in zip(tokens.chains, firsts, strict=True) if tokens.kind[first] != "ligand"]
    if len(polymers) < 2:
        return
    best = Atoms.read(order[0].structure)
    if not set(tokens.chains) <= set(best.chain.tolist()):
        raise ValueError(f"{order[0].structure}: it lacks a chain of its {NAME}")

    def placed(place: int, sample: Sample) -> np.ndarray | None:
        if sample.structure is None or not sample.structure.exists():  # not kept, or taken away since
            return None
        others = tokens.chain[found.order[place][firsts]].tolist()
        atoms = best.reorder(dict(zip(tokens.chains, others, strict=True)))
        coordinates = read_coordinates(sample.structure)
        if coordinates.shape != best.coordinates.shape:
            raise ValueError(f"{sample.structure}: it has other atoms than {order[0].structure}")
        return None if atoms is None else coordinates[atoms]

    compared = enumerate(order[: min(MOST_DOCKED, len(found.rmsd))])
    yield from dock(best, (placed(place, sample) for place, sample in compared), polymers)


def _sentences(
    order: Sequence[Sample],
    found: "Agreement | None",
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
                    f"of {seeds} of {n_seed} seeds{', compared' + part if part else ''}"
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
        yield f"from {half} to {n_seed} seeds the best score rises by {gain:.4f} on average"


def loose_regions(spread: np.ndarray, tokens: Tokens, most: int = 3) -> list[tuple[str, float, slice]]:
    """The stretches of a chain whose tokens spread most: their place in words, mean spread, and tokens."""
    loose = spread > max(_LOOSE, 1.5 * float(np.median(spread)))
    edges = np.flatnonzero(np.diff(loose.astype(int), prepend=0, append=0) != 0)
    found = []
    for start, stop in edges.reshape(-1, 2).tolist():
        for chain in dict.fromkeys(tokens.chain[start:stop].tolist()):
            inside = np.flatnonzero(tokens.chain[start:stop] == chain) + start
            if len(inside) >= _STRETCH:
                part = slice(int(inside[0]), int(inside[-1]) + 1)
                where = f"{chain} {tokens.residue[part.start]}-{tokens.residue[part.stop - 1]}"
                found.append((where, float(spread[part].mean()), part))
    return sorted(found, key=lambda one: -one[1])[:most]


def _is_like(compact: Compact | None, tokens: Tokens) -> bool:
    if compact is None:
        return False
    names = ("chain", "residue", "component")
    return all(np.array_equal(getattr(compact.tokens, name), getattr(tokens, name)) for name in names)
