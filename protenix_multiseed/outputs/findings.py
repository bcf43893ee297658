"""What all seeds of a job say together, gathered from their files and written beside them.

``ranking.csv`` has a row for each sample, ``metrics.csv`` one for each value of a chain or pair of chains,
``chains.csv`` one for each chain of the model and what it is of the input,
``spread.csv`` one for each token; ``ensemble.json`` holds clusters and convergence, ``pairwise.npz`` every pair of
samples.
"""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from protenix_multiseed.ensemble.convergence import TOLERANCE, Convergence, convergence
from protenix_multiseed.ensemble.interfaces import strongest
from protenix_multiseed.outputs.compact import NAME, Compact, Tokens, read_compact
from protenix_multiseed.outputs.files import copy_file, write_bytes, write_text
from protenix_multiseed.outputs.survey import read_record
from protenix_multiseed.types import Sample

if TYPE_CHECKING:  # biotite and SciPy are loaded where there is something to compare
    from protenix_multiseed.ensemble.agreement import Agreement
    from protenix_multiseed.ensemble.dockq import Scores

CLUSTER_RMSD = 2.0  # Angstrom; average linkage
_ROW = ("ranking_score", "plddt", "ptm", "iptm")
COLUMNS = (
    "rank", "job", "seed", "sample", *_ROW, "has_clash", "ipsae", "pdockq2", "lis", "cluster", "rmsd_to_best",
    "lddt_to_best", "interface_lddt_to_best", "dockq_to_best", "structure", "confidence",
)  # fmt: skip
_METRIC_COLUMNS = ("seed", "sample", "metric", "chain_1", "chain_2", "value")
_SPREAD_COLUMNS = ("chain", "residue", "component", "compared", "spread", "plddt")
_OF_CHAIN = ("chain_plddt", "chain_ptm", "chain_iptm", "chain_gpde")
_OF_PAIR = ("chain_pair_plddt", "chain_pair_iptm", "chain_pair_iptm_global", "chain_pair_gpde")
_LOOSE, _STRETCH = 2.0, 5  # Angstrom of spread, and how many tokens make a region worth naming


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """A job's samples, ranked and compared.

    Attributes:
        samples: Best first.
        compacts: Of each seed that has one.
        agreement: Of the first samples of the ranking; None where there is nothing to compare.
        tokens: Of the job; None where no seed says.
        plddt: Mean over the compared samples [N_token].
        sentences: What was found, in words.
        notice: What every file of these results must carry, such as that the model is a demo.
        chains: What each chain is of the input, in the model's order.
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
        """DockQ of a sample to the best by pair of chains, by its place in the ranking; empty where there is none."""
        return self.docked[place] if place < len(self.docked) else {}


def ranked(samples: Sequence[Sample]) -> list[Sample]:
    """Best first; equal scores in the order of seed and sample, so that the order never depends on how the run went."""
    return sorted(samples, key=lambda sample: (-sample.ranking_score, sample.seed, sample.sample))


def gather(samples: Sequence[Sample], cluster_rmsd: float = CLUSTER_RMSD) -> Findings:
    """Rank and compare the samples of one job, of whatever runs and folders.

    Args:
        cluster_rmsd: Average distance within a cluster, Angstrom.

    Raises:
        OSError, ValueError, KeyError: if a file cannot be read.
    """
    from protenix_multiseed.ensemble.agreement import MOST_COMPARED, agreement

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
    folders = {sample.seed: sample.folder for sample in order}
    records = {seed: read_record(folder) or {} for seed, folder in folders.items()}
    of_best = records[order[0].seed]
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
    from protenix_multiseed.ensemble.dockq import MOST_DOCKED, Atoms, dock, read_coordinates

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


def write_findings(folder: Path, findings: Findings, *, parquet: bool = False) -> None:
    """Write the tables, ``best.cif`` and ``best_summary_confidence.json`` of one job."""
    for name in ("chains.csv", "spread.csv", "pairwise.npz", "ranking.parquet", "metrics.parquet"):
        (folder / name).unlink(missing_ok=True)  # of other samples, where they are not made again
    write_text(folder / "ranking.csv", _table(COLUMNS, _ranking(folder, findings)))
    write_text(folder / "metrics.csv", _table(_METRIC_COLUMNS, _metrics(findings)))
    if findings.chains:
        write_text(folder / "chains.csv", _table(findings.chains[0], (chain.values() for chain in findings.chains)))
    write_text(folder / "ensemble.json", json.dumps(_record(findings), indent=2) + "\n")
    found, tokens = findings.agreement, findings.tokens
    if found is not None and tokens is not None and findings.plddt is not None:
        rows = zip(
            tokens.chain, tokens.residue, tokens.component, found.core.astype(int),
            np.round(found.spread, 3), np.round(findings.plddt, 2), strict=True,
        )  # fmt: skip
        write_text(folder / "spread.csv", _table(_SPREAD_COLUMNS, rows))
        held = io.BytesIO()
        compared = findings.samples[: len(found.rmsd)]
        np.savez_compressed(
            held, rmsd=found.rmsd.astype(np.float32), tm=found.tm.astype(np.float32),
            seed=[sample.seed for sample in compared], sample=[sample.sample for sample in compared],
        )  # fmt: skip
        write_bytes(folder / "pairwise.npz", held.getvalue())
    if parquet:
        _write_parquet(folder)
    if findings.best.structure is None:
        (folder / "best.cif").unlink(missing_ok=True)
    else:
        copy_file(findings.best.structure, folder / "best.cif")
    copy_file(findings.best.confidence, folder / "best_summary_confidence.json")


def _write_parquet(folder: Path) -> None:
    """The two tables once more, for programs that read Parquet."""
    import pandas

    for name in ("ranking", "metrics"):
        held = io.BytesIO()
        names = dict.fromkeys(("job", "metric", "chain_1", "chain_2", "structure", "confidence"), str)
        numbers = ("value", *COLUMNS[4:-2])  # a chain may be called NA
        table = pandas.read_csv(
            folder / f"{name}.csv", dtype=names, keep_default_na=False, na_values={key: [""] for key in numbers}
        )
        table.to_parquet(held, index=False)
        write_bytes(folder / f"{name}.parquet", held.getvalue())


def _ranking(folder: Path, findings: Findings) -> Iterator[list[Any]]:
    found = findings.agreement
    cluster_of = found.cluster_of if found else {}
    for place, sample in enumerate(findings.samples):
        scores = findings.interface_scores(sample)
        near = found if found is not None and place < len(found.rmsd) else None
        docked = findings.dockq(place)
        yield [
            place + 1,
            sample.job,
            sample.seed,
            sample.sample,
            *(getattr(sample, name) for name in _ROW),
            int(sample.has_clash),
            *(_rounded(scores.get(name)) for name in ("ipsae", "pdockq2", "lis")),
            cluster_of.get(place, ""),
            _rounded(near.rmsd[0, place]) if near else "",
            _rounded(near.lddt[place]) if near else "",
            _rounded(near.interface_lddt[place]) if near and near.interface_lddt is not None else "",
            _rounded(np.mean(list(docked.values()))) if docked else "",
            os.path.relpath(sample.structure, folder) if sample.structure else "",
            os.path.relpath(sample.confidence, folder),
        ]


def _metrics(findings: Findings) -> Iterator[list[Any]]:
    """Long form: every value of a chain, or of two, of every sample."""
    for place, sample in enumerate(findings.samples):
        compact = findings.compacts.get(sample.seed)
        summary = json.loads(sample.confidence.read_text(encoding="utf-8"))
        n_chain = len(summary.get("chain_ptm", ()))
        chains = compact.tokens.chains if compact else ()
        names = chains if len(chains) == n_chain else tuple(str(number) for number in range(n_chain))
        start = [sample.seed, sample.sample]
        for metric in _OF_CHAIN:
            for chain, value in zip(names, summary.get(metric, ()), strict=False):
                yield [*start, metric, chain, "", _rounded(value)]
        for metric in _OF_PAIR:
            for one, row in zip(names, summary.get(metric, ()), strict=False):
                for other, value in zip(names, row, strict=False):
                    if one != other:
                        yield [*start, metric, one, other, _rounded(value)]
        for pair in compact.interfaces[sample.sample] if compact else ():
            for metric in ("ipsae", "pdockq2", "lis"):
                yield [*start, metric, pair.chain_1, pair.chain_2, _rounded(getattr(pair, metric))]
            yield [*start, "contacts", pair.chain_1, pair.chain_2, pair.n_contact]
        for (one, other), score in findings.dockq(place).items():
            yield [*start, "dockq_to_best", one, other, _rounded(score)]


def _record(findings: Findings) -> dict[str, Any]:
    found, curve = findings.agreement, findings.convergence
    record: dict[str, Any] = {
        **({"notice": findings.notice} if findings.notice else {}),
        "found": list(findings.sentences),
        "samples": len(findings.samples),
        "seeds": list(curve.seeds),
        "convergence": {
            "best_after": [round(score, 6) for score in curve.best],
            "expected_best_of": [round(score, 6) for score in curve.expected],
            "tolerance": TOLERANCE,
            "seeds_to_best": curve.last_gain,
        },
    }
    if found is not None:
        record["compared"] = {
            "samples": len(found.rmsd),
            "tokens": int(found.core.sum()),
            "largest_rmsd": round(float(found.rmsd.max()), 3),
            "smallest_tm": round(float(found.tm.min()), 4),
        }
        record["cluster_rmsd"] = found.cutoff
        clusters = [[findings.samples[place] for place in cluster.members] for cluster in found.clusters]
        record["clusters"] = [
            {
                "representative": [members[0].seed, members[0].sample],
                "best_ranking_score": members[0].ranking_score,
                "seeds": sorted({sample.seed for sample in members}),
                "samples": [[sample.seed, sample.sample] for sample in members],
            }
            for members in clusters
        ]
    return record


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


def _table(columns: Iterable[str], rows: Any) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows(rows)
    return text.getvalue()


def _rounded(value: Any) -> Any:
    return "" if value is None else round(float(value), 5)
