"""The files of one seed: its folder, its record, its samples and their scores, and whether files are as written."""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from protenix_multiseed.errors import ConfigError, DamagedError
from protenix_multiseed.files import check_inside, file_size, file_sizes, is_file, open_file, read_text
from protenix_multiseed.paths import RUN_FOLDER
from protenix_multiseed.types import Sample

RECORD = "record.json"
SCORES = ("ranking_score", "plddt", "ptm", "iptm")
OF_CHAIN = ("chain_plddt", "chain_ptm", "chain_iptm", "chain_gpde")
OF_PAIR = ("chain_pair_plddt", "chain_pair_iptm", "chain_pair_iptm_global", "chain_pair_gpde")


def job_names(out: Path) -> list[str]:
    """Return the names of entries of an output folder that may be folders of jobs, sorted.

    Raises:
        OSError: if the folder cannot be read.
    """
    names = sorted(entry.name for entry in out.iterdir())
    # A mounted disk has its own folder.
    return [name for name in names if name not in (RUN_FOLDER, "lost+found") and not name.startswith(".")]


def seed_folder(out: Path, job: str, seed: int) -> Path:
    """Return the folder of one seed: ``<out>/<job>/seed_<seed>``."""
    return out / job / f"seed_{seed}"


def seed_folders(job_folder: Path, out: Path) -> dict[int, Path]:
    """Return all entries in a job's folder that have the name of a seed's folder, by seed. They may be damaged.

    Raises:
        ConfigError: if the job's folder cannot be read, is no folder, or leads out of the output folder.
    """
    try:
        check_inside(job_folder, out)
        names = [entry.name for entry in job_folder.iterdir()]
    except FileNotFoundError:
        if not job_folder.is_symlink():
            return {}
        raise ConfigError(f"{job_folder}: a link that leads nowhere; remove it, or choose another --out") from None
    except OSError as error:
        raise ConfigError(
            f"{job_folder}: cannot be read as a folder of results: {error.strerror}; move it away, or choose another "
            "--out"
        ) from None
    numbers = (name.removeprefix("seed_") for name in names if name.startswith("seed_"))
    # A name such as seed_007 is not one that this program writes.
    seeds = sorted(int(number) for number in numbers if number.isascii() and re.fullmatch(r"0|[1-9]\d*", number))
    return {seed: job_folder / f"seed_{seed}" for seed in seeds}


def damage_of(
    folder: Path,
    record: Mapping[str, Any],
    sizes: Mapping[str, int],
    *,
    verify: bool = False,
    may_lack: bool = False,
) -> Iterator[str]:
    """Yield a description of each file of a seed that is not as it was written.

    Args:
        sizes: The lengths of the seed's files (:func:`.file_sizes`), bytes.
        verify: Whether to compare contents too.
        may_lack: Whether a missing file without scores is no damage: the user may have deleted it to save space.
    """
    for name, written in record["files"].items():
        if sizes.get(name) == written["bytes"] and not verify:
            continue
        path = folder / name
        try:
            if file_size(path, folder) != written["bytes"]:
                yield f"{name} has another length than was written"
            elif verify:
                with open_file(path, folder) as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != written["sha256"]:
                        yield f"{name} has other content than was written"
        except OSError as error:
            is_deleted = isinstance(error, FileNotFoundError) and "_summary_confidence_" not in name
            if not (may_lack and is_deleted):
                yield f"{name}: {error.strerror}"


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return a seed's record; None if it is missing, unreadable or incomplete."""
    try:
        record: dict[str, Any] = json.loads(read_text(folder / RECORD, folder))
        for file in record["files"].values():
            if type(file["bytes"]) is not int or type(file["sha256"]) is not str:
                return None
        kinds = {"files": dict, "made_from": dict, "fingerprint": str}
        optional = {"run": dict, "chains": list, "notice": str, "date": str}
        is_whole = bool(record["files"]) and all(isinstance(record[name], kind) for name, kind in kinds.items())
        is_whole &= all(isinstance(record[name], kind) for name, kind in optional.items() if name in record)
        is_whole &= all(isinstance(chain, dict) for chain in record.get("chains", ()))
    except Exception:  # the file may hold anything
        return None
    return record if is_whole else None


def read_seed(folder: Path, job: str, seed: int) -> tuple[dict[str, Any], list[Sample]]:
    """Return the record and the samples of one seed. Files that the user deleted to save space may be missing.

    Raises:
        DamagedError: if a file is not as it was written.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise DamagedError(folder, "it is not a folder", "move it away and predict the seed again")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise DamagedError(folder, "it cannot be entered", "give this account access to it")
    record = read_record(folder)
    if record is None:
        raise DamagedError(folder, f"{RECORD} is damaged or cannot be read")
    if record.get("job", job) != job:
        way_out = "rename the folder of the job back"
        raise DamagedError(folder, f"{RECORD} is that of job {record['job']!r}", way_out)
    if record.get("seed", seed) != seed:
        raise DamagedError(folder, f"{RECORD} is that of seed {record['seed']}")
    if detail := next(damage_of(folder, record, file_sizes(folder), may_lack=True), None):
        raise DamagedError(folder, detail)
    return record, read_samples(folder, job, seed, record)


def read_samples(folder: Path, job: str, seed: int, record: Mapping[str, Any]) -> list[Sample]:
    """Return the samples of one seed, read from its summary confidence files.

    Raises:
        DamagedError: if a file cannot be read or lacks a score.
    """
    samples = []
    predictions = folder / "predictions"
    pattern = re.compile(re.escape(job) + r"_summary_confidence_sample_(\d{1,9})\.json", re.ASCII)
    try:
        check_inside(predictions, folder)
        found = [match for entry in predictions.iterdir() if (match := pattern.fullmatch(entry.name))]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DamagedError(folder, f"{predictions.name}: {error.strerror}") from error
    for match in found:
        rank, path = int(match[1]), predictions / match[0]
        summary = read_summary(path)
        structure = predictions / f"{job}_sample_{rank}.cif"
        is_kept = is_file(structure, folder) or f"predictions/{structure.name}" in record["files"]
        samples.append(
            Sample(
                job=job,
                seed=seed,
                sample=rank,
                **{name: float(summary[name]) for name in SCORES if name != "iptm"},
                iptm=None if len(summary.get("chain_ptm", ())) == 1 else float(summary["iptm"]),
                has_clash=bool(summary["has_clash"]),
                structure=structure if is_kept else None,
                confidence=path,
            )
        )
    return sorted(samples, key=lambda sample: sample.sample)


def read_summary(path: Path) -> dict[str, Any]:
    """Return the content of a summary confidence file in a seed's folder, after a check of its values.

    Raises:
        DamagedError: if the file cannot be read, lacks a score, or holds values of a wrong kind.
    """
    folder = path.parents[1]
    try:
        summary: dict[str, Any] = json.loads(read_text(path, folder))
        if not all(math.isfinite(float(summary[name])) for name in (*SCORES, "has_clash")):
            raise ValueError("a score is not finite")
        rows = [summary[name] for name in OF_CHAIN if name in summary]
        rows += [row for name in OF_PAIR if name in summary for row in summary[name]]
        if not all(value is None or isinstance(value, int | float) for row in rows for value in row):
            raise ValueError("a score is not a number")
    except OSError as error:
        raise DamagedError(folder, f"{path.name}: {error.strerror}") from error
    except Exception as error:  # the file may hold anything
        raise DamagedError(folder, f"{path.name}: {_reason(error)}") from error
    return summary


def _reason(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
