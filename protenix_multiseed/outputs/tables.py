"""Write the tables of one job into the job's folder.

- ``ranking.csv``: one row per sample.
- ``metrics.csv``: one row per sample, metric and chain or pair of chains.
- ``chains.csv``: one row per chain of the model, with its position in the input.
- ``spread.csv``: one row per token.
- ``ensemble.json``: clusters and convergence.
- ``pairwise.npz``: RMSD and TM-score of every pair of compared samples.
"""

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from protenix_multiseed.analysis.convergence import TOLERANCE
from protenix_multiseed.analysis.findings import Findings
from protenix_multiseed.errors import ConfigError, DamagedError
from protenix_multiseed.files import is_file, read_bytes, write_bytes
from protenix_multiseed.outputs.seed_files import OF_CHAIN, OF_PAIR, SCORES, read_summary
from protenix_multiseed.paths import RANKING

COLUMNS = (
    "rank", "job", "seed", "sample", *SCORES, "has_clash", "ipsae", "pdockq2", "lis", "cluster", "rmsd_to_best",
    "lddt_to_best", "interface_lddt_to_best", "dockq_to_best", "structure", "confidence",
    "chains_without_msa",
)  # fmt: skip
_METRIC_COLUMNS = ("seed", "sample", "metric", "chain_1", "chain_2", "value")
_SPREAD_COLUMNS = ("chain", "residue", "component", "compared", "spread", "plddt")
_OPTIONAL = ("chains.csv", "spread.csv", "pairwise.npz", "ranking.parquet", "metrics.parquet")
BEST = "best.cif"


def write_findings(folder: Path, findings: Findings, *, parquet: bool = False) -> None:
    """Write the tables, ``best.cif`` and ``best_summary_confidence.json`` of one job.

    All files are read and all contents are made before anything is written. The ranking is the last to be written: if
    the process is killed before, seeds are missing in it, which the commands that read it notice.

    Raises:
        ConfigError: if the structure of the best sample is missing.
        DamagedError: if a file of a seed cannot be read.
        OSError: if a file cannot be written.
    """
    contents = _contents(folder, findings, parquet=parquet)
    best = _best_structure(folder, findings)
    ranking = contents.pop(RANKING)
    for name, content in contents.items():
        write_bytes(folder / name, content)
    for name in _OPTIONAL:  # a table of an earlier ranking must not stay beside new ones
        if name not in contents:
            (folder / name).unlink(missing_ok=True)
    if best is not None:
        write_bytes(folder / BEST, best)
    elif findings.best.structure is None:
        (folder / BEST).unlink(missing_ok=True)
    write_bytes(folder / RANKING, ranking)


def _best_structure(folder: Path, findings: Findings) -> bytes | None:
    """Return the structure of the best sample. Return None if it was not kept, or if ``best.cif`` is its only copy."""
    best = findings.best
    if best.structure is None:
        return None
    try:
        return read_bytes(best.structure, best.folder)
    except FileNotFoundError:
        written = findings.best_sha256
        if is_file(folder / BEST, folder) and hashlib.sha256(read_bytes(folder / BEST, folder)).hexdigest() == written:
            return None
        raise ConfigError(
            f"{best.structure}: the structure of the best sample is missing; run predict again for seed {best.seed}"
        ) from None
    except OSError as error:
        raise DamagedError(best.folder, f"{best.structure.name}: {error.strerror}") from error


def _contents(folder: Path, findings: Findings, *, parquet: bool) -> dict[str, bytes]:
    """Return the content of each file, by its name."""
    ranking, metrics = table(COLUMNS, _ranking(folder, findings)), table(_METRIC_COLUMNS, _metrics(findings))
    best = findings.best
    made = {
        RANKING: ranking,
        "metrics.csv": metrics,
        "ensemble.json": (json.dumps(_record(findings), indent=2) + "\n").encode(),
        "best_summary_confidence.json": read_bytes(best.confidence, best.folder),
    }
    if findings.chains:
        made["chains.csv"] = table(findings.chains[0], (chain.values() for chain in findings.chains))
    found, tokens = findings.agreement, findings.tokens
    if found is not None and tokens is not None and findings.plddt is not None:
        rows = zip(
            tokens.chain, tokens.residue, tokens.component, found.core.astype(int),
            np.round(found.spread, 3), np.round(findings.plddt, 2), strict=True,
        )  # fmt: skip
        made["spread.csv"] = table(_SPREAD_COLUMNS, rows)
        held = io.BytesIO()
        compared = findings.samples[: len(found.rmsd)]
        np.savez_compressed(
            held, rmsd=found.rmsd.astype(np.float32), tm=found.tm.astype(np.float32),
            seed=[sample.seed for sample in compared], sample=[sample.sample for sample in compared],
        )  # fmt: skip
        made["pairwise.npz"] = held.getvalue()
    if parquet:
        made |= {"ranking.parquet": _parquet(ranking), "metrics.parquet": _parquet(metrics)}
    return made


def _parquet(table: bytes) -> bytes:
    """Return a CSV table as Parquet."""
    import pandas

    texts = ("structure", "confidence", "chains_without_msa")
    names = dict.fromkeys(("job", "metric", "chain_1", "chain_2", *texts), str)
    numbers = ("value", *(name for name in COLUMNS[4:] if name not in texts))
    missing = {key: [""] for key in numbers}  # only these columns have missing values: a chain may be called NA
    held = io.BytesIO()
    pandas.read_csv(io.BytesIO(table), dtype=names, keep_default_na=False, na_values=missing).to_parquet(
        held, index=False
    )
    return held.getvalue()


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
            *(getattr(sample, name) for name in SCORES),
            int(sample.has_clash),
            *(rounded(scores.get(name)) for name in ("ipsae", "pdockq2", "lis")),
            cluster_of.get(place, ""),
            rounded(near.rmsd[0, place]) if near else "",
            rounded(near.lddt[place]) if near else "",
            rounded(near.interface_lddt[place]) if near and near.interface_lddt is not None else "",
            rounded(np.mean(list(docked.values()))) if docked else "",
            os.path.relpath(sample.structure, folder) if sample.structure else "",
            os.path.relpath(sample.confidence, folder),
            " ".join(findings.without_msa),
        ]


def _metrics(findings: Findings) -> Iterator[list[Any]]:
    """Yield one row per value: every sample, every metric, every chain or pair of chains."""
    for place, sample in enumerate(findings.samples):
        compact = findings.compacts.get(sample.seed)
        summary = read_summary(sample.confidence)
        n_chain = len(summary.get("chain_ptm", ()))
        chains = compact.tokens.chains if compact else ()
        names = chains if len(chains) == n_chain else tuple(str(number) for number in range(n_chain))
        start = [sample.seed, sample.sample]
        for metric in OF_CHAIN:
            for chain, value in zip(names, summary.get(metric, ()), strict=False):
                yield [*start, metric, chain, "", rounded(value)]
        for metric in OF_PAIR:
            for one, row in zip(names, summary.get(metric, ()), strict=False):
                for other, value in zip(names, row, strict=False):
                    if one != other:
                        yield [*start, metric, one, other, rounded(value)]
        for pair in compact.interfaces[sample.sample] if compact else ():
            for metric in ("ipsae", "pdockq2", "lis"):
                yield [*start, metric, pair.chain_1, pair.chain_2, rounded(getattr(pair, metric))]
            yield [*start, "contacts", pair.chain_1, pair.chain_2, pair.n_contact]
        for (one, other), score in findings.dockq(place).items():
            yield [*start, "dockq_to_best", one, other, rounded(score)]


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


def table(columns: Iterable[str], rows: Any) -> bytes:
    """Return a table as CSV."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows(rows)
    return text.getvalue().encode()


def rounded(value: Any) -> Any:
    """Return a number with five digits after the point; empty text for None."""
    return "" if value is None else round(float(value), 5)
