"""``--stop-when-stable``: whether further seeds of a job are likely to bring a better score."""

from collections.abc import Sequence
from pathlib import Path

from protenix_multiseed.analysis.convergence import is_stable
from protenix_multiseed.outputs.scan import done_samples
from protenix_multiseed.types import Job, Prediction, Task


class EarlyStopping:
    """Remembers the best ranking score of each seed, earlier runs' first.

    Args:
        patience: A job is stable when this many seeds in a row brought no better score; None for never.
        out: The output folder, with the scores of earlier runs.
    """

    def __init__(self, patience: int | None, tasks: Sequence[Task], out: Path) -> None:
        self._patience = patience
        self._best: dict[str, dict[int, float]] = {task.job.name: {} for task in tasks}
        for task in tasks if patience else ():
            for sample in done_samples(out, task.job.name, task.identity):
                self._see(task.job.name, sample.seed, sample.ranking_score)

    def watch(self, prediction: Prediction) -> None:
        """Note a seed's best score."""
        for summary in prediction.summary:
            self._see(prediction.job.name, prediction.seed, float(summary["ranking_score"]))

    def is_stable(self, job: Job) -> bool:
        """Whether the last seeds of a job brought no better score."""
        return bool(self._patience) and is_stable(list(self._best[job.name].values()), self._patience or 0)

    def _see(self, job: str, seed: int, score: float) -> None:
        known = self._best[job]
        known[seed] = max(score, known.get(seed, score))
