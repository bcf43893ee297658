"""Scan an output folder: which seeds are done, which are damaged, and which were made differently.

A result was made differently if its inputs, settings or versions differ from those of this run.
"""

import glob
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from protenix_multiseed.errors import ConfigError
from protenix_multiseed.hashes import sha256
from protenix_multiseed.outputs.identity import differences, fingerprint
from protenix_multiseed.settings import FolderSettings
from protenix_multiseed.types import Identity, Job, Sample, Task

RECORD = "record.json"


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
        n_other: Number of seeds that were not requested and were made differently. ``--overwrite`` deletes them.
    """

    tasks: tuple[Task, ...]
    n_done: int
    damaged: tuple[str, ...]
    n_other: int

    @property
    def n_todo(self) -> int:
        """Number of seeds that remain, over all jobs."""
        return sum(len(task.todo) for task in self.tasks)


def seed_folder(out: Path, job: str, seed: int) -> Path:
    """Return the folder of one seed: ``<out>/<job>/seed_<seed>``."""
    return out / job / f"seed_{seed}"


def seed_folders(job_folder: Path) -> dict[int, Path]:
    """Return all seed folders in a job's folder, complete or not, by seed."""
    found = ((path.name.removeprefix("seed_"), path) for path in job_folder.glob("seed_*"))
    return {int(number): path for number, path in found if number.isascii() and number.isdigit()}


def inspect(folder: Path, identity: Identity, seed: int, *, verify: bool = False) -> Found:
    """Return the state of one seed's folder.

    Args:
        folder: The seed's folder.
        identity: The identity that the job's predictions should have.
        seed: The seed.
        verify: Whether to check the contents of all files too, not only their presence and length.
    """
    if not folder.exists():
        return Found(state="missing")
    if not (folder / RECORD).exists():
        return Found(state="different", detail="it has no record of how it was made: another program wrote it")
    record = read_record(folder)
    if record is None:
        return Found(state="damaged", detail=f"{RECORD} cannot be read")
    if record["fingerprint"] != fingerprint(identity, seed):
        return Found(state="different", detail="; ".join(differences(record["made_from"], identity)) or "the seed")
    for name, written in record["files"].items():
        path = folder / name
        try:
            if path.stat().st_size != written["bytes"]:
                return Found(state="damaged", detail=f"{name} has another length than was written")
            if verify and sha256(path) != written["sha256"]:
                return Found(state="damaged", detail=f"{name} has other content than was written")
        except OSError as error:
            return Found(state="damaged", detail=f"{name}: {error.strerror}")
    return Found(state="done")


def scan(jobs: Sequence[Job], identities: Mapping[str, Identity], settings: FolderSettings) -> Scan:
    """Scan the output folder for results of the given jobs.

    Seeds that were not requested are checked too, because the ranking of a job includes all its seeds.

    Args:
        jobs: The jobs of the run.
        identities: The identity of each job, by job name.
        settings: How results that already exist are treated.

    Raises:
        ConfigError: if results were made differently and ``--overwrite`` is not given. The message lists the
            differences.
    """
    tasks: list[Task] = []
    damaged: list[str] = []
    problems: list[str] = []
    n_done = n_other = 0
    for job in jobs:
        identity, folder = identities[job.name], settings.out / job.name
        there = seed_folders(folder)
        found = {seed: inspect(path, identity, seed, verify=settings.verify) for seed, path in sorted(there.items())}
        other = {seed: one.detail for seed, one in found.items() if one.state == "different"}
        n_other += sum(seed not in job.seeds for seed in other)
        for detail in dict.fromkeys(other.values()):
            seeds = [seed for seed in other if other[seed] == detail]
            problems.append(f"{folder}: seed {', '.join(map(str, seeds[:5]))}{'...' * (len(seeds) > 5)}: {detail}")
        left = tuple(seed for seed in job.seeds if seed not in found or found[seed].state != "done")
        for seed in left:
            if seed in found and seed not in other:
                damaged.append(f"{there[seed].relative_to(settings.out)}: {found[seed].detail}")
        n_done += len(job.seeds) - len(left)
        tasks.append(Task(job=job, identity=identity, todo=left))
    if problems and not settings.overwrite:
        raise ConfigError(
            "\n".join(problems)
            + "\nresults of different inputs, settings or versions are not mixed: choose another --out, or replace the "
            "old results with --overwrite"
        )
    return Scan(tasks=tuple(tasks), n_done=n_done, damaged=tuple(damaged), n_other=n_other)


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return a seed's record; None if it is missing, unreadable or incomplete."""
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        written = [(str(name), int(file["bytes"]), str(file["sha256"])) for name, file in record["files"].items()]
        is_whole = bool(written) and isinstance(record["made_from"], dict) and isinstance(record["fingerprint"], str)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return record if is_whole else None


def read_samples(folder: Path, job: str, seed: int) -> list[Sample]:
    """Return the samples of one seed, read from its summary confidence files.

    Raises:
        OSError, ValueError, KeyError: if a file cannot be read or lacks a score.
    """
    samples = []
    predictions = folder / "predictions"
    written = (read_record(folder) or {}).get("files", {})
    for path in predictions.glob(f"{glob.escape(job)}_summary_confidence_sample_*.json"):
        rank = int(path.stem.rpartition("_")[2])
        summary = json.loads(path.read_text(encoding="utf-8"))
        structure = predictions / f"{job}_sample_{rank}.cif"
        is_kept = structure.exists() or f"predictions/{structure.name}" in written
        try:
            scores = {name: float(summary[name]) for name in ("ranking_score", "plddt", "ptm", "iptm")}
        except TypeError as error:
            raise ValueError(f"{path}: a score is not a number") from error
        samples.append(
            Sample(
                job=job,
                seed=seed,
                sample=rank,
                **scores,
                has_clash=bool(summary["has_clash"]),
                structure=structure if is_kept else None,
                confidence=path,
            )
        )
    return sorted(samples, key=lambda sample: sample.sample)


def done_samples(out: Path, job: str, identity: Identity) -> list[Sample]:
    """Return the samples of all seeds of a job that are done, from all runs."""
    return [
        sample
        for seed, folder in sorted(seed_folders(out / job).items())
        if inspect(folder, identity, seed).state == "done"
        for sample in read_samples(folder, job, seed)
    ]
