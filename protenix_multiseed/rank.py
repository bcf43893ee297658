"""``protenix-ms rank``: rank and compare finished results again, of one run or of several in several places."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from protenix_multiseed.errors import ConfigError
from protenix_multiseed.outputs.findings import CLUSTER_RMSD, Findings, gather, write_findings
from protenix_multiseed.outputs.identity import differences
from protenix_multiseed.outputs.survey import read_record, read_samples, seed_folders
from protenix_multiseed.types import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedJob:
    """One job's results of all places.

    Attributes:
        notes: What was left out, in words.
    """

    name: str
    findings: Findings
    notes: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class FoundJob:
    """One job's finished seeds, wherever they are."""

    name: str
    seeds: dict[int, Path]
    notes: list[str]


def rank(places: Sequence[Path], to: Path, *, cluster_rmsd: float, parquet: bool) -> list[RankedJob]:
    """Rank every job found in some output folders, and write its tables to ``to``.

    Raises:
        ConfigError: if a place holds no results, results of a job were made in different ways, or a file is damaged.
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
    """The finished seeds of every job in some output folders; of a seed that is in several, the first counts.

    Raises:
        ConfigError: if a place holds no results.
    """
    jobs: dict[str, FoundJob] = {}
    for place in places:
        found = _jobs(place)
        if not found:
            raise ConfigError(f"{place}: no results of protenix-ms in there; give the folder that --out named")
        for name, seeds in found.items():
            known = jobs.setdefault(name, FoundJob(name=name, seeds={}, notes=[]))
            for seed, folder in seeds.items():
                if seed in known.seeds:
                    known.notes.append(f"seed {seed} is in {known.seeds[seed]} too; {folder} is left out")
                else:
                    known.seeds[seed] = folder
    return [jobs[name] for name in sorted(jobs)]


def gather_jobs(jobs: Sequence[FoundJob], cluster_rmsd: float = CLUSTER_RMSD) -> Iterator[RankedJob]:
    """Rank and compare what was found.

    Raises:
        ConfigError: as :func:`rank` does.
    """
    for job in jobs:
        samples = _samples(job.name, job.seeds)
        if not samples:
            raise ConfigError(f"{job.name}: its seeds hold no predictions any more; run it again, or move its folder")
        try:
            findings = gather(samples, cluster_rmsd)
        except (OSError, ValueError, KeyError) as error:
            raise _damaged(job.name, error) from None
        yield RankedJob(name=job.name, findings=findings, notes=tuple(job.notes))


def _damaged(name: str, error: Exception) -> ConfigError:
    return ConfigError(f"{name}: cannot be ranked: {error}; run predict with --verify to find what is damaged")


def _jobs(place: Path) -> dict[str, dict[int, Path]]:
    """Folders of finished seeds by job and seed."""
    folders = (folder for folder in sorted(place.glob("*")) if folder.is_dir())
    found = {
        folder.name: {
            seed: path for seed, path in sorted(seed_folders(folder).items()) if read_record(path) is not None
        }
        for folder in folders
    }
    return {name: seeds for name, seeds in found.items() if seeds}


def _samples(name: str, seeds: dict[int, Path]) -> list[Sample]:
    """The samples of one job's seeds, all made in one way."""
    first: dict[str, object] | None = None
    samples: list[Sample] = []
    for seed, folder in sorted(seeds.items()):
        record = read_record(folder)
        if record is None:  # it has gone since
            continue
        if first is None:
            first = record["made_from"]
        elif changed := list(differences(first, record["made_from"])):
            raise ConfigError(
                f"{folder}: made in another way than {seeds[min(seeds)]}: {'; '.join(changed)}; "
                "their scores are not comparable. Rank them apart"
            )
        try:
            samples += read_samples(folder, name, seed)
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(f"{folder}: cannot be read: {error}; do this seed again with predict --verify") from None
    return samples
