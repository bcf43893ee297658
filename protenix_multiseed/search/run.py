"""Search all alignments that jobs lack. Each is searched once; what is stored is not searched again."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from protenix_multiseed.job_spec import JobSpec, PolymerKind
from protenix_multiseed.search.base import Found, QueryError, Searcher, Tell
from protenix_multiseed.search.need import Alignments, Complex, complex_of, lacking, need_of, with_alignments
from protenix_multiseed.search.store import Store
from protenix_multiseed.types import Job

_UNPAIRED, _PAIRED = "unpaired", "paired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of a search.

    Attributes:
        specs: Each job whose alignments were found, with the job that names them.
        failures: A sentence for each job of which a search failed.
    """

    specs: list[tuple[Job, JobSpec]]
    failures: list[str]


def search_jobs(jobs: Sequence[Job], searchers: Mapping[PolymerKind, Searcher], folder: Path, tell: Tell) -> Outcome:
    """Search the alignments that jobs lack.

    Args:
        searchers: The source for each kind of polymer. Other kinds are not searched.
        folder: Folder for the alignments.
        tell: Receives sentences on the progress.

    Raises:
        SearchError: if no further search is possible. What was found is kept.
        OSError: if an alignment cannot be written.
    """
    need = need_of((job.spec for job in jobs), searchers)
    searches = {kind: _Search(one, Store(folder, one.name, tell), tell) for kind, one in searchers.items()}
    unpaired: dict[tuple[PolymerKind, str], Path] = {}
    for kind, search in searches.items():
        sequences = need.proteins if kind == "protein" else need.rnas
        unpaired.update({(kind, one): path for one, path in search.unpaired(sequences).items()})
    paired = searches["protein"].paired(need.complexes) if "protein" in searches else {}
    found = Alignments(unpaired=unpaired, paired=paired)
    specs: list[tuple[Job, JobSpec]] = []
    failures: list[str] = []
    for job in jobs:
        if problems := list(_failures(job.spec, searches)):
            failures.extend(f"{job.where}: {problem}" for problem in problems)
        else:
            specs.append((job, with_alignments(job.spec, found)))
    return Outcome(specs=specs, failures=failures)


class _Search:
    """The searches of one source.

    Attributes:
        failed: Why searches failed, by the sequences that were searched together.
    """

    def __init__(self, searcher: Searcher, store: Store, tell: Tell) -> None:
        self._searcher, self._store, self._tell = searcher, store, tell
        self.failed: dict[tuple[str, ...], str] = {}

    def unpaired(self, sequences: Sequence[str]) -> dict[str, Path]:
        """Return the file of each sequence's alignment, unless its search failed."""
        known = {one: self._store.get(_UNPAIRED, [one]) for one in sequences}
        found = {one: path for one, path in known.items() if path is not None}
        missing = [one for one in sequences if one not in found]
        if found:
            self._tell(f"{len(found)} of {len(sequences)} sequences were searched before")
        for start in range(0, len(missing), self._searcher.batch):
            batch = missing[start : start + self._searcher.batch]
            self._tell(f"searching sequences {start + 1} to {start + len(batch)} of {len(missing)}")
            for sequence, made in self._search(batch):
                if made.paired is not None:  # first, since a stored unpaired alignment means that all is stored
                    self._store.put(_PAIRED, [sequence], made.paired)
                found[sequence] = self._store.put(_UNPAIRED, [sequence], made.unpaired)
        return found

    def _search(self, batch: Sequence[str]) -> Iterable[tuple[str, Found]]:
        """Search sequences together. If that fails, search each alone, so that one does not affect the others."""
        try:
            yield from zip(batch, self._searcher.search(batch), strict=True)
        except QueryError as error:
            if len(batch) == 1:
                self.failed[(batch[0],)] = str(error)
                return
            for one in batch:
                yield from self._search([one])

    def paired(self, complexes: Sequence[Complex]) -> dict[tuple[Complex, str], Path]:
        """Return the file of each chain's paired rows, unless the search failed or the source cannot pair."""
        found: dict[tuple[Complex, str], Path] = {}
        for number, together in enumerate(complexes, start=1):
            if any((one,) in self.failed for one in together):
                continue
            alone = [self._store.get(_PAIRED, [one]) for one in together]
            paths = alone if None not in alone else self._paired(together, f"{number} of {len(complexes)}")
            found.update({(together, one): path for one, path in zip(together, paths, strict=True) if path})
        return found

    def _paired(self, together: Complex, which: str) -> Sequence[Path | None]:
        keys = [[one, *together] for one in together]
        known = [self._store.get(_PAIRED, key) for key in keys]
        if None not in known:
            return known
        self._tell(f"pairing the {len(together)} chains of complex {which}")
        try:
            made = self._searcher.pair(together)
        except QueryError as error:
            self.failed[together] = str(error)
            return known
        if made is None:
            self._tell("the database has no taxonomy, so the chains are not paired")
            return known
        return [self._store.put(_PAIRED, key, text) for key, text in zip(keys, made, strict=True)]


def _failures(spec: JobSpec, searches: Mapping[PolymerKind, _Search]) -> Iterable[str]:
    """Yield why searches for a job failed."""
    for number, polymer in spec.polymers():
        search = searches.get(polymer.kind)
        if search is not None and (reason := search.failed.get((polymer.sequence,))):
            yield f"no alignment for {polymer.kind} {number}: {reason}"
    together = complex_of(lacking(spec))
    if "protein" in searches and (reason := searches["protein"].failed.get(together)):
        yield f"its chains could not be paired: {reason}"
