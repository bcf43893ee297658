"""Collect the page's data of one job: numbers from the tables as JSON, arrays and structures as compressed text."""

import base64
import gzip
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from protenix_multiseed.analysis.compact import NAME, PAE_STEP, Compact, read_compact
from protenix_multiseed.analysis.findings import Findings, has_structure
from protenix_multiseed.errors import DamagedError
from protenix_multiseed.files import read_text
from protenix_multiseed.inputs.notes import LESS_ACCURATE
from protenix_multiseed.outputs.seed_files import RECORD, read_record, read_summary
from protenix_multiseed.types import Sample

MOST_SAMPLES = 100  # best-ranked samples of a job that the page shows; the sentences are about all samples
MOST_STRUCTURES = 25
MOST_STRUCTURES_SLIM = 5
_RMSD_STEP = 0.1  # Angstrom
_PLDDT_STEP = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class JobData:
    """The page's data of one job.

    Attributes:
        row: The job's row in the list of jobs.
        summary: Everything that is shown at once.
        arrays: Compressed content that the page unpacks when it is looked at, by name: ``cif-<place>`` is the structure
            of a sample, ``pae-<place>`` its predicted aligned error.
    """

    row: Mapping[str, Any]
    summary: Mapping[str, Any]
    arrays: Mapping[str, str]


def collect(name: str, findings: Findings, notes: Sequence[str], *, slim: bool) -> JobData:
    """Return the page's data of one job.

    Args:
        name: Name of the job.
        findings: Ranked and compared samples of the job.
        notes: Remarks on the job's input.
        slim: Include structures and predicted aligned errors only of the best sample and of the clusters'
            representatives.

    Raises:
        DamagedError: if a file of a seed cannot be read.
    """
    shown = findings.samples[:MOST_SAMPLES]
    found = findings.agreement
    cluster_of = found.cluster_of if found else {}
    chosen = structures_of(findings, slim=slim)
    records = {sample.seed: read_record(sample.folder) or {} for sample in reversed(findings.samples)}
    summary: dict[str, Any] = {
        "name": name,
        "samples_in_all": len(findings.samples),
        "notice": findings.notice,
        "notes": [note for note in notes if not (findings.without_msa and LESS_ACCURATE in note)],  # it is in "found"
        "found": list(findings.sentences),
        "concerns": list(findings.concerns),
        "about": list(_about(findings, records)),
        "chains": list(findings.chains),
        "samples": [_sample(findings, place, cluster_of.get(place)) for place in range(len(shown))],
        "structures": chosen,
        "placed": {str(place): matrix for place, matrix in zip(chosen, _placements(findings, chosen), strict=True)},
        "convergence": {
            "seeds": list(findings.convergence.seeds),
            "best": [round(score, 5) for score in findings.convergence.best],
            "expected": [round(score, 5) for score in findings.convergence.expected],
        },
        "timings": [_timing(seed, record.get("run", {})) for seed, record in sorted(records.items())],
    }
    arrays = {f"cif-{place}": pack_text(_structure(shown[place])) for place in chosen}
    if findings.tokens is not None:
        summary["tokens"] = {
            "chain": findings.tokens.chain.tolist(),
            "number": findings.tokens.residue.tolist(),
            "component": findings.tokens.component.tolist(),
            "kind": findings.tokens.kind.tolist(),
        }
    if found is not None:
        side = min(len(found.rmsd), MOST_SAMPLES)
        summary["rmsd"] = _steps(found.rmsd[:side, :side], _RMSD_STEP)
        summary["clusters"] = [[place for place in one.members if place < side] for one in found.clusters]
        summary["cluster_rmsd"] = found.cutoff
        held = _compacts_with_pae(shown)
        summary["plddt"] = [_steps(held[one.seed].plddt[one.sample], _PLDDT_STEP) for one in shown]
        matched = findings.matched_plddt(side)
        summary["plddt_range"] = [_steps(values, _PLDDT_STEP) for values in (matched.min(axis=0), matched.max(axis=0))]
        usual = np.arange(found.order.shape[1])  # few samples have copies in another order
        summary["orders"] = {
            str(place): order.tolist()
            for place, order in enumerate(found.order[:side])
            if not np.array_equal(order, usual)
        }
        for place in chosen if slim else range(len(shown)):
            errors = held[shown[place].seed].pae
            assert errors is not None
            summary["pae_side"] = errors.shape[1]
            arrays[f"pae-{place}"] = pack_bytes(_in_steps(errors[shown[place].sample], PAE_STEP))
    return JobData(row=_row(name, findings), summary=summary, arrays=arrays)


def structures_of(findings: Findings, *, slim: bool) -> list[int]:
    """Return the places in the ranking whose structures the page includes.

    The clusters' representatives come first. Unless ``slim`` is set, the best-ranked samples follow.
    """
    most = MOST_STRUCTURES_SLIM if slim else MOST_STRUCTURES
    n = min(len(findings.samples), MOST_SAMPLES)
    kept = [place for place, one in enumerate(findings.samples[:n]) if has_structure(one)]
    clusters = [one.members for one in findings.agreement.clusters] if findings.agreement else [(0,)]
    first = [next((place for place in members if place in kept), n) for members in clusters]
    places = dict.fromkeys([*first, *([] if slim else kept)])
    return [place for place in places if place in kept][:most]


def pack_bytes(content: bytes) -> str:
    """Compress bytes with gzip and encode them as base64. Browsers can decompress gzip without a library."""
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()


def pack_text(text: str) -> str:
    """Compress and encode text as :func:`pack_bytes` does."""
    return pack_bytes(text.encode())


def pack_json(content: Mapping[str, Any]) -> str:
    """Compress and encode content as :func:`pack_bytes` does, as JSON."""
    return pack_text(json.dumps(content, separators=(",", ":")))


def _row(name: str, findings: Findings) -> dict[str, Any]:
    best, found = findings.best, findings.agreement
    return {
        "name": name,
        "seeds": len(findings.convergence.seeds),
        "samples": len(findings.samples),
        "tokens": len(findings.tokens.chain) if findings.tokens else None,
        "score": round(best.ranking_score, 5),
        "plddt": round(best.plddt, 2),
        "iptm": _rounded(best.iptm, 4),
        **{key: round(value, 4) for key, value in findings.interface_scores(best).items() if key == "ipsae"},
        "clusters": len(found.clusters) if found else None,
        "found": findings.sentences[0],
        "lacking": f"no MSA: {', '.join(findings.without_msa)}" if findings.without_msa else None,
        "notice": findings.notice,
    }


def _about(findings: Findings, records: Mapping[int, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield how the samples were made, as pairs of a name and a value, from the record of the best sample's seed."""
    record = records[findings.best.seed]
    made_from, run = record.get("made_from", {}), record.get("run", {})
    for name, value in made_from.items():
        if name != "input" and value not in (None, [], {}):
            yield name.replace("_", " "), _plain(value)
    for name in ("device", "kernels", "path"):
        if run.get(name):
            yield name, _plain(run[name])
    for name, version in record.get("versions", {}).items():
        if name not in made_from:
            yield name, str(version)
    dates = {records[one.seed].get("date") or _date(one.folder / RECORD) for one in findings.samples} - {""}
    if dates:
        yield "predicted", " to ".join(dict.fromkeys((min(dates), max(dates))))


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_plain(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return value if isinstance(value, str) else json.dumps(value)


def _date(path: Path) -> str:
    """Return when a record without a date was written; empty if that is unknown."""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(path.stat().st_mtime))
    except OSError:
        return ""


def _structure(sample: Sample) -> str:
    assert sample.structure is not None
    try:
        return read_text(sample.structure, sample.folder)
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedError(sample.folder, f"{sample.structure.name}: {error}") from error


def _sample(findings: Findings, place: int, cluster: int | None) -> dict[str, Any]:
    sample, found = findings.samples[place], findings.agreement
    summary = read_summary(sample.confidence)
    held = findings.compacts.get(sample.seed)
    return {
        "seed": sample.seed,
        "sample": sample.sample,
        "score": round(sample.ranking_score, 5),
        "plddt": round(sample.plddt, 2),
        "ptm": round(sample.ptm, 4),
        "iptm": _rounded(sample.iptm, 4),
        "clash": sample.has_clash,
        **{key: round(value, 4) for key, value in findings.interface_scores(sample).items()},
        "cluster": cluster,
        "rmsd": round(float(found.rmsd[0, place]), 2) if found and place < len(found.rmsd) else None,
        "pair_iptm": [[_rounded(value) for value in row] for row in summary.get("chain_pair_iptm", [])],
        "chain_ptm": [_rounded(value) for value in summary.get("chain_ptm", [])],
        "pairs": [
            [one.chain_1, one.chain_2, round(one.ipsae, 4), round(one.pdockq2, 4), round(one.lis, 4), one.n_contact]
            for one in (held.interfaces[sample.sample] if held else ())
        ],
    }


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(float(value), digits)


def _compacts_with_pae(samples: Sequence[Sample]) -> dict[int, Compact]:
    return {
        seed: read_compact(folder / NAME, with_pae=True)
        for seed, folder in {sample.seed: sample.folder for sample in samples}.items()
    }


def _placements(findings: Findings, places: Sequence[int]) -> Iterator[list[float]]:
    """Yield the 4 x 4 transformation that superposes each sample on the best one, column by column [16].

    The best sample is turned so that its long axis lies across the view.
    """
    import biotite.structure as struc

    best, found = findings.best, findings.agreement
    if best.seed not in findings.compacts:
        yield from (np.eye(4).flatten().tolist() for _ in places)
        return
    reference = findings.compacts[best.seed].coordinates[best.sample]
    laid = reference.astype(np.float64)
    if len(laid) >= 3:  # fewer tokens define no principal axes
        laid = struc.orient_principal_components(laid)
    for place in places:
        if found is None or place == 0:
            _, transformation = struc.superimpose(laid, reference)
        else:
            sample = findings.samples[place]
            mobile = findings.compacts[sample.seed].coordinates[sample.sample][found.order[place]]
            _, transformation = struc.superimpose(laid, mobile, atom_mask=found.core)
        yield [round(float(value), 6) for value in transformation.as_matrix()[0].T.flatten()]


def _timing(seed: int, run: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "seed": seed,
        "seconds": run.get("seconds"),
        "batch": len(run.get("batch", ())),
        "path": run.get("path", ""),
    }


def _in_steps(values: np.ndarray, step: float) -> bytes:
    return np.round(values / step).clip(0, 255).astype(np.uint8).tobytes()


def _steps(values: np.ndarray, step: float) -> str:
    """Return values as bytes, in steps of ``step``, encoded as base64."""
    return base64.b64encode(_in_steps(values, step)).decode()
