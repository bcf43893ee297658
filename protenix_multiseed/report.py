"""What became of a run, and its last acts: the ranking of every job over all seeds that are there, and the failures."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from protenix_multiseed.outputs.findings import Findings, gather, write_findings
from protenix_multiseed.outputs.identity import Identity
from protenix_multiseed.outputs.locks import Locks
from protenix_multiseed.outputs.record import write_failures
from protenix_multiseed.outputs.survey import done_samples
from protenix_multiseed.types import Failure, Job, Sample


@dataclass(slots=True)
class RunReport:
    """What became of a run.

    Attributes:
        samples: Of every job that has any, of this run and of those before it, in the order of the jobs.
        findings: What they say together.
        n_unit, n_before, n_elsewhere: Units (job, seed) asked for; of those, done before this run and done by others
            while it ran.
        spared: Seeds of each job that were not predicted, because those before brought nothing new.
        stopped_by: 128 plus the number of the signal that stopped the run, if one did.
    """

    n_unit: int = 0
    n_before: int = 0
    n_elsewhere: int = 0
    n_done: int = 0
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    findings: dict[str, Findings] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    spared: dict[str, list[int]] = field(default_factory=dict)
    stopped_by: int | None = None

    @property
    def n_left(self) -> int:
        """Units that were neither done nor failed, because the run was stopped."""
        lost = [failed for failed in self.failures if failed.stage != "rank"]
        failed = sum(1 if one.seed is not None else len(one.job.seeds) for one in lost)
        spared = sum(map(len, self.spared.values()))
        return max(0, self.n_unit - self.n_before - self.n_elsewhere - self.n_done - failed - spared)

    @property
    def exit_code(self) -> int:
        """0 if all is done, 1 if anything failed, 128 plus the signal's number if one left something undone."""
        if self.stopped_by is not None and self.n_left:
            return self.stopped_by
        return 1 if self.failures else 0


def conclude(
    report: RunReport, out: Path, jobs: Sequence[Job], identities: Mapping[str, Identity], locks: Locks
) -> None:
    """Rank each job over all its seeds, and bring the list of failures up to date.

    Other processes may conclude too: who ranks last has seen everything.
    """
    for job in jobs:
        with locks.held(f"ranking:{job.name}"):
            try:
                samples = done_samples(out, job.name, identities[job.name])
                if samples:
                    report.samples[job.name] = samples
                    report.findings[job.name] = gather(samples)
                    write_findings(out / job.name, report.findings[job.name])
            except Exception as error:  # whatever it is, it is this job's own, and the next ones are ranked
                report.failures.append(ranking_failure(job, error))
    # On a full disk the list stays as it was; the terminal and the exit code tell all the same.
    with locks.held("failures"), contextlib.suppress(OSError):
        done = {(sample.job, sample.seed) for samples in report.samples.values() for sample in samples}
        write_failures(out, report.failures, done)


def ranking_failure(job: Job, error: Exception) -> Failure:
    """A job that could not be ranked."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return Failure(
        job=job,
        seed=None,
        stage="rank",
        message=f"its seeds are done, but could not be ranked: {reason}",
        advice="run the same command again with --verify",
    )
