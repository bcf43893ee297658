"""``protenix-ms rank``: rank and compare finished results again, from one output folder or from several."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from protenix_multiseed.analysis.findings import CLUSTER_RMSD, Findings, gather
from protenix_multiseed.commands.console import make_console, show_findings, show_note
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.outputs.identity import differences
from protenix_multiseed.outputs.scan import read_record, read_samples, seed_folders
from protenix_multiseed.outputs.tables import write_findings
from protenix_multiseed.types import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedJob:
    """Results of one job from all output folders.

    Attributes:
        name: Name of the job.
        findings: Ranked and compared samples.
        notes: Sentences that say which results were left out.
    """

    name: str
    findings: Findings
    notes: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class FoundJob:
    """Finished seeds of one job in all output folders.

    Attributes:
        name: Name of the job.
        seeds: Folder of each seed.
        notes: Sentences that say which results were left out.
    """

    name: str
    seeds: dict[int, Path]
    notes: list[str]


def rank(outs: Sequence[Path], to: Path | None, *, cluster_rmsd: float, parquet: bool) -> None:
    """Rank every job found in the output folders, write its tables and show them.

    Args:
        outs: Output folders of predict.
        to: Folder for the tables; None for the first output folder.
        cluster_rmsd: Average distance within a cluster, Angstrom.
        parquet: Write the tables as Parquet too.

    Raises:
        ConfigError: if a folder holds no results, if results of a job were made with different settings, inputs or
            versions, or if a file is damaged.
    """
    if parquet and find_spec("pyarrow") is None:
        raise ConfigError("--parquet needs the package pyarrow: pip install pyarrow, or leave --parquet out")
    console, target = make_console(), to or outs[0]
    for job in rank_jobs(outs, target, cluster_rmsd=cluster_rmsd, parquet=parquet):
        for note in job.notes:
            show_note(console, job.name, note)
        show_findings(console, job.name, job.findings, target / job.name)


def rank_jobs(places: Sequence[Path], to: Path, *, cluster_rmsd: float, parquet: bool) -> list[RankedJob]:
    """Rank every job found in the output folders, and write its tables to ``to``.

    Raises:
        ConfigError: in the same cases as :func:`rank`.
    """
    made = []
    for job in gather_jobs(find_jobs(places), cluster_rmsd):
        try:
            write_findings(to / job.name, job.findings, parquet=parquet)
        except OSError as error:
            reason = error.strerror or error
            raise ConfigError(f"{to / job.name}: cannot be written: {reason}; choose another --to") from None
        except (ValueError, KeyError) as error:
            raise _damaged(job.name, error) from None
        made.append(job)
    return made


def find_jobs(places: Sequence[Path]) -> list[FoundJob]:
    """Find the finished seeds of every job. If several folders hold the same seed, the first folder counts.

    Raises:
        ConfigError: if a folder holds no results.
    """
    jobs: dict[str, FoundJob] = {}
    for place in places:
        found = _jobs(place)
        if not found:
            raise ConfigError(
                f"{place}: no results of protenix-ms in this folder; give the folder that predict wrote with --out"
            )
        for name, seeds in found.items():
            known = jobs.setdefault(name, FoundJob(name=name, seeds={}, notes=[]))
            for seed, folder in seeds.items():
                if seed in known.seeds:
                    known.notes.append(
                        f"seed {seed} is in two folders: {known.seeds[seed]} is used, {folder} is left out"
                    )
                else:
                    known.seeds[seed] = folder
    return [jobs[name] for name in sorted(jobs)]


def gather_jobs(jobs: Sequence[FoundJob], cluster_rmsd: float = CLUSTER_RMSD) -> Iterator[RankedJob]:
    """Rank and compare the samples of each job.

    Raises:
        ConfigError: in the same cases as :func:`rank`.
    """
    for job in jobs:
        records = {seed: record for seed, folder in job.seeds.items() if (record := read_record(folder)) is not None}
        samples = _samples(job.name, job.seeds, records)
        if not samples:
            raise ConfigError(
                f"{job.name}: its seeds hold no predictions any more; predict the job again, or move its folder away"
            )
        try:
            findings = gather(samples, records, cluster_rmsd)
        except (OSError, ValueError, KeyError) as error:
            raise _damaged(job.name, error) from None
        yield RankedJob(name=job.name, findings=findings, notes=tuple(job.notes))


def _damaged(name: str, error: Exception) -> ConfigError:
    return ConfigError(f"{name}: cannot be ranked: {error}; run predict with --verify to find the damaged files")


def _jobs(place: Path) -> dict[str, dict[int, Path]]:
    """Folders of finished seeds in one output folder, by job and seed."""
    folders = (folder for folder in sorted(place.glob("*")) if folder.is_dir())
    found = {
        folder.name: {
            seed: path for seed, path in sorted(seed_folders(folder).items()) if read_record(path) is not None
        }
        for folder in folders
    }
    return {name: seeds for name, seeds in found.items() if seeds}


def _samples(name: str, seeds: dict[int, Path], records: dict[int, dict[str, Any]]) -> list[Sample]:
    """Samples of one job's seeds. Seeds made with different settings, inputs or versions are refused."""
    samples: list[Sample] = []
    first = records[min(records)]["made_from"] if records else {}
    for seed, record in sorted(records.items()):
        folder = seeds[seed]
        if changed := list(differences(first, record["made_from"])):
            raise ConfigError(
                f"{folder}: made with other settings, inputs or versions than {seeds[min(records)]}: "
                f"{'; '.join(changed)}; their scores are not comparable. Rank the two folders separately"
            )
        try:
            samples += read_samples(folder, name, seed)
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(
                f"{folder}: cannot be read: {error}; predict this seed again with predict --verify"
            ) from None
    return samples
