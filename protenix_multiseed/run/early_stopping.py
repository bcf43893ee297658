"""``--stop-when-stable``: end a job when its last seeds did not improve the best ranking score."""

from collections.abc import Sequence
from pathlib import Path

from protenix_multiseed.analysis.convergence import is_stable
from protenix_multiseed.outputs.ranking import read_seeds
from protenix_multiseed.outputs.scan import found_seeds
from protenix_multiseed.types import Job, Task


class EarlyStopping:
    """Stores the best ranking score of each seed, in the order of prediction, starting with earlier runs.

    Args:
        patience: A job is stable when this many seeds in a row did not improve the best score by more than 0.005.
            None: never.
        tasks: All tasks of the run.
        out: The output folder, with the scores of earlier runs.
    """

    def __init__(self, patience: int | None, tasks: Sequence[Task], out: Path) -> None:
        self._patience = patience
        self._best: dict[str, dict[int, float]] = {task.job.name: {} for task in tasks}
        for task in tasks if patience else ():
            done, _ = found_seeds(out, task.job.name, task.identity)
            seeds = read_seeds(task.job.name, done)
            for sample in (sample for samples in seeds.samples.values() for sample in samples):
                self._see(task.job.name, sample.seed, sample.ranking_score)

    def watch(self, job: Job, seed: int, scores: Sequence[float]) -> None:
        """Store the best score of a seed."""
        for score in scores:
            self._see(job.name, seed, score)

    def is_stable(self, job: Job) -> bool:
        """Return whether the last seeds of a job did not improve the best score."""
        return bool(self._patience) and is_stable(list(self._best[job.name].values()), self._patience or 0)

    def _see(self, job: str, seed: int, score: float) -> None:
        known = self._best[job]
        known[seed] = max(score, known.get(seed, score))
