"""Scan an output folder: which seeds are done, which are damaged, and which were made differently.

A result was made differently if its inputs, settings or versions differ from those of this run.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from protenix_multiseed.errors import ConfigError, DamagedError
from protenix_multiseed.files import check_inside, file_size, file_sizes, is_file, open_file, read_text
from protenix_multiseed.outputs.identity import differences, fingerprint
from protenix_multiseed.settings import FolderSettings
from protenix_multiseed.types import Identity, Job, Sample, Task

RECORD = "record.json"
_SCORES = ("ranking_score", "plddt", "ptm", "iptm")
OF_CHAIN = ("chain_plddt", "chain_ptm", "chain_iptm", "chain_gpde")
OF_PAIR = ("chain_pair_plddt", "chain_pair_iptm", "chain_pair_iptm_global", "chain_pair_gpde")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The state of one seed's folder.

    Attributes:
        state: ``missing``; ``done``; ``damaged``: a file is not as it was written; ``different``: the result was made
            differently.
        detail: The damage or the difference, as text.
    """

    state: Literal["missing", "done", "damaged", "different"]
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """The result of a scan: the seeds that are done and the seeds that remain.

    Attributes:
        tasks: Every job, with its seeds that are missing, damaged or to be replaced.
        n_done: Number of requested seeds that are done already.
        damaged: A description of each damaged result. Its seed is predicted again.
        left_out: A description of each damaged result of a seed that was not requested. The ranking lacks it.
        n_other: Number of seeds that were not requested and were made differently. ``--overwrite`` deletes them.
    """

    tasks: tuple[Task, ...]
    n_done: int
    damaged: tuple[str, ...]
    left_out: tuple[str, ...]
    n_other: int

    @property
    def n_todo(self) -> int:
        """Number of seeds that remain, over all jobs."""
        return sum(len(task.todo) for task in self.tasks)

    def remarks(self) -> Iterator[tuple[str, str]]:
        """Yield what the user should know before the run, as a word and a text."""
        for problem in self.damaged:
            yield "damaged", f"{problem}; its seed is predicted again"
        for problem in self.left_out:
            yield "damaged", f"{problem}; it was not asked for, and is left out of the ranking"
        if self.n_other:
            yield "removing", f"{self.n_other} seeds that were made with other settings, inputs or versions"


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


def inspect(folder: Path, identity: Identity, seed: int, *, verify: bool = False) -> Found:
    """Return the state of one seed's folder.

    Args:
        folder: The seed's folder.
        identity: The identity that the job's predictions should have.
        seed: The seed.
        verify: Whether to check the contents of all files too, not only their presence and length.
    """
    if not os.path.lexists(folder):
        return Found(state="missing")
    if folder.is_symlink() or not folder.is_dir():
        return Found(state="different", detail="it is not a folder: another program made it")
    sizes = file_sizes(folder)
    if RECORD not in sizes:
        try:
            file_size(folder / RECORD, folder)
        except FileNotFoundError:
            return Found(state="different", detail="it has no record of how it was made: another program wrote it")
        except PermissionError as error:  # nothing is known about it, so it is not replaced unless the user asks
            return Found(state="different", detail=f"{RECORD} cannot be read: {error.strerror}")
        except OSError as error:
            return Found(state="damaged", detail=f"{RECORD}: {error.strerror}")
    record = read_record(folder)
    if record is None:
        return Found(state="damaged", detail=f"{RECORD} cannot be read")
    if record["fingerprint"] != fingerprint(identity, seed):
        return Found(state="different", detail="; ".join(differences(record["made_from"], identity)) or "the seed")
    if detail := next(_damage(folder, record, sizes, verify=verify), None):
        return Found(state="damaged", detail=detail)
    return Found(state="done")


def _damage(
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


def scan(jobs: Sequence[Job], identities: Mapping[str, Identity], settings: FolderSettings) -> Scan:
    """Scan the output folder for results of the given jobs.

    Seeds that were not requested are checked too, because the ranking of a job includes all its seeds.

    Args:
        jobs: The jobs of the run.
        identities: The identity of each job, by job name.
        settings: How results that already exist are treated.

    Raises:
        ConfigError: if a job's folder cannot be used, or if results were made differently and ``--overwrite`` is not
            given. The message lists the differences.
    """
    tasks: list[Task] = []
    damaged: list[str] = []
    left_out: list[str] = []
    problems: list[str] = []
    n_done = n_other = 0
    for job in jobs:
        identity, folder = identities[job.name], settings.out / job.name
        there = seed_folders(folder, settings.out)
        found = {seed: inspect(path, identity, seed, verify=settings.verify) for seed, path in there.items()}
        other = {seed: one.detail for seed, one in found.items() if one.state == "different"}
        n_other += len(other.keys() - set(job.seeds))
        for detail in dict.fromkeys(other.values()):
            seeds = [seed for seed in other if other[seed] == detail]
            problems.append(f"{folder}: seed {', '.join(map(str, seeds[:5]))}{'...' * (len(seeds) > 5)}: {detail}")
        left = tuple(seed for seed in job.seeds if seed not in found or found[seed].state != "done")
        for seed, one in found.items():
            if one.state == "damaged":
                texts = damaged if seed in left else left_out
                texts.append(f"{there[seed].relative_to(settings.out)}: {one.detail}")
        n_done += len(job.seeds) - len(left)
        tasks.append(Task(job=job, identity=identity, todo=left))
    if problems and not settings.overwrite:
        raise ConfigError(
            "\n".join(problems)
            + "\nresults of different inputs, settings or versions are not mixed: choose another --out, or replace the "
            "old results with --overwrite"
        )
    return Scan(tasks=tuple(tasks), n_done=n_done, damaged=tuple(damaged), left_out=tuple(left_out), n_other=n_other)


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
    if record.get("seed", seed) != seed:
        raise DamagedError(folder, f"{RECORD} is that of seed {record['seed']}")
    if detail := next(_damage(folder, record, file_sizes(folder), may_lack=True), None):
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
                **{name: float(summary[name]) for name in _SCORES},
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
        if not all(math.isfinite(float(summary[name])) for name in (*_SCORES, "has_clash")):
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


def done_seeds(out: Path, job: str, identity: Identity) -> dict[int, Path]:
    """Return the folders of all seeds of a job that are done, from all runs, by seed."""
    there = seed_folders(out / job, out)
    return {seed: folder for seed, folder in there.items() if inspect(folder, identity, seed).state == "done"}
