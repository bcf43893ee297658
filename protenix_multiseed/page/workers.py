"""Run a function on many tasks in parallel processes."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

MOST_WORKERS = 16
_Task = TypeVar("_Task")
_Made = TypeVar("_Made")


def in_parallel(function: Callable[[_Task], _Made], tasks: Sequence[_Task]) -> Iterator[_Made]:
    """Yield the function's result for each task, in the order of the tasks.

    A single task, or a machine with a single processor, needs no other process.

    Raises:
        Exception: what the function raises, or ``pebble.ProcessExpired`` if a process was killed.
    """
    n_worker = min(len(tasks), len(os.sched_getaffinity(0)), MOST_WORKERS)
    if n_worker < 2:
        yield from map(function, tasks)
        return
    from pebble import ProcessPool  # imported late: a single task needs neither

    from protenix_multiseed.features.processes import WorkerContext, shielded

    context = WorkerContext([function.__module__])
    with shielded():
        pool = ProcessPool(n_worker, context=context)
        futures = [pool.schedule(function, args=(task,)) for task in tasks]
    try:
        for future in futures:
            yield future.result()
    finally:
        context.end(pool)
