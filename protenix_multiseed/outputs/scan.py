"""Scan an output folder: which seeds are done, which are damaged, and which were made differently.

A result was made differently if its inputs, settings or versions differ from those of this run.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from protenix_multiseed.errors import ConfigError, DamagedError
from protenix_multiseed.files import file_size, file_sizes
from protenix_multiseed.outputs.identity import differences, fingerprint
from protenix_multiseed.outputs.seed_files import RECORD, damage_of, read_record, seed_folders
from protenix_multiseed.settings import FolderSettings
from protenix_multiseed.types import Identity, Job, Task
from protenix_multiseed.units import counted


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
            yield "removing", f"{counted(self.n_other, 'seed')} made with other settings, inputs or versions"


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
    if (job := record.get("job", folder.parent.name)) != folder.parent.name:
        return Found(state="different", detail=f"it was made for job {job!r}: name the job, or its folder, as it was")
    if record["fingerprint"] != fingerprint(identity, seed):
        return Found(state="different", detail="; ".join(differences(record["made_from"], identity)) or "the seed")
    if detail := next(damage_of(folder, record, sizes, verify=verify), None):
        return Found(state="damaged", detail=detail)
    return Found(state="done")


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
            "old results with --overwrite; either way all seeds are predicted again"
        )
    return Scan(tasks=tuple(tasks), n_done=n_done, damaged=tuple(damaged), left_out=tuple(left_out), n_other=n_other)


def found_seeds(out: Path, job: str, identity: Identity) -> tuple[dict[int, Path], dict[int, DamagedError]]:
    """Return the folders of all seeds of a job that are done, from all runs, and why the other folders are not."""
    done, others = dict[int, Path](), dict[int, DamagedError]()
    for seed, folder in seed_folders(out / job, out).items():
        found = inspect(folder, identity, seed)
        if found.state == "done":
            done[seed] = folder
        elif found.state != "missing":
            others[seed] = DamagedError(folder, found.detail)
    return done, others
