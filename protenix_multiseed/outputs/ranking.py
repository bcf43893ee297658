"""Rank the finished seeds of one job. A damaged seed is left out and named, and the other seeds are ranked."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from protenix_multiseed.analysis.findings import CLUSTER_RMSD, Findings, gather
from protenix_multiseed.errors import DamagedError
from protenix_multiseed.outputs.locks import Locks
from protenix_multiseed.outputs.scan import found_seeds
from protenix_multiseed.outputs.seed_files import read_seed
from protenix_multiseed.outputs.summary import summary_row
from protenix_multiseed.outputs.tables import write_findings
from protenix_multiseed.types import Identity, Sample


@dataclass(slots=True)
class Seeds:
    """The seeds of one job that were read from disk.

    Attributes:
        records: The record of each seed.
        samples: The samples of each seed.
        damaged: The reason why a seed is left out.
    """

    records: dict[int, dict[str, Any]] = field(default_factory=dict)
    samples: dict[int, list[Sample]] = field(default_factory=dict)
    damaged: dict[int, DamagedError] = field(default_factory=dict)

    def rank(self, cluster_rmsd: float = CLUSTER_RMSD) -> Findings | None:
        """Rank and compare the samples. Return None if there are none.

        A seed whose files turn out to be damaged is moved to ``damaged``, and the rest is ranked.
        """
        while samples := [sample for of_seed in self.samples.values() for sample in of_seed]:
            try:
                return gather(samples, self.records, cluster_rmsd)
            except DamagedError as error:
                seed = next(sample.seed for sample in samples if sample.folder == error.folder)
                self.damaged[seed] = error
                del self.samples[seed], self.records[seed]
        return None


def read_seeds(job: str, folders: Mapping[int, Path]) -> Seeds:
    """Read the records and the samples of a job's finished seeds.

    Args:
        job: Name of the job.
        folders: The folder of each seed.
    """
    seeds = Seeds()
    for seed, folder in sorted(folders.items()):
        try:
            seeds.records[seed], seeds.samples[seed] = read_seed(folder, job, seed)
        except DamagedError as error:
            seeds.damaged[seed] = error
    return seeds


def ranking_lock(job: str) -> str:
    """Return the name of the lock that a process holds while it ranks a job."""
    return f"ranking:{job}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """What a run keeps of a ranked job. It is small, because a run may have 100,000 jobs.

    Attributes:
        row: The job's line of ``summary.csv``; None if no seed is done.
        seeds: The seeds that were ranked.
        n_sample: Number of samples that were ranked.
        damaged: The reason why a seed that is done is left out.
        others: Why the folders of other seeds are not done. They are left out too.
        findings: All findings, if they were asked for and any seed is done.
    """

    row: tuple[Any, ...] | None
    seeds: frozenset[int]
    n_sample: int
    damaged: Mapping[int, DamagedError]
    others: Mapping[int, DamagedError]
    findings: Findings | None = None

    @property
    def seen(self) -> Set[int]:
        """All seeds that have a folder."""
        return self.seeds | self.damaged.keys() | self.others.keys()


def rank_in_worker(out: Path, job: str, identity: Identity, *, whole: bool = False) -> Ranking | None:
    """Rank a job as :func:`rank_job` does, in a process without locks. None if another process is ranking it now."""
    with Locks(out) as locks:
        return rank_job(out, job, identity, whole=whole) if locks.take(ranking_lock(job)) else None


def rank_job(out: Path, job: str, identity: Identity, *, whole: bool = False) -> Ranking:
    """Rank a job over all its seeds that are done, and write its tables. The caller holds the :func:`ranking_lock`.

    Args:
        whole: Whether to return all findings too.
    """
    done, others = found_seeds(out, job, identity)
    seeds = read_seeds(job, done)
    findings = seeds.rank()
    if findings is None:
        return Ranking(row=None, seeds=frozenset(), n_sample=0, damaged=seeds.damaged, others=others)
    write_findings(out / job, findings)
    return Ranking(
        row=summary_row(job, findings),
        seeds=frozenset(sample.seed for sample in findings.samples),
        n_sample=len(findings.samples),
        damaged=seeds.damaged,
        others=others,
        findings=findings if whole else None,
    )
