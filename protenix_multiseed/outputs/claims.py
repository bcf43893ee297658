"""Which units of work this process does, where others work in the same output folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from protenix_multiseed.outputs.files import remove_leftovers
from protenix_multiseed.outputs.identity import Identity
from protenix_multiseed.outputs.locks import Locks
from protenix_multiseed.outputs.survey import Found, inspect, seed_folder
from protenix_multiseed.types import Failure, Job


class Claims:
    """The units of a run: claimed before they are predicted, given back when they are written or have failed.

    Args:
        out: The output folder.
        identities: How this run makes each job's predictions.
        overwrite: Whether results that another process has made in another way meanwhile are replaced.
        verify: Whether a unit counts as done only if the contents of its files are what was written.
    """

    def __init__(
        self, locks: Locks, out: Path, identities: Mapping[str, Identity], *, verify: bool, overwrite: bool
    ) -> None:
        self._locks, self._out, self._identities = locks, out, identities
        self._verify, self._overwrite = verify, overwrite
        self._elsewhere: dict[str, list[int]] = {}
        self.n_done_elsewhere = 0

    def claim(self, job: Job, seeds: Sequence[int]) -> tuple[list[int], list[Failure]]:
        """The seeds that are this process's to do: neither in another's hands, nor done by it meanwhile.

        Those that another has meanwhile done in another way are failures.
        """
        mine, failures = [], []
        for seed in seeds:
            if not self._locks.take(_name(job.name, seed)):
                self._elsewhere.setdefault(job.name, []).append(seed)
                continue
            found = self._found(job, seed)
            if found.state == "done":
                self.n_done_elsewhere += 1
                self.give_back(job, seed)
            elif found.state == "different" and not self._overwrite:
                message = f"another process wrote it meanwhile, in another way: {found.detail}"
                advice = "choose another --out, or replace it with --overwrite"
                failures.append(Failure(job=job, seed=seed, stage="predict", message=message, advice=advice))
            else:
                remove_leftovers(seed_folder(self._out, job.name, seed))
                mine.append(seed)
        return mine, failures

    def give_back(self, job: Job, seed: int) -> None:
        """A unit is written, or has failed."""
        self._locks.give_back(_name(job.name, seed))

    @property
    def elsewhere(self) -> int:
        """How many units were in other processes' hands when this one came to them."""
        return sum(len(seeds) for seeds in self._elsewhere.values())

    def left_to_us(self, jobs: Sequence[Job], pause: Callable[[], bool]) -> list[Job]:
        """Wait for the other processes; what one of them lets go of without having done it is to be done here.

        Args:
            pause: Waits a little; says whether to wait on.
        """
        while self._elsewhere:
            todo = []
            for job in jobs:
                if free := [seed for seed in self._elsewhere.get(job.name, ()) if self._is_free(job, seed)]:
                    self._elsewhere[job.name] = [s for s in self._elsewhere[job.name] if s not in free]
                    undone = tuple(seed for seed in free if self._found(job, seed).state != "done")
                    self.n_done_elsewhere += len(free) - len(undone)
                    todo += [replace(job, seeds=undone)] if undone else []
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
        folder = seed_folder(self._out, job.name, seed)
        return inspect(folder, self._identities[job.name], seed, verify=self._verify)


def _name(job: str, seed: int) -> str:
    return f"unit:{job}:{seed}"
