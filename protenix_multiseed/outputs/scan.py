"""What an output folder holds already: which units of work are done, and which were made in another way."""

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
    """One unit's folder.

    Attributes:
        state: ``missing``; ``done``; ``damaged``, if a file is not as it was written; ``different``, if it was made in
            another way than by this run.
        detail: What is damaged or different.
    """

    state: Literal["missing", "done", "damaged", "different"]
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What is left to do.

    Attributes:
        tasks: Every job, with its seeds that are missing, damaged or to be replaced.
        n_done: Units asked for that are there already.
        damaged: What is done again because it is damaged, in words.
        n_other: Seeds that were not asked for and were made in another way; ``--overwrite`` deletes them.
    """

    tasks: tuple[Task, ...]
    n_done: int
    damaged: tuple[str, ...]
    n_other: int

    @property
    def n_todo(self) -> int:
        """Units left to do."""
        return sum(len(task.todo) for task in self.tasks)


def seed_folder(out: Path, job: str, seed: int) -> Path:
    """The folder of one seed: ``<out>/<job>/seed_<seed>``."""
    return out / job / f"seed_{seed}"


def seed_folders(job_folder: Path) -> dict[int, Path]:
    """The folders of all seeds that a job's folder holds, complete or not."""
    found = ((path.name.removeprefix("seed_"), path) for path in job_folder.glob("seed_*"))
    return {int(number): path for number, path in found if number.isascii() and number.isdigit()}


def inspect(folder: Path, identity: Identity, seed: int, *, verify: bool = False) -> Found:
    """Look at one unit's folder.

    Args:
        verify: Compare the contents of all files, not only that they are there and as long as they were.
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
    """Look at everything that is there of some jobs.

    Seeds that were not asked for matter too if they were made in another way, since one ranking holds all seeds.

    Args:
        identities: Of each job, by its name.

    Raises:
        ConfigError: if results were made in another way and are not to be overwritten, with the differences.
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
            + "\nresults made in different ways are not mixed: choose another --out, or replace them with --overwrite"
        )
    return Scan(tasks=tuple(tasks), n_done=n_done, damaged=tuple(damaged), n_other=n_other)


def read_record(folder: Path) -> dict[str, Any] | None:
    """A seed's record; None if there is none that can be read."""
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        written = [(str(name), int(file["bytes"]), str(file["sha256"])) for name, file in record["files"].items()]
        is_whole = bool(written) and isinstance(record["made_from"], dict) and isinstance(record["fingerprint"], str)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return record if is_whole else None


def read_samples(folder: Path, job: str, seed: int) -> list[Sample]:
    """The samples of one seed from its summary confidence files.

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
            raise ValueError(f"{path}: a score is no number") from error
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
    """The samples of every seed of a job that is done, whichever run made it."""
    return [
        sample
        for seed, folder in sorted(seed_folders(out / job).items())
        if inspect(folder, identity, seed).state == "done"
        for sample in read_samples(folder, job, seed)
    ]
