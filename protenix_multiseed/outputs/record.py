"""The record of a run: configuration, versions, failures. Kept beside the results, in ``<out>/protenix-ms``."""

import contextlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from protenix_multiseed.config import RunConfig
from protenix_multiseed.outputs.files import write_text
from protenix_multiseed.seeds import format_seeds
from protenix_multiseed.types import RUN_FOLDER, Failure


def write_run(config: RunConfig, record: Mapping[str, Any]) -> None:
    """Write ``run.json`` and the resolved configuration, which ``--config`` reads again."""
    folder = config.out / RUN_FOLDER
    resolved = config.model_dump(mode="json", exclude_none=True, exclude={"overwrite", "verify"})
    if config.seeds is not None:
        resolved["seeds"] = format_seeds(config.seeds)
    write_text(folder / "config.yaml", yaml.safe_dump(resolved, sort_keys=False))
    write_text(folder / "run.json", json.dumps(record, indent=2) + "\n")


def write_failures(out: Path, failures: Sequence[Failure], done: Collection[tuple[str, int]]) -> None:
    """Bring ``failures.jsonl`` up to date: one line per failed job or seed; no file where nothing failed.

    Lines of other runs stay, unless their unit is done by now or failed again. Only for who holds the file's lock.

    Args:
        done: Units (job, seed) that are done.
    """
    path = out / RUN_FOLDER / "failures.jsonl"
    lines = [
        {
            "job": failed.job.name,
            "seed": failed.seed,
            "stage": failed.stage,
            "message": failed.message,
            "try": failed.advice,
            "traceback": failed.traceback,
        }
        for failed in failures
        if failed.seed is None or (failed.job.name, failed.seed) not in done  # another process may have done it since
    ]
    mine = {(line["job"], line["seed"]) for line in lines}
    finished_jobs = {job for job, _ in done}
    kept = [
        line
        for line in read_failures(path)
        if (line["job"], line["seed"]) not in mine
        and (line["job"], line["seed"]) not in done
        and not (line["seed"] is None and line["job"] in finished_jobs)
    ]
    if kept or lines:
        write_text(path, "".join(json.dumps(line) + "\n" for line in [*kept, *lines]))
    else:
        path.unlink(missing_ok=True)


def read_failures(path: Path) -> list[dict[str, Any]]:
    """The lines of ``failures.jsonl`` that can be read; none where there is no file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    found = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError, TypeError, AttributeError):
            content = json.loads(line)
            if {"job", "seed"} <= content.keys():
                found.append(content)
    return found
