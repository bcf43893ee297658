"""Everything between the inputs and a run: read and check the jobs, search alignments, scan the output folder.

Cheap checks come first, and nothing is written before all checks are done, except alignments that are searched. What
takes seconds to start, and needs no job, starts beside the checks.
"""

import contextlib
import importlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

from protenix_multiseed.config import RunConfig
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.execution.base import executor_name
from protenix_multiseed.features.pool import WorkerPool
from protenix_multiseed.inputs.document import Document
from protenix_multiseed.inputs.read import read_jobs, with_spec
from protenix_multiseed.offline import forbid_network
from protenix_multiseed.outputs.identity import identify
from protenix_multiseed.outputs.scan import Scan, scan
from protenix_multiseed.paths import RUN_FOLDER
from protenix_multiseed.process import in_background
from protenix_multiseed.run.preflight import CheckpointHash, check_machine, check_surroundings, check_workers
from protenix_multiseed.search.base import SearchError, Tell
from protenix_multiseed.search.run import search_jobs
from protenix_multiseed.search.sources import make_searchers
from protenix_multiseed.types import Job
from protenix_multiseed.upstream.dictionary import Dictionary, find_dictionary

ALIGNMENTS = "alignments"  # subfolder for alignments that were searched


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A run that can begin.

    Attributes:
        config: The configuration, with what the checks have found out.
        scan: The tasks, and what the output folder holds already.
        notes: Sentences about the inputs as a whole, for the log and the record of the run.
    """

    config: RunConfig
    scan: Scan
    notes: tuple[str, ...] = ()


def make_workers(config: RunConfig) -> WorkerPool:
    """Return the CPU workers of a run. They are not started."""
    only_rank = executor_name(config) == "ray"  # the processes of the GPUs have workers for everything else
    return WorkerPool(config.workers or 1, offline=config.offline, only_rank=only_rank)


def prepare(
    config: RunConfig,
    inputs: Sequence[Path | Document],
    note: Tell,
    searching: Callable[[], AbstractContextManager[Tell]],
    workers: WorkerPool | None = None,
) -> Prepared:
    """Check everything that a run needs.

    Args:
        config: Configuration of the run.
        inputs: Input files, folders of them, or documents.
        note: Receives sentences about the inputs.
        searching: Makes a context that receives sentences on the progress of a search of alignments.
        workers: Workers that may begin their imports during the checks.

    Raises:
        ProtenixMsError: if the run is refused.
    """
    if config.offline:
        forbid_network(loopback=config.executor == "ray")
    checkpoint_hash = CheckpointHash(config)
    if workers is not None:
        _start_early(config, inputs, workers)
    notes: list[str] = []

    def tell(text: str) -> None:
        notes.append(text)
        note(text)

    jobs, dictionary = read_inputs(config, inputs, tell)
    config = check_surroundings(config, has_hits=has_hits(jobs))
    jobs = _with_alignments(config, jobs, dictionary, searching, checkpoint_hash)
    _import_ahead(config, jobs, workers)
    identities = {job.name: identify(config, job, dictionary, checkpoint_hash.result()) for job in jobs}
    found = scan(jobs, identities, config.folder_settings)
    if found.n_todo:
        check_workers()
    return Prepared(config=config, scan=found, notes=tuple(notes))


def read_inputs(config: RunConfig, inputs: Sequence[Path | Document], note: Tell) -> tuple[list[Job], Dictionary]:
    """Return the checked jobs of a run and the chemical dictionary.

    Raises:
        RefusedInputsError: if there are problems; the error lists them.
    """
    dictionary = find_dictionary()
    if dictionary.note:
        note(dictionary.note)
    return read_jobs(inputs, config.seeds, config.input_rules, dictionary, note), dictionary


def has_hits(jobs: Sequence[Job]) -> bool:
    """Whether a job names hits of a template search."""
    return any(polymer.templates for job in jobs for _, polymer in job.spec.polymers())


def search(
    config: RunConfig, jobs: Sequence[Job], dictionary: Dictionary, folder: Path, tell: Tell
) -> tuple[list[Job], Sequence[str]]:
    """Search the alignments that jobs lack.

    Returns:
        The jobs whose alignments were found, and a sentence for each failure.

    Raises:
        ProtenixMsError: if no search is possible.
    """
    searchers = make_searchers(config, tell)
    if not searchers:
        raise ConfigError(
            "no source of alignments is given: name a server (--server https://host/path, which is sent the "
            "sequences) or a database on this machine (--database)"
        )
    outcome = search_jobs(jobs, searchers, folder.absolute(), tell)
    return [with_spec(job, spec, config.input_rules, dictionary) for job, spec in outcome.specs], outcome.failures


def _searches(config: RunConfig) -> bool:
    return bool(config.msa_server or config.msa_database or config.rna_databases)


def _with_alignments(
    config: RunConfig,
    jobs: list[Job],
    dictionary: Dictionary,
    searching: Callable[[], AbstractContextManager[Tell]],
    checkpoint_hash: CheckpointHash,
) -> list[Job]:
    """Search the alignments that jobs lack, if the configuration names a source.

    Raises:
        ProtenixMsError: if the run cannot work on this machine, or if a search failed. Finished searches are kept.
    """
    if not _searches(config):
        return jobs
    checkpoint_hash.result()
    check_machine(config)
    with searching() as tell:
        made, failures = search(config, jobs, dictionary, config.out / RUN_FOLDER / ALIGNMENTS, tell)
    if failures:
        way_out = "'protenix-ms msa' writes a job file without these jobs, which can be predicted"
        raise SearchError("\n".join([*failures, f"nothing was predicted; {way_out}"]))
    return made


def _start_early(config: RunConfig, inputs: Sequence[Path | Document], workers: WorkerPool) -> None:
    """Start the workers' server, or Ray on this machine, before the inputs are read.

    Not if all seeds may be done, or long before a job is, or if an input is missing.
    """
    with contextlib.suppress(ConfigError, OSError):  # a later check says so, after those of the inputs
        if config.out.exists() or _searches(config) or not all(one.exists() for one in inputs if isinstance(one, Path)):
            return
        if executor_name(config) != "ray":
            check_workers()
            workers.start()
        elif config.ray is None:
            _ray_module("ray_cluster").connect_ahead(config)


def _import_ahead(config: RunConfig, jobs: Sequence[Job], workers: WorkerPool | None) -> None:
    """Begin imports that take seconds during the remaining checks. Not if results of one of the jobs exist.

    The server starts first, because its start imports modules, which would wait for the import of torch. With a new
    output folder it has started before. A run that is refused by a later check ends when the import has ended.
    """
    if any((config.out / job.name).exists() for job in jobs):
        return
    if executor_name(config) == "ray":  # its executor starts the workers when a GPU has work
        in_background(partial(_ray_module("ray_connection").import_ray, is_local=config.ray is None))
    elif workers is not None:
        check_workers()
        workers.start()
        in_background(partial(importlib.import_module, "torch"))


def _ray_module(name: str) -> ModuleType:
    """Import one of the modules that use Ray, and what a thread must not import beside the main thread or its exit."""
    importlib.import_module("protenix_multiseed.run.pipeline")
    importlib.import_module("concurrent.futures.thread")
    return importlib.import_module(f"protenix_multiseed.execution.{name}")
