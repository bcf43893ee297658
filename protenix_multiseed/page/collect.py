"""Collect the page's data of one job as JSON: numbers from the tables, arrays as base64 of bytes."""

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from protenix_multiseed.analysis.compact import NAME, PAE_STEP, read_compact
from protenix_multiseed.analysis.findings import Findings
from protenix_multiseed.errors import DamagedError
from protenix_multiseed.files import is_file, read_text
from protenix_multiseed.outputs.scan import read_record, read_summary
from protenix_multiseed.types import Sample

MOST_SAMPLES = 100  # best-ranked samples of a job that the page shows; the sentences are about all samples
MOST_STRUCTURES = 25
MOST_STRUCTURES_SLIM = 5
_RMSD_STEP = 0.1  # Angstrom
_PLDDT_STEP = 0.5


def collect(name: str, findings: Findings, *, slim: bool) -> dict[str, Any]:
    """Return the page's data of one job.

    Args:
        name: Name of the job.
        findings: Ranked and compared samples of the job.
        slim: Include only the structures of the best sample and of the clusters' representatives.
    """
    shown = findings.samples[:MOST_SAMPLES]
    found, tokens = findings.agreement, findings.tokens
    cluster_of = found.cluster_of if found else {}
    chosen = structures_of(findings, slim=slim)
    data: dict[str, Any] = {
        "name": name,
        "samples_in_all": len(findings.samples),
        "seeds_in_all": len(findings.convergence.seeds),
        "notice": findings.notice,
        "found": list(findings.sentences),
        "samples": [_sample(findings, place, cluster_of.get(place)) for place in range(len(shown))],
        "structures": {
            str(place): pack(_structure(shown[place], structure))
            for place in chosen
            if (structure := shown[place].structure)
        },
        "placed": {str(place): _placement(findings, place) for place in chosen},
        "convergence": {
            "seeds": list(findings.convergence.seeds),
            "best": [round(score, 5) for score in findings.convergence.best],
            "expected": [round(score, 5) for score in findings.convergence.expected],
        },
        "timings": [_timing(sample) for sample in _one_per_seed(findings.samples)],
    }
    if tokens is not None:
        edges = np.flatnonzero(tokens.chain[1:] != tokens.chain[:-1]) + 1
        starts = [0, *edges.tolist()]
        data["chains"] = [
            {"name": str(tokens.chain[start]), "start": start, "stop": stop}
            for start, stop in zip(starts, [*starts[1:], len(tokens.chain)], strict=True)
        ]
        data["residues"] = [
            f"{chain} {component}{number}"
            for chain, component, number in zip(tokens.chain, tokens.component, tokens.residue, strict=True)
        ]
        data |= _arrays(findings, shown)
    if found is not None:
        side = min(len(found.rmsd), MOST_SAMPLES)
        data["rmsd"] = _bytes(found.rmsd[:side, :side] / _RMSD_STEP)
        data["clusters"] = [[place for place in one.members if place < side] for one in found.clusters]
        data["cluster_rmsd"] = found.cutoff
    return data


def structures_of(findings: Findings, *, slim: bool) -> list[int]:
    """Return the places in the ranking whose structures the page includes.

    The clusters' representatives come first. Unless ``slim`` is set, the best-ranked samples follow.
    """
    most = MOST_STRUCTURES_SLIM if slim else MOST_STRUCTURES
    n = min(len(findings.samples), MOST_SAMPLES)
    samples = findings.samples[:n]  # the structure of a sample was perhaps not kept, or deleted since
    kept = [place for place, one in enumerate(samples) if one.structure and is_file(one.structure, one.folder)]
    clusters = [one.members for one in findings.agreement.clusters] if findings.agreement else [(0,)]
    first = [next((place for place in members if place in kept), n) for members in clusters]
    places = dict.fromkeys([*first, *([] if slim else kept)])
    return [place for place in places if place in kept][:most]


def pack(text: str) -> str:
    """Compress text with gzip and encode it as base64. Browsers can decompress gzip without a library."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def pack_json(content: Mapping[str, Any]) -> str:
    """Compress and encode content as :func:`pack` does, as JSON."""
    return pack(json.dumps(content, separators=(",", ":")))


def _structure(sample: Sample, path: Path) -> str:
    try:
        return read_text(path, sample.folder)
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedError(sample.folder, f"{path.name}: {error}") from error


def _sample(findings: Findings, place: int, cluster: int | None) -> dict[str, Any]:
    sample, found = findings.samples[place], findings.agreement
    summary = read_summary(sample.confidence)
    pairs = summary.get("chain_pair_iptm", [])
    return {
        "seed": sample.seed,
        "sample": sample.sample,
        "score": round(sample.ranking_score, 5),
        "plddt": round(sample.plddt, 2),
        "ptm": round(sample.ptm, 4),
        "iptm": round(sample.iptm, 4),
        "clash": sample.has_clash,
        **{key: round(value, 4) for key, value in findings.interface_scores(sample).items()},
        "cluster": cluster,
        "rmsd": round(float(found.rmsd[0, place]), 2) if found and place < len(found.rmsd) else None,
        "pair_iptm": [[round(float(value), 3) for value in row] for row in pairs],
        "chain_ptm": [round(float(value), 3) for value in summary.get("chain_ptm", [])],
    }


def _arrays(findings: Findings, shown: Sequence[Sample]) -> dict[str, Any]:
    if findings.agreement is None:  # comparison data is missing for a seed, or the tokens of the seeds differ
        return {}
    plddt, pae = [], []
    whole = {}
    for sample in shown:
        if sample.seed not in whole:
            whole[sample.seed] = read_compact(sample.folder / NAME, with_pae=True)
        plddt.append(whole[sample.seed].plddt[sample.sample])
        errors = whole[sample.seed].pae
        assert errors is not None
        pae.append(errors[sample.sample])
    return {
        "plddt": [_bytes(one / _PLDDT_STEP) for one in plddt],
        "pae": [_bytes(one / PAE_STEP) for one in pae],
        "pae_side": len(pae[0]),
    }


def _placement(findings: Findings, place: int) -> list[float]:
    """Return the 4 x 4 transformation that superposes a sample on the best one, column by column [16].

    The best sample is turned so that its long axis lies across the view.
    """
    import biotite.structure as struc

    sample, best, found = findings.samples[place], findings.best, findings.agreement
    if best.seed not in findings.compacts:
        return [float(value) for value in np.eye(4).flatten()]
    reference = findings.compacts[best.seed].coordinates[best.sample]
    laid = reference.astype(np.float64)
    if len(laid) >= 3:  # fewer tokens define no principal axes
        laid = struc.orient_principal_components(laid)
    if found is None or place == 0:
        _, transformation = struc.superimpose(laid, reference)
    else:
        mobile = findings.compacts[sample.seed].coordinates[sample.sample][found.order[place]]
        _, transformation = struc.superimpose(laid, mobile, atom_mask=found.core)
    return [round(float(value), 6) for value in transformation.as_matrix()[0].T.flatten()]


def _one_per_seed(samples: Sequence[Sample]) -> list[Sample]:
    return sorted({sample.seed: sample for sample in reversed(samples)}.values(), key=lambda sample: sample.seed)


def _timing(sample: Sample) -> dict[str, Any]:
    record = read_record(sample.folder) or {}
    run = record.get("run", {})
    return {
        "seed": sample.seed,
        "seconds": run.get("seconds"),
        "batch": len(run.get("batch", ())),
        "path": run.get("path", ""),
    }


def _bytes(values: np.ndarray) -> str:
    return base64.b64encode(np.round(values).clip(0, 255).astype(np.uint8).tobytes()).decode()
