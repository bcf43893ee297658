"""Claim units of work for this process, so that several processes can share one output folder.

A unit of work is one seed of one job.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from protenix_multiseed.files import find_leftovers, remove
from protenix_multiseed.outputs.locks import Locks
from protenix_multiseed.outputs.scan import Found, inspect
from protenix_multiseed.outputs.seed_files import seed_folder, seed_folders
from protenix_multiseed.settings import FolderSettings
from protenix_multiseed.types import Failure, Job, Task

LISTED_SECONDS = 5.0  # a list of a job's folder serves for this long


class Claims:
    """Claims units before they are predicted, and gives them back when they are written or have failed.

    Args:
        locks: The locks of the output folder.
        tasks: All tasks of the run.
        settings: How results that already exist are treated.
    """

    def __init__(self, locks: Locks, tasks: Sequence[Task], settings: FolderSettings) -> None:
        self._locks, self._settings = locks, settings
        self._tasks: Mapping[str, Task] = {task.job.name: task for task in tasks}
        self._elsewhere: dict[str, set[int]] = {}
        self._claimed: dict[str, set[int]] = {name: set() for name in self._tasks}
        self._leftovers: dict[str, tuple[float, dict[str, list[Path]]]] = {}  # when a job's folder was listed; by seed
        self._done_elsewhere: set[tuple[str, int]] = set()

    def delete_others(self) -> None:
        """With ``--overwrite``, delete results of other inputs or settings for seeds that this run does not predict.

        Each folder is checked again under its lock, because another process may have replaced it meanwhile.
        """
        if not self._settings.overwrite:
            return
        for task in self._tasks.values():
            asked = set(task.job.seeds)
            for seed, folder in seed_folders(self._settings.out / task.job.name, self._settings.out).items():
                if seed in asked or not self._locks.take(_name(task.job.name, seed)):
                    continue
                if self._found(task.job, seed).state == "different":
                    remove(folder)
                self.give_back(task.job, seed)

    def claim(self, job: Job, seeds: Sequence[int]) -> tuple[list[int], list[Failure]]:
        """Claim the seeds that no other process has claimed or finished.

        Returns:
            The seeds that this process has to predict. Also a failure for each seed that another process has meanwhile
            written with other inputs or settings.
        """
        mine, failures = [], []
        for seed in seeds:
            if not self._locks.take(_name(job.name, seed)):
                self._elsewhere.setdefault(job.name, set()).add(seed)
                continue
            self._elsewhere.get(job.name, set()).discard(seed)
            found = self._found(job, seed)
            if found.state == "done":
                self._done_elsewhere.add((job.name, seed))
                self.give_back(job, seed)
            elif found.state == "different" and not self._settings.overwrite:
                message = f"another process wrote this seed meanwhile, with other inputs or settings: {found.detail}"
                advice = "choose another --out, or replace it with --overwrite"
                failures.append(Failure(job=job, seed=seed, stage="predict", message=message, advice=advice))
            else:
                mine.append(seed)
        self._remove_leftovers(job, mine)
        return mine, failures

    def _remove_leftovers(self, job: Job, seeds: Sequence[int]) -> None:
        """Remove what killed processes left of seeds that are claimed. A job's folder may have 100,000 entries."""
        listed, found = self._leftovers.get(job.name, (float("-inf"), {}))
        is_old = time.monotonic() > listed + LISTED_SECONDS
        if is_old or not self._claimed[job.name].isdisjoint(seeds):
            found = find_leftovers(self._settings.out / job.name)
            self._leftovers[job.name] = time.monotonic(), found
        self._claimed[job.name].update(seeds)
        for seed in seeds:
            for left in found.pop(seed_folder(self._settings.out, job.name, seed).name, ()):
                remove(left)

    def give_back(self, job: Job, seed: int) -> None:
        """Give back the claim on a unit that is written or has failed."""
        self._locks.give_back(_name(job.name, seed))

    @property
    def n_done_elsewhere(self) -> int:
        """Number of units that other processes did during this run."""
        return len(self._done_elsewhere)

    @property
    def elsewhere(self) -> int:
        """Number of units that this process could not claim, because other processes had claimed them."""
        return sum(len(seeds) for seeds in self._elsewhere.values())

    def released(self, pause: Callable[[], bool]) -> list[Task]:
        """Wait until other processes give back units that this process could not claim.

        Args:
            pause: Waits a short time. Returns whether to continue waiting.

        Returns:
            Tasks with the units that were given back without a result. Empty if there are none, or if ``pause``
            returned False.
        """
        while self._elsewhere:
            todo = []
            for name, task in self._tasks.items():
                claimed = self._elsewhere.get(name, set())
                if free := [seed for seed in sorted(claimed) if self._is_free(task.job, seed)]:
                    claimed.difference_update(free)
                    undone = tuple(seed for seed in free if self._found(task.job, seed).state != "done")
                    self._done_elsewhere.update((name, seed) for seed in free if seed not in undone)
                    todo += [replace(task, todo=undone)] if undone else []
            self._elsewhere = {name: seeds for name, seeds in self._elsewhere.items() if seeds}
            if todo or (self._elsewhere and not pause()):
                return todo
        return []

    def _is_free(self, job: Job, seed: int) -> bool:
        if not self._locks.take(_name(job.name, seed)):
            return False
        self.give_back(job, seed)
        return True

    def _found(self, job: Job, seed: int) -> Found:
        folder = seed_folder(self._settings.out, job.name, seed)
        return inspect(folder, self._tasks[job.name].identity, seed, verify=self._settings.verify)


def _name(job: str, seed: int) -> str:
    return f"unit:{job}:{seed}"
