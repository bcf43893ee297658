"""Write predictions in CPU workers, and write again if a worker is killed."""

from pathlib import Path
from typing import Any

from protenix_multiseed.errors import DamagedError
from protenix_multiseed.events import Written
from protenix_multiseed.failures import failure_of, is_worker_death
from protenix_multiseed.features.pool import WorkerPool
from protenix_multiseed.outputs.scan import inspect
from protenix_multiseed.outputs.seed_files import read_seed, seed_folder
from protenix_multiseed.outputs.write import write_prediction
from protenix_multiseed.settings import WriteSettings
from protenix_multiseed.types import Failure, Identity, Prediction, Task

MAX_WRITES = 3  # attempts to write a prediction if its worker is killed


class PendingWrite:
    """A prediction that a worker writes.

    Args:
        workers: The workers.
        prediction: The prediction of one seed.
        settings: How results are written.
        identity: The identity of the job, for the seed's record.
    """

    def __init__(
        self, workers: WorkerPool, prediction: Prediction, settings: WriteSettings, identity: Identity
    ) -> None:
        self._workers, self._prediction = workers, prediction
        self._settings, self._identity = settings, identity
        self._future = self._submit()

    @property
    def is_over(self) -> bool:
        """Whether :meth:`outcome` returns at once, unless a worker was killed."""
        return bool(self._future.done())

    def outcome(self) -> Written | Failure:
        """Wait until the prediction is written, and say so; a failure if it cannot be written."""
        made = self._prediction
        try:
            for again in range(MAX_WRITES):
                try:
                    self._future.result()
                    break
                except Exception as error:
                    if again + 1 == MAX_WRITES or not is_worker_death(error):
                        raise
                    self._future = self._submit()
        except Exception as error:
            return failure_of(made.job, made.seed, "write", error)
        seconds = float(made.run.get("seconds", 0))
        return Written(job=made.job, seed=made.seed, scores=made.scores, seconds=seconds)

    def _submit(self) -> Any:
        return self._workers.submit(write_prediction, self._prediction, self._settings, self._identity)


def found_written(out: Path, task: Task, seed: int, where: str) -> Written | None:
    """Return that a seed is written, if its files are complete: its process may have ended before it could say so."""
    folder = seed_folder(out, task.job.name, seed)
    if inspect(folder, task.identity, seed).state != "done":
        return None
    try:
        record, samples = read_seed(folder, task.job.name, seed)
    except DamagedError:
        return None
    scores = tuple(sample.ranking_score for sample in samples)
    seconds = float(record.get("run", {}).get("seconds", 0))
    return Written(job=task.job, seed=seed, scores=scores, seconds=seconds, where=where)
