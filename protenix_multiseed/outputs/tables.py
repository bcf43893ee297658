"""Write the tables of one job into the job's folder.

- ``ranking.csv``: one row per sample.
- ``metrics.csv``: one row per sample, metric and chain or pair of chains.
- ``chains.csv``: one row per chain of the model, with its position in the input.
- ``spread.csv``: one row per token.
- ``ensemble.json``: clusters and convergence.
- ``pairwise.npz``: RMSD and TM-score of every pair of compared samples.
"""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from protenix_multiseed.analysis.convergence import TOLERANCE
from protenix_multiseed.analysis.findings import Findings
from protenix_multiseed.files import copy_file, write_bytes, write_text

_ROW = ("ranking_score", "plddt", "ptm", "iptm")
COLUMNS = (
    "rank", "job", "seed", "sample", *_ROW, "has_clash", "ipsae", "pdockq2", "lis", "cluster", "rmsd_to_best",
    "lddt_to_best", "interface_lddt_to_best", "dockq_to_best", "structure", "confidence",
)  # fmt: skip
_METRIC_COLUMNS = ("seed", "sample", "metric", "chain_1", "chain_2", "value")
_SPREAD_COLUMNS = ("chain", "residue", "component", "compared", "spread", "plddt")
_OF_CHAIN = ("chain_plddt", "chain_ptm", "chain_iptm", "chain_gpde")
_OF_PAIR = ("chain_pair_plddt", "chain_pair_iptm", "chain_pair_iptm_global", "chain_pair_gpde")


def write_findings(folder: Path, findings: Findings, *, parquet: bool = False) -> None:
    """Write the tables, ``best.cif`` and ``best_summary_confidence.json`` of one job."""
    for name in ("chains.csv", "spread.csv", "pairwise.npz", "ranking.parquet", "metrics.parquet"):
        (folder / name).unlink(missing_ok=True)  # else a table of an earlier ranking stays if it is not written again
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
    """Write ``ranking.csv`` and ``metrics.csv`` as Parquet too."""
    import pandas

    for name in ("ranking", "metrics"):
        held = io.BytesIO()
        names = dict.fromkeys(("job", "metric", "chain_1", "chain_2", "structure", "confidence"), str)
        numbers = ("value", *COLUMNS[4:-2])  # only these columns have missing values: a chain may be called NA
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
    """Yield one row per value: every sample, every metric, every chain or pair of chains."""
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


def _table(columns: Iterable[str], rows: Any) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows(rows)
    return text.getvalue()


def _rounded(value: Any) -> Any:
    return "" if value is None else round(float(value), 5)
