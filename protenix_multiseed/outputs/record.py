"""The record of a run: configuration, versions, failures. Kept beside the results, in ``<out>/protenix-ms``."""

import json
from collections.abc import Mapping, Sequence
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
    resolved = config.model_dump(mode="json", exclude_none=True)
    if config.seeds is not None:
        resolved["seeds"] = format_seeds(config.seeds)
    write_text(folder / "config.yaml", yaml.safe_dump(resolved, sort_keys=False))
    write_text(folder / "run.json", json.dumps(record, indent=2) + "\n")


def write_failures(out: Path, failures: Sequence[Failure]) -> None:
    """Write ``failures.jsonl``, one line per failed job or seed; none where nothing failed."""
    path = out / RUN_FOLDER / "failures.jsonl"
    if not failures:
        path.unlink(missing_ok=True)
        return
    lines = [
        json.dumps(
            {
                "job": failed.job.name,
                "seed": failed.seed,
                "stage": failed.stage,
                "message": failed.message,
                "traceback": failed.traceback,
            }
        )
        for failed in failures
    ]
    write_text(path, "\n".join(lines) + "\n")
