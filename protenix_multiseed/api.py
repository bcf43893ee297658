"""The Python interface: predict structures and read results, on the same way as the command."""

import atexit
import inspect
import json
import logging
import operator
import os
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict, Unpack

from protenix_multiseed.commands.common import searching
from protenix_multiseed.commands.console import make_console
from protenix_multiseed.config_loading import load_config
from protenix_multiseed.errors import ConfigError, DamagedError, ProtenixMsError, ProtenixMsWarning, warn
from protenix_multiseed.events import Event, Note, Watcher, Watchers
from protenix_multiseed.failures import FailedError, failure_of
from protenix_multiseed.inputs import dialects
from protenix_multiseed.inputs.document import Document
from protenix_multiseed.outputs.results import RankedSample, SampleResult, SeedResult, load_results, read_seed_result
from protenix_multiseed.run.log import EventLog
from protenix_multiseed.run.pipeline import run
from protenix_multiseed.run.prepare import Prepared, make_workers, prepare
from protenix_multiseed.run.result import RunResult
from protenix_multiseed.run.signals import Signals
from protenix_multiseed.run.terminal import Terminal
from protenix_multiseed.search.base import Tell
from protenix_multiseed.types import Failure
from protenix_multiseed.wording import errors_in_python, failure_in_python, in_python

__all__ = [
    "FailedError", "Failure", "ProtenixMsError", "ProtenixMsWarning", "RankedSample", "SampleResult", "SeedResult",
    "load_results", "predict",
]  # fmt: skip

StrPath: TypeAlias = str | os.PathLike[str]
Job: TypeAlias = Mapping[str, Any]
Jobs: TypeAlias = StrPath | Job | Sequence[StrPath] | Sequence[Job]
_IN_MEMORY = Path("jobs")  # the name of jobs without a file, in messages: jobs[0] 'kras'
_folders_in_use: set[Path] = set()
_unfinished: weakref.WeakSet[Generator[SeedResult, None, None]] = weakref.WeakSet()


class TemplateSettings(TypedDict, total=False):
    """The source of template structures. See :class:`protenix_multiseed.config.TemplateConfig`."""

    mmcif_dir: StrPath | None
    kalign: StrPath | None
    fetch: bool


class Settings(TypedDict, total=False):
    """All settings of a run but ``seeds`` and ``out``. ``configs/all_settings.yaml`` explains each."""

    model: str
    checkpoint: StrPath | None
    samples: int
    cycles: int | None
    steps: int | None
    workers: int | None
    executor: str
    gpus: int | str | None
    ray: str | None
    device: str
    kernels: Literal["auto", "torch", "cuequivariance"]
    precision: Literal["reference", "fast"]
    max_seeds_per_batch: int | None
    max_jobs_per_batch: int | None
    stop_when_stable: int | None
    assume_free: int | str | None
    force: bool
    sequential: bool
    protenix_exact: bool
    msa: bool | None
    rna_msa: bool
    msa_server: str | None
    msa_database: StrPath | None
    msa_gpu: bool
    rna_databases: Sequence[StrPath]
    template: bool
    template_from_input: bool
    templates: TemplateSettings
    full_confidence: bool
    pae: Literal["none", "json", "npz"]
    store: str
    guidance: bool
    offline: bool
    overwrite: bool
    verify: bool
    grace: float
    log_file: StrPath | None
    log_format: Literal["text", "json"]
    upstream: Mapping[str, bool | int | float | str | None]


def predict(
    jobs: Jobs,
    seeds: int | str | Iterable[int] | None = None,
    out: StrPath | None = None,
    *,
    config: StrPath | None = None,
    on_failure: Callable[[Failure], None] | None = None,
    progress: bool = False,
    **settings: Unpack[Settings],
) -> Generator[SeedResult, None, None]:
    """Predict structures, write them to an output folder and rank them, as ``protenix-ms predict`` does.

    All checks are made at once. The work begins with the first result that is taken. Seeds that the output folder holds
    already come first; the others come when their files are complete. If the caller stops early, by ``break``, Ctrl-C
    or an exception, what is predicted is kept, and the same call continues the work.

    Args:
        jobs: An input file in any format, or a folder; a job as in Protenix's or AlphaFold 3's JSON; or a list of paths
            or of Protenix's jobs.
        seeds: Seeds for every job: ``1``, ``range(1, 6)``, ``[1, 7]`` or ``"1-5"``. None: each job's own, else 101.
        out: Output folder. None: that of ``config``, else ``output``.
        config: A YAML file of settings. Arguments override it.
        on_failure: Called with each job or seed that fails.
        progress: Whether to print what ``protenix-ms predict`` prints during a run. Otherwise notes are warnings.
        settings: Settings by their names in the YAML file.

    Returns:
        An iterator of results, one for each job and seed.

    Raises:
        ProtenixMsError: if an input or a setting is refused. Nothing has been predicted.
        FailedError: after the last result, if a job or seed has failed and ``on_failure`` is None.
    """
    options = {**settings, "seeds": _seeds(seeds), "out": None if out is None else Path(out)}
    with errors_in_python():
        loaded = load_config(options, None if config is None else Path(config), prefix="")
        prepared = prepare(loaded, _inputs(jobs), _warn, searching if progress else _searching)
    results = _results(prepared, on_failure, progress=progress)
    _unfinished.add(results)
    return results


def _close_unfinished() -> None:
    """Close the iterators that the caller still has at the end of the process, so that their jobs are ranked."""
    for results in list(_unfinished):
        if inspect.getgeneratorstate(results) != inspect.GEN_RUNNING:  # in another thread
            results.close()


def _results(
    prepared: Prepared, on_failure: Callable[[Failure], None] | None, *, progress: bool
) -> Generator[SeedResult, None, None]:
    config, tasks = prepared.config, prepared.scan.tasks
    result = RunResult.begin(tasks, prepared.notes)
    left = {(task.job.name, seed): task.job for task in tasks for seed in task.job.seeds}
    lost = dict[tuple[str, int | None], Failure]()  # seeds whose files are damaged; the ranking finds some of them too

    def take(job: str, seed: int) -> Iterator[SeedResult]:
        found = left.pop((job, seed))
        try:
            made = read_seed_result(config.out, job, seed)
        except DamagedError as error:
            lost[job, seed] = failure_of(found, seed, "rank", error)
            if on_failure is not None:
                on_failure(failure_in_python(lost[job, seed]))
        else:
            yield made

    for word, text in prepared.scan.remarks():
        _warn(f"{word} {text}")
    for task in tasks:
        todo = set(task.todo)
        for seed in task.job.seeds:
            if seed not in todo:
                yield from take(task.job.name, seed)
    inside = config.out if config.log_file is None else None
    with (
        errors_in_python(),
        _used(config.out.resolve()),
        EventLog(config.log_path, inside, as_json=config.log_format == "json") as log,
        _shown(prepared, progress=progress) as display,
        # The signals' handlers are the caller's: Python raises KeyboardInterrupt, and the run ends as after an error.
        closing(
            run(config, tasks, make_workers(config), Watchers(log, display), Signals(config.grace), result)
        ) as outcomes,
    ):
        for text in prepared.notes:  # they were warnings of predict()
            log(Note(job=None, text=text))
        for outcome in outcomes:
            # Python calls the newest handler first: before those of the libraries that this run has imported, which end
            # its workers.
            atexit.unregister(_close_unfinished)
            atexit.register(_close_unfinished)
            if not isinstance(outcome, Failure):
                yield from take(outcome.job.name, outcome.seed)
            elif on_failure is not None and (outcome.job.name, outcome.seed) not in lost:
                on_failure(failure_in_python(outcome))
    if log.problem:
        warn(f"lines are missing in the log: {log.problem}")
    elsewhere = set(result.ranked)
    for job, seed in [one for one in left if one in elsewhere]:  # other processes have predicted them
        yield from take(job, seed)
    failures = [*lost.values(), *(one for one in result.failures if (one.job.name, one.seed) not in lost)]
    if failures and on_failure is None:
        raise FailedError([failure_in_python(failure) for failure in failures])


@contextmanager
def _used(out: Path) -> Iterator[None]:
    """Refuse a second run of this process on a folder: the folder's locks are between processes."""
    if out in _folders_in_use:
        raise ConfigError(f"out: another run of this process writes to {out}: finish or close() its iterator first")
    _folders_in_use.add(out)
    try:
        yield
    finally:
        _folders_in_use.remove(out)


@contextmanager
def _shown(prepared: Prepared, *, progress: bool) -> Iterator[Watcher]:
    """Make the display of a run: what the command prints, or warnings of its notes."""
    if not progress:
        yield _warn_of_notes
        return
    terminal = Terminal(make_console(), prepared.scan.n_todo, 0)
    with terminal.shown():
        yield terminal


def _warn_of_notes(event: Event) -> None:
    if isinstance(event, Note):
        _warn(f"{event.job.name}: {event.text}" if event.job else event.text)


def _warn(text: str) -> None:
    warn(in_python(text))


def _searching() -> AbstractContextManager[Tell]:
    return nullcontext(logging.getLogger("protenix_multiseed").info)


def _seeds(seeds: int | str | Iterable[int] | None) -> Any:
    if seeds is None or isinstance(seeds, str):
        return seeds
    return [operator.index(seed) for seed in ([seeds] if isinstance(seeds, int | Integral) else seeds)]


def _inputs(jobs: Jobs) -> Sequence[Path | Document]:
    if isinstance(jobs, str | os.PathLike):
        return [Path(jobs)]
    if isinstance(jobs, Mapping):
        return [_document(jobs)]
    if jobs and all(isinstance(job, str | os.PathLike) for job in jobs):
        return [Path(job) for job in jobs if not isinstance(job, Mapping)]
    return [_document(list(jobs))]


def _document(content: Any) -> Document:
    """Return jobs as a document. A single job of Protenix's JSON becomes a list of one."""
    try:
        document = Document(_IN_MEMORY, json.dumps(content))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"jobs: cannot be written as JSON: {error}; give paths, or jobs as dictionaries") from None
    if isinstance(content, Mapping) and dialects.dialect_of(document) is dialects.protenix:
        return _document([content])
    return document
