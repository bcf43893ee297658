"""The records of runs in ``<out>/protenix-ms``: configuration, versions, failures.

Each process writes its own record, ``runs/<start>-<host>-<process>.json``, and its configuration, the same name with
``.yaml``. ``run.json`` holds the latest run's record and a short summary of each run. ``config.yaml`` holds the latest
run's configuration.
"""

import contextlib
import json
import os
import platform
import socket
import time
from collections.abc import Mapping, Sequence, Set
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from protenix_multiseed import __version__
from protenix_multiseed.config import RunConfig
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.files import check_inside, read_text, write_text
from protenix_multiseed.inputs.seeds import format_seeds
from protenix_multiseed.outputs.identity import digest
from protenix_multiseed.outputs.locks import Locks
from protenix_multiseed.paths import RUN_FOLDER
from protenix_multiseed.types import Failure, Task

_SUMMARY = ("run", "started", "host", "process", "device", "gpu", "seconds", "samples", "failures", "units")


class RunRecord:
    """The record of the run of one process.

    Args:
        config: The configuration of the run.
        tasks: All tasks of the run.
        facts: Facts from the executor about the device, the kernels and the weights.
        dictionary: Name of the chemical dictionary.
        locks: The locks of the output folder.
    """

    def __init__(
        self, config: RunConfig, tasks: Sequence[Task], facts: Mapping[str, Any], dictionary: str, locks: Locks
    ) -> None:
        self._config, self._locks = config, locks
        self._started = time.time()
        started = time.gmtime(self._started)
        host, process = socket.gethostname(), os.getpid()
        self.name = f"{time.strftime('%Y%m%dT%H%M%SZ', started)}-{host}-{process}"
        spec = config.spec
        self._content: dict[str, Any] = {
            "run": self.name,
            "protenix_ms": __version__,
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", started),
            "host": host,
            "process": process,
            "python": platform.python_version(),
            "versions": {name: metadata.version(name) for name in ("protenix", "torch", "numpy", "rdkit", "biotite")},
            **facts,
            "precision": config.precision,
            "model": config.model,
            "checkpoint": str(config.checkpoint_path) if config.checkpoint_path else None,
            "checkpoint_sha256": next((task.identity["checkpoint_sha256"] for task in tasks), None),
            "dictionary": dictionary,
            **({"notice": spec.notice} if spec.notice else {}),
            "jobs": [
                {
                    "name": task.job.name,
                    "seeds": list(task.job.seeds),
                    "source": str(task.job.source),
                    "index": task.job.index,
                    "made_from": digest(task.identity),
                    **({"notes": list(task.job.notes)} if task.job.notes else {}),
                }
                for task in tasks
            ],
        }

    def begin(self) -> None:
        """Write the record and the resolved configuration. The configuration can be used with ``--config``.

        Raises:
            ConfigError: if the output folder cannot be written.
        """
        config = self._config
        resolved = config.model_dump(mode="json", exclude_none=True, exclude={"overwrite", "verify"})
        if config.seeds is not None:
            resolved["seeds"] = format_seeds(config.seeds)
        text = yaml.safe_dump(resolved, sort_keys=False)
        folder = config.out / RUN_FOLDER
        try:
            check_inside(folder / "runs", config.out)
            write_text(folder / "runs" / f"{self.name}.yaml", text)
            write_text(folder / "config.yaml", text)
            self._write()
        except OSError as error:
            raise ConfigError(
                f"--out {config.out}: cannot be written: {error.filename}: {error.strerror}; choose another folder"
            ) from None

    def finish(self, outcome: Mapping[str, Any]) -> None:
        """Add the outcome and the duration of the run to the record."""
        self._content |= {"seconds": round(time.time() - self._started, 1), **outcome}
        with contextlib.suppress(OSError):  # the run has already reported a full disk
            self._write()

    def _write(self) -> None:
        folder = self._config.out / RUN_FOLDER
        write_text(folder / "runs" / f"{self.name}.json", json.dumps(self._content, indent=2) + "\n")
        with self._locks.held("run.json"):
            runs = {run["run"]: run for run in _runs(folder)}
            runs[self.name] = {name: self._content[name] for name in _SUMMARY if name in self._content}
            latest = max(runs)
            content = self._content if latest == self.name else _read(folder, f"runs/{latest}.json")
            write_text(folder / "run.json", json.dumps({**content, "runs": list(runs.values())}, indent=2) + "\n")


def read_notes(out: Path) -> dict[str, list[str]]:
    """Return the remarks on the input of each job, by its name. They are those of the latest run with the job."""
    folder, notes = out / RUN_FOLDER, dict[str, list[str]]()
    for path in sorted((folder / "runs").glob("*.json")):  # the oldest first
        jobs = _read(folder, f"runs/{path.name}").get("jobs", [])
        for job in jobs if isinstance(jobs, list) else ():
            if isinstance(job, dict) and isinstance(job.get("name"), str):
                found = job.get("notes")
                notes[job["name"]] = [one for one in found if isinstance(one, str)] if isinstance(found, list) else []
    return {name: found for name, found in notes.items() if found}


def _runs(folder: Path) -> list[dict[str, Any]]:
    """Return the short summaries of all runs in ``run.json``."""
    runs = _read(folder, "run.json").get("runs")
    return [run for run in runs if isinstance(run, dict) and isinstance(run.get("run"), str)] if runs else []


def _read(folder: Path, name: str) -> dict[str, Any]:
    """Return a JSON file in the run's folder; empty if it cannot be read, or cannot be written again."""
    try:
        content = json.loads(read_text(folder / name, folder))
        json.dumps(content, indent=2)
        return content if isinstance(content, dict) and isinstance(content.get("runs", []), list) else {}
    except (OSError, ValueError, RecursionError):
        return {}


def write_failures(out: Path, failures: Sequence[Failure], done: Set[tuple[str, int]]) -> None:
    """Update ``failures.jsonl``: one line per failed job or seed. Remove the file if nothing failed.

    Lines of other runs stay, unless all their seeds are done now, or the job or seed has failed again. The caller
    holds the file's lock.

    Args:
        out: The output folder.
        failures: The failures of this run.
        done: All (job, seed) that are done.
    """
    path = out / RUN_FOLDER / "failures.jsonl"
    lines = [
        {
            "job": failed.job.name,
            "seed": failed.seed,
            **({"seeds": list(failed.job.seeds)} if failed.seed is None else {}),
            "stage": failed.stage,
            "message": failed.message,
            "try": failed.advice,
            "traceback": failed.traceback,
        }
        for failed in failures
    ]
    mine = {(line["job"], tuple(seeds_of(line))) for line in lines}
    kept = [line for line in read_failures(path) if (line["job"], tuple(seeds_of(line))) not in mine]
    # Another process may have done what failed here.
    left = [line for line in [*kept, *lines] if not {(line["job"], seed) for seed in seeds_of(line)} <= done]
    if left:
        write_text(path, "".join(json.dumps(line) + "\n" for line in left))
    else:
        path.unlink(missing_ok=True)


def seeds_of(line: Mapping[str, Any]) -> Sequence[int | None]:
    """Return the seeds that a line of ``failures.jsonl`` is about; None for all of a job, as lines once were."""
    seeds: Sequence[int | None] = line.get("seeds") or [line["seed"]]
    return seeds


def read_failures(path: Path) -> list[dict[str, Any]]:
    """Return the lines of ``failures.jsonl`` that can be read; none if there is no file."""
    try:
        text = read_text(path, path.parent)
    except (OSError, UnicodeDecodeError):
        return []
    found = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            content = json.loads(line)
            if not (isinstance(content, dict) and isinstance(content.get("job"), str)):
                continue
            seeds = content.get("seeds", [])
            is_seed = "seed" in content and type(content["seed"]) in (int, type(None))
            if is_seed and isinstance(seeds, list) and all(type(seed) is int for seed in seeds):
                found.append(content)
    return found
