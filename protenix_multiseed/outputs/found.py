"""Find finished results in output folders, and gather each job's for a command: its ranking, or why it is skipped."""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from protenix_multiseed.analysis.compact import NAME as COMPACT
from protenix_multiseed.analysis.findings import CLUSTER_RMSD, Findings
from protenix_multiseed.errors import VERIFY, ConfigError, DamagedError, ProtenixMsError
from protenix_multiseed.failures import advice_for, reason_of
from protenix_multiseed.files import read_text
from protenix_multiseed.outputs.identity import differences
from protenix_multiseed.outputs.ranking import Seeds, read_seeds
from protenix_multiseed.outputs.seed_files import RECORD, job_names, read_record, seed_folders
from protenix_multiseed.paths import RANKING


@dataclass(slots=True, kw_only=True)
class FoundJob:
    """Finished seeds of one job in all output folders.

    Attributes:
        name: Name of the job.
        seeds: Folder of each seed.
        doubles: Folders of seeds that another folder also has. They are left out.
        notes: Sentences that say which results were left out on purpose.
        problems: Sentences that say which results cannot be used.
    """

    name: str
    seeds: dict[int, Path] = field(default_factory=dict)
    doubles: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedJob:
    """Results of one job from all output folders.

    Attributes:
        name: Name of the job.
        findings: Ranked and compared samples; None if the job was skipped.
        notes: Sentences that say which results were left out on purpose.
        problems: Sentences that say which results cannot be used. The reason why a job was skipped is the last one.
        is_begun: Whether a skipped job was skipped while its files were written.
    """

    name: str
    findings: Findings | None
    notes: tuple[str, ...]
    problems: tuple[str, ...]
    is_begun: bool = False


def find_jobs(places: Sequence[Path]) -> list[FoundJob]:
    """Find the finished seeds of every job. If several folders hold the same seed, the first folder counts.

    Raises:
        ConfigError: if a folder holds no results, or cannot be read.
    """
    jobs: dict[str, FoundJob] = {}
    for place in {os.path.realpath(place): place for place in places}.values():  # a folder may be named twice
        found = _jobs(place)
        if not found:
            raise ConfigError(
                f"{place}: no results of protenix-ms in this folder; give the folder that predict wrote with --out"
            )
        for job in found:
            known = jobs.setdefault(job.name, FoundJob(name=job.name))
            known.problems += job.problems
            known.notes += job.notes
            for seed, folder in job.seeds.items():
                if seed in known.seeds:
                    known.doubles.append(folder)
                    known.notes.append(
                        f"seed {seed} is in two folders: {known.seeds[seed]} is used, {folder} is left out"
                    )
                else:
                    known.seeds[seed] = folder
    return [jobs[name] for name in sorted(jobs)]


def gather_job(job: FoundJob, cluster_rmsd: float = CLUSTER_RMSD) -> RankedJob:
    """Rank and compare the samples of a job. Damaged seeds are left out, and named in the problems."""
    try:
        seeds = read_seeds(job.name, job.seeds)
        _refuse_mixed(job, seeds)
        findings = seeds.rank(cluster_rmsd)
    except Exception as error:  # this job is skipped; the other jobs are still ranked
        return skipped(job, error)
    for damaged in seeds.damaged.values():
        leave_out(job, damaged)
    if findings is None:
        text = "its seeds hold no predictions any more; predict the job again, or move its folder away"
        return skipped(job, ConfigError("none of its seeds can be read" if seeds.damaged else text))
    return RankedJob(name=job.name, findings=findings, notes=tuple(job.notes), problems=tuple(job.problems))


def leave_out(job: FoundJob, error: DamagedError) -> None:
    """Leave a damaged seed out of a job, and name it."""
    job.seeds = {seed: folder for seed, folder in job.seeds.items() if folder != error.folder}
    job.problems.append(f"{error}; the seed is left out: {error.way_out}")


def skipped(job: FoundJob, error: Exception, what: str = "ranked") -> RankedJob:
    """Return a job that was skipped because of an error.

    Args:
        what: What could not be done with the job.
    """
    if isinstance(error, DamagedError):
        reason = f"{error}; {error.way_out}"
    elif isinstance(error, ProtenixMsError):
        reason = str(error)
    elif isinstance(error, OSError):
        reason = f"{reason_of(error)}; {advice_for(error)}, or choose another --to"
    else:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}; {VERIFY}"
    text = f"the job is skipped, because it cannot be {what}: {reason}"
    return RankedJob(name=job.name, findings=None, notes=tuple(job.notes), problems=(*job.problems, text))


def refuse_if_none(jobs: Sequence[RankedJob], what: str = "ranked") -> None:
    """Refuse the command if every job was skipped before anything was written.

    Raises:
        ConfigError: if nothing can be done with any job.
    """
    if all(job.findings is None and not job.is_begun for job in jobs):
        raise ConfigError(f"no job can be {what}")


def _jobs(place: Path) -> list[FoundJob]:
    """Return the jobs in one output folder."""
    try:
        names = job_names(place)
    except OSError as error:
        raise ConfigError(f"{reason_of(error)}; give the folder that predict wrote with --out") from None
    return [job for name in names if (job := _job(place, name)) is not None]


def _job(place: Path, name: str) -> FoundJob | None:
    """Return the job in one folder, with the seeds that this program wrote; None if no job is there."""
    folder, job = place / name, FoundJob(name=name)
    if not folder.is_dir():
        return None
    if os.access(folder, os.R_OK | os.X_OK) and not any(is_ours(path) for path in folder.iterdir()):
        return None
    try:
        seeds = seed_folders(folder, place)
    except ConfigError as error:
        job.problems.append(str(error))
        return job
    if not seeds and _ranks_other_folders(folder):
        return None
    for seed, path in seeds.items():
        if path.is_dir() and os.access(path, os.X_OK) and not os.path.lexists(path / RECORD):
            text = f"{path}: it has no {RECORD}, so the seed is left out"
            is_ours_too = os.path.lexists(path / COMPACT)  # no other program writes this file
            (job.problems if is_ours_too else job.notes).append(text + (": predict it again" if is_ours_too else ""))
        else:
            job.seeds[seed] = path
    return job


def _ranks_other_folders(folder: Path) -> bool:
    """Whether the ranking in a folder is of seeds in other output folders: ``rank A B`` writes all tables to A."""
    try:
        rows = csv.DictReader(read_text(folder / RANKING, folder).splitlines())
        return all(row["confidence"].startswith(f"..{os.sep}..{os.sep}") for row in rows)
    except (OSError, ValueError, KeyError, AttributeError, csv.Error):
        return False


def is_ours(path: Path) -> bool:
    """Whether an entry of a folder shows that this program wrote results there."""
    return path.name in (RANKING, "ensemble.json") or os.path.lexists(path / RECORD)


def _refuse_mixed(job: FoundJob, seeds: Seeds) -> None:
    """Refuse seeds that were made with different settings, inputs or versions.

    Raises:
        ConfigError: if there are any.
    """
    if not seeds.records:
        return
    first = min(seeds.records)
    doubles = {folder: record for folder in job.doubles if (record := read_record(folder)) is not None}
    for folder, record in ({job.seeds[seed]: record for seed, record in seeds.records.items()} | doubles).items():
        if changed := list(differences(seeds.records[first]["made_from"], record["made_from"])):
            way_out = "predict all seeds again with --overwrite, or move some away"
            way_out = way_out if folder.parent == job.seeds[first].parent else "rank the two folders separately"
            raise ConfigError(
                f"{folder}: made with other settings, inputs or versions than {job.seeds[first]}: "
                f"{'; '.join(changed)}; their scores are not comparable: {way_out}"
            )
