"""The main path: tasks -> executor -> files. Every command that predicts goes through it."""

from collections.abc import Generator, Sequence
from functools import partial

from protenix_multiseed.config import RunConfig
from protenix_multiseed.errors import Stopped
from protenix_multiseed.events import Note, Watcher, Written
from protenix_multiseed.execution.base import make_executor
from protenix_multiseed.features.pool import WorkerPool
from protenix_multiseed.run.early_stopping import EarlyStopping
from protenix_multiseed.run.folder import OutputFolder
from protenix_multiseed.run.gate import RunGate
from protenix_multiseed.run.result import RunResult
from protenix_multiseed.run.signals import Signals
from protenix_multiseed.types import Failure, Task

LOCK_SECONDS = 10.0  # how long a run waits for other processes' locks after the grace time of a stop


def run(
    config: RunConfig,
    tasks: Sequence[Task],
    workers: WorkerPool,
    tell: Watcher,
    signals: Signals,
    result: RunResult,
) -> Generator[Written | Failure, None, None]:
    """Predict the remaining seeds of checked tasks, write the results, and rank each job.

    The caller takes all outcomes. If it stops earlier, what is predicted is still written, and the jobs are ranked.

    Args:
        config: The configuration of the run.
        tasks: All tasks, done or not. If no seeds remain, nothing is loaded.
        workers: The CPU workers (:func:`.make_workers`). They end with the run.
        tell: Receives every event.
        signals: Says when the run has to stop.
        result: The result of the run, filled in meanwhile.

    Yields:
        Each seed whose files are complete, and each failure.

    Raises:
        ProtenixMsError: if the run cannot start. In this case no results have been written.
    """
    # Largest first: at the end only small batches are left, so that no GPU waits long for another one.
    # Consecutive jobs of similar size share CUDA graphs and buffers.
    todo: Sequence[Task] = sorted((task for task in tasks if task.todo), key=lambda task: -task.job.n_token)
    for task in todo:
        for note in task.job.notes:
            tell(Note(job=task.job, text=note))
    # A task for each job, for each seed's files, and at the end for each ranking.
    workers.limit(max(len(todo) + sum(len(task.todo) for task in todo), len(tasks)))
    with workers, make_executor(config, workers, tell) as executor:
        try:
            if todo:
                signals.shield_workers()
                executor.load(todo, lambda: signals.is_asked)
        except Stopped:
            result.stopped_by = signals.exit_code
            return
        is_late = partial(signals.is_over_by, LOCK_SECONDS)
        with OutputFolder(config, tasks, workers, tell, result, is_late) as folder:
            if todo:
                folder.begin(executor.facts())
                signals.follow(folder.note)
            gate = RunGate(todo, signals, folder, EarlyStopping(config.stop_when_stable, tasks, config.out))
            while todo:
                for event in executor.predict(todo, gate):
                    tell(event)
                    folder.take(event)
                    gate.watch(event)
                    yield from folder.outcomes()
                if gate.is_closed:
                    workers.drop_features()
                folder.settle()
                yield from folder.outcomes()
                todo = [] if folder.is_full else folder.released(signals)
            result.stopped_by = signals.exit_code if signals.is_asked else None
        yield from folder.outcomes()
